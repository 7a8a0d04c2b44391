//! What a model takes and gives, as its file describes it.

use adjoin_schema::attach::TensorSpec;
use adjoin_schema::{DataType, Shape};

/// One dimension of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Always this many.
    Fixed(i64),
    /// Decided by the request. Dimensions of one name have one size in a run.
    Named(String),
    /// Decided by the request, or by the model's computation.
    Unknown,
}

/// How an input may be given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputAccess {
    /// The engine may read it where the client wrote it: whatever the values are, and even if they change
    /// during the run, they only ever become other values.
    InPlace,
    /// Its values may steer memory accesses (indices, shapes, lengths): it is copied before it is looked at.
    CopyFirst,
    /// The engine brings it to where it is needed itself, and reads each request's piece once, wherever it
    /// lies and however it is aligned. A batch is not gathered for it. For an output: the engine takes a batch
    /// apart itself.
    InPieces,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMetadata {
    /// Its name in the model.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Its dimensions, outermost first.
    pub dimensions: Vec<Dimension>,
    /// How the engine may get it; for outputs, whether it gives them in pieces.
    pub access: InputAccess,
}

/// Inputs and outputs in the model's order. In the order of `outputs`, instances get and give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMetadata {
    /// What a request must give.
    pub inputs: Vec<TensorMetadata>,
    /// What a run gives.
    pub outputs: Vec<TensorMetadata>,
}

impl Dimension {
    /// The size, or -1 where it is not fixed.
    #[must_use]
    pub fn or_open(&self) -> i64 {
        match self {
            Self::Fixed(size) => *size,
            Self::Named(_) | Self::Unknown => -1,
        }
    }

    /// The name, or an empty text.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Fixed(_) | Self::Unknown => "",
        }
    }
}

impl TensorMetadata {
    /// The dimensions with -1 for those that are not fixed.
    #[must_use]
    pub fn open_shape(&self) -> Shape {
        self.dimensions.iter().map(Dimension::or_open).collect()
    }

    /// As users see it.
    #[must_use]
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.open_shape(),
            dimension_names: self
                .dimensions
                .iter()
                .map(|d| d.name().to_owned())
                .collect(),
        }
    }
}

impl ModelMetadata {
    /// Whether requests can be joined along the first dimension: every input and output has the same
    /// *named* first dimension. A first dimension without a name may be anything, such as a sequence's
    /// length, so only the operator's word makes that a batch.
    #[must_use]
    pub fn has_batch_dimension(&self) -> bool {
        let mut first =
            self.inputs
                .iter()
                .chain(&self.outputs)
                .map(|tensor| match tensor.dimensions.first() {
                    Some(Dimension::Named(name)) => Some(name),
                    _ => None,
                });
        match first.next() {
            Some(Some(name)) => first.all(|other| other == Some(name)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dimensions: &[Dimension]) -> TensorMetadata {
        TensorMetadata {
            name: "t".into(),
            dtype: DataType::Fp32,
            dimensions: dimensions.into(),
            access: InputAccess::InPlace,
        }
    }

    #[test]
    fn only_one_shared_name_makes_a_batch_dimension() {
        let named = |name: &str| tensor(&[Dimension::Named(name.into()), Dimension::Fixed(3)]);
        let batch = |inputs, outputs| ModelMetadata { inputs, outputs }.has_batch_dimension();
        assert!(batch(vec![named("batch")], vec![named("batch")]));
        assert!(!batch(vec![named("batch")], vec![named("n")]));
        assert!(!batch(
            vec![named("batch")],
            vec![tensor(&[Dimension::Fixed(1)])]
        ));
        assert!(!batch(
            vec![tensor(&[Dimension::Unknown])],
            vec![tensor(&[Dimension::Unknown])]
        ));
        assert!(!batch(
            vec![named("batch"), tensor(&[])],
            vec![named("batch")]
        ));
    }
}
