//! What must hold for any bytes, one function a target. The fuzz targets call them, and so does a test
//! (`__test__/core/fuzz.rs`) with the corpora of this folder. A claim that does not hold panics.

mod json;
mod parameters;
mod payload;
mod replay;
mod segment;

pub use parameters::parameters;
pub use payload::payload;
pub use replay::replay;
pub use segment::segment;

/// Takes values off the beginning of the bytes that the fuzzer made; zero, and nothing, when there are none left.
struct Source<'b>(&'b [u8]);

impl<'b> Source<'b> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// So many bytes as the next one says.
    fn bytes(&mut self) -> &'b [u8] {
        let length = usize::from(self.byte());
        self.take(length)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn take(&mut self, length: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
