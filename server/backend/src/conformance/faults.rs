//! What may go wrong, and must stay small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adjoin_schema::DataType;

use super::memory::{Placed, Room, Tensor};
use super::onnx::Graph;
use super::suite::{Scratch, Suite, add_case, bound, expect, unbound};
use crate::{ExecuteError, LoadError, ModelSource};

fn source_at(suite: &Suite<'_>, path: PathBuf) -> ModelSource {
    ModelSource {
        name: "m".into(),
        version: 1,
        path,
        intra_op_threads: 1,
        parameters: BTreeMap::new(),
        placement: suite.options.placement.clone(),
        rows_max: Default::default(),
    }
}

pub(super) fn no_file(suite: &Suite<'_>) {
    let missing = suite.options.models.join("there-is-no-such-model.onnx");
    for path in [missing, suite.options.models.clone()] {
        let error = suite.load(&source_at(suite, path.clone())).unwrap_err();
        let LoadError::Unreadable { path: told, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(told, path);
    }
}

pub(super) fn damaged_file(suite: &Suite<'_>) {
    let good = std::fs::read(suite.source("add").path).unwrap();
    let unknown_operator = {
        let mut bytes = good.clone();
        let at = bytes.windows(3).position(|part| part == b"Add").unwrap();
        bytes[at..at + 3].copy_from_slice(b"Odd");
        bytes
    };
    let damaged: [&[u8]; 5] = [
        b"",
        b"this is no model",
        &[0xff; 4096],
        &good[..good.len() / 2],
        &unknown_operator,
    ];
    for bytes in damaged {
        let scratch = Scratch::new(suite, bytes);
        let error = suite.load(&scratch.source()).unwrap_err();
        assert!(
            matches!(error, LoadError::Refused { .. }),
            "{error} for {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    // The engine is none the worse for it.
    let (inputs, sum) = add_case(1, 1);
    expect(&mut *suite.add(), &inputs, &sum);
}

pub(super) fn refused(suite: &Suite<'_>) {
    for name in suite.options.refused {
        let error = suite.load(&suite.source(name)).unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Refused { .. } | LoadError::Unsupported { .. }
            ),
            "{error}"
        );
    }
}

pub(super) fn accepts(suite: &Suite<'_>) {
    assert!(suite.backend.accepts(Path::new("somewhere/model.onnx")));
    for other in ["model.txt", "model", "onnx", ""] {
        assert!(!suite.backend.accepts(Path::new(other)), "{other}");
    }
}

pub(super) fn wrong_inputs(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(2, 1);
    let [a, b] = inputs.clone().map(|tensor| Placed::new(&tensor));
    let mut room = Room::new(sum.dtype, &sum.shape);

    let other_type = Placed::new(&Tensor::new(&[2, 4], &[0_i32; 8]));
    let other_rank = Placed::new(&Tensor::new(&[8], &[0.0_f32; 8]));
    let other_width = Placed::new(&Tensor::new(&[2, 5], &[0.0_f32; 10]));
    let mut too_small = Placed::new(&Tensor::new(&[2, 4], &[0.0_f32; 8]));
    too_small.shape = vec![4, 4];
    let mut negative = Placed::new(&Tensor::new(&[2, 4], &[0.0_f32; 8]));
    negative.shape = vec![-2, 4];
    let mut huge = Placed::new(&Tensor::new(&[2, 4], &[0.0_f32; 8]));
    huge.shape = vec![i64::MAX, 4];
    for wrong in [
        &other_type,
        &other_rank,
        &other_width,
        &too_small,
        &negative,
        &huge,
    ] {
        for key in [None, Some(3)] {
            let error = bound(&mut *instance, key, &[&a, wrong], &mut room).unwrap_err();
            assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
        }
    }
    for inputs in [&[][..], &[&a], &[&a, &b, &b]] {
        let error = bound(&mut *instance, None, inputs, &mut room).unwrap_err();
        assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
    }
    let inputs_placed = [a.input(), b.input()];
    for outputs in [0, 2] {
        let error = unbound(&mut *instance, &inputs_placed, outputs).unwrap_err();
        assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
    }
    // Dimensions of one name with two sizes: only the engine can tell.
    let three = Placed::new(&Tensor::new(&[3, 4], &[0.0_f32; 12]));
    bound(&mut *instance, None, &[&a, &three], &mut room).unwrap_err();
    assert!(room.is_untouched());
    expect(&mut *instance, &inputs, &sum);
}

pub(super) fn bad_index(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("gather") else {
        return;
    };
    let table = Tensor::new(&[8, 4], &[1.0_f32; 32]);
    let placed = Placed::new(&table);
    let mut room = Room::new(DataType::Fp32, &[1, 4]);
    for index in [8, -9, i64::from(i32::MAX), i64::MAX, i64::MIN] {
        let index = Placed::new(&Tensor::new(&[1], &[index]));
        let outcome = bound(&mut *instance, None, &[&placed, &index], &mut room);
        if suite.options.checks_values {
            let error = outcome.unwrap_err();
            assert!(matches!(error, ExecuteError::Failed { .. }), "{error}");
        }
        let good = Tensor::new(&[1], &[7_i64]);
        let row = Tensor::new(&[1, 4], &[1.0_f32; 4]);
        expect(&mut *instance, &[table.clone(), good], &row);
    }
}

/// A processor may trap on these. An engine that lets it must not load the model.
pub(super) fn division(suite: &Suite<'_>) {
    const INT32: u64 = 6;
    for operator in ["Div", "Mod"] {
        let graph = Graph::default()
            .node(operator, &["a", "b"], &["y"])
            .input("a", INT32, &["n"])
            .input("b", INT32, &["n"])
            .output("y", INT32, &["n"]);
        let scratch = Scratch::new(suite, &graph.model());
        let mut instance = match suite.load(&scratch.source()) {
            Ok(model) => model.instance().unwrap(),
            Err(LoadError::Refused { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        for (a, b) in [(1, 0), (i32::MIN, -1), (0, 0)] {
            // Enough of them for loops that take several at a time, and a rest.
            let [a, b] = [a, b].map(|value| Placed::new(&Tensor::new(&[21], &[value; 21])));
            let _ = unbound(&mut *instance, &[a.input(), b.input()], 1);
        }
        let [a, b] = [7, 2].map(|value| Placed::new(&Tensor::new(&[1], &[value])));
        let wanted = if operator == "Div" { 3 } else { 1 };
        let results = unbound(&mut *instance, &[a.input(), b.input()], 1).unwrap();
        assert_eq!(results, [Tensor::new(&[1], &[wanted])]);
    }
}

pub(super) fn instances(suite: &Suite<'_>) {
    let model = suite.model("add").unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let mut instance = model.instance().unwrap();
            scope.spawn(move || {
                for batch in 1..50 {
                    let (inputs, sum) = add_case(batch, seed);
                    expect(&mut *instance, &inputs, &sum);
                }
            });
        }
    });
}
