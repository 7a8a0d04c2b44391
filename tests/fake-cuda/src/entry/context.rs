//! Starting, devices, contexts, errors, and the counts.

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::{Out, answer};
use crate::driver::state::driver;
use crate::driver::status::{self, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, SUCCESS, Status};
use crate::harness::DEVICE_UUID;

/// CUDA 13.0, as 1000 x major + 10 x minor.
const VERSION: c_int = 13_000;
const NAME: &CStr = c"fake CUDA device (memory of the host)";

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> Status {
    answer("cuInit", |driver| match driver.settings.devices {
        0 => Err(NO_DEVICE),
        _ => Ok(()),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> Status {
    answer("cuDriverGetVersion", |_| version.put(VERSION))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> Status {
    answer("cuDeviceGetCount", |driver| {
        count.put(c_int::try_from(driver.settings.devices).map_err(|_| INVALID_VALUE)?)
    })
}

/// A device's handle is its number.
fn device_number(device: c_int) -> Result<u32, Status> {
    let number = u32::try_from(device).map_err(|_| INVALID_DEVICE)?;
    if number < driver().settings.devices {
        Ok(number)
    } else {
        Err(INVALID_DEVICE)
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> Status {
    answer("cuDeviceGet", |_| {
        device_number(ordinal)?;
        device.put(ordinal)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetName(name: Out<c_char>, room: c_int, device: c_int) -> Status {
    answer("cuDeviceGetName", |_| {
        device_number(device)?;
        let bytes = NAME.to_bytes_with_nul();
        if usize::try_from(room).unwrap_or(0) < bytes.len() || name.address().is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: by the driver's interface there is as much room as is said.
        unsafe { std::ptr::copy_nonoverlapping(NAME.as_ptr(), name.address(), bytes.len()) };
        Ok(())
    })
}

/// What a UUID is in C.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Uuid {
    bytes: [u8; 16],
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<Uuid>, device: c_int) -> Status {
    answer("cuDeviceGetUuid_v2", |_| {
        let mut bytes = DEVICE_UUID;
        bytes[14..].copy_from_slice(&device_number(device)?.to_le_bytes()[..2]);
        uuid.put(Uuid { bytes })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(
    value: Out<c_int>,
    attribute: c_uint,
    device: c_int,
) -> Status {
    answer("cuDeviceGetAttribute", |_| {
        device_number(device)?;
        value.put(match attribute {
            40 => 2, // copies at once
            75 => 9, // compute capability, before the point
            76 => 0, // and behind it
            91 => 0, // registered memory has another address on the device
            _ => 1,  // whatever else is asked for is there
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(byte_size: Out<usize>, device: c_int) -> Status {
    answer("cuDeviceTotalMem_v2", |driver| {
        device_number(device)?;
        byte_size.put(driver.settings.memory_bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> Status {
    answer("cuMemGetInfo_v2", |driver| {
        let context = driver.current()?;
        let used = driver.memory.lock().used(context.device);
        free.put(driver.settings.memory_bytes.saturating_sub(used))?;
        total.put(driver.settings.memory_bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: c_int) -> Status {
    answer("cuDevicePrimaryCtxRetain", |driver| {
        context.put(driver.retain(device_number(device)?)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Status {
    answer("cuDevicePrimaryCtxRelease_v2", |driver| {
        driver.release(device_number(device)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> Status {
    answer("cuDevicePrimaryCtxReset_v2", |driver| {
        driver.reset(device_number(device)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: u64) -> Status {
    answer("cuCtxSetCurrent", |driver| driver.set_current(context))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: Out<u64>) -> Status {
    answer("cuCtxGetCurrent", |driver| {
        context.put(driver.current_handle())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Status {
    answer("cuCtxSynchronize", |driver| {
        let context = driver.current()?;
        driver.wait_for_all(&context)
    })
}

/// The name of a failure. Never fails by request, and counts no call.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(failure: Status, name: Out<*const c_char>) -> Status {
    put_words(status::words(failure).map(|(name, _)| name), name)
}

/// The description of a failure. Never fails by request, and counts no call.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(failure: Status, text: Out<*const c_char>) -> Status {
    put_words(status::words(failure).map(|(_, text)| text), text)
}

fn put_words(words: Option<&'static CStr>, to: Out<*const c_char>) -> Status {
    match words {
        Some(words) => to.put(words.as_ptr()).err().unwrap_or(SUCCESS),
        None => {
            to.put_if_wanted(std::ptr::null());
            INVALID_VALUE
        }
    }
}

/// No function of a driver: the counts so far, as JSON with a zero at its end, in at most `room` bytes. Returns the
/// bytes that it takes.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_counts(to: Out<c_char>, room: usize) -> usize {
    let mut text = serde_json::to_vec(&driver().counts()).unwrap_or_default();
    text.push(0);
    if text.len() <= room && !to.address().is_null() {
        // SAFETY: the caller says that there is that much room.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to.address(), text.len()) };
    }
    text.len()
}

/// No function of a driver: where the device's threads reach memory that a program knows by an address of the device, for
/// libraries of tests that compute there in functions of the host. 0 if not all `byte_size` bytes are in one allocation.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_memory(address: usize, byte_size: usize) -> usize {
    let range = driver().memory.lock().range(address, byte_size);
    range.map_or(0, |range| range.start().expose_provenance())
}
