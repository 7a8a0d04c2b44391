//! One run of an instance: what goes in, where results go.

use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use thiserror::Error;

use crate::{Dimension, ExecuteError, InputAccess, ModelMetadata, TensorMetadata};

/// Names a set of pointers and shapes that comes back run after run, so that an engine may keep the
/// values that it made for them. A key is never used for another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey(pub u64);

/// An input of one run.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Type of the elements.
    pub dtype: DataType,
    /// All dimensions, none below zero.
    pub shape: &'a [i64],
    /// The bytes; of an input in pieces, the first piece.
    pub payload: Payload<'a>,
    /// The further pieces, in the order of the rows. Empty unless the model takes this input in pieces
    /// ([`InputAccess::InPieces`]) and several requests run together.
    pub rest: &'a [Payload<'a>],
}

impl<'a> Input<'a> {
    /// An input whose bytes lie in one place.
    #[must_use]
    pub fn whole(dtype: DataType, shape: &'a [i64], payload: Payload<'a>) -> Self {
        Self {
            dtype,
            shape,
            payload,
            rest: &[],
        }
    }

    /// All pieces, in the order of the rows; one if the input is whole.
    pub fn pieces(&self) -> impl Iterator<Item = Payload<'a>> + use<'a> {
        std::iter::once(self.payload).chain(self.rest.iter().copied())
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.pieces().map(|piece| piece.byte_size()).sum()
    }
}

/// An output of one run.
#[derive(Debug)]
pub enum Output<'a> {
    /// Its shape is known; it is to be written here.
    Bound {
        /// Type of the elements.
        dtype: DataType,
        /// All dimensions.
        shape: &'a [i64],
        /// Room of exactly the bytes that type and shape make.
        payload: PayloadMut<'a>,
    },
    /// As [`Output::Bound`], in pieces: the rows of the first request go to the first, and so on. Only where the model gives
    /// this output so ([`InputAccess::InPieces`]), and several requests run together.
    Pieces {
        /// Type of the elements.
        dtype: DataType,
        /// All dimensions of the whole.
        shape: &'a [i64],
        /// Room of exactly the bytes that type and shape make, all together.
        pieces: Vec<PayloadMut<'a>>,
    },
    /// Its shape is known after the run only: goes to the sink.
    Unbound,
    /// Not wanted.
    Skipped,
}

/// One run.
#[derive(Debug)]
pub struct Execution<'e, 'a> {
    /// Set where exactly these inputs and bound outputs come again.
    pub key: Option<BindingKey>,
    /// One for each input of the model, in its order.
    pub inputs: &'e [Input<'a>],
    /// One for each output of the model, in its order.
    pub outputs: &'e mut [Output<'a>],
}

impl Execution<'_, '_> {
    /// Checks inputs and outputs against the model's description, and every payload's size against its
    /// data type and shape. An engine goes by the shape when it reads and writes, so it runs nothing that
    /// has not passed this.
    ///
    /// # Errors
    /// [`ExecuteError::Mismatch`] says what does not fit.
    pub fn check(&self, model: &ModelMetadata) -> Result<(), ExecuteError> {
        let counts = [
            ("inputs", self.inputs.len(), model.inputs.len()),
            ("outputs", self.outputs.len(), model.outputs.len()),
        ];
        for (what, given, wanted) in counts {
            if given != wanted {
                return mismatch(format!("{given} {what} given, the model has {wanted}"));
            }
        }
        for (tensor, input) in model.inputs.iter().zip(self.inputs) {
            if !input.rest.is_empty() && tensor.access != InputAccess::InPieces {
                let count = input.rest.len() + 1;
                return mismatch(format!(
                    "{:?} is given in {count} pieces, and the model takes it in one",
                    tensor.name
                ));
            }
            check_tensor(tensor, input.dtype, input.shape, input.byte_size())?;
        }
        for (tensor, output) in model.outputs.iter().zip(self.outputs.iter()) {
            match output {
                Output::Bound {
                    dtype,
                    shape,
                    payload,
                } => check_tensor(tensor, *dtype, shape, payload.byte_size())?,
                Output::Pieces {
                    dtype,
                    shape,
                    pieces,
                } if tensor.access == InputAccess::InPieces => {
                    let byte_size = pieces.iter().map(PayloadMut::byte_size).sum();
                    check_tensor(tensor, *dtype, shape, byte_size)?;
                }
                Output::Pieces { pieces, .. } => {
                    let count = pieces.len();
                    return mismatch(format!(
                        "{:?} is wanted in {count} pieces, and the model gives it in one",
                        tensor.name
                    ));
                }
                Output::Unbound | Output::Skipped => {}
            }
        }
        Ok(())
    }
}

fn mismatch<T>(reason: String) -> Result<T, ExecuteError> {
    Err(ExecuteError::Mismatch { reason })
}

fn check_tensor(
    tensor: &TensorMetadata,
    dtype: DataType,
    shape: &[i64],
    byte_size: usize,
) -> Result<(), ExecuteError> {
    let name = &tensor.name;
    if dtype != tensor.dtype {
        return mismatch(format!("{name:?} is {}, not {dtype}", tensor.dtype));
    }
    let fits = |(dimension, &size): (&Dimension, &i64)| match dimension {
        Dimension::Fixed(fixed) => *fixed == size,
        Dimension::Named(_) | Dimension::Unknown => true,
    };
    if shape.len() != tensor.dimensions.len() || !tensor.dimensions.iter().zip(shape).all(fits) {
        let open = tensor.open_shape();
        return mismatch(format!("{name:?} has shape {open:?}, not {shape:?}"));
    }
    let wanted = match dtype.byte_size(shape) {
        // Strings have their lengths in the payload.
        Ok(None) => return Ok(()),
        Ok(Some(wanted)) => wanted,
        Err(error) => return mismatch(format!("{name:?}: {error}")),
    };
    if u64::try_from(byte_size) != Ok(wanted) {
        return mismatch(format!(
            "{name:?} takes {wanted} bytes with shape {shape:?}, not {byte_size}"
        ));
    }
    Ok(())
}

/// Bytes that an engine copied itself, beyond what its operators do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// From inputs into memory of its own.
    pub input_bytes: u64,
    /// From results to where they were wanted.
    pub output_bytes: u64,
    /// Of inputs that were read where they lay and became the model's own input in the same pass.
    pub transformed_bytes: u64,
}

/// Where results go whose shape was not known before.
pub trait OutputSink {
    /// Takes a result; called once for each unbound output.
    ///
    /// # Errors
    /// If there is no room for it. The run goes on with the other outputs.
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError>;
}

/// A result that found no room.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an output of {byte_size} bytes found no room")]
pub struct SinkError {
    /// Bytes of the result.
    pub byte_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelMetadata {
        let tensor = |dtype| TensorMetadata {
            name: "t".into(),
            dtype,
            dimensions: vec![Dimension::Named("n".into()), Dimension::Fixed(2)],
            access: InputAccess::InPlace,
        };
        ModelMetadata {
            inputs: vec![tensor(DataType::Fp32)],
            outputs: vec![tensor(DataType::Fp32)],
        }
    }

    fn reason(dtype: DataType, shape: &[i64], bytes: usize, output: Output<'_>) -> String {
        let bytes = vec![0; bytes];
        let inputs = [Input::whole(dtype, shape, Payload::from_slice(&bytes))];
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut [output],
        };
        match execution.check(&model()) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn only_what_the_model_takes_passes() {
        let input = |dtype, shape: &[i64], bytes| reason(dtype, shape, bytes, Output::Unbound);
        let fp32 = DataType::Fp32;
        assert_eq!(input(fp32, &[3, 2], 24), "");
        assert_eq!(input(fp32, &[0, 2], 0), "");
        assert!(input(DataType::Int32, &[3, 2], 24).contains("not INT32"));
        assert!(input(fp32, &[3, 3], 36).contains("[-1, 2]"));
        assert!(input(fp32, &[3], 12).contains("[-1, 2]"));
        assert!(input(fp32, &[-1, 2], 8).contains("dimension 0"));
        assert!(input(fp32, &[i64::MAX, 2], 8).contains("bytes"));
        assert!(input(fp32, &[3, 2], 23).contains("24 bytes"));
        assert!(input(fp32, &[3, 2], 28).contains("24 bytes"));

        let mut room = [0; 20];
        let bound = Output::Bound {
            dtype: fp32,
            shape: &[3, 2],
            payload: PayloadMut::from_slice(&mut room),
        };
        assert!(reason(fp32, &[3, 2], 24, bound).contains("not 20"));
    }

    #[test]
    fn pieces_are_for_inputs_that_are_taken_so_and_add_up() {
        let mut model = model();
        let bytes = [0; 24];
        let pieces = [8, 16].map(|size| Payload::from_slice(&bytes[..size]));
        let check = |model: &ModelMetadata, shape: &[i64]| {
            let input = Input {
                dtype: DataType::Fp32,
                shape,
                payload: pieces[0],
                rest: &pieces[1..],
            };
            let execution = Execution {
                key: None,
                inputs: &[input],
                outputs: &mut [Output::Skipped],
            };
            let checked = execution.check(model);
            checked.map_err(|error| error.to_string())
        };
        let refused = check(&model, &[3, 2]).unwrap_err();
        assert!(refused.contains("in 2 pieces"), "{refused}");
        model.inputs[0].access = InputAccess::InPieces;
        assert_eq!(check(&model, &[3, 2]), Ok(()));
        let short = check(&model, &[4, 2]).unwrap_err();
        assert!(short.contains("32 bytes"), "{short}");
    }

    #[test]
    fn counts_must_be_those_of_the_model() {
        let execution = Execution {
            key: None,
            inputs: &[],
            outputs: &mut [],
        };
        assert!(
            execution
                .check(&model())
                .unwrap_err()
                .to_string()
                .contains("0 inputs")
        );
    }
}
