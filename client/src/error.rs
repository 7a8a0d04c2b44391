//! What can go wrong, one type for each group of operations.
//!
//! Where the server refused something, the error holds the status and its values, and a sentence made
//! here from the request and the model's description.

mod connect;
mod infer;
mod request;

use std::fmt;

use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor};
use adjoin_schema::status::Status;
use adjoin_schema::text;

pub use connect::ConnectError;
pub use infer::InferError;
pub use request::{RegionFull, RequestError, TensorError};

/// A refusal of the server: its status and values, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    rejection: Rejection,
    text: Box<str>,
}

impl Explanation {
    pub(crate) fn new(
        rejection: Rejection,
        request: Option<&RequestDescriptor<'_>>,
        model: Option<&ModelInfo>,
    ) -> Self {
        let text = text::explain(rejection, request, model).into();
        Self { rejection, text }
    }

    /// A refusal of this side's, before anything was sent.
    pub(crate) fn with_text(status: Status, text: String) -> Self {
        Self {
            rejection: status.into(),
            text: text.into(),
        }
    }

    /// The refusal as it came.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        self.rejection
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.rejection.status
    }
}

impl From<Status> for Explanation {
    fn from(status: Status) -> Self {
        Self::new(status.into(), None, None)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
