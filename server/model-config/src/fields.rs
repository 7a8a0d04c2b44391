//! What happens with each field of a configuration: the one table that the check acts on and the documents repeat.

use prost_reflect::{DynamicMessage, MapKey, Value};

use crate::error::{ConfigError, Refusal, Warning, quoted};

/// What happens with a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says; values that cannot be are refused.
    Honoured,
    /// It has no effect, with a warning. Results do not depend on it.
    Ignored,
    /// The configuration is refused. For a boolean: if it is true.
    Refused,
}

/// A field and what happens with it. For an ignored or refused message that goes for all that is in it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its path from the top, such as `input.dims`; what a list or map holds has no index.
    pub path: &'static str,
    /// What happens.
    pub support: Support,
    /// What it means here, or why it means nothing.
    pub note: &'static str,
}

const fn honoured(path: &'static str, note: &'static str) -> Field {
    let support = Support::Honoured;
    Field {
        path,
        support,
        note,
    }
}

const fn ignored(path: &'static str, note: &'static str) -> Field {
    let support = Support::Ignored;
    Field {
        path,
        support,
        note,
    }
}

const fn refused(path: &'static str, note: &'static str) -> Field {
    let support = Support::Refused;
    Field {
        path,
        support,
        note,
    }
}

const OWN_COPIES: &str = "regions of sessions are pinned when they open; what is not is staged (`[cuda]` of the server's file)";
const TENSORRT_ONLY: &str = "exists for TensorRT models only";

/// Every field of every message, in the order of the protocol's file.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    honoured("name", "absent, or the name of the model's directory"),
    honoured("platform", "`onnxruntime_onnx`, `rten_onnx`, `tensorrt_plan` or `ensemble`; others are refused by name"),
    honoured("backend", "`onnxruntime`, `adjoin_rten` (also `rten`), `tensorrt`, or a step model that is built in: `adjoin_` and its name; others are refused by name"),
    refused("runtime", "a backend's library is not chosen by the model; name the engine in `backend`"),
    honoured("version_policy", "without it, `latest { num_versions: 1 }`"),
    honoured("version_policy.latest", ""),
    honoured("version_policy.latest.num_versions", "at least 1"),
    honoured("version_policy.all", ""),
    honoured("version_policy.specific", ""),
    honoured("version_policy.specific.versions", "at least one, each from 1"),
    honoured("max_batch_size", "rows, 0 to 65536; 0 never joins requests. Without it, from the model (section 2)"),
    honoured("input", "what is not listed comes from the model's file"),
    honoured("input.name", "at most 256 bytes"),
    honoured("input.data_type", "has to be the model's"),
    honoured("input.format", "shown to clients; `FORMAT_NHWC` and `FORMAT_NCHW` need 3 dims"),
    honoured("input.dims", "without the batch dimension if `max_batch_size` is above 0; each from 1, or -1 for any size"),
    honoured("input.reshape", "has to keep the number of elements"),
    honoured("input.reshape.shape", "as the model has it, without the batch dimension; empty for a scalar"),
    refused("input.is_shape_tensor", TENSORRT_ONLY),
    refused("input.allow_ragged_batch", "requests of different shapes are not joined into one tensor; without it they run in batches of equal shapes"),
    honoured("input.optional", "the check of the model lets it be absent; a model that needs it refuses the request"),
    refused("input.is_non_linear_format_io", TENSORRT_ONLY),
    honoured("output", "those that are listed are given; without any, all of the model's"),
    honoured("output.name", "at most 256 bytes"),
    honoured("output.data_type", "has to be the model's"),
    honoured("output.dims", "as for `input.dims`"),
    honoured("output.reshape", "as for `input.reshape`"),
    honoured("output.reshape.shape", "the model's own, which becomes `dims` for clients"),
    honoured("output.label_filename", "a file in the model's directory, one label a line, for the classification extension"),
    refused("output.is_shape_tensor", TENSORRT_ONLY),
    refused("output.is_non_linear_format_io", TENSORRT_ONLY),
    refused("batch_input", "no tensors are made of the batch itself"),
    refused("batch_output", "outputs are cut by rows, not by another tensor"),
    honoured("optimization", ""),
    ignored("optimization.graph", "the engine's own level of graph optimization holds"),
    ignored("optimization.priority", "models share the processor as equals; give a model more instances or threads"),
    honoured("optimization.cuda", ""),
    honoured("optimization.cuda.graphs", "for ONNX Runtime with `KIND_GPU`: `true` refuses the model where graphs cannot be, `false` leaves them out, without the message they are tried (onnxruntime-gpu.md); plans of TensorRT have graphs of their own"),
    ignored("optimization.cuda.busy_wait_events", "a wait looks for 50 µs by itself, and then sleeps"),
    ignored("optimization.cuda.graph_spec", "graphs are made of the sizes that come"),
    ignored("optimization.cuda.output_copy_stream", "outputs are always copied in a stream of their own"),
    honoured("optimization.execution_accelerators", ""),
    honoured("optimization.execution_accelerators.gpu_execution_accelerator", "for ONNX Runtime with `KIND_GPU`"),
    honoured("optimization.execution_accelerators.gpu_execution_accelerator.name", "`tensorrt` or `cuda`; others are refused by name"),
    honoured("optimization.execution_accelerators.gpu_execution_accelerator.parameters", "the keys of onnxruntime-gpu.md; others are refused by name"),
    refused("optimization.execution_accelerators.cpu_execution_accelerator", "the engine's own kernels run the model; no other provider is built in"),
    ignored("optimization.input_pinned_memory", OWN_COPIES),
    ignored("optimization.output_pinned_memory", OWN_COPIES),
    ignored("optimization.gather_kernel_buffer_threshold", "what is faster is measured when the device is opened"),
    ignored("optimization.eager_batching", "batches are gathered as soon as an instance is free"),
    honoured("dynamic_batching", "also without it requests are joined as soon as `max_batch_size` allows it"),
    honoured("dynamic_batching.preferred_batch_size", "each from 1 to `max_batch_size`; a batch of such a size does not wait for the delay to end"),
    honoured("dynamic_batching.max_queue_delay_microseconds", "ends early when no session is expected to send in time"),
    honoured("dynamic_batching.preserve_ordering", "only with one priority level, and not with `DELAY`"),
    honoured("dynamic_batching.priority_levels", "0 to 65535; 1 is the most urgent"),
    honoured("dynamic_batching.default_priority_level", "from 1 to `priority_levels`"),
    honoured("dynamic_batching.default_queue_policy", ""),
    honoured("dynamic_batching.default_queue_policy.timeout_action", ""),
    honoured("dynamic_batching.default_queue_policy.default_timeout_microseconds", "0: none"),
    honoured("dynamic_batching.default_queue_policy.allow_timeout_override", "a request's own timeout can only be shorter"),
    honoured("dynamic_batching.default_queue_policy.max_queue_size", "0: the server's own limit"),
    honoured("dynamic_batching.priority_queue_policy", "keys from 1 to `priority_levels`"),
    honoured("dynamic_batching.priority_queue_policy.timeout_action", ""),
    honoured("dynamic_batching.priority_queue_policy.default_timeout_microseconds", "0: none"),
    honoured("dynamic_batching.priority_queue_policy.allow_timeout_override", ""),
    honoured("dynamic_batching.priority_queue_policy.max_queue_size", "0: the server's own limit"),
    refused("sequence_batching", "requests have no state that the server keeps between them; feed the state back as a tensor"),
    honoured("ensemble_scheduling", "each tensor is made once, each step's inputs are fed, no step waits for itself"),
    honoured("ensemble_scheduling.step", ""),
    honoured("ensemble_scheduling.step.model_name", "a model of this repository, not the ensemble itself"),
    honoured("ensemble_scheduling.step.model_version", "-1 and 0: by the model's version policy"),
    honoured("ensemble_scheduling.step.input_map", "from the step's input to the tensor that feeds it"),
    honoured("ensemble_scheduling.step.output_map", "from the step's output to the tensor that it makes"),
    refused("ensemble_scheduling.step.model_namespace", "a server has one repository, in which names are unique"),
    honoured("ensemble_scheduling.max_inflight_requests", "requests of the ensemble that are on their way at once, at most 4096; 0: 256"),
    honoured("instance_group", "the counts are added: 1 to 64 instances"),
    ignored("instance_group.name", "instances are counted, not named"),
    honoured("instance_group.kind", "`KIND_CPU` on the processor; `KIND_GPU` on the server's GPU, for ONNX Runtime and `tensorrt_plan`, all groups alike. `KIND_AUTO` and `KIND_MODEL` are the other groups' kind, or the processor for ONNX and the GPU for plans"),
    honoured("instance_group.count", "0 counts as 1"),
    ignored("instance_group.rate_limiter", "an instance runs whenever it is free"),
    honoured("instance_group.gpus", "with `KIND_GPU`: absent, or the server's one device (`[cuda]`, `device`)"),
    refused("instance_group.secondary_devices", "a model runs on the processor or on the GPU"),
    refused("instance_group.profile", TENSORRT_ONLY),
    refused("instance_group.passive", "every instance takes requests"),
    ignored("instance_group.host_policy", "the server has no host policies; bind the whole server with the container's or service manager's means"),
    honoured("default_model_filename", "a file in the version's directory; without it `model.onnx`, or `model.plan` for TensorRT"),
    ignored("cc_model_filenames", "the one file is loaded whatever the device is; name it in `default_model_filename`"),
    ignored("metric_tags", "metrics have the labels `model` and `version`"),
    honoured("parameters", "the keys below; a built-in step model has its own. Other keys are ignored with a warning"),
    honoured("parameters.string_value", "`intra_op_thread_count`: threads of one instance for one operator, 1 to 256; 0: the server's own. `input_transform:NAME`: the input is sent as bytes of pixels, on the GPU too (configuration.md, section 8). `optimization_profile`, `engine_host_code`: of a TensorRT plan (tensorrt.md)"),
    honoured("model_warmup", "at most 64 samples, run in this order by each instance before it is ready"),
    honoured("model_warmup.name", "for messages"),
    honoured("model_warmup.batch_size", "rows, at most `max_batch_size`"),
    honoured("model_warmup.inputs", "every input of the model"),
    honoured("model_warmup.inputs.data_type", "has to be the input's"),
    honoured("model_warmup.inputs.dims", "without the batch dimension; each from 1"),
    honoured("model_warmup.inputs.zero_data", ""),
    honoured("model_warmup.inputs.random_data", ""),
    honoured("model_warmup.inputs.input_data_file", "a file in `warmup` in the model's directory"),
    honoured("model_warmup.count", "at most 1000; 0 counts as 1"),
    refused("model_operations", "operators of other libraries are not loaded"),
    honoured("model_transaction_policy", ""),
    refused("model_transaction_policy.decoupled", "a request has one response"),
    refused("model_repository_agents", "nothing runs between the repository and the engine"),
    honoured("response_cache", ""),
    honoured("response_cache.enable", "if the server has a cache; see its configuration"),
    ignored("model_metrics", "histograms have the buckets of docs/metrics.md"),
];

/// What the table says of a path without indices.
fn find(path: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.path == path)
}

/// Fields of the table that a configuration sets, each with the first place where it does.
#[derive(Default)]
struct Set {
    ignored: Vec<(&'static str, Warning)>,
    refused: Vec<(&'static str, Refusal)>,
}

/// The warnings for what is set and ignored.
///
/// # Errors
/// [`ConfigError::Unsupported`] with all fields that are set and refused, each once.
pub(crate) fn check(message: &DynamicMessage) -> Result<Vec<Warning>, ConfigError> {
    let mut set = Set::default();
    walk(message, "", "", &mut set);
    if set.refused.is_empty() {
        return Ok(set
            .ignored
            .into_iter()
            .map(|(_, warning)| warning)
            .collect());
    }
    let refusals = set.refused.into_iter().map(|(_, refusal)| refusal);
    Err(ConfigError::Unsupported(refusals.collect()))
}

/// Looks at every field that is set. `kind` is the path without indices, `place` the one with.
fn walk(message: &DynamicMessage, kind: &str, place: &str, set: &mut Set) {
    let join = |prefix: &str, name: &str| match prefix {
        "" => name.to_owned(),
        _ => format!("{prefix}.{name}"),
    };
    for (descriptor, value) in message.fields() {
        let kind = join(kind, descriptor.name());
        let path = join(place, descriptor.name());
        let Some(field) = find(&kind) else {
            // A test holds the table against the descriptors, so this is not reached.
            let note = "this server does not know the field";
            set.refused.push(("", Refusal { path, note }));
            continue;
        };
        let note = field.note;
        match field.support {
            Support::Ignored if set.ignored.iter().all(|(seen, _)| *seen != field.path) => {
                set.ignored.push((field.path, Warning { path, note }));
            }
            Support::Refused if set.refused.iter().all(|(seen, _)| *seen != field.path) => {
                set.refused.push((field.path, Refusal { path, note }));
            }
            Support::Ignored | Support::Refused => {}
            Support::Honoured => walk_value(value, &kind, &path, set),
        }
    }
}

fn walk_value(value: &Value, kind: &str, place: &str, set: &mut Set) {
    match value {
        Value::Message(message) => walk(message, kind, place, set),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Value::Message(message) = item {
                    walk(message, kind, &format!("{place}[{index}]"), set);
                }
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                if let Value::Message(message) = item {
                    walk(message, kind, &format!("{place}[{}]", key_text(key)), set);
                }
            }
        }
        _ => {}
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => quoted(text),
        MapKey::U64(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{Kind, MessageDescriptor};

    use super::*;
    use crate::parse::descriptor;

    /// All paths of a message, those of ignored and refused messages without what is in them.
    fn paths(message: &MessageDescriptor, prefix: &str, found: &mut Vec<String>) {
        for field in message.fields() {
            let path = match prefix {
                "" => field.name().to_owned(),
                _ => format!("{prefix}.{}", field.name()),
            };
            let inner = match field.kind() {
                Kind::Message(entry) if field.is_map() => {
                    match entry.map_entry_value_field().kind() {
                        Kind::Message(value) => Some(value),
                        _ => None,
                    }
                }
                Kind::Message(message) => Some(message),
                _ => None,
            };
            let is_entered = find(&path).is_none_or(|row| row.support == Support::Honoured);
            if let Some(inner) = inner.filter(|_| is_entered) {
                paths(&inner, &path, found);
            }
            found.push(path);
        }
    }

    #[test]
    fn every_field_of_every_message_is_in_the_table_once_and_nothing_else_is() {
        let mut of_schema = Vec::new();
        paths(&descriptor(), "", &mut of_schema);
        of_schema.sort();
        let mut of_table: Vec<String> = FIELDS.iter().map(|row| row.path.to_owned()).collect();
        of_table.sort();
        assert_eq!(of_schema, of_table);
        assert!(of_schema.len() > 90, "the descriptors were walked");
    }

    #[test]
    fn what_has_no_effect_or_is_refused_says_why() {
        for row in FIELDS {
            let has_reason = row.support == Support::Honoured || !row.note.is_empty();
            assert!(has_reason, "{}", row.path);
        }
    }
}
