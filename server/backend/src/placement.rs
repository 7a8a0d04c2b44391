//! Where the instances of a model run, as its configuration says.

use std::collections::BTreeMap;

use crate::ModelMetadata;

/// Where the instances of a model run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the processor, or wherever the engine always runs.
    #[default]
    Host,
    /// On the server's GPU. An engine that has no use for one refuses the model.
    Device(DevicePlacement),
}

/// How a model runs on the server's GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePlacement {
    /// Whether what a batch does on the device is captured as a CUDA graph and replayed, where the engine leaves that to
    /// the model's configuration. `None`: the engine does so where it can.
    pub graphs: Option<bool>,
    /// What the engine runs the graph's nodes on, the most preferred first; the engine checks names and parameters.
    pub accelerators: Vec<Accelerator>,
}

/// Something that an engine runs nodes of a graph on, by the engine's own name for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accelerator {
    /// Its name, such as `tensorrt`.
    pub name: String,
    /// What it is told, by key.
    pub parameters: BTreeMap<String, String>,
}

/// Most rows of a batch, for an engine that makes room ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsMax {
    /// The model's configuration says so; 0 if requests are not joined.
    Configured(u32),
    /// What holds for a model that has a batch dimension by its own description.
    Default(u32),
}

impl RowsMax {
    /// Most rows of a batch of this model; 0 if requests are not joined.
    #[must_use]
    pub fn of(self, model: &ModelMetadata) -> u32 {
        match self {
            Self::Configured(rows) => rows,
            Self::Default(rows) if model.has_batch_dimension() => rows,
            Self::Default(_) => 0,
        }
    }
}

impl Default for RowsMax {
    fn default() -> Self {
        Self::Default(0)
    }
}
