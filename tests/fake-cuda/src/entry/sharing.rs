//! Memory of the device for other processes: IPC handles, and memory that gets its address afterwards.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{
    CUmemAccessDesc, CUmemAllocationHandleType, CUmemAllocationProp,
    CUmemAllocationProp_st__bindgen_ty_1, CUmemAllocationType, CUmemLocation, CUmemLocationType,
};

use super::{Array, Out, answer};
use crate::driver::sharing::{GRANULARITY, HANDLE_BYTES, Physical};
use crate::driver::state::{Driver, Object};
use crate::driver::status::{INVALID_HANDLE, INVALID_VALUE, Status};

/// The one kind of handle that is played here: a file descriptor.
const FILE_DESCRIPTOR: c_uint = 1;

/// What an IPC handle is in C.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IpcHandle {
    reserved: [u8; HANDLE_BYTES],
}

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcGetMemHandle(handle: Out<IpcHandle>, address: u64) -> Status {
    answer("cuIpcGetMemHandle", |driver| {
        driver.current()?;
        let reserved = driver.ipc_handle(address)?;
        handle.put(IpcHandle { reserved })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcOpenMemHandle_v2(
    address: Out<u64>,
    handle: IpcHandle,
    _flags: c_uint,
) -> Status {
    answer("cuIpcOpenMemHandle_v2", |driver| {
        let context = driver.current()?;
        address.put(driver.open_ipc(context.device, &handle.reserved)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcCloseMemHandle(address: u64) -> Status {
    answer("cuIpcCloseMemHandle", |driver| {
        let context = driver.current()?;
        driver.wait_for_all(&context)?;
        driver.unmap_device(address)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAllocationGranularity(
    granularity: Out<usize>,
    _properties: Array<CUmemAllocationProp>,
    _option: c_uint,
) -> Status {
    answer("cuMemGetAllocationGranularity", |_| {
        granularity.put(GRANULARITY)
    })
}

fn physical(driver: &Driver, handle: u64) -> Result<Arc<Physical>, Status> {
    match driver.find(handle)? {
        Object::Physical(physical) => Ok(physical),
        _ => Err(INVALID_HANDLE),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemCreate(
    handle: Out<u64>,
    byte_size: usize,
    properties: Array<CUmemAllocationProp>,
    _flags: c_ulonglong,
) -> Status {
    answer("cuMemCreate", |driver| {
        let device = properties.get(0)?.location.id;
        let device = u32::try_from(device).map_err(|_| INVALID_VALUE)?;
        let physical = Arc::new(Physical::new(device, byte_size)?);
        handle.put(driver.make(device, Object::Physical(physical)))
    })
}

/// The memory stays while it is mapped.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemRelease(handle: u64) -> Status {
    answer("cuMemRelease", |driver| {
        physical(driver, handle)?;
        driver.forget(handle).map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAllocationPropertiesFromHandle(
    properties: Out<CUmemAllocationProp>,
    handle: u64,
) -> Status {
    answer("cuMemGetAllocationPropertiesFromHandle", |driver| {
        let device = physical(driver, handle)?.device;
        properties.put(CUmemAllocationProp {
            type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes:
                CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
            location: CUmemLocation {
                type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: c_int::try_from(device).map_err(|_| INVALID_VALUE)?,
            },
            win32HandleMetaData: std::ptr::null_mut(),
            allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
                compressionType: 0,
                gpuDirectRDMACapable: 0,
                usage: 0,
                reserved: [0; 4],
            },
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemExportToShareableHandle(
    descriptor: Out<c_int>,
    handle: u64,
    kind: c_uint,
    _flags: c_ulonglong,
) -> Status {
    answer("cuMemExportToShareableHandle", |driver| {
        if kind != FILE_DESCRIPTOR {
            return Err(INVALID_VALUE);
        }
        descriptor.put(physical(driver, handle)?.export()?)
    })
}

/// The descriptor comes as if it were an address.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemImportFromShareableHandle(
    handle: Out<u64>,
    descriptor: *mut c_void,
    kind: c_uint,
) -> Status {
    answer("cuMemImportFromShareableHandle", |driver| {
        if kind != FILE_DESCRIPTOR {
            return Err(INVALID_VALUE);
        }
        let context = driver.current()?;
        let descriptor = c_int::try_from(descriptor.addr()).map_err(|_| INVALID_VALUE)?;
        let physical = Arc::new(Physical::import(descriptor)?);
        handle.put(driver.make(context.device, Object::Physical(physical)))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAddressReserve(
    address: Out<u64>,
    byte_size: usize,
    _alignment: usize,
    _wanted: u64,
    _flags: c_ulonglong,
) -> Status {
    answer("cuMemAddressReserve", |driver| {
        address.put(driver.reserve(byte_size)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAddressFree(address: u64, _byte_size: usize) -> Status {
    answer("cuMemAddressFree", |driver| driver.unreserve(address))
}

/// Whole reservations and whole allocations: parts are not played here.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemMap(
    address: u64,
    byte_size: usize,
    offset: usize,
    handle: u64,
    _flags: c_ulonglong,
) -> Status {
    answer("cuMemMap", |driver| {
        if offset != 0 {
            return Err(INVALID_VALUE);
        }
        let physical = physical(driver, handle)?;
        driver.map_physical(address, byte_size, &physical)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemUnmap(address: u64, _byte_size: usize) -> Status {
    answer("cuMemUnmap", |driver| driver.unmap_device(address))
}

/// Takes any right: who has memory mapped may use it here.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemSetAccess(
    address: u64,
    _byte_size: usize,
    descriptions: Array<CUmemAccessDesc>,
    count: usize,
) -> Status {
    answer("cuMemSetAccess", |driver| {
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        if count == 0 || driver.memory.lock().get(start).is_none() {
            return Err(INVALID_VALUE);
        }
        descriptions.get(count - 1).map(|_| ())
    })
}
