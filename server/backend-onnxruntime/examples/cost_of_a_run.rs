//! What a run costs beside the model itself, in nanoseconds.
//!
//! ```text
//! cargo run --release --example cost_of_a_run -- libonnxruntime.so model.onnx 1
//! ```
//!
//! The model has one float32 input and one float32 output whose only open dimension is the first; the
//! last argument is the batch size. Compared are: values kept under a key, values made for every run, and
//! `ort`'s own way of running with a borrowed input and an output that the engine allocates.

#![allow(clippy::print_stdout, reason = "it is a program to look at")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use adjoin_backend::conformance::memory::{Placed, Room, Taker, Tensor};
use adjoin_backend::{
    Backend, BindingKey, Dimension, Execution, Instance, ModelSource, TensorMetadata,
};
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use ort::session::Session;
use ort::value::TensorRef;

const ROUNDS: u32 = 400;
const RUNS: u32 = 250;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("give {what}"));
    let library = PathBuf::from(next("the library")?);
    let path = PathBuf::from(next("a model")?);
    let batch: i64 = next("a batch size")?.parse()?;

    let backend = OnnxRuntimeBackend::open(&library)?;
    let source = ModelSource {
        name: "model".into(),
        version: 1,
        path: path.clone(),
        intra_op_threads: 1,
        parameters: BTreeMap::new(),
        placement: Default::default(),
        rows_max: Default::default(),
    };
    let model = backend.load(&source)?;
    let mut instance = model.instance()?;
    let shape = shape_of(&model.metadata().inputs[0], batch);
    let values = vec![0.5_f32; usize::try_from(shape.iter().product::<i64>())?];
    let input = Placed::new(&Tensor::new(&shape, &values));
    let output = &model.metadata().outputs[0];
    let mut room = Room::new(output.dtype, &shape_of(output, batch));

    let key = BindingKey(1);
    let kept = measure(|| run(&mut *instance, Some(key), &input, &mut room));
    let made = measure(|| run(&mut *instance, None, &input, &mut room));

    // `ort` must not make a second environment, so this takes place in the backend's.
    let mut session = Session::builder(&backend.environment())?
        .with_intra_threads(1)?
        .with_intra_op_spinning(false)?
        .commit_from_file(&path)?;
    let name = model.metadata().inputs[0].name.clone();
    let plain = measure(|| {
        let tensor = TensorRef::from_array_view((shape.clone(), &*values));
        let tensor = tensor.expect("the shape was made for the values");
        let outputs = session.run(ort::inputs![name.as_str() => tensor]);
        outputs.expect("the model ran before").len();
    });
    println!("values kept under a key  {kept:>8} ns");
    println!("values made for each run {made:>8} ns");
    println!("ort's Session::run       {plain:>8} ns");
    Ok(())
}

fn shape_of(tensor: &TensorMetadata, batch: i64) -> Vec<i64> {
    let size = |dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => *size,
        Dimension::Named(_) | Dimension::Unknown => batch,
    };
    tensor.dimensions.iter().map(size).collect()
}

fn run(instance: &mut dyn Instance, key: Option<BindingKey>, input: &Placed, room: &mut Room) {
    let execution = Execution {
        key,
        inputs: &[input.input()],
        outputs: &mut [room.output()],
    };
    let ran = instance.run(execution, &mut Taker::default());
    ran.expect("the model runs with these shapes");
}

/// The least mean over the runs of a round: the machine may be busy with other things.
fn measure(mut call: impl FnMut()) -> u128 {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..RUNS {
            call();
        }
        start.elapsed().as_nanos() / u128::from(RUNS)
    };
    (0..ROUNDS).map(round).min().unwrap_or(0)
}
