//! From a file's bytes to inputs and outputs.

use std::collections::HashSet;

use adjoin_backend::{Dimension, InputAccess, ModelMetadata, TensorMetadata};
use adjoin_schema::DataType;
use adjoin_schema::limits::{RANK_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX};
use prost::Message;

use crate::GraphError;
use crate::proto::{Dimension as ProtoDimension, Graph, Model, Size, ValueInfo};
use crate::uses::Readers;

/// What a file says of the model in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxModel {
    /// Inputs that a request gives (initializers are none, whether or not they are listed as inputs) and
    /// outputs.
    pub metadata: ModelMetadata,
    /// Inputs whose values the graph may divide integers by. Where an engine leaves such a division to
    /// the processor, a request can end the process; see the engine for what it does about it.
    pub integer_divisors: Vec<String>,
}

/// Reads the bytes of an ONNX file.
///
/// # Errors
/// See [`GraphError`].
pub fn describe(bytes: &[u8]) -> Result<OnnxModel, GraphError> {
    let model = Model::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| malformed("it has no graph"))?;
    if graph.outputs.is_empty() {
        return Err(malformed("its graph has no outputs"));
    }
    let readers = Readers::of(graph, &model.functions);
    let mut integer_divisors = Vec::new();
    let mut inputs = tensors("input", &requested(graph))?;
    for (input, info) in inputs.iter_mut().zip(requested(graph)) {
        let uses = readers.uses(&info.name, input.dtype);
        input.access = uses.access;
        if uses.divisor {
            integer_divisors.push(input.name.clone());
        }
    }
    let outputs = tensors("output", &graph.outputs.iter().collect::<Vec<_>>())?;
    Ok(OnnxModel {
        metadata: ModelMetadata { inputs, outputs },
        integer_divisors,
    })
}

/// The inputs that have no initializer. Files of IR version 3 list their weights as inputs too.
fn requested(graph: &Graph) -> Vec<&ValueInfo> {
    let sparse = graph.sparse_initializers.iter();
    let initializers: HashSet<&str> = graph
        .initializers
        .iter()
        .chain(sparse.filter_map(|tensor| tensor.values.as_ref()))
        .map(|tensor| tensor.name.as_str())
        .collect();
    graph
        .inputs
        .iter()
        .filter(|input| !initializers.contains(input.name.as_str()))
        .collect()
}

fn tensors(kind: &'static str, infos: &[&ValueInfo]) -> Result<Vec<TensorMetadata>, GraphError> {
    if infos.len() > TENSORS_MAX {
        let count = infos.len();
        return Err(malformed(format!(
            "it has {count} {kind}s, and adjoin serves at most {TENSORS_MAX}"
        )));
    }
    let mut names = HashSet::new();
    infos
        .iter()
        .map(|info| {
            if !names.insert(info.name.as_str()) {
                return Err(malformed(format!("two {kind}s are named {:?}", info.name)));
            }
            tensor(info).map_err(|what| GraphError::Unsupported {
                kind,
                name: info.name.clone(),
                what,
            })
        })
        .collect()
}

/// The error is what is not supported.
fn tensor(info: &ValueInfo) -> Result<TensorMetadata, String> {
    // Engines take names that end at the first zero byte.
    if info.name.is_empty() || info.name.contains('\0') {
        return Err("has no usable name".to_owned());
    }
    if info.name.len() > TENSOR_NAME_BYTES_MAX {
        return Err(format!(
            "has a name longer than {TENSOR_NAME_BYTES_MAX} bytes"
        ));
    }
    let kind = info.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    let kind = kind.ok_or("is no tensor")?;
    let dtype = data_type(kind.element)
        .ok_or_else(|| format!("has elements of type {}", type_name(kind.element)))?;
    let shape = kind.shape.as_ref().ok_or(
        "has no shape in the file, not even the number of its dimensions; export it with shapes",
    )?;
    if shape.dimensions.len() > RANK_MAX {
        let rank = shape.dimensions.len();
        return Err(format!(
            "has {rank} dimensions, and adjoin serves at most {RANK_MAX}"
        ));
    }
    Ok(TensorMetadata {
        name: info.name.clone(),
        dtype,
        dimensions: shape.dimensions.iter().map(dimension).collect(),
        access: InputAccess::CopyFirst,
    })
}

fn dimension(dimension: &ProtoDimension) -> Dimension {
    match &dimension.size {
        // Some exporters write -1 for what a request decides.
        Some(Size::Value(size)) if *size >= 0 => Dimension::Fixed(*size),
        // A name too long for the protocol is as good as none.
        Some(Size::Name(name)) if !name.is_empty() && name.len() <= TENSOR_NAME_BYTES_MAX => {
            Dimension::Named(name.clone())
        }
        _ => Dimension::Unknown,
    }
}

/// The data type that has this number in ONNX's `TensorProto.DataType`.
pub(crate) fn data_type(number: i32) -> Option<DataType> {
    Some(match number {
        1 => DataType::Fp32,
        2 => DataType::Uint8,
        3 => DataType::Int8,
        4 => DataType::Uint16,
        5 => DataType::Int16,
        6 => DataType::Int32,
        7 => DataType::Int64,
        8 => DataType::Bytes,
        9 => DataType::Bool,
        10 => DataType::Fp16,
        11 => DataType::Fp64,
        12 => DataType::Uint32,
        13 => DataType::Uint64,
        16 => DataType::Bf16,
        _ => return None,
    })
}

fn type_name(number: i32) -> String {
    let name = match number {
        0 => "undefined",
        14 => "complex64",
        15 => "complex128",
        17..=20 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}

fn malformed(reason: impl Into<String>) -> GraphError {
    GraphError::Malformed {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
