//! What a plan takes and gives, in the server's words.

use std::ops::RangeInclusive;

use adjoin_backend::{
    Dimension, InputAccess, LoadError, ModelMetadata, ModelSource, TensorMetadata,
};
use adjoin_input_transform::DevicePixels;
use adjoin_schema::DataType;

use crate::NAME;
use crate::raw::{Direction, Engine, Extreme, Tensor};

/// A plan under one of its optimization profiles.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) metadata: ModelMetadata,
    /// For each input, the sizes that each dimension may have.
    pub(crate) sizes: Vec<Vec<RangeInclusive<i64>>>,
    /// Inputs that are made of pixels: metadata and sizes are those of the pixels.
    pub(crate) pixels: DevicePixels,
}

/// The name of the first dimension where all inputs and outputs leave it open: a plan has no names of dimensions, and
/// what all have in common is the batch.
const BATCH: &str = "batch";

impl Description {
    pub(crate) fn new(
        engine: &Engine,
        profile: i32,
        source: &ModelSource,
    ) -> Result<Self, LoadError> {
        let refused = |reason: String| refused(source, reason);
        let tensors = engine.tensors(profile).map_err(refused)?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for tensor in tensors {
            match tensor.direction {
                Some(Direction::Input) => inputs.push(tensor),
                Some(Direction::Output) => outputs.push(tensor),
                None => {}
            }
        }
        let has_rows = |tensor: &Tensor| tensor.shape.first() == Some(&-1);
        let is_batched = inputs.iter().chain(&outputs).all(has_rows);
        let describe = |kind, tensor: &Tensor| describe(source, kind, tensor, is_batched);
        let metadata = ModelMetadata {
            inputs: inputs
                .iter()
                .map(|tensor| describe("input", tensor))
                .collect::<Result<_, _>>()?,
            outputs: outputs
                .iter()
                .map(|tensor| describe("output", tensor))
                .collect::<Result<_, _>>()?,
        };
        let sizes = inputs.iter().map(|input| sizes(engine, profile, input));
        let sizes = sizes.collect::<Result<_, _>>().map_err(refused)?;
        Ok(Self {
            inputs,
            outputs,
            metadata,
            sizes,
            pixels: DevicePixels::default(),
        })
    }

    /// The largest shape of each input.
    pub(crate) fn largest(&self) -> Vec<Vec<i64>> {
        let largest =
            |sizes: &Vec<RangeInclusive<i64>>| sizes.iter().map(|range| *range.end()).collect();
        self.sizes.iter().map(largest).collect()
    }
}

/// The ranges of a profile; a fixed dimension has its one size.
fn sizes(
    engine: &Engine,
    profile: i32,
    input: &Tensor,
) -> Result<Vec<RangeInclusive<i64>>, String> {
    let of = |which| engine.profile_shape(&input.name, profile, which);
    let (least, most) = (of(Extreme::Least)?, of(Extreme::Most)?);
    if least.len() != input.shape.len() || most.len() != input.shape.len() {
        return Err(format!(
            "input {:?} has {} dimensions in the plan, and {} in optimization profile {profile}",
            input.name,
            input.shape.len(),
            most.len()
        ));
    }
    Ok(least
        .iter()
        .zip(&most)
        .map(|(&least, &most)| least..=most)
        .collect())
}

fn describe(
    source: &ModelSource,
    kind: &'static str,
    tensor: &Tensor,
    is_batched: bool,
) -> Result<TensorMetadata, LoadError> {
    let name = tensor.name.to_string_lossy().into_owned();
    let unsupported = |what: &str| LoadError::Unsupported {
        model: source.name.clone(),
        kind,
        name: name.clone(),
        what: what.to_owned(),
    };
    if tensor.is_shape {
        return Err(unsupported(
            "is a shape tensor, whose values are read on the host; those are not served",
        ));
    }
    if !tensor.is_linear {
        return Err(unsupported(
            "has a vectorised format, and clients have elements one after another; build the plan with linear inputs \
             and outputs",
        ));
    }
    let dtype =
        dtype(tensor.dtype).ok_or_else(|| unsupported("has a data type that is not served"))?;
    if dtype == DataType::Bool && kind == "input" {
        return Err(unsupported(
            "is BOOL, whose bytes a client could make other than 0 and 1; cast it in the network",
        ));
    }
    let dimension = |(index, &size): (usize, &i64)| match size {
        -1 if index == 0 && is_batched => Dimension::Named(BATCH.to_owned()),
        -1 => Dimension::Unknown,
        size => Dimension::Fixed(size),
    };
    Ok(TensorMetadata {
        dtype,
        dimensions: tensor.shape.iter().enumerate().map(dimension).collect(),
        // The device reads and writes each request's piece where it lies.
        access: InputAccess::InPieces,
        name,
    })
}

/// `nvinfer1::DataType`.
fn dtype(number: i32) -> Option<DataType> {
    Some(match number {
        0 => DataType::Fp32,
        1 => DataType::Fp16,
        2 => DataType::Int8,
        3 => DataType::Int32,
        4 => DataType::Bool,
        5 => DataType::Uint8,
        7 => DataType::Bf16,
        8 => DataType::Int64,
        _ => return None,
    })
}

pub(crate) fn refused(source: &ModelSource, reason: impl ToString) -> LoadError {
    LoadError::Refused {
        engine: NAME,
        path: source.path.clone(),
        reason: reason.to_string(),
    }
}
