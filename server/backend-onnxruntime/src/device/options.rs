//! What a model's configuration tells the providers, from Triton's words to the engine's.
//!
//! Every key is in a table: what is not there is an error that names it, and what a model must not choose says where it is
//! chosen. docs/onnxruntime-gpu.md repeats the tables, and a test compares them.

use std::collections::BTreeMap;

use adjoin_backend::DevicePlacement;

/// How a parameter's value becomes the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `1`, `0`, `true` or `false`.
    Flag,
    /// A number from the first to the second.
    Number(i64, i64),
    /// One of these words, each with the engine's.
    Word(&'static [(&'static str, &'static str)]),
    /// Letters, digits, and `,`, `+`, `-`, `_`.
    Words,
    /// The name of a file in the directory of the model's engine cache.
    FileName,
    /// Read by [`Options::new`] itself.
    Special(&'static str),
    /// Not for a model to choose: why.
    Refused(&'static str),
}

/// A parameter of an accelerator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// As a configuration has it.
    pub(crate) key: &'static str,
    /// As the engine has it.
    option: &'static str,
    pub(crate) kind: Kind,
}

const fn row(key: &'static str, kind: Kind) -> Row {
    Row {
        key,
        option: key,
        kind,
    }
}

const PRECISION: &str = "precision_mode";
const BATCH_SIZES: &str = "batch_sizes";
const CONVOLUTIONS: &str = "cudnn_conv_algo_search";
const ENGINE_CACHE: &str = "trt_engine_cache_enable";
const TIMING_CACHE: &str = "trt_timing_cache_enable";
/// The keys of the least, the usual and the largest shapes.
pub(crate) const PROFILE: [&str; 3] = [
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
];

const IN_CACHE_DIRECTORY: &str =
    "caches lie in a directory of the model's own below `cuda.engine_cache_dir`";
const NO_FILES: &str = "a model does not choose files that the server writes";
const NO_LIBRARIES: &str = "a model does not choose libraries that the server loads";
const OWN_STREAM: &str = "work goes to the server's own stream";
const OWN_MEMORY: &str = "memory is the provider's own";

/// Parameters of the accelerator `tensorrt`.
#[rustfmt::skip]
pub(crate) const TENSORRT: &[Row] = &[
    row(PRECISION, Kind::Special("`FP32` (the default), `FP16` or `INT8`")),
    row("max_workspace_size_bytes", Kind::Number(0, i64::MAX)).named("trt_max_workspace_size"),
    row("int8_calibration_table_name", Kind::FileName).named("trt_int8_calibration_table_name"),
    row("int8_use_native_calibration_table", Kind::Flag).named("trt_int8_use_native_calibration_table"),
    row(PROFILE[0], Kind::Special("`INPUT:1x3x224x224,...`: the least size of each dimension")),
    row(PROFILE[1], Kind::Special("the sizes that engines are made fastest for")),
    row(PROFILE[2], Kind::Special("the largest sizes")),
    row(ENGINE_CACHE, Kind::Special("a flag; on by default")),
    row(TIMING_CACHE, Kind::Special("a flag; on by default")),
    row("trt_force_timing_cache", Kind::Flag),
    row("trt_max_partition_iterations", Kind::Number(1, i32::MAX as i64)),
    row("trt_min_subgraph_size", Kind::Number(1, i32::MAX as i64)),
    row("trt_dla_enable", Kind::Flag),
    row("trt_dla_core", Kind::Number(0, 63)),
    row("trt_force_sequential_engine_build", Kind::Flag),
    row("trt_context_memory_sharing_enable", Kind::Flag),
    row("trt_layer_norm_fp32_fallback", Kind::Flag),
    row("trt_detailed_build_log", Kind::Flag),
    row("trt_build_heuristics_enable", Kind::Flag),
    row("trt_sparsity_enable", Kind::Flag),
    row("trt_builder_optimization_level", Kind::Number(0, 5)),
    row("trt_auxiliary_streams", Kind::Number(-1, 7)),
    row("trt_tactic_sources", Kind::Words),
    row("trt_engine_cache_path", Kind::Refused(IN_CACHE_DIRECTORY)),
    row("trt_engine_cache_prefix", Kind::Refused(IN_CACHE_DIRECTORY)),
    row("trt_timing_cache_path", Kind::Refused(IN_CACHE_DIRECTORY)),
    row("trt_cuda_graph_enable", Kind::Refused("graphs are captured by the provider of CUDA alone: `optimization.cuda.graphs` without this accelerator")),
    row("trt_dump_subgraphs", Kind::Refused(NO_FILES)),
    row("trt_dump_ep_context_model", Kind::Refused(NO_FILES)),
    row("trt_ep_context_file_path", Kind::Refused(NO_FILES)),
    row("trt_ep_context_embed_mode", Kind::Refused(NO_FILES)),
    row("trt_extra_plugin_lib_paths", Kind::Refused(NO_LIBRARIES)),
];

/// Parameters of the accelerator `cuda`.
#[rustfmt::skip]
pub(crate) const CUDA: &[Row] = &[
    row("gpu_mem_limit", Kind::Number(0, i64::MAX)),
    row("arena_extend_strategy", Kind::Word(&[
        ("0", "kNextPowerOfTwo"), ("1", "kSameAsRequested"),
        ("kNextPowerOfTwo", "kNextPowerOfTwo"), ("kSameAsRequested", "kSameAsRequested"),
    ])),
    row(CONVOLUTIONS, Kind::Word(&[
        ("0", "EXHAUSTIVE"), ("1", "HEURISTIC"), ("2", "DEFAULT"),
        ("EXHAUSTIVE", "EXHAUSTIVE"), ("HEURISTIC", "HEURISTIC"), ("DEFAULT", "DEFAULT"),
    ])),
    row("cudnn_conv_use_max_workspace", Kind::Flag),
    row("cudnn_conv1d_pad_to_nc1d", Kind::Flag),
    row("enable_skip_layer_norm_strict_mode", Kind::Flag),
    row("prefer_nhwc", Kind::Flag),
    row("use_tf32", Kind::Flag),
    row("fuse_conv_bias", Kind::Flag),
    row("sdpa_kernel", Kind::Number(0, i32::MAX as i64)),
    row(BATCH_SIZES, Kind::Special("`all`, or sizes from 1 on, divided by commas, that batches are filled up to")),
    row("use_ep_level_unified_stream", Kind::Flag),
    row("do_copy_in_default_stream", Kind::Refused(OWN_STREAM)),
    row("has_user_compute_stream", Kind::Refused(OWN_STREAM)),
    row("user_compute_stream", Kind::Refused(OWN_STREAM)),
    row("device_id", Kind::Refused("the server has one device: `cuda.device`")),
    row("enable_cuda_graph", Kind::Refused("it is `optimization.cuda.graphs`")),
    row("gpu_external_alloc", Kind::Refused(OWN_MEMORY)),
    row("gpu_external_free", Kind::Refused(OWN_MEMORY)),
    row("gpu_external_empty_cache", Kind::Refused(OWN_MEMORY)),
];

impl Row {
    const fn named(self, option: &'static str) -> Self {
        Self { option, ..self }
    }
}

/// What the providers of a model are told, but for device, stream and files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Of the provider of TensorRT, if the model is to use it.
    pub(crate) tensorrt: Option<TensorRtOptions>,
    /// Of the provider of CUDA, which runs what no other does.
    pub(crate) cuda: Vec<(&'static str, String)>,
    /// Whether runs are captured as CUDA graphs.
    pub(crate) graphs: Graphs,
    /// What batches are filled up to, if the model says.
    pub(crate) batch_sizes: Option<FillTo>,
}

/// Whether runs are captured as CUDA graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Graphs {
    #[default]
    Never,
    /// If a trial shows that they can be.
    IfPossible,
    /// The model says so, and is refused if they cannot be.
    Wanted,
}

/// What batches are filled up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FillTo {
    /// To nothing: they run as they come.
    All,
    /// To the least of these that is no less.
    Sizes(Vec<u32>),
}

/// What the provider of TensorRT is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorRtOptions {
    pub(crate) options: Vec<(&'static str, String)>,
    /// The texts of the profile: least, usual and largest shapes.
    pub(crate) profile: [Option<String>; 3],
    /// Whether engines are kept on disk.
    pub(crate) engine_cache: bool,
    /// Whether what was measured while building is kept on disk.
    pub(crate) timing_cache: bool,
}

impl Options {
    /// What a placement says.
    ///
    /// # Errors
    /// The accelerator or parameter that is wrong, with its value and what is expected.
    pub(crate) fn new(placement: &DevicePlacement) -> Result<Self, String> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for accelerator in &placement.accelerators {
            let name = accelerator.name.as_str();
            if seen.contains(&name) {
                return Err(format!("accelerator {name:?} is there twice"));
            }
            seen.push(name);
            match name {
                "tensorrt" => {
                    options.tensorrt = Some(TensorRtOptions::new(&accelerator.parameters)?);
                }
                "cuda" => {
                    options.cuda = read(name, CUDA, &accelerator.parameters)?;
                    let sizes = accelerator.parameters.get(BATCH_SIZES);
                    options.batch_sizes = sizes.map(|sizes| fill_to(sizes)).transpose()?;
                }
                _ => {
                    return Err(format!(
                        "there is no accelerator {name:?} for a GPU; there are \"tensorrt\" and \"cuda\""
                    ));
                }
            }
        }
        options.graphs = match placement.graphs {
            Some(true) => Graphs::Wanted,
            None if options.tensorrt.is_none() => Graphs::IfPossible,
            Some(false) | None => Graphs::Never,
        };
        if options.graphs == Graphs::Wanted && options.tensorrt.is_some() {
            return Err(
                "optimization.cuda.graphs is true beside the accelerator \"tensorrt\", whose graphs are not used; take \
                 one of the two"
                    .to_owned(),
            );
        }
        if options.tensorrt.is_some() && options.batch_sizes.is_some() {
            return Err(format!(
                "parameter {BATCH_SIZES:?} of accelerator \"cuda\" is set beside the accelerator \"tensorrt\", whose engines take \
                 all sizes of their profile; take one of the two"
            ));
        }
        // The engine's own default tries every algorithm for each size that is new, which takes half a second on an H200 for
        // ResNet-50, and finds nothing better than what this guesses in a fifth of that (benches/results/goals.md).
        if options.cuda.iter().all(|(key, _)| *key != CONVOLUTIONS) {
            options.cuda.push((CONVOLUTIONS, "HEURISTIC".to_owned()));
        }
        Ok(options)
    }
}

impl TensorRtOptions {
    fn new(parameters: &BTreeMap<String, String>) -> Result<Self, String> {
        const NAME: &str = "tensorrt";
        let mut options = read(NAME, TENSORRT, parameters)?;
        let text = |key: &str| parameters.get(key).map(String::as_str);
        match text(PRECISION) {
            None | Some("FP32") => {}
            Some("FP16") => options.push(("trt_fp16_enable", "1".to_owned())),
            Some("INT8") => options.push(("trt_int8_enable", "1".to_owned())),
            Some(other) => return Err(wrong(NAME, PRECISION, other, "FP32, FP16 or INT8")),
        }
        let is_on = |key: &'static str| match text(key) {
            None => Ok(true),
            Some(value) => flag(value).ok_or_else(|| wrong(NAME, key, value, FLAG)),
        };
        Ok(Self {
            options,
            profile: PROFILE.map(|key| parameters.get(key).cloned()),
            engine_cache: is_on(ENGINE_CACHE)?,
            timing_cache: is_on(TIMING_CACHE)?,
        })
    }
}

/// The engine's options for all parameters but the special ones.
fn read(
    accelerator: &str,
    table: &[Row],
    parameters: &BTreeMap<String, String>,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut options = Vec::new();
    for (key, value) in parameters {
        let Some(row) = table.iter().find(|row| row.key == key) else {
            let known = table
                .iter()
                .filter(|row| !matches!(row.kind, Kind::Refused(_)))
                .map(|row| row.key);
            return Err(format!(
                "accelerator {accelerator:?} has no parameter {key:?}; it has {}",
                Vec::from_iter(known).join(", ")
            ));
        };
        if let Kind::Refused(reason) = row.kind {
            return Err(format!(
                "parameter {key:?} of accelerator {accelerator:?} is not supported: {reason}"
            ));
        }
        if matches!(row.kind, Kind::Special(_)) {
            continue;
        }
        let read = row.kind.read(value);
        let read = read.ok_or_else(|| wrong(accelerator, key, value, &row.kind.expected()))?;
        options.push((row.option, read));
    }
    Ok(options)
}

fn fill_to(value: &str) -> Result<FillTo, String> {
    if value == "all" {
        return Ok(FillTo::All);
    }
    let sizes: Result<Vec<u32>, _> = value.split(',').map(|size| size.trim().parse()).collect();
    match sizes {
        Ok(sizes) if sizes.first() > Some(&0) && sizes.is_sorted_by(|a, b| a < b) => {
            Ok(FillTo::Sizes(sizes))
        }
        _ => {
            let expected = "`all`, or sizes from 1 on, ascending, divided by commas";
            Err(wrong("cuda", BATCH_SIZES, value, expected))
        }
    }
}

const FLAG: &str = "1, 0, true or false";

fn wrong(accelerator: &str, key: &str, value: &str, expected: &str) -> String {
    format!("parameter {key:?} of accelerator {accelerator:?} is {value:?}; expected {expected}")
}

fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

impl Kind {
    /// The engine's form of a value.
    fn read(self, value: &str) -> Option<String> {
        match self {
            Self::Flag => flag(value).map(|is_on| u8::from(is_on).to_string()),
            Self::Number(least, most) => {
                let number = value.trim().parse::<i64>().ok();
                let number = number.filter(|number| (least..=most).contains(number));
                number.map(|number| number.to_string())
            }
            Self::Word(words) => {
                let mut words = words.iter();
                let found = words.find(|(word, _)| *word == value);
                found.map(|(_, engines)| (*engines).to_owned())
            }
            Self::Words => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || ",+-_".contains(c);
                (!value.is_empty() && value.chars().all(is_plain)).then(|| value.to_owned())
            }
            Self::FileName => is_file_name(value).then(|| value.to_owned()),
            Self::Special(_) | Self::Refused(_) => None,
        }
    }

    /// What a value has to be, for people.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Flag => FLAG.to_owned(),
            Self::Number(least, i64::MAX) => format!("a number from {least}"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Word(words) => {
                let words = words.iter().map(|(word, _)| *word);
                format!("one of {}", Vec::from_iter(words).join(", "))
            }
            Self::Words => "words divided by commas".to_owned(),
            Self::FileName => {
                "the name of a file in the directory of the model's engine cache".to_owned()
            }
            Self::Special(expected) => expected.to_owned(),
            Self::Refused(reason) => format!("refused: {reason}"),
        }
    }
}

fn is_file_name(value: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c == '/' || c == '\\';
    !value.is_empty()
        && value.len() <= 255
        && ![".", ".."].contains(&value)
        && !value.contains(is_bad)
}

#[cfg(test)]
mod tests;
