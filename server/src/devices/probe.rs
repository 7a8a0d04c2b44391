//! What a device is, and what it does for sessions, found out by trying: for `adjoin doctor`.

use std::sync::Arc;

use adjoin_cuda::{Driver, Refusal, RegionState};
use adjoin_schema::layout::SessionLayout;
use adjoin_shm::SessionMemory;

use super::{DeviceError, DeviceProbe, Devices};

/// A session as small as they come is enough to try one.
const REGION_BYTES: u64 = 1 << 20;

impl Devices {
    /// Opens the device, and registers the regions of a session with it, as a server does.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn probe(&self) -> Result<DeviceProbe, DeviceError> {
        let transfers = self.open()?;
        let device = transfers.device();
        let facts = device.facts();
        let (free_bytes, _) = device.memory()?;
        Ok(DeviceProbe {
            index: facts.index,
            name: facts.name.clone(),
            driver: Driver::find()?.version(),
            memory_bytes: facts.memory_bytes,
            free_bytes: free_bytes as u64,
            budget_bytes: self.settings().registered_bytes,
            registration: self.try_registration(),
        })
    }

    /// Bytes of a session that the device reads and writes by itself, or why it does not.
    fn try_registration(&self) -> Result<u64, String> {
        let layout = SessionLayout::new(REGION_BYTES, REGION_BYTES, 64);
        let layout = layout.map_err(|rejection| rejection.to_string())?;
        let memory = SessionMemory::create(layout, 1).map_err(|error| error.to_string())?;
        let memory = Arc::new(memory);
        let transfers = self.open().map_err(|error| error.to_string())?;
        let Some(registered) = self.register(&memory) else {
            return Err("the device is not open".to_owned());
        };
        transfers.registry().settle();
        let states = registered.keys.map(|key| transfers.registry().state(key));
        registered.retire(Arc::clone(&memory));
        transfers.registry().settle();
        for state in states {
            match state {
                Some(RegionState::Registered) => {}
                Some(RegionState::Refused(refusal)) => return Err(explain(&refusal)),
                Some(RegionState::Pending) | None => return Err("no answer".to_owned()),
            }
        }
        Ok(memory.byte_size())
    }
}

fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Budget {
            wanted,
            left,
            limit,
        } => {
            format!(
                "a region of {wanted} bytes does not fit the {left} bytes that are left of {limit}"
            )
        }
        Refusal::Driver(error) => error.to_string(),
        Refusal::Unsupported => {
            "the device cannot register memory of the host, or not memory that may only be read"
                .to_owned()
        }
    }
}
