//! What is written into the inputs of requests.

use adjoin_schema::DataType;

use crate::Failure;
use crate::tensor::Tensor;

/// Contents of the inputs, of which each request is written one after the other.
#[derive(Debug)]
pub struct Contents {
    /// For each content, the bytes of each input.
    contents: Vec<Vec<Vec<u8>>>,
    next: usize,
}

/// Different contents; more would only fill the caches with sources that a real producer does not have.
const CONTENTS: usize = 2;

impl Contents {
    /// Contents for these inputs, the same in every process.
    pub fn new(inputs: &[Tensor]) -> Result<Self, Failure> {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut make = |tensor: &Tensor| -> Result<Vec<u8>, Failure> {
            Ok(content(tensor.dtype()?, tensor.bytes(), &mut state))
        };
        let mut contents = Vec::new();
        for _ in 0..CONTENTS {
            contents.push(inputs.iter().map(&mut make).collect::<Result<_, _>>()?);
        }
        Ok(Self { contents, next: 0 })
    }

    /// All contents: for each, the bytes of each input.
    pub fn all(&self) -> &[Vec<Vec<u8>>] {
        &self.contents
    }

    /// The bytes of each input for the next request.
    pub fn turn(&mut self) -> &[Vec<u8>] {
        self.next = (self.next + 1) % self.contents.len();
        &self.contents[self.next]
    }
}

/// Numbers from 0 to 1, whatever their type: of integers, small ones, which are also good as indices.
fn content(dtype: DataType, byte_size: usize, state: &mut u64) -> Vec<u8> {
    let mut random = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    let mut bytes = Vec::with_capacity(byte_size + 8);
    while bytes.len() < byte_size {
        let bits = random();
        let unit = (bits >> 40) as f32 / (1 << 24) as f32;
        let small = bits >> 63;
        match dtype {
            DataType::Fp32 => bytes.extend(unit.to_le_bytes()),
            DataType::Fp64 => bytes.extend(f64::from(unit).to_le_bytes()),
            // One half plus a random rest.
            DataType::Fp16 => bytes.extend((0x3800 | (bits >> 54) as u16).to_le_bytes()),
            DataType::Bf16 => bytes.extend((0x3f00 | (bits >> 57) as u16).to_le_bytes()),
            _ => {
                let size = dtype.element_bytes().unwrap_or(1);
                bytes.extend(
                    small
                        .to_le_bytes()
                        .into_iter()
                        .take(usize::try_from(size).unwrap_or(1)),
                );
            }
        }
    }
    bytes.truncate(byte_size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_the_right_size_and_differ() {
        let tensor = |data_type: &str, shape: &[i64]| {
            let byte_size = DataType::from_name(data_type)
                .unwrap()
                .byte_size(shape)
                .unwrap();
            Tensor {
                name: "x".into(),
                data_type: data_type.into(),
                shape: shape.to_vec(),
                byte_size,
            }
        };
        let inputs = [
            tensor("FP32", &[100]),
            tensor("INT64", &[3]),
            tensor("FP16", &[7]),
            tensor("BOOL", &[5]),
        ];
        let mut contents = Contents::new(&inputs).unwrap();
        let first = contents.turn().to_vec();
        assert_eq!(
            first.iter().map(Vec::len).collect::<Vec<_>>(),
            [400, 24, 14, 5]
        );
        assert_ne!(first, contents.turn());
        assert!(first[3].iter().all(|&byte| byte <= 1));
    }
}
