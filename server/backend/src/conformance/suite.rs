//! Loading and running, in few words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Options;
use super::memory::{Placed, Room, Taker, Tensor};
use crate::{
    Backend, BindingKey, Copied, ExecuteError, Execution, Input, Instance, LoadError, Model,
    ModelSource, Output, Placement,
};

/// An engine under test.
#[derive(Debug)]
pub(super) struct Suite<'b> {
    pub(super) backend: &'b dyn Backend,
    pub(super) options: &'b Options,
}

impl Suite<'_> {
    pub(super) fn source(&self, name: &str) -> ModelSource {
        ModelSource {
            name: name.to_owned(),
            version: 1,
            path: self.options.models.join(format!("{name}.onnx")),
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: self.options.placement.clone(),
            rows_max: Default::default(),
        }
    }

    /// A test model; `None` if the engine is known not to run it.
    pub(super) fn model(&self, name: &str) -> Option<Box<dyn Model>> {
        if self.options.refused.contains(&name) {
            return None;
        }
        Some(self.load(&self.source(name)).unwrap())
    }

    pub(super) fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError> {
        self.backend.load(source)
    }

    pub(super) fn instance(&self, name: &str) -> Option<Box<dyn Instance>> {
        self.model(name).map(|model| model.instance().unwrap())
    }

    /// An instance of `add`, which every engine runs.
    pub(super) fn add(&self) -> Box<dyn Instance> {
        self.instance("add").unwrap()
    }
}

/// A model's file that goes with the test.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf, Placement);

impl Scratch {
    pub(super) fn new(suite: &Suite<'_>, bytes: &[u8]) -> Self {
        let (backend, process) = (suite.backend.name(), std::process::id());
        let name = format!("adjoin-conformance-{backend}-{process}.onnx");
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path, suite.options.placement.clone())
    }

    pub(super) fn source(&self) -> ModelSource {
        ModelSource {
            name: "scratch".into(),
            version: 1,
            path: self.0.clone(),
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: self.1.clone(),
            rows_max: Default::default(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs with all outputs given to a sink.
pub(super) fn unbound(
    instance: &mut dyn Instance,
    inputs: &[Input<'_>],
    outputs: usize,
) -> Result<Vec<Tensor>, ExecuteError> {
    let mut taker = Taker::default();
    let mut wanted: Vec<_> = (0..outputs).map(|_| Output::Unbound).collect();
    let execution = Execution {
        key: None,
        inputs,
        outputs: &mut wanted,
    };
    instance.run(execution, &mut taker)?;
    let indices: Vec<_> = taker.taken.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, Vec::from_iter(0..outputs), "outputs out of order");
    Ok(taker.taken.into_iter().map(|(_, tensor)| tensor).collect())
}

/// Runs a model with one output, which is written to `room`.
pub(super) fn bound(
    instance: &mut dyn Instance,
    key: Option<u64>,
    inputs: &[&Placed],
    room: &mut Room,
) -> Result<Copied, ExecuteError> {
    let inputs: Vec<_> = inputs.iter().map(|placed| placed.input()).collect();
    let execution = Execution {
        key: key.map(BindingKey),
        inputs: &inputs,
        outputs: &mut [room.output()],
    };
    let mut taker = Taker::default();
    let copied = instance.run(execution, &mut taker)?;
    assert_eq!(taker.offered, 0, "a bound output went to the sink");
    Ok(copied)
}

/// Runs a model with one output both ways, and expects `wanted`.
pub(super) fn expect(instance: &mut dyn Instance, inputs: &[Tensor], wanted: &Tensor) {
    let placed: Vec<_> = inputs.iter().map(Placed::new).collect();
    let mut room = Room::new(wanted.dtype, &wanted.shape);
    bound(instance, None, &Vec::from_iter(&placed), &mut room).unwrap();
    assert_eq!(&room.tensor(), wanted);

    let inputs: Vec<_> = placed.iter().map(Placed::input).collect();
    let results = unbound(instance, &inputs, 1).unwrap();
    assert_eq!(&results[0], wanted);
}

/// The inputs of `add` for a batch, and their sum.
pub(super) fn add_case(batch: u8, seed: u8) -> ([Tensor; 2], Tensor) {
    let shape = [batch.into(), 4];
    let numbers = |first: f32, step: f32| -> Vec<f32> {
        (0..u16::from(batch) * 4)
            .map(|n| first + f32::from(n) * step)
            .collect()
    };
    let a = numbers(f32::from(seed), 0.5);
    let b = numbers(-3.0, f32::from(seed) + 0.25);
    let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    (
        [Tensor::new(&shape, &a), Tensor::new(&shape, &b)],
        Tensor::new(&shape, &sum),
    )
}
