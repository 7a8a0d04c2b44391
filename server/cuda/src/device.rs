//! A device, and the generations of its context.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::counters::Counters;
use crate::driver::{Context, DeviceFacts, Driver};
use crate::error::CudaError;

/// One GPU of this machine, with its primary context, which engines in this process share. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    driver: Driver,
    facts: DeviceFacts,
    context: ArcSwap<Context>,
    /// Held during a reset: one at a time.
    resetting: Mutex<()>,
    counters: Counters,
}

impl Driver {
    /// Opens device `index` and makes its context, which takes some hundred megabytes and milliseconds.
    ///
    /// # Errors
    /// [`CudaError::WrongDevice`] if there is none of that number, or what the driver says.
    pub fn device(&self, index: u32) -> Result<Device, CudaError> {
        let facts = self.facts(index)?;
        let context = self.context(index, 1)?;
        Ok(Device {
            shared: Arc::new(Shared {
                driver: *self,
                facts,
                context: ArcSwap::new(context),
                resetting: Mutex::new(()),
                counters: Counters::default(),
            }),
        })
    }
}

impl Device {
    /// What this device is.
    #[must_use]
    pub fn facts(&self) -> &DeviceFacts {
        &self.shared.facts
    }

    /// The driver that it was opened with.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.shared.driver
    }

    /// Bytes moved to and from this device by this crate.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Makes the context current on this thread, for libraries that work in whichever is.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn make_current(&self) -> Result<(), CudaError> {
        self.context().enter().map(drop)
    }

    /// The same for libraries that give back what they have in it, which they may although it is lost. Once it is gone
    /// nothing happens.
    pub fn make_current_to_free(&self) {
        self.context().bind();
    }

    /// Counts the contexts that this device has had: 1 at first, one more with each reset.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.context.load().generation()
    }

    /// Whether an error has spoiled the context, so that nothing runs before a [`Device::reset`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.context.load().is_lost()
    }

    /// Things that transfers in a lost context may still touch, kept until the reset.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.shared.context.load().quarantined()
    }

    /// Bytes of free and of all memory of the device.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        let context = self.context();
        context.enter()?.memory_info()
    }

    /// Ends the context of `generation` and makes a new one. All that was made in the old one (streams, buffers,
    /// engines of other libraries) is gone and answers with [`CudaError::ContextGone`]; what was in quarantine is
    /// given back. If somebody else has reset it already, nothing happens. Returns the generation of the context that
    /// there is now.
    ///
    /// Engines that hold handles of the context by themselves must be dropped before: the driver does not check
    /// handles.
    ///
    /// # Errors
    /// [`CudaError::NotRecovered`] if the device does not work afterwards either: NVIDIA promises a working device
    /// after such errors to a new process only. It may be tried again.
    pub fn reset(&self, generation: u64) -> Result<u64, CudaError> {
        let _one_at_a_time = self.shared.resetting.lock();
        let old = self.context();
        if old.generation() != generation {
            return Ok(old.generation());
        }
        let index = self.shared.facts.index;
        let not_recovered = |error: &CudaError| CudaError::NotRecovered {
            device: index,
            reason: error.to_string(),
        };
        old.end().map_err(|error| not_recovered(&error))?;
        let context = self
            .shared
            .driver
            .context(index, generation + 1)
            .map_err(|error| not_recovered(&error))?;
        context
            .enter()
            .and_then(|entered| entered.synchronize())
            .map_err(|error| not_recovered(&error))?;
        self.shared.context.store(context);
        Ok(generation + 1)
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        self.shared.context.load_full()
    }
}
