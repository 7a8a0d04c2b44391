//! A model as its configuration shows it: other shapes with the same elements, narrower dimensions, fewer outputs. Clients
//! and the batcher see the view; the engine gets what its model has. Models without a configuration that differs from
//! them do without.

use std::ops::RangeInclusive;

use adjoin_backend::{
    Copied, Dimension, ExecuteError, Execution, Input, Instance, LoadError, Model, ModelMetadata,
    Output, OutputSink, SinkError, TensorMetadata,
};
use adjoin_model_config::{Checked, TensorConfig};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::Payload;
use smallvec::SmallVec;

/// How the dimensions of a tensor become others; both with -1 for open ones, of which they have as many, in one order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reshape {
    client: Shape,
    model: Shape,
}

impl Reshape {
    /// The shape on the other side of a shape that fits `from`.
    fn apply(from: &[i64], to: &[i64], shape: &[i64]) -> Shape {
        let open = from.iter().zip(shape).filter(|(dim, _)| **dim < 0);
        let mut sizes = open.map(|(_, &size)| size);
        to.iter()
            .map(|&dim| {
                if dim < 0 {
                    sizes.next().unwrap_or(dim)
                } else {
                    dim
                }
            })
            .collect()
    }

    /// The sizes that clients' dimensions may have, from those of the model's.
    fn ranges_to_client(&self, sizes: &[RangeInclusive<i64>]) -> Vec<RangeInclusive<i64>> {
        let open = self.model.iter().zip(sizes).filter(|(dim, _)| **dim < 0);
        let mut ranges = open.map(|(_, range)| range.clone());
        let range = |&dim: &i64| match dim {
            -1 => ranges.next().unwrap_or(0..=i64::MAX),
            size => size..=size,
        };
        self.client.iter().map(range).collect()
    }

    fn to_model(&self, shape: &[i64]) -> Shape {
        Self::apply(&self.client, &self.model, shape)
    }

    /// As clients have it; what the model gives in another form than it says stays.
    fn to_client(&self, shape: &[i64]) -> Shape {
        let fits = |(&dim, &size): (&i64, &i64)| dim < 0 || dim == size;
        if shape.len() == self.model.len() && self.model.iter().zip(shape).all(fits) {
            Self::apply(&self.model, &self.client, shape)
        } else {
            shape.into()
        }
    }
}

/// What differs between the view and the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Differences {
    /// For each input of the model.
    inputs: Vec<Option<Reshape>>,
    /// For each output of the model: its place in the view, if it has one.
    outputs: Vec<Option<(usize, Option<Reshape>)>>,
}

/// A model behind its view.
#[derive(Debug)]
struct ViewedModel {
    model: Box<dyn Model>,
    metadata: ModelMetadata,
    sizes: Vec<Vec<RangeInclusive<i64>>>,
    differences: Differences,
}

#[derive(Debug)]
struct ViewedInstance {
    instance: Box<dyn Instance>,
    differences: Differences,
}

/// The model as the configuration shows it, which fits it ([`Checked::fits`]).
pub(super) fn view(model: Box<dyn Model>, checked: &Checked) -> Box<dyn Model> {
    let own = model.metadata();
    let rows = checked.max_batch_size;
    let mut metadata = ModelMetadata {
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let mut differences = Differences {
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    for input in &own.inputs {
        let mut configured = checked.inputs.iter().map(|input| &input.tensor);
        let configured = configured.find(|tensor| tensor.name == input.name);
        let (seen, reshape) = see(input, configured, rows);
        metadata.inputs.push(seen);
        differences.inputs.push(reshape);
    }
    for output in &own.outputs {
        let mut configured = checked.outputs.iter().map(|output| &output.tensor);
        let configured = configured.find(|tensor| tensor.name == output.name);
        if configured.is_none() && !checked.outputs.is_empty() {
            differences.outputs.push(None);
            continue;
        }
        let (seen, reshape) = see(output, configured, rows);
        let place = metadata.outputs.len();
        differences.outputs.push(Some((place, reshape)));
        metadata.outputs.push(seen);
    }
    if metadata == *own {
        return model;
    }
    let limits = model.sizes().iter().zip(&differences.inputs);
    let sizes = limits.map(|(sizes, reshape)| match reshape {
        Some(reshape) => reshape.ranges_to_client(sizes),
        None => sizes.clone(),
    });
    let sizes = sizes.collect();
    Box::new(ViewedModel {
        model,
        metadata,
        sizes,
        differences,
    })
}

/// A tensor as it is seen, and how its shapes change if they do.
fn see(
    own: &TensorMetadata,
    configured: Option<&TensorConfig>,
    max_batch_size: u32,
) -> (TensorMetadata, Option<Reshape>) {
    let Some(configured) = configured else {
        return (own.clone(), None);
    };
    let client = configured.client_shape(max_batch_size);
    let model = configured.model_shape(max_batch_size);
    let mut open = model
        .iter()
        .zip(&own.dimensions)
        .filter_map(|(&dim, dimension)| (dim < 0).then_some(dimension));
    // Names of open dimensions stay with them.
    let dimension = |&dim: &i64| match dim {
        -1 => open.next().cloned().unwrap_or(Dimension::Unknown),
        size => Dimension::Fixed(size),
    };
    let seen = TensorMetadata {
        dimensions: client.iter().map(dimension).collect(),
        ..own.clone()
    };
    let reshape = (client != model).then_some(Reshape { client, model });
    (seen, reshape)
}

impl Model for ViewedModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn runs_on_zeros(&self) -> bool {
        self.model.runs_on_zeros()
    }

    fn sizes(&self) -> &[Vec<RangeInclusive<i64>>] {
        &self.sizes
    }

    fn is_on_device(&self) -> bool {
        self.model.is_on_device()
    }

    fn takes_on_device(&self, input: &str) -> bool {
        self.model.takes_on_device(input)
    }

    fn gives_on_device(&self, output: &str) -> bool {
        self.model.gives_on_device(output)
    }

    fn batches_at_once(&self) -> usize {
        self.model.batches_at_once()
    }

    fn prepared_sizes(&self) -> &[u32] {
        self.model.prepared_sizes()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(ViewedInstance {
            instance: self.model.instance()?,
            differences: self.differences.clone(),
        }))
    }
}

impl Instance for ViewedInstance {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let Differences { inputs, outputs } = &self.differences;
        let counts = [
            (execution.inputs.len(), inputs.len()),
            (execution.outputs.len(), outputs.iter().flatten().count()),
        ];
        if let Some((given, wanted)) = counts.into_iter().find(|(given, wanted)| given != wanted) {
            let reason = format!("{given} tensors given, the model has {wanted}");
            return Err(ExecuteError::Mismatch { reason });
        }
        let input_shapes: SmallVec<[Shape; 4]> = execution
            .inputs
            .iter()
            .zip(inputs)
            .map(|(input, reshape)| match reshape {
                Some(reshape) => reshape.to_model(input.shape),
                None => input.shape.into(),
            })
            .collect();
        let with_shapes = execution.inputs.iter().zip(&input_shapes);
        let model_inputs: SmallVec<[Input<'_>; 4]> = with_shapes
            .map(|(input, shape)| Input { shape, ..*input })
            .collect();
        let output_shapes: SmallVec<[Shape; 4]> = outputs
            .iter()
            .map(|viewed| match viewed {
                Some((place, reshape)) => match (&execution.outputs[*place], reshape) {
                    (Output::Bound { shape, .. } | Output::Pieces { shape, .. }, Some(reshape)) => {
                        reshape.to_model(shape)
                    }
                    (Output::Bound { shape, .. } | Output::Pieces { shape, .. }, None) => {
                        (*shape).into()
                    }
                    _ => Shape::new(),
                },
                None => Shape::new(),
            })
            .collect();
        let mut given: SmallVec<[Option<Output<'_>>; 4]> = (execution.outputs.iter_mut())
            .map(|output| Some(std::mem::replace(output, Output::Skipped)))
            .collect();
        let mut model_outputs: SmallVec<[Output<'_>; 4]> = outputs
            .iter()
            .zip(&output_shapes)
            .map(|(viewed, shape)| {
                let place = viewed.as_ref().map(|(place, _)| *place);
                match place.and_then(|place| given[place].take()) {
                    Some(Output::Bound { dtype, payload, .. }) => Output::Bound {
                        dtype,
                        shape,
                        payload,
                    },
                    Some(Output::Pieces { dtype, pieces, .. }) => Output::Pieces {
                        dtype,
                        shape,
                        pieces,
                    },
                    Some(other) => other,
                    None => Output::Skipped,
                }
            })
            .collect();
        let mut viewed = ViewedSink { outputs, sink };
        let of_model = Execution {
            key: execution.key,
            inputs: &model_inputs,
            outputs: &mut model_outputs,
        };
        self.instance.run(of_model, &mut viewed)
    }
}

/// Gives on what the engine gives, as clients see it.
struct ViewedSink<'a> {
    outputs: &'a [Option<(usize, Option<Reshape>)>],
    sink: &'a mut dyn OutputSink,
}

impl OutputSink for ViewedSink<'_> {
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        match self.outputs.get(index) {
            Some(Some((place, Some(reshape)))) => {
                let shape = reshape.to_client(shape);
                self.sink.accept(*place, dtype, &shape, payload)
            }
            Some(Some((place, None))) => self.sink.accept(*place, dtype, shape, payload),
            // Nobody wants it.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use adjoin_backend::InputAccess;
    use adjoin_model_config::parse_text;
    use adjoin_shm::PayloadMut;

    use super::*;

    /// Notes the shapes that it gets, and gives its inputs as outputs.
    #[derive(Debug)]
    struct Echo(ModelMetadata);

    impl Model for Echo {
        fn metadata(&self) -> &ModelMetadata {
            &self.0
        }

        fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
            Ok(Box::new(Self(self.0.clone())))
        }
    }

    impl Instance for Echo {
        fn run(
            &mut self,
            execution: Execution<'_, '_>,
            sink: &mut dyn OutputSink,
        ) -> Result<Copied, ExecuteError> {
            execution.check(&self.0)?;
            let outputs = execution.outputs.iter_mut().enumerate();
            for ((index, output), input) in outputs.zip(execution.inputs) {
                match output {
                    Output::Bound { payload, .. } => input.payload.copy_to(payload),
                    Output::Unbound => sink
                        .accept(index, input.dtype, input.shape, input.payload)
                        .unwrap(),
                    Output::Pieces { .. } => unreachable!("it gives no output in pieces"),
                    Output::Skipped => {}
                }
            }
            Ok(Copied::default())
        }
    }

    fn tensor(name: &str, dimensions: &[i64]) -> TensorMetadata {
        let dimension = |(index, &size): (usize, &i64)| match size {
            -1 if index == 0 => Dimension::Named("batch".into()),
            -1 => Dimension::Unknown,
            size => Dimension::Fixed(size),
        };
        TensorMetadata {
            name: name.into(),
            dtype: DataType::Uint8,
            dimensions: dimensions.iter().enumerate().map(dimension).collect(),
            access: InputAccess::InPlace,
        }
    }

    fn viewed(config: &str) -> Box<dyn Model> {
        let metadata = ModelMetadata {
            inputs: vec![tensor("a", &[-1, 2, -1]), tensor("b", &[-1, -1])],
            outputs: vec![tensor("c", &[-1, 2, -1]), tensor("d", &[-1, -1])],
        };
        let message = parse_text(config).unwrap();
        let (checked, _) = Checked::new("m", &message).unwrap();
        checked.fits(&metadata).unwrap();
        view(Box::new(Echo(metadata)), &checked)
    }

    struct Shapes(Vec<(usize, Vec<i64>)>);

    impl OutputSink for Shapes {
        fn accept(
            &mut self,
            index: usize,
            _: DataType,
            shape: &[i64],
            _: Payload<'_>,
        ) -> Result<(), SinkError> {
            self.0.push((index, shape.to_vec()));
            Ok(())
        }
    }

    const RESHAPED: &str = "max_batch_size: 4
        input [ { name: 'a' data_type: TYPE_UINT8 dims: [ -1, 2 ] reshape { shape: [ 2, -1 ] } },
                { name: 'b' data_type: TYPE_UINT8 dims: 3 } ]";

    #[test]
    fn shapes_are_the_clients_outside_and_the_models_inside() {
        // Two in front of the open dimension cannot become two behind it.
        assert!(Checked::new("m", &parse_text(RESHAPED).unwrap()).is_err());
        let model = viewed(
            "max_batch_size: 4
            input [ { name: 'a' data_type: TYPE_UINT8 dims: [ 2, 1, -1 ] reshape { shape: [ 2, -1 ] } },
                    { name: 'b' data_type: TYPE_UINT8 dims: 3 } ]
            output [ { name: 'c' data_type: TYPE_UINT8 dims: [ 1, 2, -1 ] reshape { shape: [ 2, -1 ] } },
                     { name: 'd' data_type: TYPE_UINT8 dims: -1 } ]",
        );
        let metadata = model.metadata();
        let shape = |tensor: &TensorMetadata| tensor.open_shape().to_vec();
        assert_eq!(shape(&metadata.inputs[0]), [-1, 2, 1, -1]);
        assert_eq!(shape(&metadata.inputs[1]), [-1, 3]);
        assert_eq!(
            metadata.inputs[0].dimensions[0],
            Dimension::Named("batch".into())
        );
        let bytes: Vec<u8> = (0..20).collect();
        let inputs =
            [([1, 2, 1, 5].as_slice(), 10), ([1, 3].as_slice(), 3)].map(|(shape, size)| {
                Input::whole(DataType::Uint8, shape, Payload::from_slice(&bytes[..size]))
            });
        let mut room = [0; 10];
        let mut outputs = [
            Output::Bound {
                dtype: DataType::Uint8,
                shape: &[1, 1, 2, 5],
                payload: PayloadMut::from_slice(&mut room),
            },
            Output::Unbound,
        ];
        let mut instance = model.instance().unwrap();
        let mut shapes = Shapes(Vec::new());
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut outputs,
        };
        instance.run(execution, &mut shapes).unwrap();
        assert_eq!(shapes.0, [(1, vec![1, 3])]);
        assert_eq!(room, bytes[..10]);
        // Shown by the run, an output is reshaped as well.
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut [Output::Unbound, Output::Skipped],
        };
        let mut shapes = Shapes(Vec::new());
        instance.run(execution, &mut shapes).unwrap();
        assert_eq!(shapes.0, [(0, vec![1, 1, 2, 5])]);
    }

    #[test]
    fn outputs_that_are_not_configured_are_not_given() {
        let model = viewed("max_batch_size: 4 output { name: 'd' data_type: TYPE_UINT8 dims: -1 }");
        assert_eq!(model.metadata().outputs.len(), 1);
        let inputs = [([1, 2, 1].as_slice(), 2), ([1, 3].as_slice(), 3)].map(|(shape, size)| {
            Input::whole(DataType::Uint8, shape, Payload::from_slice(&[7; 3][..size]))
        });
        let mut shapes = Shapes(Vec::new());
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut [Output::Unbound],
        };
        model
            .instance()
            .unwrap()
            .run(execution, &mut shapes)
            .unwrap();
        assert_eq!(shapes.0, [(0, vec![1, 3])]);
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut [Output::Unbound, Output::Unbound],
        };
        let many = model.instance().unwrap().run(execution, &mut shapes);
        assert!(matches!(many, Err(ExecuteError::Mismatch { .. })));
    }

    #[test]
    fn a_model_that_is_configured_as_it_is_has_no_view() {
        let model = viewed("max_batch_size: 4");
        assert_eq!(model.metadata().outputs.len(), 2);
        assert!(format!("{model:?}").starts_with("Echo"));
    }
}
