//! What a configuration says of a transform: its numbers, as text and checked.

use std::fmt;
use std::str::FromStr;

use adjoin_schema::DataType;
use thiserror::Error;

use crate::normaliser::Normaliser;

/// Most channels: a limit on what is read and on tables, far above images.
pub(crate) const CHANNELS_MAX: usize = 1024;

/// The numbers of a transform: each byte becomes `(byte * scale - mean) / std`, with the mean and the standard deviation
/// of its channel.
///
/// As text it is words of the form `scale=N`, `mean=N,N,...` and `std=N,N,...`, in any order, with spaces between them;
/// what is left out is 1/255, 0 and 1.
///
/// ```
/// use adjoin_input_transform::InputTransform;
///
/// let transform: InputTransform = "mean=0.485,0.456,0.406 std=0.229,0.224,0.225".parse()?;
/// assert_eq!(transform.to_string().parse(), Ok(transform));
/// # Ok::<(), adjoin_input_transform::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct InputTransform {
    scale: f32,
    /// One for all channels, or one for each.
    mean: Vec<f32>,
    /// As `mean`.
    std: Vec<f32>,
}

/// Why numbers are no transform.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A word that means nothing.
    #[error("{word:?} is none of its words; those are scale=N, mean=N,... and std=N,...")]
    Word {
        /// The word.
        word: String,
    },
    /// A word that is there twice.
    #[error("{name} is given twice")]
    Repeated {
        /// Its name.
        name: String,
    },
    /// A value that cannot be.
    #[error("{name} is {value}; {expected}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Lists of channels that differ.
    #[error(
        "mean has {mean} numbers and std has {std}; each has one for all channels or one for each"
    )]
    Channels {
        /// Numbers of the means.
        mean: usize,
        /// Numbers of the standard deviations.
        std: usize,
    },
}

impl InputTransform {
    /// A transform of these numbers; where there is none, 1/255, 0 and 1. One mean or standard deviation alone holds for
    /// all channels.
    ///
    /// # Errors
    /// If a number is not finite, a list is empty or too long, or it is divided or multiplied by zero.
    pub fn new(
        scale: Option<f32>,
        mean: Option<Vec<f32>>,
        std: Option<Vec<f32>>,
    ) -> Result<Self, SpecError> {
        let scale = scale.unwrap_or(1.0 / 255.0);
        check(
            "scale",
            &[scale],
            |number| number != 0.0,
            "it is a number other than 0",
        )?;
        let mean = mean.unwrap_or_else(|| vec![0.0]);
        check(
            "mean",
            &mean,
            |_| true,
            "it is one number or one for each channel",
        )?;
        let std = std.unwrap_or_else(|| vec![1.0]);
        let expected = "it is one number or one for each channel, and none is 0: it is divided by";
        check("std", &std, |number| number != 0.0, expected)?;
        if mean.len() != std.len() && mean.len() > 1 && std.len() > 1 {
            let (mean, std) = (mean.len(), std.len());
            return Err(SpecError::Channels { mean, std });
        }
        Ok(Self { scale, mean, std })
    }

    /// The number of channels, if the lists have one number for each.
    #[must_use]
    pub fn channels(&self) -> Option<usize> {
        let count = self.mean.len().max(self.std.len());
        (count > 1).then_some(count)
    }

    /// What makes a model's input of images of `channels` channels; `None` for a type that is not of floats.
    #[must_use]
    pub fn normaliser(&self, channels: usize, dtype: DataType) -> Option<Normaliser> {
        Normaliser::new(self, channels, dtype)
    }

    /// The factor of each byte.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// The factor of each byte, then mean and standard deviation of a channel.
    pub(crate) fn of_channel(&self, channel: usize) -> [f32; 3] {
        let number = |list: &[f32]| match list {
            [all] => *all,
            each => each[channel],
        };
        [self.scale, number(&self.mean), number(&self.std)]
    }
}

fn check(
    name: &'static str,
    numbers: &[f32],
    is_good: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<(), SpecError> {
    let wrong = |value| {
        Err(SpecError::Value {
            name,
            value,
            expected,
        })
    };
    if numbers.is_empty() || numbers.len() > CHANNELS_MAX {
        return wrong(format!("a list of {}", numbers.len()));
    }
    match numbers
        .iter()
        .find(|number| !number.is_finite() || !is_good(**number))
    {
        Some(number) => wrong(number.to_string()),
        None => Ok(()),
    }
}

impl FromStr for InputTransform {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (mut scale, mut mean, mut std) = (None, None, None);
        for word in text.split_whitespace() {
            let unknown = || SpecError::Word {
                word: word.to_owned(),
            };
            let (name, value) = word.split_once('=').ok_or_else(unknown)?;
            let (name, place) = match name {
                "scale" => ("scale", &mut scale),
                "mean" => ("mean", &mut mean),
                "std" => ("std", &mut std),
                _ => return Err(unknown()),
            };
            if place.replace(numbers(name, value)?).is_some() {
                let name = name.to_owned();
                return Err(SpecError::Repeated { name });
            }
        }
        let scale = match scale.as_deref() {
            None => None,
            Some([scale]) => Some(*scale),
            Some(list) => {
                return Err(SpecError::Value {
                    name: "scale",
                    value: format!("a list of {}", list.len()),
                    expected: "it is one number",
                });
            }
        };
        Self::new(scale, mean, std)
    }
}

fn numbers(name: &'static str, text: &str) -> Result<Vec<f32>, SpecError> {
    let number = |part: &str| {
        part.parse().map_err(|_| SpecError::Value {
            name,
            value: format!("{part:?}"),
            expected: "it is numbers with commas between them, such as 0.5,0.25",
        })
    };
    text.split(',').map(number).collect()
}

impl fmt::Display for InputTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[f32]| {
            let texts: Vec<String> = numbers.iter().map(f32::to_string).collect();
            texts.join(",")
        };
        let Self { scale, mean, std } = self;
        write!(f, "scale={scale} mean={} std={}", list(mean), list(std))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<InputTransform, String> {
        text.parse().map_err(|error: SpecError| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let transform = parse("").unwrap();
        assert_eq!(transform.of_channel(2), [1.0 / 255.0, 0.0, 1.0]);
        assert_eq!(transform.channels(), None);
        let transform = parse("std=2 mean=1,2,3  scale=1").unwrap();
        assert_eq!(transform.of_channel(2), [1.0, 3.0, 2.0]);
        assert_eq!(transform.channels(), Some(3));
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        for (text, expected) in [
            ("scale=0", "scale is 0; it is a number other than 0"),
            ("scale=1,2", "scale is a list of 2; it is one number"),
            (
                "std=1,0,1",
                "std is 0; it is one number or one for each channel, and none is 0",
            ),
            ("std=1,-0,1", "std is -0;"),
            ("mean=inf", "mean is inf;"),
            ("mean=nan", "mean is NaN;"),
            ("mean=", "mean is \"\"; it is numbers"),
            ("mean=1,,2", "mean is \"\"; it is numbers"),
            ("mean=1,2 std=1,2,3", "mean has 2 numbers and std has 3"),
            ("mean=1 mean=2", "mean is given twice"),
            ("men=1", "\"men=1\" is none of its words"),
            ("mean", "\"mean\" is none of its words"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let long = format!("mean={}1", "1,".repeat(CHANNELS_MAX));
        assert!(parse(&long).unwrap_err().contains("a list of 1025"));
    }

    #[test]
    fn its_text_is_itself_to_the_last_bit() {
        for text in [
            "scale=0.003921569 mean=0.485,0.456,0.406 std=0.1",
            "scale=1e-30 mean=16777217",
        ] {
            let transform = parse(text).unwrap();
            assert_eq!(parse(&transform.to_string()), Ok(transform));
        }
    }
}
