//! What users write: targets, tensors, and the options that the commands have in common.

mod common;
mod group;
mod target;
mod tensors;
mod work;

pub(crate) use common::CommonArguments;
pub(crate) use group::{Group, parse_group};
pub(crate) use target::{HttpUrl, Target};
pub(crate) use tensors::parse_input;
pub(crate) use work::{Work, WorkArguments};

/// Parses a number of seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number of seconds from 0.1 to 86400".into()),
    }
}

/// Parses requests in a second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("it is a number of requests a second from 0.01 to 10000000".into()),
    }
}
