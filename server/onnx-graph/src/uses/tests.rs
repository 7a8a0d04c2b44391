use super::*;
use crate::proto::{Attribute, ValueInfo};

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    Node {
        operator: operator.into(),
        inputs: inputs.iter().map(|&name| name.into()).collect(),
        outputs: outputs.iter().map(|&name| name.into()).collect(),
        ..Node::default()
    }
}

fn cast(input: &str, output: &str, to: i64) -> Node {
    let attribute = Attribute {
        name: "to".into(),
        int: to,
        ..Attribute::default()
    };
    Node {
        attributes: vec![attribute],
        ..node("Cast", &[input], &[output])
    }
}

fn graph(nodes: impl Into<Vec<Node>>, output: &str) -> Graph {
    Graph {
        nodes: nodes.into(),
        outputs: vec![ValueInfo {
            name: output.into(),
            kind: None,
        }],
        ..Graph::default()
    }
}

/// What becomes of the input `x` of that type.
fn uses(dtype: DataType, nodes: impl Into<Vec<Node>>) -> Uses {
    Readers::of(&graph(nodes, "y"), &[]).uses("x", dtype)
}

fn access(dtype: DataType, nodes: impl Into<Vec<Node>>) -> InputAccess {
    uses(dtype, nodes).access
}

use DataType::{Bool, Bytes, Fp32, Int8, Int32, Int64, Uint8};
use InputAccess::{CopyFirst, InPlace};

#[test]
fn plain_numbers_run_in_place() {
    assert_eq!(access(Fp32, [node("Conv", &["x", "w"], &["y"])]), InPlace);
    assert_eq!(access(Fp32, [node("Add", &["a", "x"], &["y"])]), InPlace);
    assert_eq!(access(Int32, [node("Add", &["a", "x"], &["y"])]), InPlace);
    // An image: bytes, made floats, brought to a mean, turned and put through a network that ends in
    // indices made of many pixels each.
    let image = [
        cast("x", "f", 1),
        node("Sub", &["f", "mean"], &["s"]),
        node("Transpose", &["s"], &["t"]),
        node("Conv", &["t", "w"], &["c"]),
        node("TopK", &["c", "k"], &["v", "i"]),
        node("Gather", &["labels", "i"], &["y"]),
    ];
    assert_eq!(access(Uint8, image), InPlace);
    assert_eq!(access(Fp32, []), InPlace);
}

#[test]
fn indices_are_copied_first() {
    let gather = node("Gather", &["table", "x"], &["y"]);
    assert_eq!(access(Int64, [gather.clone()]), CopyFirst);
    // One harmless reader beside it does not help.
    assert_eq!(
        access(Int64, [node("Add", &["x", "a"], &["b"]), gather]),
        CopyFirst
    );
}

#[test]
fn nodes_that_an_engine_may_leave_out_hide_nothing() {
    for through in [
        node("Identity", &["x"], &["i"]),
        node("Reshape", &["x", "s"], &["i"]),
        node("Unsqueeze", &["x"], &["i"]),
        node("Dropout", &["x"], &["i"]),
        node("Add", &["x", "zero"], &["i"]),
        node("Mul", &["one", "x"], &["i"]),
        node("Concat", &["x"], &["i"]),
        node("Split", &["x"], &["a", "i"]),
        cast("x", "i", 7),
    ] {
        let gather = node("Gather", &["table", "i"], &["y"]);
        assert_eq!(
            access(Int64, [through.clone(), gather]),
            CopyFirst,
            "{}",
            through.operator
        );
        let add = node("Add", &["i", "a"], &["y"]);
        assert_eq!(
            access(Int64, [through.clone(), add]),
            InPlace,
            "{}",
            through.operator
        );
    }
}

#[test]
fn result_of_an_identity_is_fine_and_the_input_itself_is_not() {
    assert_eq!(access(Fp32, [node("Identity", &["x"], &["y"])]), InPlace);
    let direct = graph([], "x");
    assert_eq!(Readers::of(&direct, &[]).uses("x", Fp32).access, CopyFirst);
}

#[test]
fn unknown_operators_are_copied_for() {
    let mut foreign = node("Add", &["x", "a"], &["y"]);
    foreign.domain = "com.example".into();
    assert_eq!(access(Fp32, [foreign]), CopyFirst);
    let mut spelled_out = node("Add", &["x", "a"], &["y"]);
    spelled_out.domain = "ai.onnx".into();
    assert_eq!(access(Fp32, [spelled_out.clone()]), InPlace);
    assert_eq!(access(Fp32, [node("New", &["x"], &["y"])]), CopyFirst);

    let defined_by_model = [Function {
        name: "Add".into(),
        domain: String::new(),
    }];
    let graph = graph([spelled_out], "y");
    let uses = Readers::of(&graph, &defined_by_model).uses("x", Fp32);
    assert_eq!(uses.access, CopyFirst);
}

#[test]
fn subgraphs_are_copied_for() {
    let body = graph([node("Add", &["x", "a"], &["b"])], "b");
    let inner = Node {
        attributes: vec![Attribute {
            graphs: vec![body],
            ..Attribute::default()
        }],
        ..node("If", &["c"], &["d"])
    };
    let outer = Node {
        attributes: vec![Attribute {
            graph: Some(graph([inner], "d")),
            ..Attribute::default()
        }],
        ..node("If", &["c"], &["y"])
    };
    assert_eq!(access(Fp32, [outer]), CopyFirst);

    let only_as_result = Node {
        attributes: vec![Attribute {
            graph: Some(graph([], "i")),
            ..Attribute::default()
        }],
        ..node("If", &["c"], &["y"])
    };
    let through = node("Identity", &["x"], &["i"]);
    assert_eq!(access(Fp32, [through, only_as_result]), CopyFirst);
    assert_eq!(
        access(Fp32, [node("Loop", &["m", "", "x"], &["y"])]),
        CopyFirst
    );
}

#[test]
fn truth_values_and_strings_are_copied_first() {
    assert_eq!(
        access(Bool, [node("Where", &["x", "a", "b"], &["y"])]),
        CopyFirst
    );
    assert_eq!(access(Bytes, [node("Identity", &["x"], &["y"])]), CopyFirst);
}

#[test]
fn only_integer_divisors_matter() {
    let div = || [node("Div", &["a", "x"], &["y"])];
    let reported = Uses {
        access: CopyFirst,
        divisor: true,
    };
    for dtype in [Int8, Int32, Int64, Uint8] {
        assert_eq!(uses(dtype, div()), reported);
        assert_eq!(uses(dtype, [node("Mod", &["a", "x"], &["y"])]), reported);
        let dividend = uses(dtype, [node("Div", &["x", "a"], &["y"])]);
        assert_eq!((dividend.access, dividend.divisor), (InPlace, false));
    }
    assert!(!uses(Fp32, div()).divisor);
    assert_eq!(access(Fp32, div()), InPlace);

    let later = |to| [cast("x", "c", to), node("Div", &["a", "c"], &["y"])];
    assert_eq!(uses(Fp32, later(6)), reported);
    assert!(!uses(Int64, later(1)).divisor);
    // A type that cannot be told is copied for and not held against the model.
    let unknown = uses(
        Int64,
        [
            node("CastLike", &["x", "l"], &["c"]),
            node("Div", &["a", "c"], &["y"]),
        ],
    );
    assert_eq!((unknown.access, unknown.divisor), (CopyFirst, false));
}

#[test]
fn cycles_end() {
    let nodes = [
        node("Add", &["x", "b"], &["a"]),
        node("Add", &["a", "a"], &["b"]),
        node("Neg", &["b"], &["a"]),
    ];
    assert_eq!(access(Fp32, nodes), InPlace);
}
