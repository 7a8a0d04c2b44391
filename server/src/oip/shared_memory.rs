//! Shared-memory regions, in the protocol's words.

use std::sync::Arc;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::cuda_shared_memory_status_response::RegionStatus as CudaStatus;
use adjoin_control_api::inference::system_shared_memory_status_response::RegionStatus;
use adjoin_oip::Fault;

use super::regions::{Region, RegionKind};
use super::{Caller, Oip};

impl Oip {
    /// What the caller has registered: the region of that name, or all.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn region_status(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<api::SystemSharedMemoryStatusResponse, Fault> {
        let found = self
            .regions
            .status(&caller.owner, RegionKind::System, name)?;
        let status = |region: Arc<Region>| {
            let (key, offset) = region.object();
            let status = RegionStatus {
                name: region.name().to_owned(),
                key: key.to_owned(),
                offset,
                byte_size: region.byte_size(),
            };
            (status.name.clone(), status)
        };
        let regions = found.into_iter().map(status).collect();
        Ok(api::SystemSharedMemoryStatusResponse { regions })
    }

    /// Registers a region.
    ///
    /// # Errors
    /// If it is off, or what is named is no region.
    pub fn register_region(
        &self,
        caller: &Caller,
        request: &api::SystemSharedMemoryRegisterRequest,
    ) -> Result<api::SystemSharedMemoryRegisterResponse, Fault> {
        let api::SystemSharedMemoryRegisterRequest {
            name,
            key,
            offset,
            byte_size,
        } = request;
        self.regions
            .register(&caller.owner, name, key, *offset, *byte_size)?;
        Ok(api::SystemSharedMemoryRegisterResponse {})
    }

    /// Forgets the caller's region of that name and kind, or all of the caller's of that kind. Calls that use them go on
    /// to their end.
    pub fn unregister_region(&self, caller: &Caller, kind: RegionKind, name: &str) {
        if name.is_empty() {
            self.regions.unregister_all(&caller.owner, kind);
        } else {
            self.regions.unregister(&caller.owner, kind, name);
        }
    }

    /// What the caller has registered of a device's memory: the region of that name, or all.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn cuda_region_status(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<api::CudaSharedMemoryStatusResponse, Fault> {
        let found = self.regions.status(&caller.owner, RegionKind::Cuda, name)?;
        let status = |region: Arc<Region>| {
            let status = CudaStatus {
                name: region.name().to_owned(),
                device_id: region.device(),
                byte_size: region.byte_size(),
            };
            (status.name.clone(), status)
        };
        let regions = found.into_iter().map(status).collect();
        Ok(api::CudaSharedMemoryStatusResponse { regions })
    }

    /// Registers memory of a device, which another process has made, by its handle.
    ///
    /// # Errors
    /// If this server uses no device, or the handle is none of such memory.
    pub fn register_cuda_region(
        &self,
        caller: &Caller,
        request: &api::CudaSharedMemoryRegisterRequest,
    ) -> Result<api::CudaSharedMemoryRegisterResponse, Fault> {
        let api::CudaSharedMemoryRegisterRequest {
            name,
            raw_handle,
            device_id,
            byte_size,
        } = request;
        let owner = &caller.owner;
        self.regions
            .register_device(owner, name, *device_id, raw_handle, *byte_size)?;
        Ok(api::CudaSharedMemoryRegisterResponse {})
    }
}
