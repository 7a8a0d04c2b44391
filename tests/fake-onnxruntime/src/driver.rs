//! The functions of the CUDA driver that runs need; in tests it is `tests/fake-cuda`.

use std::sync::OnceLock;
use std::time::Duration;

use libloading::Library;

/// The driver's functions, by their types in C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    launch: unsafe extern "C" fn(usize, extern "C" fn(usize), usize) -> u32,
    synchronize: unsafe extern "C" fn(usize) -> u32,
    memory: unsafe extern "C" fn(usize, usize) -> usize,
    memory_info: unsafe extern "C" fn(*mut usize, *mut usize) -> u32,
    capture_of_all: unsafe extern "C" fn(bool),
}

/// The driver of this process, if it is the one of the tests.
pub(crate) fn driver() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<(Library, Driver)>> = OnceLock::new();
    let found = DRIVER.get_or_init(|| {
        // SAFETY: the process has loaded it already, or it is the machine's own, whose initialisers may run at any time.
        let library = unsafe { Library::new("libcuda.so.1") }.ok()?;
        // SAFETY: as NVIDIA declares it.
        let launch = *unsafe { library.get(b"cuLaunchHostFunc") }.ok()?;
        // SAFETY: as NVIDIA declares it.
        let synchronize = *unsafe { library.get(b"cuStreamSynchronize") }.ok()?;
        // SAFETY: as tests/fake-cuda declares it.
        let memory = *unsafe { library.get(b"fake_cuda_memory") }.ok()?;
        // SAFETY: as NVIDIA declares it.
        let memory_info = *unsafe { library.get(b"cuMemGetInfo_v2") }.ok()?;
        // SAFETY: as tests/fake-cuda declares it.
        let capture_of_all = *unsafe { library.get(b"fake_cuda_capture_of_all") }.ok()?;
        let driver = Driver {
            launch,
            synchronize,
            memory,
            memory_info,
            capture_of_all,
        };
        Some((library, driver))
    });
    found.as_ref().map(|(_, driver)| driver)
}

impl Driver {
    /// Has a function called with `data` when `stream` comes to it.
    pub(crate) fn launch(
        &self,
        stream: usize,
        function: extern "C" fn(usize),
        data: usize,
    ) -> Result<(), String> {
        // SAFETY: the function takes any number, and what `data` leads to lives until it is called.
        match unsafe { (self.launch)(stream, function, data) } {
            0 => Ok(()),
            status => Err(format!("CUDA failure {status}: cuLaunchHostFunc")),
        }
    }

    /// Waits for a stream.
    pub(crate) fn synchronize(&self, stream: usize) -> Result<(), String> {
        // SAFETY: takes a handle, which the driver checks.
        match unsafe { (self.synchronize)(stream) } {
            0 => Ok(()),
            status => Err(format!("CUDA failure {status}: cuStreamSynchronize")),
        }
    }

    /// Whether an error has spoiled the context, so that nothing runs in it any more.
    pub(crate) fn is_lost(&self) -> bool {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        unsafe { (self.memory_info)(&raw mut free, &raw mut total) != 0 }
    }

    /// Captures for a while, for all threads to see, as the provider of CUDA does.
    pub(crate) fn capture(&self, time: Duration) {
        // SAFETY: takes a truth value.
        unsafe { (self.capture_of_all)(true) };
        std::thread::sleep(time);
        // SAFETY: as above.
        unsafe { (self.capture_of_all)(false) };
    }

    /// Where memory of the device can be reached; `None` if it is none.
    pub(crate) fn memory(&self, address: usize, byte_size: usize) -> Option<usize> {
        // SAFETY: takes numbers and looks them up.
        let start = unsafe { (self.memory)(address, byte_size) };
        Some(start).filter(|&start| start != 0)
    }
}
