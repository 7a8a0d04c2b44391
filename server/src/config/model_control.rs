//! Who decides which models are loaded, and when.

use std::time::Duration;

/// Who decides which models of the repository are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlMode {
    /// All are loaded at the start, and nothing changes afterwards.
    #[default]
    None,
    /// Those that were named at the start, and then whatever callers load and unload.
    Explicit,
    /// The directory: what it holds is loaded, and looked at again from time to time.
    Poll,
}

/// Which models are loaded at the start, and how that changes.
#[derive(Clone, Debug)]
pub struct ModelControl {
    /// Who decides.
    pub mode: ControlMode,
    /// Models to load at the start, in [`ControlMode::Explicit`] alone; `*` stands for all.
    pub load: Vec<String>,
    /// How often the directory is looked at, in [`ControlMode::Poll`].
    pub poll_interval: Duration,
}

/// How often the directory is looked at if nothing is said.
pub const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

impl Default for ModelControl {
    fn default() -> Self {
        Self {
            mode: ControlMode::None,
            load: Vec::new(),
            poll_interval: POLL_INTERVAL_DEFAULT,
        }
    }
}
