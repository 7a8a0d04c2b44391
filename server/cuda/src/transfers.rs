//! What all batches on one device share.

use std::sync::Arc;
use std::time::Duration;

use crate::device::Device;
use crate::error::CudaError;
use crate::kernels::Kernels;
use crate::pinned::PinnedPool;
use crate::regions::DeviceRegions;
use crate::registry::Registry;
use crate::thresholds::Thresholds;

/// How much memory of the host may be pinned, and how to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// Bytes of sessions' regions that may be registered.
    pub registered_bytes: u64,
    /// Bytes of staging memory.
    pub staging_bytes: usize,
    /// `None`: measured at the start.
    pub thresholds: Option<Thresholds>,
    /// For how long, at most, a thread looks at the end of a batch before it sleeps until the driver wakes it.
    pub spin: Duration,
}

/// Registry, regions on the device, staging memory, kernels and thresholds of one device. Clones share them.
#[derive(Clone, Debug)]
pub struct Transfers {
    device: Device,
    registry: Arc<Registry>,
    regions: Arc<DeviceRegions>,
    pool: PinnedPool,
    kernels: Kernels,
    thresholds: Thresholds,
    settings: TransferSettings,
}

impl Transfers {
    /// Loads the kernels, starts the registry, and measures.
    ///
    /// # Errors
    /// If the driver or the system refuses.
    pub fn start(device: &Device, settings: TransferSettings) -> Result<Self, CudaError> {
        let registry = Arc::new(Registry::start(device, settings.registered_bytes)?);
        Self::with_registry(device, registry, settings)
    }

    fn with_regions(self, regions: &Arc<DeviceRegions>) -> Self {
        let regions = Arc::clone(regions);
        Self { regions, ..self }
    }

    /// The same for a further device, or after [`Device::reset`] and [`Registry::rebuild`], with the registry that
    /// there is: one serves all devices of a process.
    ///
    /// # Errors
    /// As [`Transfers::start`].
    pub fn with_registry(
        device: &Device,
        registry: Arc<Registry>,
        settings: TransferSettings,
    ) -> Result<Self, CudaError> {
        let kernels = Kernels::load(device)?;
        let thresholds = match settings.thresholds {
            Some(thresholds) => thresholds,
            None => Thresholds::measure(device, &kernels)?,
        };
        Ok(Self {
            device: device.clone(),
            registry,
            regions: Arc::default(),
            pool: PinnedPool::new(device, settings.staging_bytes),
            kernels,
            thresholds,
            settings,
        })
    }

    /// Ends the context of the device, with everything in it, and makes a new one, what batches share anew, and the
    /// same registrations. Regions on the device are lost, and say so. This is for a context that is lost; what was made
    /// in the old one refuses from then on.
    ///
    /// Engines that hold handles of the old context have to be dropped before ([`Device::reset`]).
    ///
    /// # Errors
    /// As [`Device::reset`] and [`Transfers::start`]; it may be tried again.
    pub fn rebuild(&self) -> Result<Self, CudaError> {
        self.device.reset(self.device.generation())?;
        self.registry.rebuild();
        let settings = TransferSettings {
            thresholds: Some(self.thresholds),
            ..self.settings
        };
        let rebuilt = Self::with_registry(&self.device, Arc::clone(&self.registry), settings)?;
        Ok(rebuilt.with_regions(&self.regions))
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Registered regions.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Regions that clients share on the device.
    #[must_use]
    pub fn regions(&self) -> &Arc<DeviceRegions> {
        &self.regions
    }

    /// Staging memory.
    #[must_use]
    pub fn pool(&self) -> &PinnedPool {
        &self.pool
    }

    /// Kernels.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Longest look at the end of a batch.
    #[must_use]
    pub fn spin(&self) -> Duration {
        self.settings.spin
    }

    /// What decides between the forms of copy.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }
}
