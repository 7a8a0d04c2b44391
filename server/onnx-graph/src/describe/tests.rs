use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::proto::{Attribute, Kind, Node, Shape, SparseTensor, Tensor, TensorKind};

fn file(name: &str) -> OnnxModel {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    describe(&std::fs::read(root.join(name)).unwrap()).unwrap()
}

fn named(name: &str) -> Dimension {
    Dimension::Named(name.into())
}

fn value(name: &str, element: i32, sizes: &[Option<Size>]) -> ValueInfo {
    let dimensions = sizes
        .iter()
        .map(|size| ProtoDimension { size: size.clone() });
    ValueInfo {
        name: name.into(),
        kind: Some(Kind {
            tensor: Some(TensorKind {
                element,
                shape: Some(Shape {
                    dimensions: dimensions.collect(),
                }),
            }),
        }),
    }
}

fn encode(graph: Graph) -> Vec<u8> {
    Model {
        graph: Some(graph),
        functions: Vec::new(),
    }
    .encode_to_vec()
}

/// A model whose only input and output are those.
fn model(input: ValueInfo, output: ValueInfo) -> Vec<u8> {
    encode(Graph {
        inputs: vec![input],
        outputs: vec![output],
        ..Graph::default()
    })
}

#[test]
fn files_say_names_types_dimensions_and_access() {
    let add = file("tests/models/add.onnx").metadata;
    let names: Vec<_> = add.inputs.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        add.outputs[0].dimensions,
        [named("batch"), Dimension::Fixed(4)]
    );
    assert!(add.has_batch_dimension());
    assert!(add.inputs.iter().all(|t| t.access == InputAccess::InPlace));

    let gather = file("tests/models/gather.onnx").metadata;
    let access: Vec<_> = gather.inputs.iter().map(|t| t.access).collect();
    assert_eq!(access, [InputAccess::InPlace, InputAccess::CopyFirst]);
    assert_eq!(gather.inputs[1].dtype, DataType::Int64);

    let nonzero = file("tests/models/nonzero.onnx").metadata;
    assert_eq!(nonzero.inputs[0].access, InputAccess::CopyFirst);
    assert_eq!(
        nonzero.outputs[0].dimensions,
        [Dimension::Fixed(1), named("count")]
    );

    let scale = file("tests/models/scale_u8.onnx").metadata;
    assert_eq!(scale.inputs.len(), 1, "an initializer is no input");
    assert_eq!(scale.inputs[0].dtype, DataType::Uint8);
    assert_eq!(scale.inputs[0].access, InputAccess::InPlace);

    // The input goes into a loop, where nobody follows it.
    let slow = file("tests/models/slow.onnx").metadata;
    assert_eq!(slow.inputs[0].access, InputAccess::CopyFirst);

    let half = file("tests/models/half.onnx").metadata;
    assert_eq!(half.outputs[0].dtype, DataType::Fp16);
    let fixed = file("tests/models/fixed.onnx").metadata;
    assert!(!fixed.has_batch_dimension());

    let digits = file("demo/digits/model.onnx").metadata;
    assert_eq!(digits.inputs[0].name, "image");
    assert_eq!(digits.inputs[0].access, InputAccess::InPlace);
}

#[test]
fn open_dimensions_are_told_apart() {
    let sizes = [
        Some(Size::Name("n".into())),
        Some(Size::Value(0)),
        Some(Size::Value(-1)),
        Some(Size::Name(String::new())),
        None,
    ];
    let bytes = model(value("x", 1, &sizes), value("y", 16, &[]));
    let metadata = describe(&bytes).unwrap().metadata;
    let unknown = || Dimension::Unknown;
    assert_eq!(
        metadata.inputs[0].dimensions,
        [
            named("n"),
            Dimension::Fixed(0),
            unknown(),
            unknown(),
            unknown()
        ]
    );
    assert_eq!(metadata.outputs[0].dtype, DataType::Bf16);
    assert!(metadata.outputs[0].dimensions.is_empty());
}

#[test]
fn initializers_are_no_inputs() {
    let bytes = encode(Graph {
        inputs: ["weight", "sparse", "x"].map(|n| value(n, 1, &[])).into(),
        outputs: vec![value("y", 1, &[])],
        initializers: vec![Tensor {
            name: "weight".into(),
        }],
        sparse_initializers: vec![SparseTensor {
            values: Some(Tensor {
                name: "sparse".into(),
            }),
        }],
        ..Graph::default()
    });
    let inputs = describe(&bytes).unwrap().metadata.inputs;
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0].name, "x");
}

#[test]
fn integer_divisors_are_reported() {
    let divide = |element, to| {
        let cast = Node {
            inputs: vec!["b".into()],
            outputs: vec!["c".into()],
            operator: "Cast".into(),
            attributes: vec![Attribute {
                name: "to".into(),
                int: to,
                ..Attribute::default()
            }],
            ..Node::default()
        };
        let div = Node {
            inputs: vec!["a".into(), "c".into()],
            outputs: vec!["y".into()],
            operator: "Div".into(),
            ..Node::default()
        };
        let bytes = encode(Graph {
            nodes: vec![cast, div],
            inputs: ["a", "b"].map(|name| value(name, element, &[])).into(),
            outputs: vec![value("y", 1, &[])],
            ..Graph::default()
        });
        describe(&bytes).unwrap().integer_divisors
    };
    assert_eq!(divide(7, 7), ["b"]);
    assert_eq!(divide(1, 6), ["b"]);
    assert!(divide(1, 1).is_empty());
    assert!(divide(7, 1).is_empty());
}

#[test]
fn what_cannot_be_served_says_why() {
    let good = || value("y", 1, &[]);
    let refused = |input: ValueInfo| match describe(&model(input, good())).unwrap_err() {
        GraphError::Unsupported { kind, what, .. } => format!("{kind} {what}"),
        GraphError::Malformed { reason } => panic!("{reason}"),
    };
    assert_eq!(
        refused(value("x", 14, &[])),
        "input has elements of type complex64"
    );
    assert_eq!(
        refused(value("x", 99, &[])),
        "input has elements of type number 99"
    );
    assert!(refused(value("", 1, &[])).contains("name"));
    assert!(refused(value("a\0b", 1, &[])).contains("name"));
    assert!(refused(value(&"n".repeat(300), 1, &[])).contains("256"));
    let nine = vec![Some(Size::Value(1)); 9];
    assert!(refused(value("x", 1, &nine)).contains("9 dimensions"));

    let mut shapeless = value("x", 1, &[]);
    let kind = shapeless.kind.as_mut().unwrap();
    kind.tensor.as_mut().unwrap().shape = None;
    assert!(refused(shapeless).contains("no shape"));
    let sequence = ValueInfo {
        name: "x".into(),
        kind: Some(Kind { tensor: None }),
    };
    assert_eq!(refused(sequence), "input is no tensor");
}

#[test]
fn what_is_no_model_is_malformed() {
    let malformed = |bytes: &[u8]| match describe(bytes).unwrap_err() {
        GraphError::Malformed { reason } => reason,
        error => panic!("{error}"),
    };
    assert_eq!(malformed(b""), "it has no graph");
    assert_eq!(
        malformed(&encode(Graph::default())),
        "its graph has no outputs"
    );
    malformed(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    let many = encode(Graph {
        inputs: (0..65).map(|n| value(&n.to_string(), 1, &[])).collect(),
        outputs: vec![value("y", 1, &[])],
        ..Graph::default()
    });
    assert!(malformed(&many).contains("65 inputs"));
    let twice = encode(Graph {
        inputs: vec![value("x", 1, &[]), value("x", 1, &[])],
        outputs: vec![value("y", 1, &[])],
        ..Graph::default()
    });
    assert!(malformed(&twice).contains("two inputs"));
}

#[test]
fn subgraphs_without_end_are_refused() {
    let mut graph = Graph::default();
    for _ in 0..200 {
        let attribute = Attribute {
            graph: Some(graph),
            ..Attribute::default()
        };
        let node = Node {
            attributes: vec![attribute],
            ..Node::default()
        };
        graph = Graph {
            nodes: vec![node],
            outputs: vec![value("y", 1, &[])],
            ..Graph::default()
        };
    }
    let error = describe(&encode(graph)).unwrap_err();
    assert!(matches!(error, GraphError::Malformed { .. }), "{error}");
}

#[test]
fn cut_files_never_panic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["gather", "slow", "ints"] {
        let bytes = std::fs::read(root.join(format!("tests/models/{name}.onnx"))).unwrap();
        for cut in 0..bytes.len() {
            // Some cuts are models still: what is missing are opset and version at the end.
            let _ = describe(&bytes[..cut]);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = describe(&bytes);
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0usize..750, to in any::<u8>()) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut bytes = std::fs::read(root.join("tests/models/slow.onnx")).unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = describe(&bytes);
    }
}
