//! From a model's description and the flags to the tensors of a request.

use adjoin_backend::{Dimension, InputAccess, ModelMetadata, TensorMetadata};
use adjoin_control_api::control::{ModelVersion, TensorSpec};
use adjoin_schema::DataType;
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::text::shape_text;
use adjoin_server::model::{InputFacts, Signature};

use super::job::Tensor;
use crate::Failure;

/// A `--shape`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedShape {
    name: String,
    shape: Vec<i64>,
}

pub(super) fn parse_shape(text: &str) -> Result<NamedShape, String> {
    let wrong = || "it is NAME=1,3,..., all dimensions of an input".to_owned();
    let (name, sizes) = text.rsplit_once('=').ok_or_else(wrong)?;
    let shape = sizes
        .split(',')
        .map(|size| size.trim().parse().ok().filter(|&size: &i64| size >= 0));
    let shape = shape.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(NamedShape {
        name: name.to_owned(),
        shape,
    })
}

/// The tensors of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) rows: u32,
}

/// Settles the shapes of a request, as the server will check them.
pub(super) fn plan(
    model: &ModelVersion,
    batch: Option<u32>,
    shapes: &[NamedShape],
) -> Result<Plan, Failure> {
    if let Some(unknown) = shapes
        .iter()
        .find(|given| model.inputs.iter().all(|input| input.name != given.name))
    {
        let names: Vec<_> = model
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        return Err(format!(
            "--shape {:?}: the model's inputs are {}",
            unknown.name,
            names.join(", ")
        )
        .into());
    }
    let inputs = model
        .inputs
        .iter()
        .map(|input| input_tensor(input, batch, shapes));
    let inputs = inputs.collect::<Result<Vec<_>, Failure>>()?;
    let metadata = metadata(model)?;
    let signature = Signature::new(metadata, model.max_batch_size);
    let dtypes = inputs
        .iter()
        .map(Tensor::dtype)
        .collect::<Result<Vec<_>, _>>()?;
    let facts = inputs
        .iter()
        .zip(&dtypes)
        .map(|(input, &dtype)| InputFacts {
            name: &input.name,
            dtype,
            shape: &input.shape,
            byte_size: input.byte_size.unwrap_or(0),
        });
    let facts: Vec<InputFacts<'_>> = facts.collect();
    let resolved = signature.resolve(&facts, &[]);
    let resolved =
        resolved.map_err(|rejection| explain(rejection, &facts, signature.metadata(), model))?;
    let outputs = model
        .outputs
        .iter()
        .zip(&resolved.outputs)
        .map(|(spec, output)| Tensor {
            name: spec.name.clone(),
            data_type: spec.data_type.clone(),
            shape: output
                .known
                .as_ref()
                .map(|(shape, _)| shape.to_vec())
                .unwrap_or_default(),
            byte_size: output.known.as_ref().map(|(_, byte_size)| *byte_size),
        });
    let first = inputs.first().and_then(|input| input.shape.first());
    let rows = match (batch, first) {
        (Some(batch), _) => batch,
        (None, Some(&first)) if model.max_batch_size > 0 => u32::try_from(first).unwrap_or(1),
        _ => 1,
    };
    Ok(Plan {
        inputs,
        outputs: outputs.collect(),
        rows,
    })
}

/// A refusal as the client would word it.
fn explain(
    rejection: Rejection,
    facts: &[InputFacts<'_>],
    metadata: &ModelMetadata,
    model: &ModelVersion,
) -> String {
    let request = RequestDescriptor {
        model: &model.name,
        version: model.version,
        label: "",
        inputs: facts.iter().map(described).collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    };
    let info = ModelInfo {
        model: model.name.clone(),
        version: model.version,
        max_batch_size: model.max_batch_size,
        inputs: metadata.inputs.iter().map(TensorMetadata::spec).collect(),
        ..ModelInfo::default()
    };
    adjoin_schema::text::explain(rejection, Some(&request), Some(&info))
}

fn described<'a>(facts: &InputFacts<'a>) -> TensorDescriptor<'a> {
    TensorDescriptor {
        name: facts.name,
        dtype: facts.dtype,
        shape: facts.shape.into(),
        region: 0,
        offset: 0,
        byte_size: facts.byte_size,
    }
}

fn input_tensor(
    spec: &TensorSpec,
    batch: Option<u32>,
    shapes: &[NamedShape],
) -> Result<Tensor, Failure> {
    let mut shape = spec.shape.clone();
    if let Some(given) = shapes.iter().find(|given| given.name == spec.name) {
        shape.clone_from(&given.shape);
    }
    match shape.first_mut() {
        Some(first) if *first < 0 => *first = i64::from(batch.unwrap_or(1)),
        Some(first) if batch.is_some_and(|batch| i64::from(batch) != *first) => {
            let size = *first;
            let text = format!(
                "--batch {}: input {:?} has {size} as its first dimension",
                batch.unwrap_or(0),
                spec.name
            );
            return Err(text.into());
        }
        _ => {}
    }
    if shape.iter().any(|&size| size < 0) {
        let open = shape_text(&spec.shape, &spec.dimension_names);
        return Err(format!(
            "input {:?} has open dimensions {open}; name them all by --shape {}=1,...",
            spec.name, spec.name
        )
        .into());
    }
    let dtype = DataType::from_name(&spec.data_type).filter(|&dtype| dtype != DataType::Bytes);
    let dtype = dtype.ok_or_else(|| {
        format!(
            "input {:?} has type {}, which is not measured",
            spec.name, spec.data_type
        )
    })?;
    let byte_size = dtype.byte_size(&shape)?;
    Ok(Tensor {
        name: spec.name.clone(),
        data_type: spec.data_type.clone(),
        shape,
        byte_size,
    })
}

/// The description in the terms of the engines, from the one that the server gave.
fn metadata(model: &ModelVersion) -> Result<ModelMetadata, Failure> {
    let tensor = |spec: &TensorSpec| -> Result<TensorMetadata, Failure> {
        let dtype = DataType::from_name(&spec.data_type);
        let names = spec
            .dimension_names
            .iter()
            .map(String::as_str)
            .chain(std::iter::repeat(""));
        let dimension = |(&size, name): (&i64, &str)| match (size, name) {
            (0.., _) => Dimension::Fixed(size),
            (_, "") => Dimension::Unknown,
            (_, name) => Dimension::Named(name.to_owned()),
        };
        Ok(TensorMetadata {
            name: spec.name.clone(),
            dtype: dtype.ok_or_else(|| format!("unknown data type {:?}", spec.data_type))?,
            dimensions: spec.shape.iter().zip(names).map(dimension).collect(),
            access: InputAccess::InPlace,
        })
    };
    Ok(ModelMetadata {
        inputs: model.inputs.iter().map(tensor).collect::<Result<_, _>>()?,
        outputs: model.outputs.iter().map(tensor).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(shape: &[i64], names: &[&str]) -> ModelVersion {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            data_type: "FP32".into(),
            shape: shape.to_vec(),
            dimension_names: names.iter().map(|&name| name.to_owned()).collect(),
            in_place: true,
        };
        ModelVersion {
            max_batch_size: 32,
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            ..ModelVersion::default()
        }
    }

    #[test]
    fn shapes_are_parsed_and_wrong_ones_refused() {
        let shape = parse_shape("a=b=1, 3").unwrap();
        assert_eq!(
            (shape.name.as_str(), shape.shape.as_slice()),
            ("a=b", &[1, 3][..])
        );
        for wrong in ["x", "=1", "x=", "x=1,-3", "x=a"] {
            assert!(parse_shape(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rows_come_from_the_batch_or_the_shape_and_outputs_follow() {
        let fixed = model(&[-1, 4], &["batch", ""]);
        let plan_of = |batch, shapes: &[NamedShape]| plan(&fixed, batch, shapes).unwrap();
        assert_eq!(plan_of(None, &[]).inputs[0].shape, [1, 4]);
        let three = plan_of(Some(3), &[]);
        assert_eq!((three.rows, three.outputs[0].byte_size), (3, Some(48)));
        assert_eq!(plan_of(None, &[parse_shape("x=5,4").unwrap()]).rows, 5);
    }

    #[test]
    fn what_does_not_fit_is_said_before_anything_runs() {
        let open = model(&[-1, -1], &["batch", "n"]);
        let error = |batch, shape: &str| {
            let shapes: Vec<_> = parse_shape(shape).into_iter().collect();
            plan(&open, batch, &shapes).unwrap_err().to_string()
        };
        assert!(error(None, "").contains("[batch,n]"));
        assert!(error(None, "z=1,2").contains("inputs are x"));
        assert!(error(Some(2), "x=3,2").contains("--batch 2"));
        assert!(error(None, "x=3").contains("[3]"));
        assert!(error(None, "x=64,2").contains("at most 32"));
    }
}
