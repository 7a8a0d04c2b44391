//! The functions of the driver's library, looked up once.
//!
//! cudarc finds the library and has the types. Its own functions panic where a symbol is missing, and return an enum
//! that a newer driver's numbers are not part of; so functions are looked up here, all at once, with a plain number as
//! their result.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUmodule,
    CUstream,
};

use crate::error::CudaError;

/// Memory of the device without an address.
pub(super) type Physical = sys::CUmemGenericAllocationHandle;

/// What every function returns; 0 is success.
pub(super) type Status = u32;

macro_rules! functions {
    (
        required { $($name:ident($($arg:ty),* $(,)?);)* }
        optional { $($may:ident($($may_arg:ty),* $(,)?);)* }
    ) => {
        /// Entry points of the driver.
        #[derive(Debug)]
        pub(super) struct Table {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) -> Status,)*
            $(pub(super) $may: Option<unsafe extern "C" fn($($may_arg),*) -> Status>,)*
        }

        impl Table {
            fn load() -> Result<Self, CudaError> {
                let mut missing: Vec<&'static str> = Vec::new();
                $(
                    let $name = find::<unsafe extern "C" fn($($arg),*) -> Status>(stringify!($name));
                    if $name.is_none() {
                        missing.push(stringify!($name));
                    }
                )*
                let too_old = || CudaError::DriverTooOld { missing: missing.join(", ") };
                Ok(Self {
                    $($name: $name.ok_or_else(too_old)?,)*
                    $($may: find::<unsafe extern "C" fn($($may_arg),*) -> Status>(stringify!($may)),)*
                })
            }
        }
    };
}

functions! {
    required {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, CUdevice);
        cuDeviceGetUuid_v2(*mut sys::CUuuid, CUdevice);
        cuDeviceGetAttribute(*mut c_int, sys::CUdevice_attribute, CUdevice);
        cuDeviceTotalMem_v2(*mut usize, CUdevice);
        cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
        cuDevicePrimaryCtxRelease_v2(CUdevice);
        cuDevicePrimaryCtxReset_v2(CUdevice);
        cuCtxSetCurrent(CUcontext);
        cuCtxSynchronize();
        cuGetErrorName(Status, *mut *const c_char);
        cuGetErrorString(Status, *mut *const c_char);
        cuMemAlloc_v2(*mut CUdeviceptr, usize);
        cuMemFree_v2(CUdeviceptr);
        cuMemGetInfo_v2(*mut usize, *mut usize);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemHostRegister_v2(*mut c_void, usize, c_uint);
        cuMemHostUnregister(*mut c_void);
        cuMemHostGetDevicePointer_v2(*mut CUdeviceptr, *mut c_void, c_uint);
        cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
        cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
        cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
        cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
        cuStreamCreate(*mut CUstream, c_uint);
        cuStreamDestroy_v2(CUstream);
        cuStreamSynchronize(CUstream);
        cuStreamWaitEvent(CUstream, CUevent, c_uint);
        cuEventCreate(*mut CUevent, c_uint);
        cuEventDestroy_v2(CUevent);
        cuEventRecord(CUevent, CUstream);
        cuEventQuery(CUevent);
        cuEventSynchronize(CUevent);
        cuModuleLoadData(*mut CUmodule, *const c_void);
        cuModuleUnload(CUmodule);
        cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
        cuLaunchKernel(
            CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
            *mut *mut c_void, *mut *mut c_void,
        );
        cuThreadExchangeStreamCaptureMode(*mut sys::CUstreamCaptureMode);
        cuStreamBeginCapture_v2(CUstream, sys::CUstreamCaptureMode);
        cuStreamEndCapture(CUstream, *mut CUgraph);
        cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, u64);
        cuGraphDestroy(CUgraph);
        cuGraphExecDestroy(CUgraphExec);
        cuGraphLaunch(CUgraphExec, CUstream);
        cuMemGetAddressRange_v2(*mut CUdeviceptr, *mut usize, CUdeviceptr);
        cuIpcGetMemHandle(*mut sys::CUipcMemHandle, CUdeviceptr);
        cuIpcOpenMemHandle_v2(*mut CUdeviceptr, sys::CUipcMemHandle, c_uint);
        cuIpcCloseMemHandle(CUdeviceptr);
        cuMemGetAllocationGranularity(
            *mut usize, *const sys::CUmemAllocationProp, sys::CUmemAllocationGranularity_flags,
        );
        cuMemCreate(*mut Physical, usize, *const sys::CUmemAllocationProp, u64);
        cuMemRelease(Physical);
        cuMemGetAllocationPropertiesFromHandle(*mut sys::CUmemAllocationProp, Physical);
        cuMemExportToShareableHandle(
            *mut c_void, Physical, sys::CUmemAllocationHandleType, u64,
        );
        cuMemImportFromShareableHandle(*mut Physical, *mut c_void, sys::CUmemAllocationHandleType);
        cuMemAddressReserve(*mut CUdeviceptr, usize, usize, CUdeviceptr, u64);
        cuMemAddressFree(CUdeviceptr, usize);
        cuMemMap(CUdeviceptr, usize, usize, Physical, u64);
        cuMemUnmap(CUdeviceptr, usize);
        cuMemSetAccess(CUdeviceptr, usize, *const sys::CUmemAccessDesc, usize);
    }
    optional {
        cuMemcpyBatchAsync(
            *mut CUdeviceptr, *mut CUdeviceptr, *mut usize, usize,
            *mut sys::CUmemcpyAttributes, *mut usize, usize, *mut usize, CUstream,
        );
    }
}

/// The table of this process.
///
/// # Errors
/// If there is no driver, or it lacks a function.
pub(super) fn table() -> Result<&'static Table, CudaError> {
    static TABLE: OnceLock<Result<Table, CudaError>> = OnceLock::new();
    TABLE
        .get_or_init(|| {
            // SAFETY: runs the library's initialisers, which NVIDIA makes safe to run at any time.
            if !unsafe { sys::is_culib_present() } {
                return Err(CudaError::NoDriver);
            }
            Table::load()
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// A function of the library, if it has it. `F` is its type.
fn find<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: the library is there, as `table` has seen, so this loads it and never panics.
    let library = unsafe { sys::culib() };
    // SAFETY: `F` is the type that NVIDIA documents for this name; the macro takes both from one line.
    unsafe { library.get::<F>(name.as_bytes()) }
        .ok()
        .map(|symbol| *symbol)
}

impl Table {
    /// Turns a status into a result that names the call and what the driver says about it.
    pub(super) fn check(&self, call: &'static str, status: Status) -> Result<(), CudaError> {
        if status == 0 {
            return Ok(());
        }
        Err(CudaError::Call {
            call,
            code: status,
            name: self.words(self.cuGetErrorName, status),
            text: self.words(self.cuGetErrorString, status),
        })
    }

    fn words(
        &self,
        ask: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
        status: Status,
    ) -> String {
        let mut words: *const c_char = std::ptr::null();
        // SAFETY: takes any number, and writes an address or null to where it is told.
        let answer = unsafe { ask(status, &raw mut words) };
        if answer != 0 || words.is_null() {
            return "unknown to this driver".to_owned();
        }
        // SAFETY: not null, so a constant string of the driver that ends with a zero.
        let words = unsafe { CStr::from_ptr(words) };
        words.to_string_lossy().into_owned()
    }
}
