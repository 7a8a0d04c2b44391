//! A model as the server described it, and where its requests begin.

use std::sync::Arc;

use adjoin_schema::attach::{ModelInfo, TensorSpec};
use adjoin_schema::limits::{LABEL_BYTES_MAX, MODEL_NAME_BYTES_MAX};
use adjoin_schema::status::Status;
use adjoin_schema::text;

use crate::{Client, Explanation, InferError, RequestBuilder, RequestError};

/// A model of the server. Clones are cheap, and usable on any thread.
///
/// The description is the one of the moment when it was asked for; ask [`Client::model`] again after
/// the model changed.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) client: Client,
    pub(crate) target: Arc<Target>,
}

/// What requests of a model name, and what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) info: ModelInfo,
    /// Version that requests ask for; 0 for the newest ready one, or the label's.
    pub(crate) version: u64,
    /// Label that requests ask for; empty for none.
    pub(crate) label: String,
}

impl Model {
    pub(crate) fn ask(
        client: Client,
        name: &str,
        version: u64,
        label: &str,
    ) -> Result<Self, InferError> {
        check_question(name, label)?;
        let options = client.options();
        let ask = || {
            let session = client.live_session(None)?;
            let limit = options.limit(None);
            session.ask(name, version, label, options.answer_timeout, &limit)
        };
        let info = match ask() {
            // A question runs nothing, so it can go to the next session without further ado.
            Err(InferError::ServerGone { .. }) => ask()?,
            other => other?,
        };
        let target = Arc::new(Target {
            info,
            version,
            label: label.to_owned(),
        });
        Ok(Self { client, target })
    }

    /// The same model with all requests for that version.
    ///
    /// # Errors
    /// `VersionNotFound`, or as [`Client::model`].
    pub fn version(&self, version: u64) -> Result<Self, InferError> {
        Self::ask(self.client.clone(), self.name(), version, "")
    }

    /// The same model with all requests for the version that the server's operator labelled so, such
    /// as `stable`. The description is that of the version which has the label now; the server looks
    /// the label up again for every request.
    ///
    /// # Errors
    /// `VersionNotFound`, or as [`Client::model`].
    pub fn label(&self, label: &str) -> Result<Self, InferError> {
        Self::ask(self.client.clone(), self.name(), 0, label)
    }

    /// The server's description.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.target.info
    }

    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.info.model
    }

    /// The client that the model was asked from.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a request.
    pub fn request(&self) -> RequestBuilder {
        RequestBuilder::new(self.clone())
    }

    /// Begins a request of so many rows: every input has its shape from the model's description, with
    /// `rows` for an open first dimension.
    ///
    /// # Errors
    /// `ShapeOpen` where further dimensions are open.
    pub fn request_batch(&self, rows: u64) -> Result<RequestBuilder, RequestError> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut builder = self.request();
        for spec in &self.target.info.inputs {
            builder = builder.input(&spec.name, &rows_of(spec, rows)?)?;
        }
        Ok(builder)
    }
}

/// Refuses what no model can be called and no version labelled. The server takes such a question for a broken
/// client and ends the session, with all that others have in it.
fn check_question(name: &str, label: &str) -> Result<(), InferError> {
    if !text::is_model_name(name) {
        let text = format!(
            "no model can be named {}: a name has 1 to {MODEL_NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`, and does not start with a dot",
            quoted(name)
        );
        let explanation = Explanation::with_text(Status::ModelNotFound, text);
        return Err(InferError::ModelNotFound(explanation));
    }
    if label.len() > LABEL_BYTES_MAX {
        let text = format!(
            "no version of model {name:?} can be labelled {}: a label has at most {LABEL_BYTES_MAX} bytes",
            quoted(label)
        );
        let explanation = Explanation::with_text(Status::VersionNotFound, text);
        return Err(InferError::VersionNotFound(explanation));
    }
    Ok(())
}

/// A text of any length for an error's sentence: the beginning is enough to know it by.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
        None if text.len() > SHOWN => format!("{text:?} ({} bytes)", text.len()),
        None => format!("{text:?}"),
    }
}

fn rows_of(spec: &TensorSpec, rows: i64) -> Result<adjoin_schema::Shape, RequestError> {
    let mut shape = spec.shape.clone();
    match shape.first_mut() {
        Some(first) if *first < 0 => *first = rows,
        _ => {}
    }
    if shape.iter().any(|dim| *dim < 0) {
        return Err(RequestError::ShapeOpen {
            name: spec.name.clone(),
            expected: text::shape_text(&spec.shape, &spec.dimension_names),
        });
    }
    Ok(shape)
}
