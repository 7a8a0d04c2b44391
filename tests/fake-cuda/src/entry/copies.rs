//! Copies.

use std::sync::Arc;

use cudarc::driver::sys::CUmemcpyAttributes;

use super::{Array, Out, answer};
use crate::driver::state::{Driver, Object};
use crate::driver::status::{INVALID_HANDLE, INVALID_VALUE, Status};
use crate::driver::stream::Stream;
use crate::driver::work::{Operation, Place};

/// The stream of a handle; 0 is the default one.
pub(super) fn stream(driver: &Driver, handle: u64) -> Result<Arc<Stream>, Status> {
    if handle == 0 {
        let context = driver.current()?;
        let start = || Stream::start(&context);
        return Ok(context.default_stream.get_or_init(start).clone());
    }
    match driver.find(handle)? {
        Object::Stream(stream) => Ok(stream),
        _ => Err(INVALID_HANDLE),
    }
}

fn enqueue(driver: &Driver, handle: u64, operation: Operation) -> Result<(), Status> {
    let context = driver.current()?;
    stream(driver, handle)?.enqueue(operation, &context)
}

fn host(address: u64) -> Result<usize, Status> {
    usize::try_from(address).map_err(|_| INVALID_VALUE)
}

/// The three plain copies differ in what their ends are.
fn copy(
    name: &str,
    handle: u64,
    byte_size: usize,
    ends: impl FnOnce(&Driver) -> Result<(Place, Place), Status>,
) -> Status {
    answer(name, |driver| {
        driver.current()?;
        let (to, from) = ends(driver)?;
        let operation = Operation::Copy {
            to,
            from,
            byte_size,
        };
        enqueue(driver, handle, operation)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: u64,
    byte_size: usize,
    handle: u64,
) -> Status {
    copy("cuMemcpyHtoDAsync_v2", handle, byte_size, |driver| {
        let from = driver.host_place(host(from)?, byte_size)?;
        Ok((driver.device_place(to, byte_size)?, from))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(
    to: u64,
    from: u64,
    byte_size: usize,
    handle: u64,
) -> Status {
    copy("cuMemcpyDtoHAsync_v2", handle, byte_size, |driver| {
        let to = driver.host_place(host(to)?, byte_size)?;
        Ok((to, driver.device_place(from, byte_size)?))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    byte_size: usize,
    handle: u64,
) -> Status {
    copy("cuMemcpyDtoDAsync_v2", handle, byte_size, |driver| {
        let to = driver.device_place(to, byte_size)?;
        Ok((to, driver.device_place(from, byte_size)?))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, byte_size: usize, handle: u64) -> Status {
    answer("cuMemsetD8Async", |driver| {
        driver.current()?;
        let Place::Device(to) = driver.device_place(to, byte_size)? else {
            return Err(INVALID_VALUE);
        };
        let operation = Operation::Fill {
            to,
            value,
            byte_size,
        };
        enqueue(driver, handle, operation)
    })
}

/// The function must not call the driver; here it would wait for itself.
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchHostFunc(
    handle: u64,
    function: Option<extern "C" fn(usize)>,
    data: usize,
) -> Status {
    answer("cuLaunchHostFunc", |driver| {
        driver.current()?;
        let function = function.ok_or(INVALID_VALUE)?;
        enqueue(driver, handle, Operation::HostCall { function, data })
    })
}

/// As in drivers from 12.8 on. Copies before one that cannot be done are done, as NVIDIA documents it.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyBatchAsync(
    to: Array<u64>,
    from: Array<u64>,
    byte_sizes: Array<usize>,
    count: usize,
    attributes: Array<CUmemcpyAttributes>,
    attribute_starts: Array<usize>,
    attribute_count: usize,
    failed: Out<usize>,
    handle: u64,
) -> Status {
    answer("cuMemcpyBatchAsync", |driver| {
        driver.current()?;
        failed.put_if_wanted(usize::MAX);
        // The default stream is not taken, and the first attribute has to hold from the first copy on.
        if handle == 0 || count == 0 || attribute_count == 0 || attribute_count > count {
            return Err(INVALID_VALUE);
        }
        attributes.get(attribute_count - 1)?;
        if attribute_starts.get(0)? != 0 {
            return Err(INVALID_VALUE);
        }
        driver.report.lock().batched_calls += 1;
        for index in 0..count {
            let operation = || -> Result<Operation, Status> {
                let byte_size = byte_sizes.get(index)?;
                Ok(Operation::Copy {
                    to: driver.any_place(to.get(index)?, byte_size)?,
                    from: driver.any_place(from.get(index)?, byte_size)?,
                    byte_size,
                })
            };
            let enqueued = operation().and_then(|operation| enqueue(driver, handle, operation));
            if let Err(status) = enqueued {
                failed.put_if_wanted(index);
                return Err(status);
            }
        }
        Ok(())
    })
}
