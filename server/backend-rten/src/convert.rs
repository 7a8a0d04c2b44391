//! Between the wire's types and the engine's.

use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use bytemuck::{Pod, Zeroable};
use rten::{Value, ValueView};
use rten_tensor::{AsView, Layout, Tensor};

/// How a data type is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Float,
    Int8,
    Int32,
    /// As int32.
    Int64,
    /// As int32 of 0 and 1.
    Truth,
    Uint8,
}

impl Element {
    pub(crate) fn of(dtype: DataType) -> Option<Self> {
        Some(match dtype {
            DataType::Fp32 => Self::Float,
            DataType::Int8 => Self::Int8,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Bool => Self::Truth,
            DataType::Uint8 => Self::Uint8,
            // rten would compute FP64 in 32 bits, which is less than a client asks for.
            _ => return None,
        })
    }

    pub(crate) fn engine_type(self) -> rten::DataType {
        match self {
            Self::Float => rten::DataType::Float,
            Self::Int8 => rten::DataType::Int8,
            Self::Int32 | Self::Int64 | Self::Truth => rten::DataType::Int32,
            Self::Uint8 => rten::DataType::UInt8,
        }
    }
}

/// Private memory for an input, used again for every run.
#[derive(Debug)]
pub(crate) enum Buffer {
    Float(Vec<f32>),
    Int8(Vec<i8>),
    Int32(Vec<i32>),
    Int64(Vec<i64>, Vec<i32>),
    Truth(Vec<u8>, Vec<i32>),
    Uint8(Vec<u8>),
}

impl Buffer {
    pub(crate) fn new(element: Element) -> Self {
        match element {
            Element::Float => Self::Float(Vec::new()),
            Element::Int8 => Self::Int8(Vec::new()),
            Element::Int32 => Self::Int32(Vec::new()),
            Element::Int64 => Self::Int64(Vec::new(), Vec::new()),
            Element::Truth => Self::Truth(Vec::new(), Vec::new()),
            Element::Uint8 => Self::Uint8(Vec::new()),
        }
    }

    /// Copies a payload, and looks at the copy only.
    ///
    /// # Errors
    /// If a value does not fit the engine's type.
    pub(crate) fn fill(&mut self, payload: Payload<'_>) -> Result<(), String> {
        match self {
            Self::Float(values) => copy(payload, values),
            Self::Int8(values) => copy(payload, values),
            Self::Int32(values) => copy(payload, values),
            Self::Uint8(values) => copy(payload, values),
            Self::Truth(bytes, values) => {
                copy(payload, bytes);
                values.clear();
                values.extend(bytes.iter().map(|&byte| i32::from(byte != 0)));
            }
            Self::Int64(wide, values) => {
                copy(payload, wide);
                values.clear();
                for &value in &*wide {
                    let narrow = i32::try_from(value).map_err(|_| {
                        format!("value {value} is outside of the 32 bits that the engine has")
                    })?;
                    values.push(narrow);
                }
            }
        }
        Ok(())
    }

    /// The values that were filled in, in that shape.
    pub(crate) fn view(&self, shape: &[usize]) -> Result<ValueView<'_>, String> {
        let view = match self {
            Self::Float(values) => ValueView::from_shape(shape, values).map_err(|e| e.to_string()),
            Self::Int8(values) => ValueView::from_shape(shape, values).map_err(|e| e.to_string()),
            Self::Uint8(values) => ValueView::from_shape(shape, values).map_err(|e| e.to_string()),
            Self::Int32(values) | Self::Int64(_, values) | Self::Truth(_, values) => {
                ValueView::from_shape(shape, values).map_err(|e| e.to_string())
            }
        };
        view.map_err(|error| format!("an input does not fit its shape: {error}"))
    }
}

fn copy<T: Pod + Zeroable>(payload: Payload<'_>, values: &mut Vec<T>) {
    values.resize(payload.byte_size() / size_of::<T>(), T::zeroed());
    let bytes = bytemuck::cast_slice_mut(values);
    // Sizes that are no multiple never pass `Execution::check`; what would not fit is left out.
    if let Some(payload) = payload.part(0, bytes.len()) {
        payload.copy_to(&mut PayloadMut::from_slice(bytes));
    }
}

/// A result as bytes of the wire's type.
#[derive(Debug)]
pub(crate) struct Bytes {
    values: Values,
    /// Whether they are another type than the engine's, and so a copy.
    pub(crate) is_converted: bool,
}

#[derive(Debug)]
enum Values {
    Float(Vec<f32>),
    Int8(Vec<i8>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
}

impl Bytes {
    /// # Errors
    /// If the engine gave another type than the model's file says.
    pub(crate) fn of(value: Value, dtype: DataType) -> Result<Self, String> {
        let kind = value.dtype();
        let values = match (Element::of(dtype), value) {
            (Some(Element::Float), Value::FloatTensor(tensor)) => Values::Float(elements(tensor)),
            (Some(Element::Int8), Value::Int8Tensor(tensor)) => Values::Int8(elements(tensor)),
            (Some(Element::Int32), Value::Int32Tensor(tensor)) => Values::Int32(elements(tensor)),
            (Some(Element::Uint8), Value::UInt8Tensor(tensor)) => Values::Uint8(elements(tensor)),
            (Some(Element::Int64), Value::Int32Tensor(tensor)) => {
                Values::Int64(tensor.iter().map(|&value| value.into()).collect())
            }
            (Some(Element::Truth), Value::Int32Tensor(tensor)) => {
                Values::Uint8(tensor.iter().map(|&value| u8::from(value != 0)).collect())
            }
            _ => return Err(format!("a result of type {dtype} came as {kind}")),
        };
        Ok(Self {
            values,
            is_converted: matches!(dtype, DataType::Int64 | DataType::Bool),
        })
    }

    pub(crate) fn payload(&self) -> Payload<'_> {
        Payload::from_slice(match &self.values {
            Values::Float(values) => bytemuck::cast_slice(values),
            Values::Int8(values) => bytemuck::cast_slice(values),
            Values::Int32(values) => bytemuck::cast_slice(values),
            Values::Int64(values) => bytemuck::cast_slice(values),
            Values::Uint8(values) => values,
        })
    }
}

/// Without a copy where they lie in order.
fn elements<T: Clone>(tensor: Tensor<T>) -> Vec<T> {
    tensor.into_data()
}

/// A result's shape as the wire has it.
pub(crate) fn shape_of(value: &Value) -> Vec<i64> {
    let sizes = value.shape();
    sizes
        .iter()
        .map(|&size| size.try_into().unwrap_or(i64::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let mut buffer = Buffer::new(Element::Int64);
        let fits = [i64::from(i32::MIN), -1, i64::from(i32::MAX)];
        buffer
            .fill(Payload::from_slice(bytemuck::cast_slice(&fits)))
            .unwrap();
        let ValueView::Int32Tensor(view) = buffer.view(&[3]).unwrap() else {
            panic!("another type");
        };
        assert_eq!(view.to_vec(), [i32::MIN, -1, i32::MAX]);
        let too_large = [i64::from(i32::MAX) + 1];
        let payload = Payload::from_slice(bytemuck::cast_slice(&too_large));
        assert!(buffer.fill(payload).unwrap_err().contains("2147483648"));
    }

    #[test]
    fn truth_is_0_or_1_on_both_sides() {
        let mut buffer = Buffer::new(Element::Truth);
        buffer.fill(Payload::from_slice(&[0, 1, 7])).unwrap();
        let ValueView::Int32Tensor(view) = buffer.view(&[3]).unwrap() else {
            panic!("another type");
        };
        assert_eq!(view.to_vec(), [0, 1, 1]);
        let value = Value::from_shape([2], vec![0, 5]).unwrap();
        let bytes = Bytes::of(value, DataType::Bool).unwrap();
        assert_eq!(bytes.payload().to_vec(), [0, 1]);
        assert!(bytes.is_converted);
    }

    #[test]
    fn result_of_another_type_is_an_error() {
        let value = Value::from_shape([1], vec![1_i32]).unwrap();
        let error = Bytes::of(value, DataType::Fp32).unwrap_err();
        assert!(error.contains("FP32") && error.contains("i32"), "{error}");
    }
}
