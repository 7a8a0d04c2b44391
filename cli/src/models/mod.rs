//! `adjoin models`.

mod change;

use std::process::ExitCode;

use adjoin_control_api::control::{ModelStatistics, ModelVersion, TensorSpec};
use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::control::{Control, SocketDirArguments};
use crate::table::Column::{Number, Text};
use crate::{interrupt, output, table};
use change::Change;

/// Lists the models of a server: state, engine, inputs and outputs, and what was counted.
///
/// Its commands change what is served.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    change: Option<Change>,

    #[command(flatten)]
    server: SocketDirArguments,

    /// Writes JSON, with everything that is counted
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: ModelsArguments) -> Result<ExitCode, Failure> {
    if let Some(change) = arguments.change {
        return change::run(change);
    }
    let models = interrupt::block_on(async {
        let mut control = Control::connect(&arguments.server.socket_dir).await?;
        Ok(control.models().await?)
    })?;
    if arguments.json {
        let models: Vec<Value> = models.iter().map(to_json).collect();
        output::print_json(&json!({ "models": models }))?;
    } else {
        output::print(&to_text(&models))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_text(models: &[ModelVersion]) -> String {
    let columns = [
        Text("NAME"),
        Number("VERSION"),
        Text("STATE"),
        Text("LABELS"),
        Number("WEIGHT"),
        Text("ENGINE"),
        Number("INSTANCES"),
        Number("MAX BATCH"),
        Text("INPUTS"),
        Text("OUTPUTS"),
        Number("REQUESTS"),
        Number("FAILED"),
        Number("BATCHES"),
        Number("IN PLACE"),
    ];
    let mut text = table::render(&columns, models.iter().map(row));
    for model in models.iter().filter(|model| !model.reason.is_empty()) {
        text.push_str(&format!(
            "{} {}: {}\n",
            model.name, model.version, model.reason
        ));
    }
    text
}

fn row(model: &ModelVersion) -> Vec<String> {
    let known = |text: String| {
        if model.engine.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let counted = |of: fn(&ModelStatistics) -> u64| {
        model
            .statistics
            .as_ref()
            .map_or_else(|| "-".to_owned(), |counted| of(counted).to_string())
    };
    let max_batch = match model.max_batch_size {
        0 => "off".to_owned(),
        size => size.to_string(),
    };
    let tensors = |tensors: &[TensorSpec], is_input| {
        let lines: Vec<String> = tensors
            .iter()
            .map(|tensor| tensor_text(tensor, is_input))
            .collect();
        lines.join("\n")
    };
    vec![
        model.name.clone(),
        model.version.to_string(),
        model.state.clone(),
        model.labels.join("\n"),
        match model.weight {
            0 => String::new(),
            weight => weight.to_string(),
        },
        known(model.engine.clone()),
        known(model.instances.to_string()),
        known(max_batch),
        known(tensors(&model.inputs, true)),
        known(tensors(&model.outputs, false)),
        counted(|counted| counted.request_count),
        counted(|counted| counted.failed_request_count),
        counted(|counted| counted.execution_count),
        counted(|counted| counted.in_place_count),
    ]
}

fn tensor_text(tensor: &TensorSpec, is_input: bool) -> String {
    let shape = adjoin_schema::text::shape_text(&tensor.shape, &tensor.dimension_names);
    let note = if is_input && !tensor.in_place {
        " (copied first)"
    } else {
        ""
    };
    format!("{} {} {shape}{note}", tensor.name, tensor.data_type)
}

fn to_json(model: &ModelVersion) -> Value {
    let tensor = |tensor: &TensorSpec| {
        json!({
            "name": tensor.name,
            "data_type": tensor.data_type,
            "shape": tensor.shape,
            "dimension_names": tensor.dimension_names,
        })
    };
    let input = |spec: &TensorSpec| {
        let mut value = tensor(spec);
        value["in_place"] = json!(spec.in_place);
        value
    };
    json!({
        "name": model.name,
        "version": model.version,
        "state": model.state,
        "reason": model.reason,
        "labels": model.labels,
        "weight": model.weight,
        "engine": model.engine,
        "instances": model.instances,
        "max_batch_size": model.max_batch_size,
        "inputs": model.inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": model.outputs.iter().map(tensor).collect::<Vec<_>>(),
        "statistics": model.statistics.as_ref().map(statistics_json),
    })
}

fn statistics_json(counted: &ModelStatistics) -> Value {
    json!({
        "inference_count": counted.inference_count,
        "execution_count": counted.execution_count,
        "request_count": counted.request_count,
        "failed_request_count": counted.failed_request_count,
        "in_place_count": counted.in_place_count,
        "gathered_bytes": counted.gathered_bytes,
        "scattered_bytes": counted.scattered_bytes,
        "engine_copied_bytes": counted.engine_copied_bytes,
        "copied_first_bytes": counted.copied_first_bytes,
        "dynamic_output_bytes": counted.dynamic_output_bytes,
        "message_body_bytes": counted.message_body_bytes,
        "transformed_bytes": counted.transformed_bytes,
        "max_batch_rows": counted.max_batch_rows,
        "queue_ns": counted.queue_ns,
        "execute_ns": counted.execute_ns,
        "executions_by_rows": by_rows(counted),
    })
}

/// Batches by their rows, with the rows in order.
fn by_rows(counted: &ModelStatistics) -> std::collections::BTreeMap<u32, u64> {
    counted
        .executions_by_rows
        .iter()
        .map(|(&rows, &count)| (rows, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_failed_models_make_rows() {
        let input = TensorSpec {
            name: "ids".into(),
            data_type: "INT64".into(),
            shape: vec![-1, 4],
            dimension_names: vec!["n".into(), String::new()],
            in_place: false,
        };
        let ready = ModelVersion {
            name: "a".into(),
            version: 3,
            state: "ready".into(),
            engine: "rten".into(),
            instances: 1,
            inputs: vec![input.clone()],
            outputs: vec![input],
            statistics: Some(ModelStatistics {
                request_count: 7,
                ..ModelStatistics::default()
            }),
            ..ModelVersion::default()
        };
        let failed = ModelVersion {
            name: "b".into(),
            version: 1,
            state: "failed".into(),
            reason: "no such operator".into(),
            ..ModelVersion::default()
        };
        let text = to_text(&[ready, failed]);
        assert!(text.contains("ids INT64 [n,4] (copied first)"), "{text}");
        assert!(text.ends_with("b 1: no such operator\n"), "{text}");
        assert!(text.contains(" off "), "{text}");
    }
}
