//! Built-in models as the server runs them: by the traits, with inputs and outputs in memory that others share.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use adjoin_backend::conformance::memory::{Placed, Room, Taker, Tensor};
use adjoin_backend::{
    Backend, ExecuteError, Execution, Input, LoadError, Model, ModelSource, Output,
};
use adjoin_schema::DataType;
use adjoin_shm::Payload;

fn engine(name: &str) -> Arc<dyn Backend> {
    let mut found = adjoin_backend_builtin::backends();
    found.retain(|backend| backend.name() == name);
    found.remove(0)
}

fn load(engine_name: &str, parameters: &[(&str, &str)]) -> Result<Box<dyn Model>, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("labels.txt"), "cat\ndog\n\n").unwrap();
    let version = directory.path().join("1");
    std::fs::create_dir(&version).unwrap();
    let pairs = parameters.iter();
    engine(engine_name).load(&ModelSource {
        name: "m".into(),
        version: 1,
        path: version,
        intra_op_threads: 1,
        parameters: pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        placement: Default::default(),
        rows_max: Default::default(),
    })
}

#[test]
fn every_name_is_said_once_and_no_file_asks_for_one() {
    let backends = adjoin_backend_builtin::backends();
    let names: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
    let wanted = [
        "adjoin_image",
        "adjoin_softmax",
        "adjoin_tokenizer",
        "adjoin_top_k",
    ];
    assert_eq!(names, wanted);
    for backend in backends {
        assert!(!backend.accepts("model.onnx".as_ref()));
    }
}

#[test]
fn results_are_written_where_they_are_wanted_and_nowhere_else() {
    let model = load("adjoin_softmax", &[]).unwrap();
    let mut instance = model.instance().unwrap();
    let scores = Placed::new(&Tensor::new(&[2, 2], &[0_f32, 0.0, 5.0, 5.0]));
    let mut room = Room::new(DataType::Fp32, &[2, 2]);
    let mut taker = Taker::default();
    let execution = Execution {
        key: None,
        inputs: &[scores.input()],
        outputs: &mut [room.output()],
    };
    let copied = instance.run(execution, &mut taker).unwrap();
    assert_eq!((copied.input_bytes, copied.output_bytes), (16, 16));
    // `tensor` looks at the bytes around, too.
    assert_eq!(room.tensor(), Tensor::new(&[2, 2], &[0.5_f32; 4]));
    assert_eq!(taker.offered, 0);
}

#[test]
fn labels_come_from_a_file_beside_the_versions() {
    let model = load("adjoin_top_k", &[("k", "2"), ("labels", "labels.txt")]).unwrap();
    assert!(model.metadata().has_batch_dimension());
    let mut instance = model.instance().unwrap();
    let scores = Placed::new(&Tensor::new(&[1, 3], &[0.1_f32, 0.7, 0.2]));
    let mut taker = Taker::default();
    let execution = Execution {
        key: None,
        inputs: &[scores.input()],
        outputs: &mut [Output::Skipped, Output::Skipped, Output::Unbound],
    };
    instance.run(execution, &mut taker).unwrap();
    let (index, labels) = &taker.taken[0];
    assert_eq!((*index, labels.shape.as_slice()), (2, [1, 2].as_slice()));
    assert_eq!(labels.bytes, b"\x03\0\0\0dog\0\0\0\0");
}

#[test]
fn values_that_are_none_are_refused_and_the_next_batch_runs() {
    let model = load("adjoin_image", &[("width", "1"), ("height", "1")]).unwrap();
    assert!(!model.runs_on_zeros());
    let mut instance = model.instance().unwrap();
    let mut run = |bytes: &[u8], rows: i64| {
        let shape = [rows, 1];
        let execution = Execution {
            key: None,
            inputs: &[Input::whole(
                DataType::Bytes,
                &shape,
                Payload::from_slice(bytes),
            )],
            outputs: &mut [Output::Unbound],
        };
        instance.run(execution, &mut Taker::default())
    };
    for lying in [
        b"\xff\xff\xff\xff".as_slice(),
        b"",
        b"\0\0\0\0\0\0\0\0",
        b"ab",
    ] {
        let error = run(lying, 1).unwrap_err();
        assert!(matches!(error, ExecuteError::Refused { .. }), "{error}");
    }
    let mismatch = run(b"", -1).unwrap_err();
    assert!(
        matches!(mismatch, ExecuteError::Mismatch { .. }),
        "{mismatch}"
    );
    assert_eq!(run(b"", 0).unwrap().output_bytes, 0);
}

#[test]
fn wrong_parameters_are_refused_while_loading() {
    let reason = |engine, parameters: &[(&str, &str)]| {
        let error = load(engine, parameters).unwrap_err();
        error.to_string()
    };
    assert!(reason("adjoin_top_k", &[]).contains("needs the parameter \"k\""));
    assert!(reason("adjoin_top_k", &[("k", "1"), ("labels", "../x")]).contains("../x"));
    assert!(reason("adjoin_top_k", &[("k", "1"), ("labels", "none.txt")]).contains("none.txt"));
    assert!(reason("adjoin_softmax", &[("data_type", "INT8")]).contains("FP32, FP16"));
    assert!(reason("adjoin_softmax", &[("axis", "1")]).contains("no parameter \"axis\""));
}
