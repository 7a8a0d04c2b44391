//! Models that are made of steps.

use super::*;

/// An ensemble from `IN` to `OUT` with these steps, each `MODEL INPUT=TENSOR OUTPUT=TENSOR`.
fn ensemble(steps: &[(&str, &str, &str)]) -> String {
    let map = |name: &str, pairs: &str| -> String {
        let pairs = pairs
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| format!("{name} {{ key: '{key}' value: '{value}' }} "))
            .collect()
    };
    let steps: String = steps
        .iter()
        .map(|(model, inputs, outputs)| {
            let maps = map("input_map", inputs) + &map("output_map", outputs);
            format!("step {{ model_name: '{model}' model_version: -1 {maps} }} ")
        })
        .collect();
    format!(
        "platform: 'ensemble' input {{ name: 'IN' data_type: TYPE_UINT8 dims: -1 }}
         output {{ name: 'OUT' data_type: TYPE_FP32 dims: 10 }} ensemble_scheduling {{ {steps} }}"
    )
}

#[test]
fn steps_are_put_into_an_order_in_which_they_can_run() {
    let checked = checked(&ensemble(&[
        ("last", "a=mid b=IN", "y=OUT"),
        ("first", "x=IN", "y=raw z=unused"),
        ("second", "x=raw", "y=mid"),
    ]));
    assert_eq!(checked.engine, Some(Engine::Ensemble));
    let steps = checked.ensemble.unwrap().steps;
    let models: Vec<_> = steps.iter().map(|step| step.model.as_str()).collect();
    assert_eq!(models, ["first", "second", "last"]);
    let numbers: Vec<_> = steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [2, 3, 1]);
    assert_eq!(
        (steps[2].inputs["a"].as_str(), steps[2].version),
        ("mid", None)
    );
}

#[test]
fn ensembles_that_cannot_run_are_refused_by_step() {
    let good = ("a", "x=IN", "y=OUT");
    assert_errors(&[
        (
            &ensemble(&[]),
            ["ensemble_scheduling.step is a list of 0", "1 to 64"],
        ),
        (&ensemble(&[good; 65]), ["step is a list of 65", "1 to 64"]),
        (
            &ensemble(&[("m", "x=IN", "y=OUT")]),
            ["step[0].model_name is \"m\"", "not the ensemble's own"],
        ),
        (
            &ensemble(&[("../a", "x=IN", "y=OUT")]),
            ["step[0].model_name is \"../a\"", "name of a model"],
        ),
        (
            &ensemble(&[("a", "", "y=OUT")]),
            ["step[0].input_map is a map of 0", "1 to 64"],
        ),
        (
            &ensemble(&[("a", "x=gone", "y=OUT")]),
            ["step[0].input_map[\"x\"] is \"gone\"", "no step makes"],
        ),
        (
            &ensemble(&[("a", "x=IN", "y=raw")]),
            ["output[0].name is \"OUT\"", "no step makes"],
        ),
        (
            &ensemble(&[good, good]),
            ["step[1].output_map[\"y\"] is \"OUT\"", "step[0]"],
        ),
        (
            &ensemble(&[("a", "x=IN", "y=IN")]),
            [
                "step[0].output_map[\"y\"] is \"IN\"",
                "an input of the ensemble",
            ],
        ),
        (
            &ensemble(&[("a", "x=OUT", "y=OUT")]),
            ["step[0] is never fed", "its own output"],
        ),
        (
            &ensemble(&[good, ("b", "x=q", "y=p"), ("c", "x=p", "y=q")]),
            ["step[1] is never fed", "through others"],
        ),
        (
            &ensemble(&[good]).replace("model_version: -1", "model_version: -7"),
            ["step[0].model_version is -7", "from 1"],
        ),
        (
            &ensemble(&[good]).replace("model_version: -1", "model_namespace: 'x'"),
            ["step[0].model_namespace (", "one repository"],
        ),
        (
            &ensemble(&[good]).replace("'ensemble'", "'onnxruntime_onnx'"),
            ["platform is \"onnxruntime_onnx\"", "ensemble"],
        ),
        (
            &ensemble(&[good]).replace("dims: 10", "dims: 10 reshape { shape: [ 2, 5 ] }"),
            [
                "output[0].reshape.shape is [2,5]",
                "the shapes that its clients give",
            ],
        ),
        (
            "ensemble_scheduling { step { model_name: 'a' } }",
            ["input is empty", "no file"],
        ),
    ]);
}
