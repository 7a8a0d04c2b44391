//! What is wrong with a configuration, and what in it has no effect.

use std::fmt;

use thiserror::Error;

use crate::parse::{CONFIG_BYTES_MAX, Form};
use crate::plain::NESTING_MAX;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Longer than anybody would write.
    #[error("the model's configuration has {byte_size} bytes; at most {CONFIG_BYTES_MAX} are read")]
    TooLarge {
        /// Its length.
        byte_size: usize,
    },
    /// Messages in messages, deeper than the schema goes.
    #[error(
        "line {line}: messages are nested more than {NESTING_MAX} deep; no field of a model's configuration is"
    )]
    TooDeep {
        /// Where, from 1.
        line: usize,
    },
    /// Not the language it should be, or a field or word that the schema does not have.
    #[error("line {line}, column {column} of the model's configuration ({form}): {reason}")]
    Syntax {
        /// The language.
        form: Form,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What was found, and what was expected.
        reason: String,
    },
    /// Fields that change what a model does and that this server does not have.
    #[error("not supported: {}", Refusal::list(.0))]
    Unsupported(
        /// At least one.
        Vec<Refusal>,
    ),
    /// A value that cannot be.
    #[error("{path} is {value}; {expected}")]
    Value {
        /// The field, such as `input[0].dims`.
        path: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The configuration says something else than the model.
    #[error("{path} says {configured}; the model has {actual}")]
    Mismatch {
        /// The field.
        path: String,
        /// What is configured.
        configured: String,
        /// What is there.
        actual: String,
    },
}

/// A field that is set and not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field, such as `input[0].allow_ragged_batch`.
    pub path: String,
    /// Why, or what to do instead.
    pub note: &'static str,
}

/// A field that is set and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The field, such as `optimization.cuda`.
    pub path: String,
    /// Why.
    pub note: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.path, self.note)
    }
}

impl Refusal {
    fn list(refusals: &[Self]) -> String {
        let each = |refusal: &Self| format!("{} ({})", refusal.path, refusal.note);
        let all: Vec<String> = refusals.iter().map(each).collect();
        all.join(", ")
    }
}

/// Most characters of a configuration's text that an error repeats.
const SHOWN_CHARS_MAX: usize = 160;

/// A text of the configuration in quotes, without control characters, cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// A text of a library about the configuration, without control characters, cut if it is long.
pub(crate) fn told(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(visible).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

impl ConfigError {
    pub(crate) fn value(
        path: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value {
            path: path.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }
}
