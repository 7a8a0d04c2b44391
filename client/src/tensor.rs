//! What a caller can learn about a tensor, and the look-ups by name that requests and responses share.

use adjoin_schema::DataType;
use adjoin_shm::Element;

use crate::TensorError;

/// A tensor of a request or a response, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'t> {
    /// Name of the model's input or output.
    pub name: &'t str,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions, outermost first.
    pub shape: &'t [i64],
    /// Bytes of the payload.
    pub byte_size: u64,
    /// Whether it lies in a [`DeviceRegion`](crate::DeviceRegion), where the processor does not reach it.
    pub is_on_device: bool,
}

/// Names for an error's text.
pub(crate) fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if quoted.is_empty() {
        "none".into()
    } else {
        quoted.join(", ")
    }
}

/// The index of a name.
pub(crate) fn find<'n>(
    known: impl Iterator<Item = &'n str> + Clone,
    name: &str,
) -> Result<usize, TensorError> {
    let index = known.clone().position(|candidate| candidate == name);
    index.ok_or_else(|| TensorError::NameUnknown {
        name: name.to_owned(),
        known: names(known),
    })
}

/// Whether a Rust type is the element type of a tensor.
pub(crate) fn check_element<T: Element>(name: &str, actual: DataType) -> Result<(), TensorError> {
    if T::DTYPES.contains(&actual) {
        return Ok(());
    }
    Err(TensorError::DataTypeMismatch {
        name: name.to_owned(),
        actual,
        wanted: std::any::type_name::<T>(),
    })
}
