//! What a configuration leaves open, from the model's own description.

use adjoin_backend::{ModelMetadata, TensorMetadata};
use adjoin_control_api::inference as api;
use adjoin_control_api::inference::model_config::SchedulingChoice;
use adjoin_control_api::inference::model_instance_group::Kind;
use adjoin_control_api::inference::model_version_policy::{Latest, PolicyChoice};
use adjoin_control_api::inference::{
    ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput, ModelTensorReshape,
    ModelVersionPolicy,
};

use crate::checked::{Engine, wants_gpu, word};

/// The file of a version where the configuration names none.
pub const MODEL_FILENAME: &str = "model.onnx";
/// The same of a model for TensorRT.
const PLAN_FILENAME: &str = "model.plan";

/// What holds where neither configuration nor model says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// What runs the model.
    pub engine: Engine,
    /// Most rows of one execution, for a model with a batch dimension.
    pub max_batch_size: u32,
}

/// The whole configuration of the model `name`, as ModelConfig answers it: `configured` with what it leaves out. Nothing
/// that it says is changed, right or wrong, so that the check of the result names the operator's own words. `metadata` is
/// what the model's file says; an ensemble has none.
///
/// A configuration without `max_batch_size` gets the default one if the model has a batch dimension
/// ([`ModelMetadata::has_batch_dimension`]), unless it has dims of the model's whole rank. Inputs that are not listed are
/// added; outputs only if none is.
#[must_use]
pub fn complete(
    name: &str,
    configured: &ModelConfig,
    metadata: Option<&ModelMetadata>,
    defaults: &Defaults,
) -> ModelConfig {
    let mut config = configured.clone();
    name.clone_into(&mut config.name);
    let is_ensemble = matches!(
        config.scheduling_choice,
        Some(SchedulingChoice::EnsembleScheduling(_))
    );
    let engine = match Engine::new(&config.platform, &config.backend, is_ensemble) {
        Ok(engine) => engine.unwrap_or_else(|| defaults.engine.clone()),
        Err(_) => return config,
    };
    fill(&mut config.platform, engine.platform());
    fill(&mut config.backend, engine.backend());
    match engine {
        Engine::OnnxRuntime | Engine::Rten => {
            fill(&mut config.default_model_filename, MODEL_FILENAME)
        }
        Engine::TensorRt => fill(&mut config.default_model_filename, PLAN_FILENAME),
        Engine::Ensemble | Engine::BuiltIn(_) => {}
    }
    let policy = config.version_policy.get_or_insert_default();
    complete_version_policy(policy);
    if let Some(metadata) = metadata {
        if config.max_batch_size == 0 && is_joinable(&config, metadata) {
            config.max_batch_size = i32::try_from(defaults.max_batch_size).unwrap_or(i32::MAX);
        }
        complete_tensors(&mut config, metadata);
    }
    if config.max_batch_size > 0 && config.scheduling_choice.is_none() {
        let batching = api::ModelDynamicBatching::default();
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
    }
    if !is_ensemble {
        let kind = match engine {
            Engine::TensorRt => Kind::Gpu,
            _ if wants_gpu(&config.instance_group) => Kind::Gpu,
            _ => Kind::Cpu,
        };
        complete_instances(&mut config.instance_group, kind);
    }
    config
}

fn fill(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

fn complete_version_policy(policy: &mut ModelVersionPolicy) {
    let newest = PolicyChoice::Latest(Latest { num_versions: 1 });
    policy.policy_choice.get_or_insert(newest);
}

fn complete_instances(groups: &mut Vec<ModelInstanceGroup>, kind: Kind) {
    if groups.is_empty() {
        groups.push(ModelInstanceGroup::default());
    }
    for group in groups {
        if group.count == 0 {
            group.count = 1;
        }
        if group.kind() == Kind::Auto {
            group.set_kind(kind);
        }
    }
}

/// Whether the model has a batch dimension and the configuration does not count it among the dims.
fn is_joinable(config: &ModelConfig, metadata: &ModelMetadata) -> bool {
    let is_whole = |name: &str, dims: &[i64], reshape: Option<&ModelTensorReshape>| {
        let rank = reshape.map_or(dims, |reshape| &reshape.shape).len();
        let mut tensors = metadata.inputs.iter().chain(&metadata.outputs);
        tensors.any(|known| known.name == name && known.dimensions.len() == rank)
    };
    let mut inputs = config.input.iter();
    let mut outputs = config.output.iter();
    metadata.has_batch_dimension()
        && !inputs.any(|input| is_whole(&input.name, &input.dims, input.reshape.as_ref()))
        && !outputs.any(|output| is_whole(&output.name, &output.dims, output.reshape.as_ref()))
}

fn complete_tensors(config: &mut ModelConfig, metadata: &ModelMetadata) {
    let rows = usize::from(config.max_batch_size > 0);
    for known in &metadata.inputs {
        if config.input.iter().all(|input| input.name != known.name) {
            let name = known.name.clone();
            let input = ModelInput {
                name,
                ..ModelInput::default()
            };
            config.input.push(input);
        }
    }
    if config.output.is_empty() {
        let named = |known: &TensorMetadata| ModelOutput {
            name: known.name.clone(),
            ..ModelOutput::default()
        };
        config.output = metadata.outputs.iter().map(named).collect();
    }
    for input in &mut config.input {
        if let Some(known) = find(&input.name, &metadata.inputs) {
            let is_reshaped = input.reshape.is_some();
            describe(
                &mut input.data_type,
                &mut input.dims,
                is_reshaped,
                known,
                rows,
            );
        }
    }
    for output in &mut config.output {
        if let Some(known) = find(&output.name, &metadata.outputs) {
            let is_reshaped = output.reshape.is_some();
            describe(
                &mut output.data_type,
                &mut output.dims,
                is_reshaped,
                known,
                rows,
            );
        }
    }
}

fn find<'a>(name: &str, among: &'a [TensorMetadata]) -> Option<&'a TensorMetadata> {
    among.iter().find(|known| known.name == name)
}

/// Fills in type and dims where a tensor has none; the dims of a reshaped one are not the model's.
fn describe(
    data_type: &mut i32,
    dims: &mut Vec<i64>,
    is_reshaped: bool,
    known: &TensorMetadata,
    rows: usize,
) {
    if *data_type == i32::from(api::DataType::TypeInvalid) {
        *data_type = word(known.dtype).into();
    }
    if dims.is_empty() && !is_reshaped {
        *dims = known.open_shape().into_iter().skip(rows).collect();
    }
}

#[cfg(test)]
mod tests {
    use adjoin_backend::{Dimension, InputAccess};
    use adjoin_schema::DataType;

    use super::*;
    use crate::{Checked, parse_text, to_json};

    fn tensor(name: &str, dtype: DataType, dimensions: Vec<Dimension>) -> TensorMetadata {
        TensorMetadata {
            name: name.into(),
            dtype,
            dimensions,
            access: InputAccess::InPlace,
        }
    }

    fn batch() -> Dimension {
        Dimension::Named("batch".into())
    }

    /// Image and mask to logits.
    fn digits() -> ModelMetadata {
        let sides = [Dimension::Fixed(28), Dimension::Fixed(28)];
        let image = [batch(), Dimension::Fixed(1)]
            .into_iter()
            .chain(sides)
            .collect();
        ModelMetadata {
            inputs: vec![
                tensor("image", DataType::Fp32, image),
                tensor("mask", DataType::Bool, vec![batch(), Dimension::Unknown]),
            ],
            outputs: vec![
                tensor(
                    "logits",
                    DataType::Fp32,
                    vec![batch(), Dimension::Fixed(10)],
                ),
                tensor("score", DataType::Fp64, vec![batch()]),
            ],
        }
    }

    fn completed(text: &str) -> ModelConfig {
        let defaults = Defaults {
            engine: Engine::OnnxRuntime,
            max_batch_size: 32,
        };
        complete(
            "digits",
            &parse_text(text).unwrap(),
            Some(&digits()),
            &defaults,
        )
    }

    #[test]
    fn without_a_configuration_the_model_says_everything() {
        let config = completed("");
        let expected = r#"
            name: "digits" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 32
            version_policy { latest { num_versions: 1 } } default_model_filename: "model.onnx"
            input [ { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] }, { name: "mask" data_type: TYPE_BOOL dims: -1 } ]
            output [ { name: "logits" data_type: TYPE_FP32 dims: 10 }, { name: "score" data_type: TYPE_FP64 } ]
            instance_group { kind: KIND_CPU count: 1 } dynamic_batching { }"#;
        assert_eq!(
            config,
            parse_text(expected).unwrap(),
            "{}",
            to_json(&config)
        );
        let (checked, warnings) = Checked::new("digits", &config).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(checked.fits(&digits()), Ok(()));
    }

    #[test]
    fn what_is_configured_stays_and_the_rest_is_added() {
        let config = completed(
            r#"backend: "rten" max_batch_size: 4 default_model_filename: "net.onnx" version_policy { all { } }
            input { name: "mask" dims: 7 } output { name: "logits" label_filename: "labels.txt" }
            instance_group [ { }, { count: 2 kind: KIND_MODEL } ]"#,
        );
        assert_eq!(
            (config.platform.as_str(), config.backend.as_str()),
            ("rten_onnx", "rten")
        );
        assert_eq!(
            (
                config.max_batch_size,
                config.default_model_filename.as_str()
            ),
            (4, "net.onnx")
        );
        let names: Vec<_> = config
            .input
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        assert_eq!(names, ["mask", "image"]);
        assert_eq!(
            (config.input[0].data_type(), config.input[0].dims.as_slice()),
            (api::DataType::TypeBool, [7].as_slice())
        );
        assert_eq!(config.output.len(), 1);
        assert_eq!(config.output[0].dims, [10]);
        let counts: Vec<_> = config
            .instance_group
            .iter()
            .map(|group| group.count)
            .collect();
        assert_eq!(counts, [1, 2]);
        assert!(
            Checked::new("digits", &config)
                .unwrap()
                .0
                .fits(&digits())
                .is_ok()
        );
    }

    #[test]
    fn requests_are_joined_only_if_model_and_configuration_allow_it() {
        assert_eq!(
            completed("output { name: 'logits' dims: 10 }").max_batch_size,
            32
        );
        let whole = completed("output { name: 'logits' dims: [ -1, 10 ] }");
        assert_eq!((whole.max_batch_size, whole.scheduling_choice), (0, None));
        assert_eq!(whole.input[0].dims, [-1, 1, 28, 28]);
        let mut metadata = digits();
        metadata.outputs[1].dimensions.clear();
        let defaults = Defaults {
            engine: Engine::Rten,
            max_batch_size: 32,
        };
        let config = complete(
            "digits",
            &ModelConfig::default(),
            Some(&metadata),
            &defaults,
        );
        assert_eq!(config.max_batch_size, 0);
        assert_eq!(config.output[0].dims, [-1, 10]);
    }

    #[test]
    fn ensembles_and_wrong_words_are_left_as_they_are() {
        let text = "ensemble_scheduling { step { model_name: 'a' } }";
        let defaults = Defaults {
            engine: Engine::OnnxRuntime,
            max_batch_size: 32,
        };
        let config = complete("e", &parse_text(text).unwrap(), None, &defaults);
        assert_eq!(
            (config.platform.as_str(), config.backend.as_str()),
            ("ensemble", "")
        );
        assert!(config.instance_group.is_empty() && config.default_model_filename.is_empty());
        assert_eq!(
            completed("platform: 'tensorrt_plan'").platform,
            "tensorrt_plan"
        );
    }
}
