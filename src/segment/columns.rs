//! The columns of a segment's head: LEB128 numbers (DWARF 4, 7.6), rising ones as steps, signed ones in zigzag form, and
//! front-coded ids.

use crate::limits::MAX_ID_BYTES;

/// Ids out of their front-coded form.
pub(super) fn unfold(bytes: &[u8], shared: &[usize], rest: &[usize]) -> Result<(String, Vec<usize>), &'static str> {
    let bytes = std::str::from_utf8(bytes).map_err(|_| "its ids are not UTF-8")?;
    let mut ids =
        String::with_capacity(shared.iter().map(|shared| shared.min(&MAX_ID_BYTES)).sum::<usize>() + bytes.len());
    let (mut ends, mut start, mut at) = (Vec::with_capacity(shared.len()), 0, 0_usize);
    for (shared, rest) in shared.iter().zip(rest) {
        let end = ids.len();
        if *shared > end - start || shared.saturating_add(*rest) > MAX_ID_BYTES || !ids.is_char_boundary(start + shared)
        {
            return Err("an id is longer than ids are, or shares more than there is");
        }
        ids.extend_from_within(start..start + shared);
        ids.push_str(bytes.get(at..at + rest).ok_or("its ids end too early")?);
        (start, at) = (end, at + rest);
        ends.push(ids.len());
    }
    if at == bytes.len() { Ok((ids, ends)) } else { Err("something follows its ids") }
}

pub(super) fn shared_prefix(before: &str, id: &str) -> usize {
    let shared = before.bytes().zip(id.bytes()).take_while(|(one, other)| one == other).count();
    (0..=shared).rev().find(|at| id.is_char_boundary(*at)).unwrap_or(0)
}

pub(super) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The first of rising numbers, then by how much more than one each is higher than the one before.
pub(super) fn put_steps(bytes: &mut Vec<u8>, first: i64, values: impl Iterator<Item = i64>) {
    put(bytes, first.unsigned_abs());
    let mut before = first;
    for value in values.skip(1) {
        put(bytes, (value - before - 1).unsigned_abs());
        before = value;
    }
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads LEB128 numbers.
pub(super) struct Numbers<'a> {
    /// What has not been read yet.
    pub(super) bytes: &'a [u8],
}

impl Numbers<'_> {
    pub(super) fn next(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for (at, byte) in self.bytes.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (at * 7);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[at + 1..];
                return Ok(value);
            }
        }
        Err("a number in it is cut off, or too large")
    }

    pub(super) fn within(&mut self, limit: i64) -> Result<i64, &'static str> {
        let value = self.next()?;
        i64::try_from(value).ok().filter(|value| *value <= limit).ok_or("a number in it is too large")
    }

    pub(super) fn list<T>(
        &mut self,
        count: usize,
        mut of: impl FnMut(u64) -> Option<T>,
    ) -> Result<Vec<T>, &'static str> {
        (0..count).map(|_| of(self.next()?).ok_or("a number in it is too large")).collect()
    }

    pub(super) fn steps(&mut self, count: usize, limit: i64) -> Result<Vec<i64>, &'static str> {
        let mut values = Vec::with_capacity(count);
        values.push(self.within(limit)?);
        while values.len() < count {
            let step = self.within(limit - 1)? + 1;
            let next = values[values.len() - 1].checked_add(step).filter(|value| *value <= limit);
            values.push(next.ok_or("a number in it is too large")?);
        }
        Ok(values)
    }
}
