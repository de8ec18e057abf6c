//! zstd, a chunk at a time: for exports and what goes over the wire, which are of any length. (Segments are whole frames.)

use std::io;

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::error::{Error, Result};

/// zstd's own default.
const LEVEL: i32 = 3;

/// log2 of the largest window: 8 MiB, the most that a decoder must support (RFC 8878, 3.1.1.1.2) and that HTTP allows
/// (RFC 9659). A compressor takes more memory than its window has.
pub const MAX_WINDOW_LOG: u32 = 23;

/// Bytes that one call decompresses at most, so that a small input cannot ask for any amount of memory.
pub const STEP_BYTES: usize = 1024 * 1024;

/// Makes one frame of the chunks that it is given.
pub struct Compressor(Encoder<'static>);

impl Compressor {
    /// With a checksum at the end of the frame, and repetitions found within a window of 2^`window_log` bytes.
    pub fn new(window_log: u32) -> Result<Self> {
        let mut encoder = Encoder::new(LEVEL).map_err(failed)?;
        for parameter in [CParameter::WindowLog(window_log.min(MAX_WINDOW_LOG)), CParameter::ChecksumFlag(true)] {
            encoder.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Compressor(encoder))
    }

    /// Compresses a chunk. What can already be sent comes back, which may be nothing.
    pub fn write(&mut self, chunk: &[u8]) -> Result<Vec<u8>> {
        let mut written = Vec::with_capacity(chunk.len() / 4 + 1024);
        let mut read = 0;
        while read < chunk.len() {
            written.reserve(1024);
            let start = written.len();
            let mut output = OutBuffer::around_pos(&mut written, start);
            let mut input = InBuffer::around(&chunk[read..]);
            self.0.run(&mut input, &mut output).map_err(failed)?;
            read += input.pos();
        }
        Ok(written)
    }

    /// Ends the frame.
    pub fn finish(&mut self) -> Result<Vec<u8>> {
        let mut written = Vec::new();
        loop {
            written.reserve(64 * 1024);
            let start = written.len();
            if self.0.finish(&mut OutBuffer::around_pos(&mut written, start), true).map_err(failed)? == 0 {
                return Ok(written);
            }
        }
    }
}

/// Reads frames, one after the other, of which the chunks are parts.
pub struct Decompressor {
    decoder: Decoder<'static>,
    /// Nothing of a frame has been read that has not ended.
    between: bool,
}

/// What a call of [`Decompressor::read`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// How much of the input was used up.
    pub consumed: usize,
    /// At most [`STEP_BYTES`].
    pub output: Vec<u8>,
    /// A frame has ended here, and none has begun: the input may end.
    pub between: bool,
}

impl Decompressor {
    /// Refuses a window of more than 8 MiB.
    pub fn new() -> Result<Self> {
        let mut decoder = Decoder::new().map_err(failed)?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(failed)?;
        Ok(Decompressor { decoder, between: true })
    }

    /// Decompresses as much of a chunk as fits into one step; to be called again with what is left, and with nothing until
    /// nothing comes. `ERR_INVALID_ARGUMENT` for what is no zstd, or damaged.
    pub fn read(&mut self, chunk: &[u8]) -> Result<Step> {
        let mut output = Vec::with_capacity(STEP_BYTES);
        let mut consumed = 0;
        while !(self.between && consumed == chunk.len()) {
            let mut input = InBuffer::around(&chunk[consumed..]);
            let start = output.len();
            let mut room = OutBuffer::around_pos(&mut output, start);
            let hint = self.decoder.run(&mut input, &mut room).map_err(failed)?;
            consumed += input.pos();
            self.between = hint == 0;
            if input.pos() == 0 && output.len() == start {
                // With room for output, zstd uses up what it is given: who goes on asking may rely on that.
                debug_assert_eq!(consumed, chunk.len());
                break;
            }
            if output.len() >= STEP_BYTES {
                break;
            }
        }
        Ok(Step { consumed, output, between: self.between })
    }
}

fn failed(error: io::Error) -> Error {
    Error::InvalidArgument(format!("zstd: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompress(bytes: &[u8], chunk: usize) -> Result<(Vec<u8>, bool)> {
        let mut decompressor = Decompressor::new()?;
        let (mut whole, mut between) = (Vec::new(), true);
        for piece in bytes.chunks(chunk) {
            let mut at = 0;
            loop {
                let step = decompressor.read(&piece[at..])?;
                at += step.consumed;
                between = step.between;
                let dry = step.output.is_empty();
                whole.extend(step.output);
                if dry && at == piece.len() {
                    break;
                }
            }
        }
        Ok((whole, between))
    }

    #[test]
    fn what_is_compressed_in_chunks_comes_back_whatever_the_cut() {
        let text: Vec<u8> = (0..60_000u32)
            .flat_map(|n| format!("{n} of many {}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect();
        for chunk in [1_000, 65_536, text.len()] {
            let mut compressor = Compressor::new(MAX_WINDOW_LOG).unwrap();
            let mut bytes = Vec::new();
            for piece in text.chunks(chunk) {
                bytes.extend(compressor.write(piece).unwrap());
            }
            bytes.extend(compressor.finish().unwrap());
            assert!(bytes.len() * 2 < text.len());
            for cut in [7, 4_096, bytes.len()] {
                assert!(decompress(&bytes, cut).unwrap() == (text.clone(), true), "{chunk} {cut}");
            }
            let twice = [bytes.clone(), bytes].concat();
            assert!(decompress(&twice, 5_000).unwrap().0.len() == text.len() * 2);
        }
    }

    #[test]
    fn a_frame_that_is_cut_gives_what_can_be_read_and_says_that_it_has_not_ended() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut compressor = Compressor::new(MAX_WINDOW_LOG).unwrap();
        let bytes = compressor.write(&text).unwrap();
        let (whole, between) = decompress(&bytes[..bytes.len() / 2], 1_000).unwrap();
        assert!(!whole.is_empty() && whole.len() < text.len() && text.starts_with(&whole) && !between);
    }

    #[test]
    fn a_small_input_gives_a_step_at_a_time() {
        let mut compressor = Compressor::new(MAX_WINDOW_LOG).unwrap();
        let mut bytes = compressor.write(&vec![b'x'; 16 * STEP_BYTES]).unwrap();
        bytes.extend(compressor.finish().unwrap());
        let step = Decompressor::new().unwrap().read(&bytes).unwrap();
        assert!(step.output.len() <= STEP_BYTES && step.consumed <= bytes.len());
        assert_eq!(decompress(&bytes, bytes.len()).unwrap().0.len(), 16 * STEP_BYTES);
    }

    proptest! {
        #[test]
        fn damaged_frames_end_with_a_reason_or_with_bytes(
            text in prop::collection::vec(0..4_u8, 0..4_000),
            at in any::<prop::sample::Index>(),
            change in prop::collection::vec(any::<u8>(), 0..6),
            cut in 1..600_usize,
        ) {
            let mut compressor = Compressor::new(MAX_WINDOW_LOG).unwrap();
            let mut bytes = compressor.write(&text).unwrap();
            bytes.extend(compressor.finish().unwrap());
            prop_assert_eq!(&decompress(&bytes, cut).unwrap(), &(text.clone(), true));
            let start = at.index(bytes.len());
            let end = (start + change.len()).min(bytes.len());
            bytes.splice(start..end, change);
            // The checksum finds what has changed in the bytes of a whole frame.
            match decompress(&bytes, cut) {
                Ok((whole, true)) => prop_assert!(whole == text || whole.is_empty()),
                Ok((_, false)) => {}
                Err(error) => prop_assert_eq!(error.code(), "ERR_INVALID_ARGUMENT"),
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(decompress(b"no zstd at all", 100).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }
}
