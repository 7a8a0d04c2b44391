//! What a model takes, and what follows for a request: the one check that native, gRPC and HTTP
//! requests all pass before they reach the batcher.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use adjoin_backend::{Dimension, ModelMetadata, TensorMetadata};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::limits::TENSORS_MAX;
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use smallvec::SmallVec;

/// What a request says of one input.
#[derive(Clone, Copy, Debug)]
pub struct InputFacts<'a> {
    /// Name of the input.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: DataType,
    /// Its dimensions.
    pub shape: &'a [i64],
    /// Bytes of its payload.
    pub byte_size: u64,
}

/// An output of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedOutput {
    /// Whether the client wants it.
    pub wanted: bool,
    /// Type of its elements.
    pub dtype: DataType,
    /// Its shape and bytes, where they follow from the inputs' shapes.
    pub known: Option<(Shape, u64)>,
}

/// A request that fits the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// For each input of the model, the index of the request's input.
    pub inputs: SmallVec<[usize; 4]>,
    /// For each output of the model.
    pub outputs: SmallVec<[ResolvedOutput; 4]>,
    /// Size of the batch dimension; 1 where the model has none.
    pub rows: u32,
    /// Equal for requests that can be joined.
    pub compatibility: u64,
}

/// A model's inputs and outputs, prepared for checking requests.
#[derive(Clone, Debug)]
pub struct Signature {
    metadata: ModelMetadata,
    /// 0: requests are never joined.
    max_batch_size: u32,
    /// Outputs whose shape is not to be trusted, because a run has shown another one.
    unpredictable: Vec<bool>,
    /// For each input, the sizes that each dimension may have; empty if the model has no limits.
    sizes: Vec<Vec<RangeInclusive<i64>>>,
}

/// Sizes that the request gave to named dimensions.
type Bound<'m> = SmallVec<[(&'m str, i64); 8]>;

impl Signature {
    /// A signature; `max_batch_size` above 0 makes the first dimension of everything a batch.
    #[must_use]
    pub fn new(metadata: ModelMetadata, max_batch_size: u32) -> Self {
        let unpredictable = vec![false; metadata.outputs.len()];
        Self {
            metadata,
            max_batch_size,
            unpredictable,
            sizes: Vec::new(),
        }
    }

    /// The same for a model that limits the sizes of its open dimensions.
    #[must_use]
    pub fn with_sizes(mut self, sizes: &[Vec<RangeInclusive<i64>>]) -> Self {
        self.sizes = sizes.to_vec();
        self
    }

    /// Inputs and outputs of the model.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Most rows of one execution; 0 if requests are never joined.
    #[must_use]
    pub fn max_batch_size(&self) -> u32 {
        self.max_batch_size
    }

    /// Whether every row has inputs of the same size: no request chooses a dimension but the batch, and no element
    /// has a length of its own.
    #[must_use]
    pub fn rows_are_alike(&self) -> bool {
        let batch = usize::from(self.max_batch_size > 0);
        self.metadata.inputs.iter().all(|input| {
            let mut dimensions = input.dimensions.iter().skip(batch);
            input.dtype != DataType::Bytes && dimensions.all(|d| matches!(d, Dimension::Fixed(_)))
        })
    }

    /// From now on the output's shape is taken from each run.
    pub fn mark_unpredictable(&mut self, output: usize) {
        if let Some(mark) = self.unpredictable.get_mut(output) {
            *mark = true;
        }
    }

    /// Checks a request. `wanted` names the outputs that the client wants, none for all.
    ///
    /// # Errors
    /// The first thing that does not fit, with its values.
    pub fn resolve(
        &self,
        inputs: &[InputFacts<'_>],
        wanted: &[&str],
    ) -> Result<Resolved, Rejection> {
        let order = self.order(inputs)?;
        let mut bound = Bound::new();
        let mut rows: Option<i64> = None;
        let mut hasher = DefaultHasher::new();
        for (model_index, &request_index) in order.iter().enumerate() {
            let spec = &self.metadata.inputs[model_index];
            let input = &inputs[request_index];
            check_input(spec, input, request_index, &mut bound)?;
            self.check_sizes(model_index, input, request_index)?;
            if self.max_batch_size > 0 {
                let first = input.shape.first().copied().unwrap_or(0);
                // A batch of nothing has no rows to run, and all inputs have as many rows as the first.
                if first < 1 || rows.is_some_and(|rows| rows != first) {
                    return Err(Rejection::new(
                        Status::ShapeMismatch,
                        [request_index as u64, 0],
                    ));
                }
                rows = Some(first);
                input.shape[1..].hash(&mut hasher);
            } else {
                input.shape.hash(&mut hasher);
            }
        }
        let rows = u32::try_from(rows.unwrap_or(1)).unwrap_or(u32::MAX);
        if self.max_batch_size > 0 && rows > self.max_batch_size {
            return Err(Rejection::new(
                Status::BatchTooLarge,
                [u64::from(rows), u64::from(self.max_batch_size)],
            ));
        }
        let outputs = self.outputs(wanted, &bound, rows)?;
        for output in &outputs {
            output.wanted.hash(&mut hasher);
        }
        Ok(Resolved {
            inputs: order,
            outputs,
            rows,
            compatibility: hasher.finish(),
        })
    }

    fn check_sizes(
        &self,
        model_index: usize,
        input: &InputFacts<'_>,
        request_index: usize,
    ) -> Result<(), Rejection> {
        let Some(ranges) = self.sizes.get(model_index) else {
            return Ok(());
        };
        let mut sizes = ranges.iter().zip(input.shape);
        match sizes.position(|(range, size)| !range.contains(size)) {
            // Too many rows are told as such, with the limit.
            Some(0) if self.max_batch_size > 0 && input.shape[0] > *ranges[0].start() => Ok(()),
            Some(at) => Err(Rejection::new(
                Status::ShapeMismatch,
                [request_index as u64, at as u64],
            )),
            None => Ok(()),
        }
    }

    /// For each input of the model, where it is in the request.
    fn order(&self, inputs: &[InputFacts<'_>]) -> Result<SmallVec<[usize; 4]>, Rejection> {
        let mut order: SmallVec<[usize; 4]> =
            SmallVec::from_elem(usize::MAX, self.metadata.inputs.len());
        for (request_index, input) in inputs.iter().enumerate() {
            let reject = |status| Err(Rejection::new(status, [request_index as u64, 0]));
            match self
                .metadata
                .inputs
                .iter()
                .position(|spec| spec.name == input.name)
            {
                None => return reject(Status::InputUnknown),
                Some(index) if order[index] != usize::MAX => return reject(Status::InputRepeated),
                Some(index) => order[index] = request_index,
            }
        }
        match order.iter().position(|&index| index == usize::MAX) {
            Some(missing) => Err(Rejection::new(Status::InputMissing, [missing as u64, 0])),
            None => Ok(order),
        }
    }

    fn outputs(
        &self,
        wanted: &[&str],
        bound: &Bound<'_>,
        rows: u32,
    ) -> Result<SmallVec<[ResolvedOutput; 4]>, Rejection> {
        debug_assert!(
            self.metadata.outputs.len() <= TENSORS_MAX,
            "checked when the model was loaded"
        );
        let unknown = wanted
            .iter()
            .position(|name| !self.metadata.outputs.iter().any(|spec| spec.name == *name));
        if let Some(index) = unknown {
            return Err(Rejection::new(Status::OutputUnknown, [index as u64, 0]));
        }
        let resolve = |(index, spec): (usize, &TensorMetadata)| {
            let is_wanted = wanted.is_empty() || wanted.contains(&spec.name.as_str());
            let known = if self.unpredictable[index] {
                None
            } else {
                self.known_shape(spec, bound, rows)
            };
            ResolvedOutput {
                wanted: is_wanted,
                dtype: spec.dtype,
                known,
            }
        };
        Ok(self
            .metadata
            .outputs
            .iter()
            .enumerate()
            .map(resolve)
            .collect())
    }

    fn known_shape(
        &self,
        spec: &TensorMetadata,
        bound: &Bound<'_>,
        rows: u32,
    ) -> Option<(Shape, u64)> {
        let mut shape = Shape::new();
        for (index, dimension) in spec.dimensions.iter().enumerate() {
            let size = match dimension {
                _ if index == 0 && self.max_batch_size > 0 => i64::from(rows),
                Dimension::Fixed(size) => *size,
                Dimension::Named(name) => bound.iter().find(|(bound, _)| bound == name)?.1,
                Dimension::Unknown => return None,
            };
            shape.push(size);
        }
        // Strings differ in length, so their bytes are known after the run.
        let byte_size = spec.dtype.byte_size(&shape).ok()??;
        Some((shape, byte_size))
    }
}

fn check_input<'m>(
    spec: &'m TensorMetadata,
    input: &InputFacts<'_>,
    request_index: usize,
    bound: &mut Bound<'m>,
) -> Result<(), Rejection> {
    let index = request_index as u64;
    if spec.dtype != input.dtype {
        return Err(Rejection::new(
            Status::DataTypeMismatch,
            [index, u64::from(spec.dtype as u8)],
        ));
    }
    if spec.dimensions.len() != input.shape.len() {
        return Err(Rejection::new(
            Status::ShapeMismatch,
            [index, (1 << 32) + spec.dimensions.len() as u64],
        ));
    }
    for (at, (dimension, &size)) in spec.dimensions.iter().zip(input.shape).enumerate() {
        let fits = size >= 0
            && match dimension {
                Dimension::Fixed(fixed) => *fixed == size,
                Dimension::Unknown => true,
                Dimension::Named(name) => match bound.iter().find(|(bound, _)| bound == name) {
                    Some((_, bound_size)) => *bound_size == size,
                    None => {
                        bound.push((name, size));
                        true
                    }
                },
            };
        if !fits {
            return Err(Rejection::new(Status::ShapeMismatch, [index, at as u64]));
        }
    }
    match input.dtype.byte_size(input.shape) {
        Ok(Some(expected)) if expected != input.byte_size => {
            Err(Rejection::new(Status::ByteSizeMismatch, [index, expected]))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Rejection::new(Status::ShapeMismatch, [index, 0])),
    }
}

#[cfg(test)]
mod tests {
    use adjoin_backend::InputAccess;

    use super::*;

    fn tensor(name: &str, dimensions: &[Dimension]) -> TensorMetadata {
        TensorMetadata {
            name: name.into(),
            dtype: DataType::Fp32,
            dimensions: dimensions.into(),
            access: InputAccess::InPlace,
        }
    }

    fn named(name: &str) -> Dimension {
        Dimension::Named(name.into())
    }

    fn pair() -> Signature {
        let metadata = ModelMetadata {
            inputs: vec![
                tensor("a", &[named("batch"), named("n")]),
                tensor("b", &[named("batch"), Dimension::Fixed(2)]),
            ],
            outputs: vec![
                tensor("y", &[named("batch"), named("n")]),
                tensor("z", &[named("batch"), Dimension::Unknown]),
            ],
        };
        Signature::new(metadata, 8)
    }

    fn facts<'a>(name: &'a str, shape: &'a [i64]) -> InputFacts<'a> {
        let byte_size = DataType::Fp32.byte_size(shape).ok().flatten().unwrap_or(0);
        InputFacts {
            name,
            dtype: DataType::Fp32,
            shape,
            byte_size,
        }
    }

    fn status(inputs: &[InputFacts<'_>], wanted: &[&str]) -> Rejection {
        pair().resolve(inputs, wanted).unwrap_err()
    }

    #[test]
    fn rows_are_alike_where_only_the_batch_is_open() {
        let of = |dimensions: &[Dimension], dtype, max_batch_size| {
            let input = TensorMetadata {
                dtype,
                ..tensor("x", dimensions)
            };
            let metadata = ModelMetadata {
                inputs: vec![input],
                outputs: Vec::new(),
            };
            Signature::new(metadata, max_batch_size).rows_are_alike()
        };
        let fixed = [named("batch"), Dimension::Fixed(4)];
        assert!(of(&fixed, DataType::Fp32, 8));
        assert!(of(&[Dimension::Fixed(1)], DataType::Fp32, 0));
        assert!(!of(&fixed, DataType::Fp32, 0));
        assert!(!of(&fixed, DataType::Bytes, 8));
        assert!(!pair().rows_are_alike());
    }

    #[test]
    fn order_rows_and_known_outputs_follow_from_the_request() {
        let resolved = pair()
            .resolve(&[facts("b", &[3, 2]), facts("a", &[3, 5])], &[])
            .unwrap();
        assert_eq!(resolved.inputs.as_slice(), [1, 0]);
        assert_eq!(resolved.rows, 3);
        assert_eq!(
            resolved.outputs[0].known,
            Some((Shape::from_slice(&[3, 5]), 60))
        );
        assert_eq!(resolved.outputs[1].known, None);
    }

    #[test]
    fn requests_join_across_batch_sizes_and_not_across_shapes_or_outputs() {
        let key = |n, rows, wanted: &[&str]| {
            pair()
                .resolve(&[facts("a", &[rows, n]), facts("b", &[rows, 2])], wanted)
                .unwrap()
                .compatibility
        };
        assert_eq!(key(5, 1, &[]), key(5, 4, &[]));
        assert_ne!(key(5, 1, &[]), key(6, 1, &[]));
        assert_ne!(key(5, 1, &[]), key(5, 1, &["y"]));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (a, b) = (facts("a", &[3, 5]), facts("b", &[3, 2]));
        assert_eq!(
            status(&[a], &[]),
            Rejection::new(Status::InputMissing, [1, 0])
        );
        assert_eq!(
            status(&[a, b, facts("c", &[1])], &[]),
            Rejection::new(Status::InputUnknown, [2, 0])
        );
        assert_eq!(
            status(&[a, a, b], &[]),
            Rejection::new(Status::InputRepeated, [1, 0])
        );
        assert_eq!(
            status(&[a, facts("b", &[3, 4])], &[]),
            Rejection::new(Status::ShapeMismatch, [1, 1])
        );
        assert_eq!(
            status(&[a, facts("b", &[2, 2])], &[]),
            Rejection::new(Status::ShapeMismatch, [1, 0])
        );
        assert_eq!(
            status(&[a, facts("b", &[3])], &[]),
            Rejection::new(Status::ShapeMismatch, [1, (1 << 32) + 2])
        );
        let none = [facts("a", &[0, 5]), facts("b", &[0, 2])];
        assert_eq!(
            status(&none, &[]),
            Rejection::new(Status::ShapeMismatch, [0, 0])
        );
        let many = [facts("a", &[9, 5]), facts("b", &[9, 2])];
        assert_eq!(
            status(&many, &[]),
            Rejection::new(Status::BatchTooLarge, [9, 8])
        );
        assert_eq!(
            status(&[a, b], &["y", "w"]),
            Rejection::new(Status::OutputUnknown, [1, 0])
        );
        let wrong = InputFacts {
            dtype: DataType::Int8,
            ..a
        };
        assert_eq!(
            status(&[wrong, b], &[]),
            Rejection::new(Status::DataTypeMismatch, [0, DataType::Fp32 as u64])
        );
        let short = InputFacts { byte_size: 56, ..a };
        assert_eq!(
            status(&[short, b], &[]),
            Rejection::new(Status::ByteSizeMismatch, [0, 60])
        );
    }

    #[test]
    fn sizes_beyond_the_models_limits_are_refused() {
        let limits = [vec![1..=8, 2..=5], vec![2..=8, 2..=2]];
        let resolve = |rows: i64, n: i64| {
            let (a, b) = ([rows, n], [rows, 2]);
            let signature = pair().with_sizes(&limits);
            signature
                .resolve(&[facts("a", &a), facts("b", &b)], &[])
                .map(drop)
        };
        assert_eq!(resolve(2, 5), Ok(()));
        let refused = |at: [u64; 2]| Err(Rejection::new(Status::ShapeMismatch, at));
        assert_eq!(resolve(2, 6), refused([0, 1]));
        assert_eq!(resolve(2, 1), refused([0, 1]));
        // A batch alone that is smaller than the least.
        assert_eq!(resolve(1, 5), refused([1, 0]));
        let many = Rejection::new(Status::BatchTooLarge, [9, 8]);
        assert_eq!(resolve(9, 5), Err(many));
    }

    #[test]
    fn an_output_that_surprised_is_no_longer_predicted() {
        let mut signature = pair();
        signature.mark_unpredictable(0);
        let resolved = signature
            .resolve(&[facts("a", &[1, 5]), facts("b", &[1, 2])], &[])
            .unwrap();
        assert_eq!(resolved.outputs[0].known, None);
    }
}
