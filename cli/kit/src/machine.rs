//! The machine, for results that have to say where they were taken.

/// The machine, in words.
#[derive(Clone, Debug)]
pub struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
}

impl Machine {
    /// The machine that this process runs on.
    #[must_use]
    pub fn of_this() -> Self {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = information
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let processor = processor.map(|line| line.trim_start_matches(['\t', ' ', ':']).to_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// Cores, processor and kernel.
    #[must_use]
    pub fn text(&self) -> String {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        format!(
            "{} {cores}, {}, Linux {}",
            self.cores, self.processor, self.kernel
        )
    }
}
