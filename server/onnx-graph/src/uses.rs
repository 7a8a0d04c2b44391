//! Follows an input through the graph to all that may read its memory.
//!
//! # Division of integers
//!
//! On x86 an integer division by zero, and of the smallest number by -1, raises SIGFPE and so ends the
//! process. ONNX Runtime 1.23 lets all of these happen in `Div` and `Mod`; 1.32 looks for zeros before
//! it divides, which a client that writes meanwhile gets past, and still dies of the smallest number
//! divided by -1. A private copy helps against the first and not against the second. So divisors are
//! reported apart ([`Uses::divisor`]), and an engine that traps must not load such a model.

use std::collections::{HashMap, HashSet};

use adjoin_backend::InputAccess;
use adjoin_schema::DataType;

use crate::describe::data_type;
use crate::operators::{Role, role};
use crate::proto::{Function, Graph, Node};

/// What the graph does with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) access: InputAccess,
    /// Its values may become divisors of integers.
    pub(crate) divisor: bool,
}

/// Who reads which value.
pub(crate) struct Readers<'g> {
    nodes: HashMap<&'g str, Vec<(&'g Node, usize)>>,
    /// Values that a subgraph may read. Names that a subgraph defines itself are among them: that errs
    /// on the safe side.
    captured: HashSet<&'g str>,
    outputs: HashSet<&'g str>,
    /// Operators that the model defines; they may have the name of one of ONNX's.
    functions: HashSet<&'g str>,
}

impl<'g> Readers<'g> {
    pub(crate) fn of(graph: &'g Graph, functions: &'g [Function]) -> Self {
        let mut readers = Self {
            nodes: HashMap::new(),
            captured: HashSet::new(),
            outputs: graph.outputs.iter().map(|v| v.name.as_str()).collect(),
            functions: functions
                .iter()
                .filter(|f| is_onnx(&f.domain))
                .map(|f| f.name.as_str())
                .collect(),
        };
        for node in &graph.nodes {
            for (position, name) in node.inputs.iter().enumerate() {
                let of_name = readers.nodes.entry(name).or_default();
                of_name.push((node, position));
            }
            readers.capture_from(node);
        }
        readers
    }

    fn capture_from(&mut self, node: &'g Node) {
        for attribute in &node.attributes {
            for graph in attribute.graph.iter().chain(&attribute.graphs) {
                let outputs = graph.outputs.iter().map(|v| v.name.as_str());
                self.captured.extend(outputs);
                for inner in &graph.nodes {
                    self.captured
                        .extend(inner.inputs.iter().map(String::as_str));
                    self.capture_from(inner);
                }
            }
        }
    }

    /// What may become of the values of the input `name`.
    pub(crate) fn uses(&self, name: &'g str, dtype: DataType) -> Uses {
        let mut found = Uses {
            // Bytes of a truth value may be neither 0 nor 1, and strings have lengths in them.
            access: match dtype {
                DataType::Bool | DataType::Bytes => InputAccess::CopyFirst,
                _ => InputAccess::InPlace,
            },
            divisor: false,
        };
        // The engine may hand the client's memory out as the result.
        if self.outputs.contains(name) {
            found.access = InputAccess::CopyFirst;
        }
        let mut seen = HashSet::from([(name, Elements::of(dtype))]);
        let mut open = Vec::from_iter(seen.iter().copied());
        while let Some((value, elements)) = open.pop() {
            if self.captured.contains(value) {
                found.access = InputAccess::CopyFirst;
            }
            for &(node, position) in self.nodes.get(value).into_iter().flatten() {
                match self.role(node, position) {
                    Role::Computes => continue,
                    Role::Passes => {}
                    Role::Divides if elements == Elements::NoIntegers => {}
                    Role::Divides => {
                        found.access = InputAccess::CopyFirst;
                        found.divisor |= elements == Elements::Integers;
                        continue;
                    }
                    Role::Steers => {
                        found.access = InputAccess::CopyFirst;
                        continue;
                    }
                }
                let after = elements.after(node);
                for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                    if seen.insert((output, after)) {
                        open.push((output, after));
                    }
                }
            }
        }
        found
    }

    fn role(&self, node: &Node, position: usize) -> Role {
        if is_onnx(&node.domain) && !self.functions.contains(node.operator.as_str()) {
            role(&node.operator, position)
        } else {
            Role::Steers
        }
    }
}

fn is_onnx(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Whether a value holds integers, as far as that is known without inferring all types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Elements {
    Integers,
    NoIntegers,
    Unknown,
}

impl Elements {
    fn of(dtype: DataType) -> Self {
        match dtype {
            DataType::Bool
            | DataType::Bytes
            | DataType::Fp16
            | DataType::Bf16
            | DataType::Fp32
            | DataType::Fp64 => Self::NoIntegers,
            _ => Self::Integers,
        }
    }

    /// What the outputs of `node` hold if its input holds `self`.
    fn after(self, node: &Node) -> Self {
        match node.operator.as_str() {
            "Cast" => {
                let to = node.attributes.iter().find(|a| a.name == "to");
                let number = to.and_then(|a| i32::try_from(a.int).ok());
                number.and_then(data_type).map_or(Self::Unknown, Self::of)
            }
            "CastLike" => Self::Unknown,
            "QuantizeLinear" => Self::Integers,
            "DequantizeLinear" | "Equal" | "Greater" | "GreaterOrEqual" | "IsInf" | "IsNaN"
            | "Less" | "LessOrEqual" => Self::NoIntegers,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests;
