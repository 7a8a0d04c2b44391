//! The functions of the driver's C interface, as NVIDIA declares them.
//!
//! Each is run by [`answer`]: it counts the call, fails if the environment asks for it, and turns a result into a
//! number. What a caller gives by address is an [`Out`], an [`Array`] or a [`Text`]; those are where C's addresses are
//! followed.
#![allow(non_snake_case, reason = "the driver's own names")]
#![allow(unreachable_pub, reason = "reached by name, from C")]

mod context;
mod copies;
mod graphs;
mod memory;
mod modules;
mod sharing;
mod streams;

use std::ffi::{CStr, c_char};

use crate::driver::state::{Driver, driver};
use crate::driver::status::{INVALID_VALUE, SUCCESS, Status};

/// Where a result goes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    fn put(self, value: T) -> Result<(), Status> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so by the driver's interface the address of room for a `T`.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// What is there, where a call takes and gives.
    fn get(self) -> Result<T, Status>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so by the driver's interface the address of a `T`.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// For results that not every caller wants.
    fn put_if_wanted(self, value: T) {
        let _ = self.put(value);
    }

    fn address(self) -> *mut T {
        self.0
    }
}

/// What a caller gives by address: so many values, one behind the other.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Array<T>(*const T);

impl<T: Copy> Array<T> {
    fn get(self, index: usize) -> Result<T, Status> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        let address = self.0.wrapping_add(index);
        // SAFETY: not null, so by the driver's interface the address of more than `index` values.
        Ok(unsafe { address.read_unaligned() })
    }
}

/// A name or a text that ends with a zero.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Text(*const c_char);

impl Text {
    fn read(self) -> Result<String, Status> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so by the driver's interface a text that ends with a zero.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| INVALID_VALUE)
    }
}

/// Runs one call.
fn answer(name: &str, call: impl FnOnce(&'static Driver) -> Result<(), Status>) -> Status {
    let driver = driver();
    let outcome = driver.injected(name).and_then(|()| call(driver));
    outcome.err().unwrap_or(SUCCESS)
}
