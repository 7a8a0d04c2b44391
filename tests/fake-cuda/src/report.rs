//! What the driver counts and what it found wrong: written as JSON when the process ends, and read by the tests.

use serde::{Deserialize, Serialize};

/// Counts of one process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Report {
    /// Bytes that went from registered memory of the host to the device, by copies and by kernels.
    pub to_device_registered: u64,
    /// The same from memory that the driver allocated pinned.
    pub to_device_pinned: u64,
    /// The same from memory that is neither: a real driver copies them with a processor.
    pub to_device_pageable: u64,
    /// Bytes that went from the device to registered memory of the host.
    pub to_host_registered: u64,
    /// The same to memory that the driver allocated pinned.
    pub to_host_pinned: u64,
    /// The same to memory that is neither.
    pub to_host_pageable: u64,
    /// Bytes copied within the device.
    pub on_device: u64,
    /// Device allocations so far.
    pub device_allocations: u64,
    /// Of them, not freed.
    pub device_allocations_live: u64,
    /// Pinned allocations of the host so far.
    pub pinned_allocations: u64,
    /// Of them, not freed.
    pub pinned_allocations_live: u64,
    /// Registrations so far.
    pub registrations: u64,
    /// Of them, not undone.
    pub registrations_live: u64,
    /// Streams, events, modules and graphs that were not destroyed.
    pub handles_live: u64,
    /// Kernels that ran.
    pub kernels: u64,
    /// Calls that gave several copies to the driver at once.
    pub batched_calls: u64,
    /// Graphs that were launched.
    pub graph_launches: u64,
    /// Work that was enqueued and has not been done.
    pub pending: u64,
    /// Contexts that were reset.
    pub resets: u64,
    /// What no correct program does, in words.
    pub violations: Vec<String>,
}

impl Report {
    /// All bytes that a real driver would have copied with a processor.
    #[must_use]
    pub fn pageable(&self) -> u64 {
        self.to_device_pageable + self.to_host_pageable
    }

    /// # Panics
    /// If anything was wrong, or is left of what the process made.
    pub fn assert_clean(&self) {
        assert_eq!(self.violations, Vec::<String>::new(), "{self:#?}");
        assert_eq!(self.pending, 0, "work that nobody waited for: {self:#?}");
        let live = [
            self.device_allocations_live,
            self.pinned_allocations_live,
            self.registrations_live,
            self.handles_live,
        ];
        assert_eq!(live, [0; 4], "something leaked: {self:#?}");
    }
}
