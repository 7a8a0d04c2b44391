//! What runs a model.

use crate::error::{ConfigError, quoted};

/// What runs a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// ONNX Runtime.
    OnnxRuntime,
    /// rten.
    Rten,
    /// TensorRT, with plans of its own.
    TensorRt,
    /// Other models of the repository, step by step.
    Ensemble,
    /// A step model of the server itself, by its name, such as `adjoin_softmax`. Whether there is one of that name is for
    /// the server to say.
    BuiltIn(String),
}

const BUILT_IN_PREFIX: &str = "adjoin_";
/// Longest name of a step model; those that exist are far shorter.
const BUILT_IN_BYTES_MAX: usize = 64;

impl Engine {
    /// The engine of a configuration; `None` if it names none.
    pub(crate) fn new(
        platform: &str,
        backend: &str,
        has_steps: bool,
    ) -> Result<Option<Self>, ConfigError> {
        let of_platform = Self::from_platform(platform)?;
        let of_backend = Self::from_backend(backend)?;
        if let (Some(one), Some(other)) = (&of_platform, &of_backend)
            && one != other
        {
            let expected = format!("platform {platform:?} is run by another one");
            return Err(ConfigError::value("backend", quoted(backend), expected));
        }
        match (of_platform.or(of_backend), has_steps) {
            (None | Some(Self::Ensemble), true) => Ok(Some(Self::Ensemble)),
            (Some(Self::Ensemble), false) => {
                let expected = "an ensemble has its steps there";
                Err(ConfigError::value(
                    "ensemble_scheduling",
                    "absent",
                    expected,
                ))
            }
            (Some(engine), true) => {
                let expected = "with ensemble_scheduling it is \"ensemble\"";
                let engine = engine.platform().to_owned();
                Err(ConfigError::value("platform", quoted(&engine), expected))
            }
            (engine, false) => Ok(engine),
        }
    }

    fn from_platform(platform: &str) -> Result<Option<Self>, ConfigError> {
        match platform {
            "" => Ok(None),
            "onnxruntime_onnx" => Ok(Some(Self::OnnxRuntime)),
            "rten_onnx" => Ok(Some(Self::Rten)),
            "tensorrt_plan" => Ok(Some(Self::TensorRt)),
            "ensemble" => Ok(Some(Self::Ensemble)),
            other => {
                let expected = "it is onnxruntime_onnx, rten_onnx, tensorrt_plan or ensemble";
                Err(ConfigError::value("platform", quoted(other), expected))
            }
        }
    }

    fn from_backend(backend: &str) -> Result<Option<Self>, ConfigError> {
        let is_built_in = |name: &str| {
            let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            name.strip_prefix(BUILT_IN_PREFIX).is_some_and(|word| {
                !word.is_empty() && name.len() <= BUILT_IN_BYTES_MAX && word.bytes().all(is_word)
            })
        };
        match backend {
            "" => Ok(None),
            "onnxruntime" => Ok(Some(Self::OnnxRuntime)),
            "rten" | "adjoin_rten" => Ok(Some(Self::Rten)),
            "tensorrt" => Ok(Some(Self::TensorRt)),
            "ensemble" => Ok(Some(Self::Ensemble)),
            name if is_built_in(name) => Ok(Some(Self::BuiltIn(name.to_owned()))),
            other => {
                let expected = "it is onnxruntime, adjoin_rten, tensorrt, or a step model that is built in (adjoin_...)";
                Err(ConfigError::value("backend", quoted(other), expected))
            }
        }
    }

    /// The word for it in `platform`; none for step models that are built in.
    #[must_use]
    pub fn platform(&self) -> &str {
        match self {
            Self::OnnxRuntime => "onnxruntime_onnx",
            Self::Rten => "rten_onnx",
            Self::TensorRt => "tensorrt_plan",
            Self::Ensemble => "ensemble",
            Self::BuiltIn(_) => "",
        }
    }

    /// The word for it in `backend`; none for an ensemble, as Triton has it.
    #[must_use]
    pub fn backend(&self) -> &str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Rten => "adjoin_rten",
            Self::TensorRt => "tensorrt",
            Self::Ensemble => "",
            Self::BuiltIn(name) => name,
        }
    }
}
