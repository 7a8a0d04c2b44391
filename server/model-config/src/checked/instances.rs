//! How many instances a model has, where they run, and how.

use adjoin_backend::{Accelerator, DevicePlacement, Placement};
use adjoin_control_api::inference::model_instance_group::Kind;
use adjoin_control_api::inference::model_optimization_policy::execution_accelerators::Accelerator as GivenAccelerator;
use adjoin_control_api::inference::{ModelInstanceGroup, ModelOptimizationPolicy};

use super::{Engine, bounded};
use crate::error::{ConfigError, Warning};
use crate::limits::INSTANCES_MAX;

const OF_DEVICE: &str = "it holds for models of ONNX Runtime whose instances run on the GPU: instance_group { kind: KIND_GPU }";

/// What the instance groups say.
#[derive(Debug)]
pub(super) struct Instances {
    /// 1 or more.
    pub(super) count: u32,
    pub(super) placement: Placement,
    /// Devices that are named, each once.
    pub(super) gpus: Vec<u32>,
}

/// Whether any group asks for the GPU.
pub(crate) fn wants_gpu(groups: &[ModelInstanceGroup]) -> bool {
    groups.iter().any(|group| group.kind() == Kind::Gpu)
}

impl Instances {
    pub(super) fn new(
        groups: &[ModelInstanceGroup],
        engine: Option<&Engine>,
        optimization: Option<&ModelOptimizationPolicy>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let is_plan = engine == Some(&Engine::TensorRt);
        // A model that names no engine may come to one that has a use for the GPU.
        let may_be_there = is_plan || matches!(engine, None | Some(Engine::OnnxRuntime));
        let is_there = is_plan || (may_be_there && wants_gpu(groups));
        let mut count = 0_u32;
        let mut gpus = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let path = |field: &str| format!("instance_group[{index}].{field}");
            check_kind(path("kind"), group.kind, is_plan, is_there)?;
            count += bounded(path("count"), group.count, 0..=INSTANCES_MAX)?.max(1);
            if count > INSTANCES_MAX {
                let expected =
                    format!("all instance groups have at most {INSTANCES_MAX} instances");
                return Err(ConfigError::value(path("count"), group.count, expected));
            }
            for &gpu in &group.gpus {
                if !is_there {
                    let expected =
                        "it names devices for KIND_GPU, and this model runs on the processor";
                    return Err(ConfigError::value(path("gpus"), gpu, expected));
                }
                let number = u32::try_from(gpu);
                let number = number
                    .map_err(|_| ConfigError::value(path("gpus"), gpu, "devices count from 0"))?;
                if !gpus.contains(&number) {
                    gpus.push(number);
                }
            }
        }
        let on_device = on_device(optimization);
        let placement = if is_there && !is_plan {
            Placement::Device(on_device)
        } else {
            warn(&on_device, warnings);
            Placement::Host
        };
        Ok(Self {
            count: count.max(1),
            placement,
            gpus,
        })
    }
}

fn check_kind(path: String, kind: i32, is_plan: bool, is_there: bool) -> Result<(), ConfigError> {
    let (value, expected) = match Kind::try_from(kind) {
        Ok(Kind::Auto | Kind::Model) => return Ok(()),
        Ok(Kind::Cpu) if !is_there => return Ok(()),
        Ok(Kind::Gpu) if is_there => return Ok(()),
        Ok(Kind::Cpu) if is_plan => (
            "KIND_CPU",
            "plans of TensorRT run on a device: KIND_GPU, or no instance_group at all",
        ),
        Ok(Kind::Cpu) => (
            "KIND_CPU",
            "another group is KIND_GPU, and all instances of a model run in the same place",
        ),
        Ok(Kind::Gpu) => (
            "KIND_GPU",
            "this engine runs models on the processor: KIND_CPU, or no instance_group at all",
        ),
        Err(_) => {
            let expected = "it is KIND_AUTO, KIND_CPU, KIND_GPU or KIND_MODEL";
            return Err(ConfigError::value(path, kind, expected));
        }
    };
    Err(ConfigError::value(path, value, expected))
}

/// What the optimization policy says of the device.
fn on_device(optimization: Option<&ModelOptimizationPolicy>) -> DevicePlacement {
    let cuda = optimization.and_then(|policy| policy.cuda.as_ref());
    let accelerators = optimization.and_then(|policy| policy.execution_accelerators.as_ref());
    let accelerator = |given: &GivenAccelerator| Accelerator {
        name: given.name.clone(),
        parameters: given.parameters.clone().into_iter().collect(),
    };
    DevicePlacement {
        graphs: cuda.map(|cuda| cuda.graphs),
        accelerators: accelerators
            .into_iter()
            .flat_map(|accelerators| &accelerators.gpu_execution_accelerator)
            .map(accelerator)
            .collect(),
    }
}

/// Warns of what is set for a device that the model does not run on.
fn warn(on_device: &DevicePlacement, warnings: &mut Vec<Warning>) {
    let mut warn = |is_set: bool, path: &str| {
        if is_set {
            warnings.push(Warning {
                path: path.to_owned(),
                note: OF_DEVICE,
            });
        }
    };
    warn(on_device.graphs == Some(true), "optimization.cuda.graphs");
    warn(
        !on_device.accelerators.is_empty(),
        "optimization.execution_accelerators.gpu_execution_accelerator",
    );
}
