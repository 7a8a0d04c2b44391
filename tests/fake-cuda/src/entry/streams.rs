//! Streams and events.

use std::ffi::c_uint;
use std::sync::Arc;

use super::copies::stream;
use super::{Out, answer};
use crate::driver::state::{Driver, Object};
use crate::driver::status::{INVALID_HANDLE, NOT_READY, Status};
use crate::driver::stream::{Event, Stream};

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(handle: Out<u64>, _flags: c_uint) -> Status {
    answer("cuStreamCreate", |driver| {
        let context = driver.current()?;
        let stream = Stream::start(&context);
        handle.put(driver.make(context.device, Object::Stream(stream)))
    })
}

/// Returns at once; the work goes on, as with a real driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(handle: u64) -> Status {
    answer("cuStreamDestroy_v2", |driver| {
        driver.current()?;
        let Object::Stream(stream) = driver.forget(handle)? else {
            return Err(INVALID_HANDLE);
        };
        if stream.pending() > 0 {
            driver.violation("a stream is destroyed while its work is under way".to_owned());
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(handle: u64) -> Status {
    answer("cuStreamSynchronize", |driver| {
        let context = driver.current()?;
        stream(driver, handle)?.synchronize(&context)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(handle: u64, event: u64, _flags: c_uint) -> Status {
    answer("cuStreamWaitEvent", |driver| {
        driver.current()?;
        let waited_for = find_event(driver, event)?;
        stream(driver, handle)?.wait_for(&waited_for)
    })
}

fn find_event(driver: &Driver, handle: u64) -> Result<Arc<Event>, Status> {
    match driver.find(handle)? {
        Object::Event(event) => Ok(event),
        _ => Err(INVALID_HANDLE),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(handle: Out<u64>, _flags: c_uint) -> Status {
    answer("cuEventCreate", |driver| {
        let context = driver.current()?;
        let event = Arc::new(Event::default());
        handle.put(driver.make(context.device, Object::Event(event)))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(handle: u64) -> Status {
    answer("cuEventDestroy_v2", |driver| {
        driver.current()?;
        match driver.forget(handle)? {
            Object::Event(_) => Ok(()),
            _ => Err(INVALID_HANDLE),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: u64, handle: u64) -> Status {
    answer("cuEventRecord", |driver| {
        driver.current()?;
        let recorded = find_event(driver, event)?;
        stream(driver, handle)?.record(&recorded)
    })
}

/// An event that was never recorded counts as fired.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: u64) -> Status {
    answer("cuEventQuery", |driver| {
        driver.current()?;
        driver.check_not_capturing()?;
        match find_event(driver, event)?.gate() {
            Some(gate) if !gate.is_open() => Err(NOT_READY),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: u64) -> Status {
    answer("cuEventSynchronize", |driver| {
        let context = driver.current()?;
        match find_event(driver, event)?.gate() {
            Some(gate) => gate.wait_or_fail(&context),
            None => Ok(()),
        }
    })
}
