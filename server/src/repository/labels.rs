//! Labels of an output's classes: a file in the model's directory, one label a line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use adjoin_backend::ModelMetadata;
use adjoin_model_config::Checked;
use adjoin_oip::Labels;

use super::configure::ConfigureError;

/// Largest file of labels: a million classes with names of 60 bytes.
const LABELS_BYTES_MAX: u64 = 64 << 20;

/// Labels for each output of a model; none where the configuration names no file.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn read(
    model: &Path,
    checked: &Checked,
    metadata: &ModelMetadata,
) -> Result<Vec<Labels>, ConfigureError> {
    let of_output = |name: &str| {
        let mut configured = checked.outputs.iter();
        let configured = configured.find(|output| output.tensor.name == name);
        match configured.and_then(|output| output.label_filename.as_ref()) {
            Some(file) => read_lines(model, file),
            None => Ok(Labels::default()),
        }
    };
    metadata
        .outputs
        .iter()
        .map(|output| of_output(&output.name))
        .collect()
}

fn read_lines(model: &Path, name: &str) -> Result<Labels, ConfigureError> {
    let unreadable = |source| ConfigureError::Unreadable {
        name: name.to_owned(),
        source,
    };
    let file = File::open(model.join(name)).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() > LABELS_BYTES_MAX {
        let text = format!("it has more than {LABELS_BYTES_MAX} bytes");
        return Err(unreadable(std::io::Error::other(text)));
    }
    let mut text = String::new();
    let mut bounded = file.take(LABELS_BYTES_MAX);
    bounded.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text.lines().map(str::to_owned).collect())
}
