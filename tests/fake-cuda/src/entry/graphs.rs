//! Graphs, by capture of one stream.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::Arc;

use super::copies::stream;
use super::{Out, answer};
use crate::driver::state::{Object, driver};
use crate::driver::status::{INVALID_HANDLE, INVALID_VALUE, Status};

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(handle: u64, _mode: c_uint) -> Status {
    answer("cuStreamBeginCapture_v2", |driver| {
        driver.current()?;
        if handle == 0 {
            return Err(INVALID_VALUE);
        }
        stream(driver, handle)?.begin_capture()?;
        driver.set_capturing(true);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(mode: Out<c_uint>) -> Status {
    answer("cuThreadExchangeStreamCaptureMode", |driver| {
        let before = driver.exchange_capture_mode(mode.get()?);
        mode.put(before)
    })
}

/// Not NVIDIA's: a library that captures says so, as ONNX Runtime's provider does, for all threads to see.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_capture_of_all(begins: bool) {
    driver().set_capture_of_all(begins);
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(handle: u64, graph: Out<u64>) -> Status {
    // Whatever it answers, the capture is over: by its interface there is no second call that could end it.
    let driver = driver();
    driver.set_capturing(false);
    let recorded = stream(driver, handle).and_then(|stream| stream.end_capture());
    answer("cuStreamEndCapture", |driver| {
        let context = driver.current()?;
        let recorded = Arc::new(recorded?);
        graph.put(driver.make(context.device, Object::Graph(recorded)))
    })
}

/// An executable graph is a handle of its own over the same operations.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(
    executable: Out<u64>,
    graph: u64,
    _flags: c_ulonglong,
) -> Status {
    answer("cuGraphInstantiateWithFlags", |driver| {
        let context = driver.current()?;
        match driver.find(graph)? {
            object @ Object::Graph(_) => executable.put(driver.make(context.device, object)),
            _ => Err(INVALID_HANDLE),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: u64) -> Status {
    answer("cuGraphDestroy", |driver| driver.forget(graph).map(|_| ()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(executable: u64) -> Status {
    answer("cuGraphExecDestroy", |driver| {
        driver.forget(executable).map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: u64, handle: u64) -> Status {
    answer("cuGraphLaunch", |driver| {
        let context = driver.current()?;
        let Object::Graph(recorded) = driver.find(executable)? else {
            return Err(INVALID_HANDLE);
        };
        let stream = stream(driver, handle)?;
        driver.report.lock().graph_launches += 1;
        for operation in recorded.iter() {
            stream.enqueue(operation.clone(), &context)?;
        }
        Ok(())
    })
}
