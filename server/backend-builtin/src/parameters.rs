//! The parameters of a model's configuration, read with what was expected in every error.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use adjoin_backend::{LoadError, ModelSource};

/// Parameters of one model, all of them known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters<'a> {
    engine: &'static str,
    source: &'a ModelSource,
}

impl<'a> Parameters<'a> {
    /// # Errors
    /// If there is one that is not among `known`.
    pub(crate) fn new(
        source: &'a ModelSource,
        engine: &'static str,
        known: &[&str],
    ) -> Result<Self, LoadError> {
        let parameters = Self { engine, source };
        let unknown = source
            .parameters
            .keys()
            .find(|name| !known.contains(&name.as_str()));
        match unknown {
            None => Ok(parameters),
            Some(name) => {
                let known = known.join(", ");
                let reason = format!("{engine} has no parameter {name:?}; it has {known}");
                Err(parameters.refused(reason))
            }
        }
    }

    /// The model cannot be made of these parameters.
    pub(crate) fn refused(&self, reason: impl Into<String>) -> LoadError {
        LoadError::Parameters {
            model: self.source.name.clone(),
            reason: reason.into(),
        }
    }

    fn wrong(&self, name: &str, expected: impl Display) -> LoadError {
        let value = self.text(name).unwrap_or_default();
        self.refused(format!(
            "parameter {name:?} is {value:?}; expected {expected}"
        ))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.source.parameters.get(name).map(String::as_str)
    }

    /// A number within `range`.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, LoadError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text
            .parse()
            .ok()
            .filter(|number: &u32| range.contains(number));
        let (least, most) = range.into_inner();
        let expected = || self.wrong(name, format_args!("a whole number from {least} to {most}"));
        number.ok_or_else(expected).map(Some)
    }

    /// A number within `range` that must be there.
    pub(crate) fn required(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<u32, LoadError> {
        self.number(name, range)?.ok_or_else(|| {
            let engine = self.engine;
            self.refused(format!("{engine} needs the parameter {name:?}"))
        })
    }

    /// `true` or `false`.
    #[cfg(feature = "tokenizer")]
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, LoadError> {
        self.choice(name, &[("true", true), ("false", false)])
    }

    /// What a word stands for.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, LoadError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| *word == text);
        let expected = || {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, format_args!("one of {}", words.join(", ")))
        };
        found
            .map(|(_, meaning)| Some(*meaning))
            .ok_or_else(expected)
    }

    /// Finite numbers with commas between them.
    #[cfg(feature = "image")]
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<f32>>, LoadError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = |part: &str| part.trim().parse().ok().filter(|n: &f32| n.is_finite());
        let numbers: Option<Vec<f32>> = text.split(',').map(number).collect();
        let expected = || self.wrong(name, "numbers with commas between them, such as 0.5,0.25");
        numbers.ok_or_else(expected).map(Some)
    }

    /// A file of the model: in the version's directory, or else beside the versions.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, LoadError> {
        let is_segment =
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
        if !is_segment {
            let reason = format!("{name:?} is no file name; expected one without directories");
            return Err(self.refused(reason));
        }
        let in_version = self.source.path.join(name);
        Ok(match self.source.path.parent() {
            Some(model) if !in_version.is_file() => model.join(name),
            _ => in_version,
        })
    }

    /// The bytes of such a file, at most `byte_size_max`.
    pub(crate) fn read(&self, name: &str, byte_size_max: u64) -> Result<Vec<u8>, LoadError> {
        let path = self.file(name)?;
        let unreadable = |source| LoadError::Unreadable {
            path: path.clone(),
            source,
        };
        let byte_size = std::fs::metadata(&path).map_err(unreadable)?.len();
        if byte_size > byte_size_max {
            return Err(self.refused(format!(
                "file {name:?} has {byte_size} bytes; the most is {byte_size_max}"
            )));
        }
        std::fs::read(&path).map_err(unreadable)
    }
}
