//! Memory of the device, and pinned memory of the host.

use std::ffi::c_uint;
use std::ptr;
use std::sync::atomic::Ordering;

use rustix::mm::{MapFlags, ProtFlags};

use super::{Out, answer};
use crate::driver::host_memory::{Kind, Pinned, device_address};
use crate::driver::state::Driver;
use crate::driver::status::{
    ALREADY_REGISTERED, INVALID_VALUE, NOT_FOUND, NOT_REGISTERED, OUT_OF_MEMORY, Status,
};

const DEVICE_MAP: c_uint = 2;
const READ_ONLY: c_uint = 8;
const PAGE: usize = 4096;

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<u64>, byte_size: usize) -> Status {
    answer("cuMemAlloc_v2", |driver| {
        let context = driver.current()?;
        driver.check_not_capturing()?;
        if byte_size == 0 {
            return Err(INVALID_VALUE);
        }
        let limit = driver.settings.memory_bytes;
        let start = driver
            .memory
            .lock()
            .allocate(context.device, byte_size, limit);
        let start = start.ok_or(OUT_OF_MEMORY)?;
        let mut report = driver.report.lock();
        report.device_allocations += 1;
        report.device_allocations_live += 1;
        drop(report);
        address.put(start as u64)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> Status {
    answer("cuMemFree_v2", |driver| {
        let context = driver.current()?;
        // A driver waits for all work before it gives memory back.
        driver.wait_for_all(&context)?;
        driver.unmap_device(address).inspect_err(|_| {
            driver.violation(format!(
                "{address:#x} is freed, and no allocation starts there"
            ));
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAddressRange_v2(
    base: Out<u64>,
    byte_size: Out<usize>,
    address: u64,
) -> Status {
    answer("cuMemGetAddressRange_v2", |driver| {
        driver.current()?;
        let address = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        let found = driver.memory.lock().allocation_of(address);
        let (start, bytes) = found.ok_or(NOT_FOUND)?;
        base.put_if_wanted(start as u64);
        byte_size.put_if_wanted(bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(address: Out<u64>, byte_size: usize, flags: c_uint) -> Status {
    answer("cuMemHostAlloc", |driver| {
        let context = driver.current()?;
        driver.check_not_capturing()?;
        if byte_size == 0 {
            return Err(INVALID_VALUE);
        }
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), byte_size, rights, MapFlags::PRIVATE)
        };
        let start = mapped.map_err(|_| OUT_OF_MEMORY)?.expose_provenance();
        driver.host.lock().insert(Pinned {
            start,
            byte_size,
            kind: Kind::Allocated,
            is_mapped: flags & DEVICE_MAP != 0,
            is_read_only: false,
            device: context.device,
            under_way: 0.into(),
        });
        driver.report.lock().pinned_allocations += 1;
        address.put(start as u64)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(address: u64) -> Status {
    answer("cuMemFreeHost", |driver| {
        driver.current()?;
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        let byte_size = remove(driver, start, Kind::Allocated).ok_or(INVALID_VALUE)?;
        // SAFETY: mapped by `cuMemHostAlloc`, and taken out of the table just now.
        let _ = unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(start), byte_size) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostRegister_v2(address: u64, byte_size: usize, flags: c_uint) -> Status {
    answer("cuMemHostRegister_v2", |driver| {
        let context = driver.current()?;
        driver.check_not_capturing()?;
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        if byte_size == 0 {
            return Err(INVALID_VALUE);
        }
        if !is_mapped(start, byte_size) {
            driver.violation(format!(
                "{byte_size} bytes at {address:#x} are registered, and not all mapped"
            ));
            return Err(INVALID_VALUE);
        }
        let mut host = driver.host.lock();
        if host.overlaps(start, byte_size) {
            return Err(ALREADY_REGISTERED);
        }
        host.insert(Pinned {
            start,
            byte_size,
            kind: Kind::Registered,
            is_mapped: flags & DEVICE_MAP != 0,
            is_read_only: flags & READ_ONLY != 0,
            device: context.device,
            under_way: 0.into(),
        });
        drop(host);
        driver.report.lock().registrations += 1;
        Ok(())
    })
}

/// Whether every page of a range is mapped.
fn is_mapped(start: usize, byte_size: usize) -> bool {
    let first = start / PAGE * PAGE;
    let pages = (start + byte_size - first).div_ceil(PAGE);
    let mut resident = vec![0_u8; pages];
    let start = ptr::with_exposed_provenance_mut(first);
    // SAFETY: reads no memory of the range, and writes one byte for each page to an array of as many.
    let answer = unsafe { libc::mincore(start, pages * PAGE, resident.as_mut_ptr()) };
    answer == 0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostUnregister(address: u64) -> Status {
    answer("cuMemHostUnregister", |driver| {
        driver.current()?;
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        remove(driver, start, Kind::Registered).map_or(Err(NOT_REGISTERED), |_| Ok(()))
    })
}

/// Takes a pinned range out; returns its bytes.
fn remove(driver: &Driver, start: usize, kind: Kind) -> Option<usize> {
    let pinned = driver.host.lock().remove(start, kind)?;
    let under_way = pinned.under_way.load(Ordering::Acquire);
    if under_way > 0 {
        driver.violation(format!(
            "memory at {start:#x} is given back while {under_way} transfers over it are under way"
        ));
    }
    Some(pinned.byte_size)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostGetDevicePointer_v2(
    address: Out<u64>,
    host: u64,
    _flags: c_uint,
) -> Status {
    answer("cuMemHostGetDevicePointer_v2", |driver| {
        driver.current()?;
        let host = usize::try_from(host).map_err(|_| INVALID_VALUE)?;
        let seen = device_address(host);
        if driver.host.lock().by_device_address(seen, 1).is_none() {
            driver.violation(format!(
                "the device's address of {host:#x} is asked for, which is not mapped for it"
            ));
            return Err(INVALID_VALUE);
        }
        address.put(seen)
    })
}
