//! What the driver finds out: each test does one thing that no correct program does, by the driver's C functions, and
//! looks whether it is in the report. A driver that found nothing would make every other test pass.
#![allow(unsafe_code, reason = "calls the driver's C functions")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    reason = "each test is one misuse of the C functions, on purpose"
)]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{self, CUdeviceptr, CUevent, CUresult, CUstream};
use fake_cuda::harness::{FakeCuda, counts};
use fake_cuda::report::Report;

const BYTES: usize = 64 << 10;

fn done(result: CUresult) {
    assert_eq!(result, CUresult::CUDA_SUCCESS);
}

/// A context on this thread.
fn start() {
    unsafe {
        done(sys::cuInit(0));
        let mut context = ptr::null_mut();
        done(sys::cuDevicePrimaryCtxRetain(&raw mut context, 0));
        done(sys::cuCtxSetCurrent(context));
    }
}

fn stream() -> CUstream {
    let mut stream = ptr::null_mut();
    done(unsafe { sys::cuStreamCreate(&raw mut stream, 1) });
    stream
}

fn device(byte_size: usize) -> CUdeviceptr {
    let mut address = 0;
    done(unsafe { sys::cuMemAlloc_v2(&raw mut address, byte_size) });
    address
}

/// Registered memory of the host, never given back: a test's process is short.
fn registered(flags: u32) -> *mut c_void {
    let memory = Box::leak(vec![7_u64; BYTES / 8].into_boxed_slice());
    let address = memory.as_mut_ptr().cast();
    done(unsafe { sys::cuMemHostRegister_v2(address, BYTES, flags) });
    address
}

fn assert_found(report: &Report, what: &str) {
    let found = report
        .violations
        .iter()
        .any(|violation| violation.contains(what));
    assert!(found, "nothing about {what:?} in {report:#?}");
}

#[test]
fn unregistering_while_a_copy_is_under_way() {
    let fake = FakeCuda::new().delay_us(50_000);
    let report = fake.run("unregistering_while_a_copy_is_under_way", || {
        start();
        let (stream, host, device) = (stream(), registered(0), device(BYTES));
        unsafe {
            done(sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream));
            done(sys::cuMemHostUnregister(host));
        }
        // The copy comes to memory that is not registered any more, and spoils the context.
        let waited = unsafe { sys::cuStreamSynchronize(stream) };
        assert_eq!(waited, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    assert_found(&report, "is given back while 1 transfers");
    assert_found(&report, "was unregistered before it was used");
}

#[test]
fn unmapping_while_a_copy_is_under_way() {
    let fake = FakeCuda::new().delay_us(50_000);
    let report = fake.run("unmapping_while_a_copy_is_under_way", || {
        start();
        let (stream, device) = (stream(), device(BYTES));
        unsafe {
            let host = libc::mmap(
                ptr::null_mut(),
                BYTES,
                3,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            done(sys::cuMemHostRegister_v2(host, BYTES, 0));
            done(sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream));
            assert_eq!(libc::munmap(host, BYTES), 0);
            assert_eq!(
                sys::cuStreamSynchronize(stream),
                CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            );
        }
    });
    assert_found(&report, "were unmapped before they were used");
}

#[test]
fn registering_what_is_not_mapped() {
    let report = FakeCuda::new().run("registering_what_is_not_mapped", || {
        start();
        unsafe {
            let rights = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let host = libc::mmap(ptr::null_mut(), 2 * BYTES, 3, rights, -1, 0);
            assert_eq!(libc::munmap(host.wrapping_byte_add(BYTES), BYTES), 0);
            let refused = sys::cuMemHostRegister_v2(host, 2 * BYTES, 0);
            assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    });
    assert_found(&report, "are registered, and not all mapped");
}

#[test]
fn a_copy_over_the_edge_of_a_registration() {
    let report = FakeCuda::new().run("a_copy_over_the_edge_of_a_registration", || {
        start();
        let memory = Box::leak(vec![7_u8; 2 * BYTES].into_boxed_slice());
        let host = memory.as_mut_ptr().cast::<c_void>();
        let (stream, device) = (stream(), device(2 * BYTES));
        unsafe {
            done(sys::cuMemHostRegister_v2(host, BYTES, 0));
            let refused = sys::cuMemcpyHtoDAsync_v2(device, host, 2 * BYTES, stream);
            assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    });
    assert_found(&report, "reaches over the edge");
}

#[test]
fn a_write_to_what_is_registered_to_be_read() {
    let report = FakeCuda::new().run("a_write_to_what_is_registered_to_be_read", || {
        start();
        let (stream, host, device) = (stream(), registered(8), device(BYTES));
        unsafe {
            done(sys::cuMemcpyDtoHAsync_v2(host, device, BYTES, stream));
            assert_eq!(
                sys::cuStreamSynchronize(stream),
                CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            );
        }
    });
    assert_found(&report, "is registered to be read only, and written");
}

#[test]
fn one_byte_too_many() {
    let report = FakeCuda::new().run("one_byte_too_many", || {
        start();
        let (stream, host, device) = (stream(), registered(0), device(BYTES - 1));
        let refused = unsafe { sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream) };
        assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
    });
    assert_found(&report, "not all in one allocation");
}

#[test]
fn addresses_that_are_mixed_up() {
    let report = FakeCuda::new().run("addresses_that_are_mixed_up", || {
        start();
        let (stream, device) = (stream(), device(BYTES));
        unsafe {
            let host = ptr::with_exposed_provenance(usize::try_from(device).unwrap());
            let refused = sys::cuMemcpyHtoDAsync_v2(device, host, 16, stream);
            assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    });
    assert_found(&report, "is taken for an address of the host");
}

#[test]
fn memory_freed_twice() {
    let report = FakeCuda::new().run("memory_freed_twice", || {
        start();
        let device = device(BYTES);
        unsafe {
            done(sys::cuMemFree_v2(device));
            assert_eq!(
                sys::cuMemFree_v2(device),
                CUresult::CUDA_ERROR_INVALID_VALUE
            );
        }
    });
    assert_found(&report, "is freed, and no allocation starts there");
}

#[test]
fn handles_that_are_stale() {
    let report = FakeCuda::new().run("handles_that_are_stale", || {
        start();
        let stream = stream();
        unsafe {
            let mut event: CUevent = ptr::null_mut();
            done(sys::cuEventCreate(&raw mut event, 2));
            done(sys::cuEventDestroy_v2(event));
            let refused = sys::cuEventRecord(event, stream);
            assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_HANDLE);
            // A reset ends everything that was made before.
            done(sys::cuDevicePrimaryCtxReset_v2(0));
        }
        start();
        let refused = unsafe { sys::cuStreamSynchronize(stream) };
        assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_HANDLE);
    });
    assert_eq!(report.violations.len(), 2, "{report:#?}");
    assert_found(&report, "is used, and there is none (any more)");
}

#[test]
fn a_stream_destroyed_too_early() {
    let fake = FakeCuda::new().delay_us(50_000);
    let report = fake.run("a_stream_destroyed_too_early", || {
        start();
        let (stream, host, device) = (stream(), registered(0), device(BYTES));
        unsafe {
            done(sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream));
            done(sys::cuStreamDestroy_v2(stream));
        }
    });
    assert_found(&report, "a stream is destroyed while its work is under way");
}

#[test]
fn a_read_that_does_not_wait_comes_too_early() {
    let fake = FakeCuda::new().delay_us(20_000);
    let report = fake.run("a_read_that_does_not_wait_comes_too_early", || {
        start();
        let (first, second, device) = (stream(), stream(), device(BYTES));
        let (from, to) = (registered(0), registered(0));
        unsafe {
            // Twice as late as the read, which waits for nothing.
            done(sys::cuMemsetD8Async(device, 0, BYTES, first));
            done(sys::cuMemcpyHtoDAsync_v2(device, from, BYTES, first));
            done(sys::cuMemcpyDtoHAsync_v2(to, device, BYTES, second));
            done(sys::cuStreamSynchronize(second));
            let early = to.cast::<u64>().read();
            assert_ne!(early, 7, "the copy cannot have been done");
            done(sys::cuStreamSynchronize(first));
            // With an event in between it is right.
            let mut event: CUevent = ptr::null_mut();
            done(sys::cuEventCreate(&raw mut event, 2));
            done(sys::cuMemsetD8Async(device, 9, BYTES, first));
            done(sys::cuMemcpyHtoDAsync_v2(device, from, BYTES, first));
            done(sys::cuEventRecord(event, first));
            done(sys::cuStreamWaitEvent(second, event, 0));
            done(sys::cuMemcpyDtoHAsync_v2(to, device, BYTES, second));
            done(sys::cuStreamSynchronize(second));
            assert_eq!(to.cast::<u64>().read(), 7);
        }
    });
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn leaks_are_in_the_report() {
    let report = FakeCuda::new().run("leaks_are_in_the_report", || {
        start();
        let _ = (stream(), registered(0), device(BYTES));
        assert_eq!(counts().device_allocations_live, 1);
    });
    let live = (
        report.device_allocations_live,
        report.registrations_live,
        report.handles_live,
    );
    assert_eq!(live, (1, 1, 1));
    assert!(std::panic::catch_unwind(|| report.assert_clean()).is_err());
}

#[test]
fn a_host_that_touches_device_memory_faults() {
    let outcome = std::panic::catch_unwind(|| {
        FakeCuda::new().run("a_host_that_touches_device_memory_faults", || {
            start();
            let address = usize::try_from(device(BYTES)).unwrap();
            unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() };
        })
    });
    let message = outcome.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(
        message.contains(&format!("signal {:?}", Some(libc::SIGSEGV))),
        "{message}"
    );
}

#[test]
fn a_spoiled_context_refuses_everything_until_it_is_reset() {
    let fake = FakeCuda::new().fail("exec.copy:1:700");
    let report = fake.run(
        "a_spoiled_context_refuses_everything_until_it_is_reset",
        || {
            start();
            let (stream, host, address) = (stream(), registered(0), device(BYTES));
            unsafe {
                done(sys::cuMemcpyHtoDAsync_v2(address, host, BYTES, stream));
                let spoiled = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
                assert_eq!(sys::cuStreamSynchronize(stream), spoiled);
                assert_eq!(sys::cuMemFree_v2(address), spoiled);
                assert_eq!(sys::cuCtxSynchronize(), spoiled);
                done(sys::cuDevicePrimaryCtxReset_v2(0));
            }
            start();
            device(BYTES);
        },
    );
    assert_eq!(report.resets, 1);
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.registrations_live, 0, "a reset undoes registrations");
}

/// As with a real driver, whose functions have no second call that could end a capture.
#[test]
fn a_capture_is_over_when_its_end_fails() {
    let fake = FakeCuda::new().fail("cuStreamEndCapture:1:2");
    let report = fake.run("a_capture_is_over_when_its_end_fails", || {
        start();
        let (stream, host, device) = (stream(), registered(0), device(BYTES));
        for expected in [CUresult::CUDA_ERROR_OUT_OF_MEMORY, CUresult::CUDA_SUCCESS] {
            let mut graph = ptr::null_mut();
            unsafe {
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                done(sys::cuStreamBeginCapture_v2(stream, mode));
                done(sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream));
                assert_eq!(sys::cuStreamEndCapture(stream, &raw mut graph), expected);
                // Neither the stream nor the thread captures any more.
                done(sys::cuMemcpyHtoDAsync_v2(device, host, BYTES, stream));
                done(sys::cuStreamSynchronize(stream));
            }
        }
        let mut more = 0;
        done(unsafe { sys::cuMemAlloc_v2(&raw mut more, BYTES) });
    });
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.to_device_registered, 2 * BYTES as u64);
}

#[test]
fn a_name_of_a_test_that_is_wrong_is_found_out() {
    let outcome = std::panic::catch_unwind(|| FakeCuda::new().run("no_such_test", || ()));
    let message = outcome.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("no test is called no_such_test"),
        "{message}"
    );
}
