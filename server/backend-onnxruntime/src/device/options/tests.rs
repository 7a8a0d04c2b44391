use adjoin_backend::Accelerator;

use super::*;

fn placement(accelerators: &[(&str, &[(&str, &str)])], graphs: bool) -> DevicePlacement {
    let accelerator = |(name, parameters): &(&str, &[(&str, &str)])| Accelerator {
        name: (*name).to_owned(),
        parameters: parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    DevicePlacement {
        graphs: Some(graphs),
        accelerators: accelerators.iter().map(accelerator).collect(),
    }
}

fn refusal(accelerators: &[(&str, &[(&str, &str)])]) -> String {
    Options::new(&placement(accelerators, false)).unwrap_err()
}

fn pairs(options: &[(&'static str, String)]) -> Vec<String> {
    let pair = |(key, value): &(&'static str, String)| format!("{key}={value}");
    let mut pairs: Vec<_> = options.iter().map(pair).collect();
    pairs.sort();
    pairs
}

#[test]
fn tritons_words_become_the_engines() {
    let given: &[(&str, &[(&str, &str)])] = &[
        (
            "tensorrt",
            &[
                ("precision_mode", "FP16"),
                ("max_workspace_size_bytes", "1073741824"),
                ("trt_engine_cache_enable", "false"),
                ("trt_builder_optimization_level", "3"),
                ("trt_profile_min_shapes", "x:1x4"),
            ],
        ),
        (
            "cuda",
            &[
                ("cudnn_conv_algo_search", "1"),
                ("cudnn_conv_use_max_workspace", "True"),
            ],
        ),
    ];
    let options = Options::new(&placement(given, false)).unwrap();
    let tensorrt = options.tensorrt.unwrap();
    assert_eq!(
        pairs(&tensorrt.options),
        [
            "trt_builder_optimization_level=3",
            "trt_fp16_enable=1",
            "trt_max_workspace_size=1073741824"
        ]
    );
    assert_eq!(
        (tensorrt.engine_cache, tensorrt.timing_cache),
        (false, true)
    );
    assert_eq!(tensorrt.profile, [Some("x:1x4".to_owned()), None, None]);
    assert_eq!(
        pairs(&options.cuda),
        [
            "cudnn_conv_algo_search=HEURISTIC",
            "cudnn_conv_use_max_workspace=1"
        ]
    );
}

#[test]
fn sizes_of_batches_are_read_and_are_none_of_the_engines() {
    let of = |value| Options::new(&placement(&[("cuda", &[("batch_sizes", value)])], false));
    let options = of("1, 4,16").unwrap();
    assert_eq!(options.batch_sizes, Some(FillTo::Sizes(vec![1, 4, 16])));
    assert_eq!(pairs(&options.cuda), ["cudnn_conv_algo_search=HEURISTIC"]);
    assert_eq!(of("all").unwrap().batch_sizes, Some(FillTo::All));
    for wrong in ["", "0,1", "4,4", "4,2", "four", "-1", "1,,2", "99999999999"] {
        let refused = of(wrong).unwrap_err();
        let shown = format!("{wrong:?}");
        assert!(
            refused.contains(&shown) && refused.contains("ascending"),
            "{refused}"
        );
    }
    let both = placement(
        &[("tensorrt", &[]), ("cuda", &[("batch_sizes", "all")])],
        false,
    );
    let both = Options::new(&both).unwrap_err();
    assert!(both.contains("one of the two"), "{both}");
}

#[test]
fn graphs_are_of_the_provider_of_cuda_alone() {
    let options = Options::new(&placement(&[], true)).unwrap();
    assert_eq!(options.graphs, Graphs::Wanted);
    for (accelerators, expected) in [
        (&[][..], Graphs::IfPossible),
        (&[("tensorrt", &[][..])], Graphs::Never),
    ] {
        let unsaid = DevicePlacement {
            graphs: None,
            ..placement(accelerators, false)
        };
        assert_eq!(Options::new(&unsaid).unwrap().graphs, expected);
    }
    assert_eq!(
        Options::new(&placement(&[], false)).unwrap().graphs,
        Graphs::Never
    );
    let both = Options::new(&placement(&[("tensorrt", &[])], true)).unwrap_err();
    assert!(both.contains("one of the two"), "{both}");
}

#[test]
fn what_is_unknown_or_wrong_is_named() {
    let one = |name, key, value| refusal(&[(name, &[(key, value)])]);
    for (refused, words) in [
        (
            refusal(&[("openvino", &[])]),
            ["\"openvino\"", "\"tensorrt\""],
        ),
        (
            refusal(&[("cuda", &[]), ("cuda", &[])]),
            ["\"cuda\"", "twice"],
        ),
        (
            one("tensorrt", "precision", "FP16"),
            ["\"precision\"", "precision_mode"],
        ),
        (
            one("tensorrt", "precision_mode", "FP8"),
            ["\"FP8\"", "FP32, FP16 or INT8"],
        ),
        (
            one("tensorrt", "trt_engine_cache_enable", "yes"),
            ["\"yes\"", "1, 0, true or false"],
        ),
        (
            one("tensorrt", "trt_engine_cache_path", "/tmp"),
            ["trt_engine_cache_path", "cuda.engine_cache_dir"],
        ),
        (
            one("tensorrt", "trt_extra_plugin_lib_paths", "/l.so"),
            ["trt_extra_plugin_lib_paths", "libraries"],
        ),
        (
            one("tensorrt", "int8_calibration_table_name", "../x"),
            ["\"../x\"", "name of a file"],
        ),
        (
            one("tensorrt", "trt_builder_optimization_level", "6"),
            ["\"6\"", "from 0 to 5"],
        ),
        (
            one("cuda", "user_compute_stream", "123"),
            ["user_compute_stream", "own stream"],
        ),
        (
            one("cuda", "gpu_mem_limit", "-1"),
            ["\"-1\"", "a number from 0"],
        ),
        (
            one("cuda", "gpu_external_alloc", "1"),
            ["gpu_external_alloc", "memory"],
        ),
        (
            one("cuda", "cudnn_conv_algo_search", "3"),
            ["\"3\"", "EXHAUSTIVE"],
        ),
    ] {
        for word in words {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
    }
}

#[test]
fn a_key_is_in_its_table_once() {
    for table in [TENSORRT, CUDA] {
        for (index, row) in table.iter().enumerate() {
            let further = table[index + 1..].iter();
            assert!(
                further.clone().all(|other| other.key != row.key),
                "{}",
                row.key
            );
        }
    }
}

/// The tables of the document are these.
#[test]
fn the_document_has_the_tables() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/onnxruntime-gpu.md");
    let page = std::fs::read_to_string(page).unwrap();
    for table in [TENSORRT, CUDA] {
        let line = |row: &Row| format!("| `{}` | {} |\n", row.key, row.kind.expected());
        let expected: String = table.iter().map(line).collect();
        assert!(
            page.contains(&expected),
            "the page has to have:\n{expected}"
        );
    }
}
