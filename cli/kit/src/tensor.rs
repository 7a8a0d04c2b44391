//! Inputs and outputs of requests, as they travel between processes.

use adjoin_schema::DataType;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// An input or output of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// As the Open Inference Protocol names it.
    pub data_type: String,
    /// All dimensions.
    pub shape: Vec<i64>,
    /// `None` for an output whose size is known afterwards only.
    pub byte_size: Option<u64>,
}

impl Tensor {
    /// The type of its elements.
    ///
    /// # Errors
    /// If the protocol has no type of that name.
    pub fn dtype(&self) -> Result<DataType, Failure> {
        let dtype = DataType::from_name(&self.data_type);
        Ok(dtype.ok_or_else(|| format!("unknown data type {:?}", self.data_type))?)
    }

    /// The bytes, in a number for memory of this process.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.byte_size
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(0)
    }
}
