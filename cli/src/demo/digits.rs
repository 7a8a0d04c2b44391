//! The model and the pictures of the demo, which are part of the command.

use adjoin_schema::DataType;

use crate::{Failure, npy};

/// Name of the model, its input and its output.
pub(super) const MODEL: &str = "digits";
pub(super) const INPUT: &str = "image";
pub(super) const OUTPUT: &str = "scores";

/// Pixels of a picture's side.
pub(super) const SIDE: usize = 8;
/// Pixels of a picture.
pub(super) const PIXELS: usize = SIDE * SIDE;
/// Shape of the model's input for one picture.
pub(super) const SHAPE: [i64; 4] = [1, 1, 8, 8];

/// The model's file.
pub(super) const MODEL_FILE: &[u8] = include_bytes!("../../../demo/digits/model.onnx");
const IMAGES_FILE: &[u8] = include_bytes!("../../../demo/digits/test_images.npy");
const LABELS_FILE: &[u8] = include_bytes!("../../../demo/digits/test_labels.npy");

/// Pictures that took no part in training, and the digits on them.
#[derive(Clone, Debug)]
pub(super) struct Digits {
    images: Vec<u8>,
    pub(super) labels: Vec<u8>,
}

impl Digits {
    pub(super) fn load() -> Result<Self, Failure> {
        let images = npy::read(&mut &IMAGES_FILE[..])?;
        let labels = npy::read(&mut &LABELS_FILE[..])?;
        let is_as_expected = images.dtype == DataType::Uint8
            && labels.dtype == DataType::Uint8
            && images.bytes.len() == labels.bytes.len() * PIXELS;
        if is_as_expected {
            Ok(Self {
                images: images.bytes,
                labels: labels.bytes,
            })
        } else {
            Err("the pictures and labels of the demo do not belong together".into())
        }
    }

    pub(super) fn count(&self) -> usize {
        self.labels.len()
    }

    /// Pixels of a picture, row by row, from 0 (empty) to 16 (ink).
    pub(super) fn image(&self, index: usize) -> &[u8] {
        &self.images[index * PIXELS..(index + 1) * PIXELS]
    }
}

/// What the model made of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) digit: u8,
    /// From 0 to 1.
    pub(super) confidence: f32,
}

impl Reading {
    /// The digit with the highest score.
    pub(super) fn of(scores: &[f32]) -> Self {
        let mut best = Self {
            digit: 0,
            confidence: f32::NEG_INFINITY,
        };
        for (digit, &confidence) in (0..).zip(scores) {
            if confidence > best.confidence {
                best = Self { digit, confidence };
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_and_labels_are_there() {
        let digits = Digits::load().unwrap();
        assert_eq!(digits.count(), 360);
        assert!(digits.labels.iter().all(|&label| label < 10));
        assert!(digits.image(359).iter().all(|&pixel| pixel <= 16));
    }

    #[test]
    fn reading_is_the_highest_score() {
        assert_eq!(
            Reading::of(&[0.1, 0.7, 0.2]),
            Reading {
                digit: 1,
                confidence: 0.7
            }
        );
    }
}
