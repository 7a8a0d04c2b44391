//! What only this engine does, or does in a way of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod library;

use std::collections::BTreeMap;

use adjoin_backend::conformance::memory::{Placed, Room, Taker, Tensor};
use adjoin_backend::conformance::onnx::{Graph, weights, weights_in_file};
use adjoin_backend::{
    Backend, BindingKey, Copied, ExecuteError, Execution, InputAccess, Instance, LoadError, Model,
    ModelSource, Output,
};
use adjoin_schema::DataType;

const FP32: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const BOOL: u64 = 9;

/// A model in a directory of its own.
struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new(model: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = Self { directory };
        std::fs::write(file.source().path, model).unwrap();
        file
    }

    fn source(&self) -> ModelSource {
        ModelSource {
            name: "m".into(),
            version: 1,
            path: self.directory.path().join("model.onnx"),
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: Default::default(),
            rows_max: Default::default(),
        }
    }
}

fn load(graph: Graph) -> Result<Box<dyn Model>, LoadError> {
    library::backend().load(&File::new(&graph.model()).source())
}

fn instance(graph: Graph) -> Box<dyn Instance> {
    load(graph).unwrap().instance().unwrap()
}

/// Runs, and returns what went to the sink.
fn run<'a>(
    instance: &mut dyn Instance,
    key: Option<u64>,
    inputs: &[&'a Placed],
    outputs: &mut [Output<'a>],
) -> Result<(Copied, Vec<Tensor>), ExecuteError> {
    let inputs: Vec<_> = inputs.iter().map(|placed| placed.input()).collect();
    let mut taker = Taker::default();
    let execution = Execution {
        key: key.map(BindingKey),
        inputs: &inputs,
        outputs,
    };
    let copied = instance.run(execution, &mut taker)?;
    let taken = taker.taken.into_iter().map(|(_, tensor)| tensor);
    Ok((copied, taken.collect()))
}

fn unbound(instance: &mut dyn Instance, inputs: &[&Placed]) -> Tensor {
    let (_, mut results) = run(instance, None, inputs, &mut [Output::Unbound]).unwrap();
    results.remove(0)
}

fn tensor(dtype: DataType, shape: &[i64], bytes: &[u8]) -> Tensor {
    Tensor {
        dtype,
        shape: shape.into(),
        bytes: bytes.into(),
    }
}

/// ONNX's number of a data type.
fn number(dtype: DataType) -> u64 {
    match dtype {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}

fn identity(dtype: DataType, dimensions: &[&str]) -> Graph {
    Graph::default()
        .node("Identity", &["x"], &["y"])
        .input("x", number(dtype), dimensions)
        .output("y", number(dtype), dimensions)
}

#[test]
fn every_data_type_goes_in_and_comes_out() {
    for dtype in DataType::ALL {
        let Some(size) = dtype.element_bytes() else {
            continue;
        };
        let mut instance = instance(identity(dtype, &["n"]));
        for count in [0_u8, 1, 13] {
            // Truth values are 0 and 1; everything else may have any bits.
            let byte = |n: u8| {
                if dtype == DataType::Bool {
                    n % 2
                } else {
                    n ^ 0xf5
                }
            };
            let bytes: Vec<u8> = (0..count * u8::try_from(size).unwrap()).map(byte).collect();
            let x = tensor(dtype, &[count.into()], &bytes);
            let placed = Placed::new(&x);
            assert_eq!(unbound(&mut *instance, &[&placed]), x);
            let mut room = Room::new(dtype, &x.shape);
            for key in [None, Some(1), Some(1)] {
                run(&mut *instance, key, &[&placed], &mut [room.output()]).unwrap();
                assert_eq!(room.tensor(), x);
            }
        }
    }
}

#[test]
fn scalars_have_no_dimensions() {
    let graph = Graph::default()
        .node("Add", &["a", "b"], &["y"])
        .input("a", FP32, &[])
        .input("b", FP32, &[])
        .output("y", FP32, &[]);
    let mut instance = instance(graph);
    let [a, b] = [1.5_f32, 2.0].map(|value| Placed::new(&Tensor::new(&[], &[value])));
    let mut room = Room::new(DataType::Fp32, &[]);
    for key in [None, Some(1), Some(1)] {
        run(&mut *instance, key, &[&a, &b], &mut [room.output()]).unwrap();
        assert_eq!(room.tensor(), Tensor::new(&[], &[3.5_f32]));
    }
    assert_eq!(
        unbound(&mut *instance, &[&a, &b]),
        Tensor::new(&[], &[3.5_f32])
    );
}

/// Strings as the wire has them.
fn strings(elements: &[&str]) -> Tensor {
    let length = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let bytes: Vec<u8> = elements
        .iter()
        .flat_map(|text| length(text).into_iter().chain(text.bytes()))
        .collect();
    tensor(
        DataType::Bytes,
        &[elements.len().try_into().unwrap()],
        &bytes,
    )
}

#[test]
fn strings_are_copied_and_counted() {
    let model = load(identity(DataType::Bytes, &["n"])).unwrap();
    assert_eq!(model.metadata().inputs[0].access, InputAccess::InPlace);
    let mut instance = model.instance().unwrap();
    for elements in [&["one", "", "with\0zero", "zw\u{f6}lf"][..], &[], &[""]] {
        let x = strings(elements);
        let placed = Placed::new(&x);
        for key in [None, Some(1), Some(1)] {
            let (copied, results) =
                run(&mut *instance, key, &[&placed], &mut [Output::Unbound]).unwrap();
            assert_eq!(results, std::slice::from_ref(&x));
            let byte_size = x.bytes.len() as u64;
            assert_eq!(
                (copied.input_bytes, copied.output_bytes),
                (byte_size, byte_size)
            );
        }
    }
    // The same key and place with another text.
    let mut placed = Placed::new(&strings(&["first"]));
    run(&mut *instance, Some(2), &[&placed], &mut [Output::Unbound]).unwrap();
    placed.write(&strings(&["other"]).bytes);
    let (_, results) = run(&mut *instance, Some(2), &[&placed], &mut [Output::Unbound]).unwrap();
    assert_eq!(results, [strings(&["other"])]);
}

#[test]
fn strings_that_do_not_fit_are_refused() {
    let mut instance = instance(identity(DataType::Bytes, &["n"]));
    for bytes in [
        &b"\x04\0\0\0abc"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0",
        b"\0\0\0\0!",
    ] {
        let placed = Placed::new(&tensor(DataType::Bytes, &[1], bytes));
        let error = run(&mut *instance, None, &[&placed], &mut [Output::Unbound]).unwrap_err();
        assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
    }
    let mut huge = Placed::new(&strings(&["one"]));
    huge.shape = vec![i64::MAX];
    let error = run(&mut *instance, None, &[&huge], &mut [Output::Unbound]).unwrap_err();
    assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");

    let placed = Placed::new(&strings(&["one"]));
    let mut room = Room::of_size(DataType::Bytes, &[1], 7);
    let error = run(&mut *instance, None, &[&placed], &mut [room.output()]).unwrap_err();
    assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
    assert_eq!(unbound(&mut *instance, &[&placed]), strings(&["one"]));
}

#[test]
fn truth_values_are_made_0_or_1_before_the_engine_sees_them() {
    let graph = Graph::default()
        .node("Not", &["x"], &["y"])
        .input("x", BOOL, &["n"])
        .output("y", BOOL, &["n"]);
    let model = load(graph).unwrap();
    assert_eq!(model.metadata().inputs[0].access, InputAccess::InPlace);
    let mut instance = model.instance().unwrap();
    let mut x = Placed::new(&tensor(DataType::Bool, &[3], &[0, 1, 7]));
    let mut room = Room::new(DataType::Bool, &[3]);
    for (bytes, wanted) in [([0, 1, 7], [1, 0, 0]), ([255, 0, 2], [0, 1, 0])] {
        x.write(&bytes);
        for key in [None, Some(1), Some(1)] {
            let (copied, _) = run(&mut *instance, key, &[&x], &mut [room.output()]).unwrap();
            assert_eq!(room.tensor().bytes, wanted);
            assert_eq!(copied.input_bytes, 3);
        }
    }
}

#[test]
fn output_that_is_an_input_is_fetched() {
    // The engine leaves such an output unwritten and says nothing.
    let graph = Graph::default()
        .node("Relu", &["x"], &["y"])
        .input("x", FP32, &["n"])
        .output("x", FP32, &["n"])
        .output("y", FP32, &["n"]);
    let mut instance = instance(graph);
    for key in [None, Some(1), Some(1)] {
        let x = Tensor::new(&[3], &[-1.0_f32, 0.0, 2.0]);
        let placed = Placed::new(&x);
        let (mut same, mut relu) = (Room::new(x.dtype, &[3]), Room::new(x.dtype, &[3]));
        let mut outputs = [same.output(), relu.output()];
        let (copied, _) = run(&mut *instance, key, &[&placed], &mut outputs).unwrap();
        assert_eq!(same.tensor(), x);
        assert_eq!(relu.tensor(), Tensor::new(&[3], &[0.0_f32, 0.0, 2.0]));
        assert_eq!(copied.output_bytes, 12);

        let mut outputs = [Output::Unbound, Output::Skipped];
        let (_, results) = run(&mut *instance, key, &[&placed], &mut outputs).unwrap();
        assert_eq!(results, [x]);
    }
}

#[test]
fn nodes_that_do_nothing_write_their_output() {
    let graphs = [
        Graph::default().node("Add", &["x", "zero"], &["y"]),
        Graph::default().node("Mul", &["one", "x"], &["y"]),
        Graph::default().node("Dropout", &["x"], &["y"]),
        Graph::default().node("Transpose", &["x"], &["y"]),
        Graph::default().node_with("Cast", ["x", "y"], "to", FP32),
        Graph::default().node_with("Concat", ["x", "y"], "axis", 0),
        Graph::default()
            .node("Identity", &["x"], &["i"])
            .node("Identity", &["i"], &["y"]),
    ];
    for graph in graphs {
        let graph = graph
            .initializer(weights("zero", &[0.0]))
            .initializer(weights("one", &[1.0]))
            .input("x", FP32, &["n"])
            .output("y", FP32, &["n"]);
        let mut instance = instance(graph);
        let x = Tensor::new(&[2], &[3.0_f32, -4.0]);
        let placed = Placed::new(&x);
        for key in [None, Some(1), Some(1)] {
            let mut room = Room::new(DataType::Fp32, &[2]);
            run(&mut *instance, key, &[&placed], &mut [room.output()]).unwrap();
            assert_eq!(room.tensor(), x);
        }
        assert_eq!(unbound(&mut *instance, &[&placed]), x);
    }
}

#[test]
fn constant_output_is_written_every_time() {
    let graph = Graph::default()
        .node("Relu", &["x"], &["y"])
        .node("Neg", &["c"], &["z"])
        .initializer(weights("c", &[1.0, 2.0]))
        .input("x", FP32, &["n"])
        .output("y", FP32, &["n"])
        .output("z", FP32, &["two"])
        .output("c", FP32, &["two"]);
    let mut instance = instance(graph);
    let placed = Placed::new(&Tensor::new(&[1], &[5.0_f32]));
    for key in [None, Some(1), Some(1)] {
        let mut rooms = [[1], [2], [2]].map(|shape| Room::new(DataType::Fp32, &shape));
        let mut outputs = rooms.each_mut().map(Room::output);
        run(&mut *instance, key, &[&placed], &mut outputs).unwrap();
        let results = rooms.each_ref().map(|room| room.tensor().f32s());
        assert_eq!(results, [vec![5.0], vec![-1.0, -2.0], vec![1.0, 2.0]]);
    }
}

#[test]
fn outputs_are_wanted_or_not_one_by_one() {
    let graph = Graph::default()
        .node("Relu", &["x"], &["a"])
        .node("Neg", &["x"], &["b"])
        .node("Abs", &["x"], &["c"])
        .input("x", FP32, &["n"])
        .output("a", FP32, &["n"])
        .output("b", FP32, &["n"])
        .output("c", FP32, &["n"]);
    let mut instance = instance(graph);
    let placed = Placed::new(&Tensor::new(&[2], &[-1.0_f32, 2.0]));
    for _ in 0..2 {
        let mut room = Room::new(DataType::Fp32, &[2]);
        let mut outputs = [Output::Unbound, Output::Skipped, room.output()];
        let (_, results) = run(&mut *instance, Some(1), &[&placed], &mut outputs).unwrap();
        assert_eq!(results, [Tensor::new(&[2], &[0.0_f32, 2.0])]);
        assert_eq!(room.tensor().f32s(), [1.0, 2.0]);

        let mut room = Room::new(DataType::Fp32, &[2]);
        let mut outputs = [Output::Skipped, room.output(), Output::Unbound];
        let (_, results) = run(&mut *instance, Some(1), &[&placed], &mut outputs).unwrap();
        assert_eq!(results, [Tensor::new(&[2], &[1.0_f32, 2.0])]);
        assert_eq!(room.tensor().f32s(), [1.0, -2.0]);
    }
}

#[test]
fn many_inputs_and_one_that_nobody_reads_run() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut graph = Graph::default()
        .node("Sum", &names[..6], &["y"])
        .output("y", FP32, &["n"]);
    for name in names {
        graph = graph.input(name, FP32, &["n"]);
    }
    let mut instance = instance(graph);
    let placed = names.map(|_| Placed::new(&Tensor::new(&[1], &[2.0_f32])));
    let mut room = Room::new(DataType::Fp32, &[1]);
    for key in [None, Some(1), Some(1)] {
        let inputs = placed.each_ref();
        run(&mut *instance, key, &inputs, &mut [room.output()]).unwrap();
        assert_eq!(room.tensor().f32s(), [12.0]);
    }
}

#[test]
fn model_that_could_divide_integers_by_zero_is_refused() {
    let divide = |element| {
        Graph::default()
            .node("Div", &["a", "b"], &["y"])
            .input("a", element, &["n"])
            .input("b", element, &["n"])
            .output("y", element, &["n"])
    };
    for element in [INT32, INT64] {
        let error = load(divide(element)).unwrap_err();
        let LoadError::Refused { reason, .. } = error else {
            panic!("{error}");
        };
        assert!(reason.contains("\"b\""), "{reason}");
    }
    load(divide(FP32)).unwrap();
    let after_cast = Graph::default()
        .node_with("Cast", ["x", "i"], "to", INT32)
        .node("Mod", &["i", "i"], &["y"])
        .input("x", FP32, &["n"])
        .output("y", INT32, &["n"]);
    load(after_cast).unwrap_err();
}

#[test]
fn weights_may_be_in_a_file_beside_the_model() {
    let graph = Graph::default()
        .node("Add", &["x", "w"], &["y"])
        .initializer(weights_in_file("w", 2, "weights.bin"))
        .input("x", FP32, &["n"])
        .output("y", FP32, &["n"]);
    let file = File::new(&graph.model());
    let error = library::backend().load(&file.source()).unwrap_err();
    assert!(matches!(error, LoadError::Refused { .. }), "{error}");

    let values: Vec<u8> = [1.0_f32, 2.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    std::fs::write(file.directory.path().join("weights.bin"), values).unwrap();
    let model = library::backend().load(&file.source()).unwrap();
    let placed = Placed::new(&Tensor::new(&[2], &[10.0_f32, 20.0]));
    for _ in 0..2 {
        let mut instance = model.instance().unwrap();
        assert_eq!(unbound(&mut *instance, &[&placed]).f32s(), [11.0, 22.0]);
    }
}

#[test]
fn file_that_changes_makes_no_further_instance() {
    let file = File::new(&identity(DataType::Int64, &["n"]).model());
    let model = library::backend().load(&file.source()).unwrap();
    let mut first = model.instance().unwrap();
    drop(model.instance().unwrap());

    // The input would have to be copied first now, and nobody would.
    let gather = Graph::default()
        .node("Gather", &["t", "x"], &["y"])
        .initializer(weights("t", &[1.0]))
        .input("x", INT64, &["n"])
        .output("y", FP32, &["n"]);
    std::fs::write(file.source().path, gather.model()).unwrap();
    let error = model.instance().unwrap_err();
    assert!(matches!(error, LoadError::Refused { .. }), "{error}");
    let x = Tensor::new(&[1], &[5_i64]);
    assert_eq!(unbound(&mut *first, &[&Placed::new(&x)]), x);
}

#[test]
fn types_that_are_not_served_are_named() {
    let graph = Graph::default()
        .node("Identity", &["x"], &["y"])
        .input("x", 14, &["n"])
        .output("y", 14, &["n"]);
    let error = load(graph).unwrap_err();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("complex64"), "{error}");
}
