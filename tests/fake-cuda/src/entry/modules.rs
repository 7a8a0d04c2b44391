//! Modules, and launches of kernels.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use super::copies::stream;
use super::{Array, Out, Text, answer};
use crate::driver::kernels::{Launch, Module};
use crate::driver::state::Object;
use crate::driver::status::{INVALID_HANDLE, INVALID_VALUE, Status};
use crate::driver::work::Operation;

/// Threads of a block, at most.
const THREADS_MAX: u64 = 1024;
/// Blocks along y and z, at most.
const BLOCKS_MAX: u32 = 65_535;

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(handle: Out<u64>, image: Text) -> Status {
    answer("cuModuleLoadData", |driver| {
        let context = driver.current()?;
        let module = Arc::new(Module::load(&image.read()?)?);
        handle.put(driver.make(context.device, Object::Module(module)))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(handle: u64) -> Status {
    answer("cuModuleUnload", |driver| {
        driver.current()?;
        match driver.forget(handle)? {
            Object::Module(module) => {
                driver.forget_functions(&module);
                Ok(())
            }
            _ => Err(INVALID_HANDLE),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetFunction(function: Out<u64>, handle: u64, name: Text) -> Status {
    answer("cuModuleGetFunction", |driver| {
        let context = driver.current()?;
        let Object::Module(module) = driver.find(handle)? else {
            return Err(INVALID_HANDLE);
        };
        let name = module.function(&name.read()?)?;
        function.put(driver.make(context.device, Object::Function(module, name)))
    })
}

/// The grid is checked for what a device allows; the kernels give the same result for any.
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchKernel(
    function: u64,
    blocks_x: c_uint,
    blocks_y: c_uint,
    blocks_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    _shared_bytes: c_uint,
    handle: u64,
    arguments: Array<*mut c_void>,
    _extra: Array<*mut c_void>,
) -> Status {
    answer("cuLaunchKernel", |driver| {
        let context = driver.current()?;
        let threads = u64::from(threads_x) * u64::from(threads_y) * u64::from(threads_z);
        let has_blocks = blocks_x > 0 && blocks_y > 0 && blocks_z > 0;
        let fits = blocks_y <= BLOCKS_MAX && blocks_z <= BLOCKS_MAX;
        if !has_blocks || !fits || threads == 0 || threads > THREADS_MAX {
            driver.violation(format!(
                "a launch of {blocks_x}x{blocks_y}x{blocks_z} blocks of {threads} threads"
            ));
            return Err(INVALID_VALUE);
        }
        let Object::Function(_, name) = driver.find(function)? else {
            return Err(INVALID_HANDLE);
        };
        let mut given = Vec::new();
        for index in 0..Launch::argument_count(name) {
            given.push(arguments.get(index)?);
        }
        let launch = Launch::new(name, &given)?;
        stream(driver, handle)?.enqueue(Operation::Kernel(launch), &context)
    })
}
