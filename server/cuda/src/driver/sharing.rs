//! Memory of the device shared between processes.
//!
//! Two ways: a handle of 64 bytes (CUDA IPC), which names an allocation of another process and works for whoever has
//! it, as Triton's clients send it; and a file descriptor, which is passed like any other and names nothing. What
//! comes from another process is checked: its size is the driver's word, not the peer's.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use cudarc::driver::sys::{
    CUdeviceptr, CUipcMemHandle, CUmemAccess_flags, CUmemAccessDesc,
    CUmemAllocationGranularity_flags, CUmemAllocationHandleType, CUmemAllocationProp,
    CUmemAllocationProp_st__bindgen_ty_1, CUmemAllocationType, CUmemLocation, CUmemLocationType,
};

use super::context::Entered;
use super::memory::{DeviceBuffer, DeviceMemory, Origin};
use super::table::Physical;
use crate::device::Device;
use crate::error::CudaError;

/// Bytes of an IPC handle.
pub const IPC_HANDLE_BYTES: usize = 64;
/// Lets the driver allow access between devices where that is needed to reach the memory.
const LAZY_PEER_ACCESS: u32 = 1;
/// What is shared by descriptor.
const DESCRIPTOR: CUmemAllocationHandleType =
    CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

/// Names an allocation of a process for others. Whoever has it can open it, so it is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IpcHandle(pub [u8; IPC_HANDLE_BYTES]);

impl fmt::Debug for IpcHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IpcHandle")
    }
}

impl DeviceBuffer {
    /// A handle by which another process can open this memory while it is alive. Not for memory that was opened,
    /// imported or made by [`DeviceBuffer::shareable`].
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn ipc_handle(&self) -> Result<IpcHandle, CudaError> {
        let mut handle = CUipcMemHandle {
            reserved: [0; IPC_HANDLE_BYTES],
        };
        let entered = self.context().enter()?;
        // SAFETY: the allocation is alive, and the handle goes where it is told.
        let status =
            unsafe { (entered.table().cuIpcGetMemHandle)(&raw mut handle, self.device_address()) };
        entered.check("cuIpcGetMemHandle", status)?;
        Ok(IpcHandle(handle.reserved.map(i8::cast_unsigned)))
    }

    /// Opens memory that another process has made, of which it says that it has `byte_size` bytes.
    ///
    /// # Errors
    /// If the handle is none, is of this process, or its memory is smaller than that.
    pub fn open_ipc(
        device: &Device,
        handle: &IpcHandle,
        byte_size: usize,
    ) -> Result<Self, CudaError> {
        let context = device.context();
        let reserved = handle.0.map(u8::cast_signed);
        let mut address: CUdeviceptr = 0;
        let entered = context.enter()?;
        // SAFETY: the driver checks the handle; the address goes where it is told.
        let status = unsafe {
            (entered.table().cuIpcOpenMemHandle_v2)(
                &raw mut address,
                CUipcMemHandle { reserved },
                LAZY_PEER_ACCESS,
            )
        };
        entered.check_given("cuIpcOpenMemHandle_v2", status)?;
        let capacity = capacity(&entered, address);
        drop(entered);
        let memory = DeviceMemory::new(context, address, byte_size, Origin::Opened);
        // Owned by now, and closed if this fails.
        let capacity = capacity?;
        if byte_size > capacity {
            return Err(CudaError::OutOfRange {
                at: 0,
                byte_size,
                capacity,
            });
        }
        Ok(Self::from_memory(memory))
    }

    /// Memory that can be given to other processes as a descriptor: `byte_size` bytes, rounded up to what the device
    /// gives at least, which is some megabytes.
    ///
    /// # Errors
    /// If the device has no room, or the driver refuses.
    pub fn shareable(device: &Device, byte_size: usize) -> Result<Self, CudaError> {
        let context = device.context();
        let properties = properties(device)?;
        let entered = context.enter()?;
        let least = granularity(&entered, &properties)?;
        let rounded = byte_size.max(1).checked_next_multiple_of(least);
        let byte_size = rounded.ok_or_else(|| CudaError::Arguments {
            reason: format!("{byte_size} bytes of device memory are wanted"),
        })?;
        let mut physical: Physical = 0;
        // SAFETY: the properties are complete; the handle goes where it is told.
        let status = unsafe {
            (entered.table().cuMemCreate)(&raw mut physical, byte_size, &raw const properties, 0)
        };
        entered.check("cuMemCreate", status)?;
        let address = map(&entered, physical, byte_size, &properties)?;
        drop(entered);
        let memory = DeviceMemory::new(context, address, byte_size, Origin::Mapped(physical));
        Ok(Self::from_memory(memory))
    }

    /// A descriptor of memory that was made by [`DeviceBuffer::shareable`].
    ///
    /// # Errors
    /// [`CudaError::NotShareable`] for other memory.
    pub fn export(&self) -> Result<OwnedFd, CudaError> {
        let physical = self.memory().physical().ok_or(CudaError::NotShareable)?;
        let mut descriptor: c_int = -1;
        let entered = self.context().enter()?;
        // SAFETY: the handle is alive; a descriptor goes where it is told.
        let status = unsafe {
            (entered.table().cuMemExportToShareableHandle)(
                (&raw mut descriptor).cast::<c_void>(),
                physical,
                DESCRIPTOR,
                0,
            )
        };
        entered.check("cuMemExportToShareableHandle", status)?;
        // SAFETY: the driver made the descriptor for the caller.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Memory that another process has exported, of which it says that it has `byte_size` bytes.
    ///
    /// # Errors
    /// If the descriptor is none of such memory, if it is not of this device ([`CudaError::OtherDevice`]), or if the size is
    /// not its own: the driver maps no more than there is.
    pub fn import(
        device: &Device,
        descriptor: &OwnedFd,
        byte_size: usize,
    ) -> Result<Self, CudaError> {
        let context = device.context();
        let properties = properties(device)?;
        let number = usize::try_from(descriptor.as_raw_fd()).unwrap_or(usize::MAX);
        let mut physical: Physical = 0;
        let entered = context.enter()?;
        // SAFETY: takes the descriptor's number in place of an address, does not keep it, and checks what it is.
        let status = unsafe {
            (entered.table().cuMemImportFromShareableHandle)(
                &raw mut physical,
                std::ptr::without_provenance_mut(number),
                DESCRIPTOR,
            )
        };
        entered.check_given("cuMemImportFromShareableHandle", status)?;
        if let Err(error) = check_origin(&entered, physical, &properties) {
            release(&entered, physical);
            return Err(error);
        }
        if let Err(error) = check_whole(&entered, physical, byte_size, &properties) {
            release(&entered, physical);
            return Err(error);
        }
        let address = map(&entered, physical, byte_size, &properties)?;
        drop(entered);
        let memory = DeviceMemory::new(context, address, byte_size, Origin::Mapped(physical));
        Ok(Self::from_memory(memory))
    }
}

fn location(device: &Device) -> Result<CUmemLocation, CudaError> {
    let index = device.facts().index;
    Ok(CUmemLocation {
        type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        id: c_int::try_from(index).map_err(|_| CudaError::WrongDevice {
            index,
            count: device.driver().device_count(),
        })?,
    })
}

fn properties(device: &Device) -> Result<CUmemAllocationProp, CudaError> {
    Ok(CUmemAllocationProp {
        type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: DESCRIPTOR,
        location: location(device)?,
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    })
}

/// That imported memory is what this process would make itself: plain memory of this device. There are other things with
/// such descriptors, of which some are not to be read by a copy, and an error of that kind would spoil the context.
fn check_origin(
    entered: &Entered<'_>,
    physical: Physical,
    wanted: &CUmemAllocationProp,
) -> Result<(), CudaError> {
    let mut found = CUmemAllocationProp {
        location: CUmemLocation {
            type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID,
            id: 0,
        },
        ..*wanted
    };
    // SAFETY: the handle is the caller's; properties go where it is told.
    let status = unsafe {
        (entered.table().cuMemGetAllocationPropertiesFromHandle)(&raw mut found, physical)
    };
    entered.check_given("cuMemGetAllocationPropertiesFromHandle", status)?;
    if found.type_ == wanted.type_ && found.location == wanted.location {
        return Ok(());
    }
    Err(CudaError::OtherDevice)
}

/// That memory has no more bytes than its owner says: it stays on the device, all of it, while it is mapped, and is charged by
/// what he says. The driver tells nobody the size of what was imported, but maps no more than there is, and perhaps a part.
fn check_whole(
    entered: &Entered<'_>,
    physical: Physical,
    byte_size: usize,
    properties: &CUmemAllocationProp,
) -> Result<(), CudaError> {
    let more = byte_size.checked_add(granularity(entered, properties)?);
    let more = more.ok_or_else(|| CudaError::Arguments {
        reason: format!("{byte_size} bytes of device memory are to be mapped"),
    })?;
    let mut address: CUdeviceptr = 0;
    // SAFETY: reserves addresses that nothing else has, and writes the first to where it is told.
    let status = unsafe { (entered.table().cuMemAddressReserve)(&raw mut address, more, 0, 0, 0) };
    entered.check_given("cuMemAddressReserve", status)?;
    // SAFETY: the addresses were reserved just now; the driver refuses a size that is not the memory's.
    let status = unsafe { (entered.table().cuMemMap)(address, more, 0, physical, 0) };
    if status != 0 {
        free_addresses(entered, address, more);
        return Ok(());
    }
    unmap(entered, address, more);
    Err(CudaError::Arguments {
        reason: format!("the memory that was imported has more than {byte_size} bytes"),
    })
}

fn granularity(
    entered: &Entered<'_>,
    properties: &CUmemAllocationProp,
) -> Result<usize, CudaError> {
    let mut least = 0;
    // SAFETY: the properties are complete; a number goes where it is told.
    let status = unsafe {
        (entered.table().cuMemGetAllocationGranularity)(
            &raw mut least,
            properties,
            CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM,
        )
    };
    entered.check("cuMemGetAllocationGranularity", status)?;
    Ok(least.max(1))
}

/// Bytes from `address` on of the allocation that it lies in.
fn capacity(entered: &Entered<'_>, address: CUdeviceptr) -> Result<usize, CudaError> {
    let (mut base, mut byte_size) = (0, 0);
    // SAFETY: takes any address, and writes two numbers to where it is told.
    let status = unsafe {
        (entered.table().cuMemGetAddressRange_v2)(&raw mut base, &raw mut byte_size, address)
    };
    entered.check("cuMemGetAddressRange_v2", status)?;
    let before = usize::try_from(address - base).unwrap_or(usize::MAX);
    Ok(byte_size.saturating_sub(before))
}

/// Gives memory an address that this device may read and write. The handle is released if that fails.
fn map(
    entered: &Entered<'_>,
    physical: Physical,
    byte_size: usize,
    properties: &CUmemAllocationProp,
) -> Result<CUdeviceptr, CudaError> {
    let mut address: CUdeviceptr = 0;
    // SAFETY: reserves addresses that nothing else has, and writes the first to where it is told.
    let status =
        unsafe { (entered.table().cuMemAddressReserve)(&raw mut address, byte_size, 0, 0, 0) };
    if let Err(error) = entered.check_given("cuMemAddressReserve", status) {
        release(entered, physical);
        return Err(error);
    }
    // SAFETY: the addresses were reserved just now; the driver refuses a size that is not the memory's.
    let status = unsafe { (entered.table().cuMemMap)(address, byte_size, 0, physical, 0) };
    if let Err(error) = entered.check_given("cuMemMap", status) {
        free_addresses(entered, address, byte_size);
        release(entered, physical);
        return Err(error);
    }
    let access = CUmemAccessDesc {
        location: properties.location,
        flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    // SAFETY: the memory is mapped there; one description.
    let status =
        unsafe { (entered.table().cuMemSetAccess)(address, byte_size, &raw const access, 1) };
    if let Err(error) = entered.check_given("cuMemSetAccess", status) {
        unmap(entered, address, byte_size);
        release(entered, physical);
        return Err(error);
    }
    Ok(address)
}

/// Takes mapped memory from its addresses, and gives those back.
pub(super) fn unmap(entered: &Entered<'_>, address: CUdeviceptr, byte_size: usize) {
    // SAFETY: mapped by `map`; each transfer that uses it holds it until its event.
    let _ = unsafe { (entered.table().cuMemUnmap)(address, byte_size) };
    free_addresses(entered, address, byte_size);
}

fn free_addresses(entered: &Entered<'_>, address: CUdeviceptr, byte_size: usize) {
    // SAFETY: reserved by `map`, and nothing is mapped there.
    let _ = unsafe { (entered.table().cuMemAddressFree)(address, byte_size) };
}

pub(super) fn release(entered: &Entered<'_>, physical: Physical) {
    // SAFETY: the handle is the caller's, and is not used again.
    let _ = unsafe { (entered.table().cuMemRelease)(physical) };
}
