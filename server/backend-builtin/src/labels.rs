//! Labels of classes, from a file with one on each line.

use std::sync::Arc;

use adjoin_backend::LoadError;

use crate::parameters::Parameters;

const BYTE_SIZE_MAX: u64 = 16 << 20;

/// The label of each class, by index.
pub(crate) type Labels = Arc<[String]>;

/// Reads labels. Empty lines count, so that line numbers are indices; only those at the end do not.
pub(crate) fn read(parameters: &Parameters<'_>, file: &str) -> Result<Labels, LoadError> {
    let bytes = parameters.read(file, BYTE_SIZE_MAX)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| parameters.refused(format!("file {file:?} is not UTF-8: {error}")))?;
    let labels: Labels = text.trim_end().lines().map(str::to_owned).collect();
    if labels.is_empty() {
        return Err(parameters.refused(format!("file {file:?} has no label")));
    }
    Ok(labels)
}
