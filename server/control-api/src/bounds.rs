//! What a message would take once it is decoded, told from its bytes. Two bytes on the wire can stand for a tensor of
//! hundreds of bytes in memory, and compression makes those two bytes almost nothing: a call of 70 KiB would have
//! the decoder fill gigabytes before anyone could count its tensors.

use std::mem::size_of;

use prost::decode_length_delimiter;
use thiserror::Error;

use crate::MESSAGE_BYTES_MAX;

/// Most tensors, dimensions and parameters of an inference request, together. What a model takes is far below, and is
/// checked against the model with a better text.
const ITEMS_MAX: u64 = 4096;

/// Fields of `ModelInferRequest` and of its messages, by their numbers in `inference.proto`.
mod field {
    pub(super) const PARAMETERS: usize = 4;
    pub(super) const INPUTS: usize = 5;
    pub(super) const OUTPUTS: usize = 6;
    pub(super) const RAW_INPUT_CONTENTS: usize = 7;
    pub(super) const INPUT_SHAPE: usize = 3;
    pub(super) const INPUT_PARAMETERS: usize = 4;
    pub(super) const INPUT_CONTENTS: usize = 5;
    pub(super) const OUTPUT_PARAMETERS: usize = 2;
    pub(super) const INT_CONTENTS: usize = 2;
    pub(super) const BOOL_CONTENTS: usize = 1;
    pub(super) const INT64_CONTENTS: usize = 3;
    pub(super) const UINT_CONTENTS: usize = 4;
    pub(super) const UINT64_CONTENTS: usize = 5;
    pub(super) const FP32_CONTENTS: usize = 6;
    pub(super) const FP64_CONTENTS: usize = 7;
    pub(super) const BYTES_CONTENTS: usize = 8;
}

/// Why a message is not decoded.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Too many parts.
    #[error(
        "the request has {0} or more tensors, dimensions and parameters together; the most is {ITEMS_MAX}"
    )]
    Items(u64),
    /// Too much memory.
    #[error(
        "the request's typed contents take {0} bytes or more; the most is {MESSAGE_BYTES_MAX}, raw_input_contents take less"
    )]
    Bytes(u64),
}

/// A field's value on the wire.
enum Payload<'a> {
    /// A number of its own.
    One,
    /// Length-delimited: a message, a text, or numbers one behind the other.
    Many(&'a [u8]),
}

/// The fields of a message, as far as they can be read. Where they cannot, the decoder stops as well.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, Payload<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = decode_length_delimiter(&mut self.0).ok()?;
        let payload = match key & 7 {
            0 => {
                decode_length_delimiter(&mut self.0).ok()?;
                Payload::One
            }
            1 => self.take(8).map(|_| Payload::One)?,
            2 => {
                let length = decode_length_delimiter(&mut self.0).ok()?;
                Payload::Many(self.take(length)?)
            }
            // Groups: what lies between is read as if it were outside, so that nothing is missed.
            3 | 4 => Payload::One,
            5 => self.take(4).map(|_| Payload::One)?,
            _ => return None,
        };
        Some((key >> 3, payload))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// What was counted so far.
#[derive(Default)]
struct Count {
    items: u64,
    bytes: u64,
}

/// Checks an encoded `ModelInferRequest` before it is decoded. What cannot be read at all is left to the decoder.
pub(crate) fn check_infer_request(message: &[u8]) -> Result<(), Excess> {
    let mut count = Count::default();
    for (number, payload) in Fields(message) {
        match (number, payload) {
            (field::INPUTS, Payload::Many(input)) => {
                count.items(1)?;
                count.input(input)?;
            }
            (field::OUTPUTS, Payload::Many(output)) => {
                count.items(1)?;
                for (number, _) in Fields(output) {
                    count.items(u64::from(number == field::OUTPUT_PARAMETERS))?;
                }
            }
            (field::PARAMETERS | field::RAW_INPUT_CONTENTS, _) => count.items(1)?,
            _ => {}
        }
    }
    Ok(())
}

impl Count {
    fn items(&mut self, more: u64) -> Result<(), Excess> {
        self.items += more;
        if self.items > ITEMS_MAX {
            return Err(Excess::Items(self.items));
        }
        Ok(())
    }

    fn input(&mut self, input: &[u8]) -> Result<(), Excess> {
        for (number, payload) in Fields(input) {
            match (number, payload) {
                (field::INPUT_SHAPE, Payload::Many(dimensions)) => {
                    self.items(varint_count(dimensions))?;
                }
                (field::INPUT_SHAPE, Payload::One) | (field::INPUT_PARAMETERS, _) => {
                    self.items(1)?;
                }
                (field::INPUT_CONTENTS, Payload::Many(contents)) => self.contents(contents)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn contents(&mut self, contents: &[u8]) -> Result<(), Excess> {
        for (number, payload) in Fields(contents) {
            let element = match number {
                field::BOOL_CONTENTS => size_of::<bool>(),
                field::INT_CONTENTS | field::UINT_CONTENTS | field::FP32_CONTENTS => {
                    size_of::<u32>()
                }
                field::INT64_CONTENTS | field::UINT64_CONTENTS | field::FP64_CONTENTS => {
                    size_of::<u64>()
                }
                field::BYTES_CONTENTS => size_of::<Vec<u8>>(),
                _ => continue,
            };
            let elements = match payload {
                Payload::Many(texts) if number == field::BYTES_CONTENTS => {
                    self.bytes += texts.len() as u64;
                    1
                }
                Payload::Many(packed) => match number {
                    field::FP32_CONTENTS | field::FP64_CONTENTS => (packed.len() / element) as u64,
                    _ => varint_count(packed),
                },
                Payload::One => 1,
            };
            self.bytes += elements * element as u64;
            if self.bytes > MESSAGE_BYTES_MAX as u64 {
                return Err(Excess::Bytes(self.bytes));
            }
        }
        Ok(())
    }
}

/// How many numbers of variable length lie there: each has one last byte.
fn varint_count(packed: &[u8]) -> u64 {
    packed.iter().filter(|byte| **byte < 0x80).count() as u64
}

#[cfg(test)]
mod tests;
