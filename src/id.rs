//! Event ids: `evt_` and a ULID (<https://github.com/ulid/spec>): 48 bits of Unix milliseconds, 80 random bits,
//! monotonic within a generator. Nothing ever orders by id: the sequence does that.

use ulid::Generator;

/// Makes the ids of one store.
pub struct Ids {
    generator: Generator,
}

impl Ids {
    /// A generator of its own for each store: ids of two stores differ by their random bits.
    pub fn new() -> Self {
        Ids { generator: Generator::new() }
    }

    /// The next id, 30 characters.
    pub fn make(&mut self) -> String {
        let ulid = match self.generator.generate() {
            Ok(ulid) => ulid,
            // 2^80 ids in one millisecond, or a clock set back on a generator at its end: take fresh random bits.
            // Uniqueness is all that an id owes anybody.
            Err(overflow) => overflow.commit_overflow_random(),
        };
        let mut id = String::with_capacity(30);
        id.push_str("evt_");
        id.push_str(ulid.array_to_str(&mut [0; ulid::ULID_LEN]));
        id
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}
