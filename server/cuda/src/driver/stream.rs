//! Streams and events.

use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUevent, CUstream};

use super::context::Context;
use crate::device::Device;
use crate::error::CudaError;

/// Does not wait for the legacy default stream, which other libraries in the process may use.
const STREAM_NON_BLOCKING: u32 = 1;
/// A thread that waits for the event sleeps; timing is off, which makes events cheaper.
const EVENT_BLOCKING_NO_TIMING: u32 = 1 | 2;
/// The driver's "not ready".
const NOT_READY: u32 = 600;
/// How a wait goes about that knows nothing: a sleep costs a wake-up of tens of microseconds.
const PLAIN: Waiting = Waiting {
    nap: Duration::ZERO,
    look: Duration::from_micros(50),
};
/// Pauses between two looks: each is a call of the driver, which takes locks that other threads want.
const PAUSES: u32 = 16;
/// Looks between two offers of the core to whoever wants it: a client, perhaps, that waits for this very batch.
const LOOKS_PER_YIELD: u32 = 16;

/// How to wait for an event: sleep for so long, whatever happens, then look at it for so long, then sleep until the driver
/// wakes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) nap: Duration,
    pub(crate) look: Duration,
}

/// What became of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    /// How long it took.
    pub(crate) time: Duration,
    /// The event fired during the nap.
    pub(crate) is_overslept: bool,
}

/// A queue of work on the device, done in order.
pub struct Stream {
    context: Arc<Context>,
    raw: CUstream,
}

/// A mark in a stream's work.
pub struct Event {
    context: Arc<Context>,
    raw: CUevent,
}

// SAFETY: a stream belongs to no thread.
unsafe impl Send for Stream {}
// SAFETY: the driver takes work for one stream from several threads.
unsafe impl Sync for Stream {}
// SAFETY: an event belongs to no thread.
unsafe impl Send for Event {}
// SAFETY: an event may be recorded and waited for from several threads.
unsafe impl Sync for Event {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.raw).finish()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.raw).finish()
    }
}

impl Stream {
    /// A stream on `device`.
    ///
    /// # Errors
    /// If the driver has no resources for it.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        let context = device.context();
        let mut raw: CUstream = ptr::null_mut();
        let entered = context.enter()?;
        // SAFETY: the context is current, and the stream goes where it is told.
        let status = unsafe { (entered.table().cuStreamCreate)(&raw mut raw, STREAM_NON_BLOCKING) };
        entered.check("cuStreamCreate", status)?;
        drop(entered);
        Ok(Self { context, raw })
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn raw(&self) -> CUstream {
        self.raw
    }

    /// The driver's handle, for an engine that enqueues its own work. Valid while this lives and its context is not
    /// reset.
    #[must_use]
    pub fn as_ptr(&self) -> *mut std::ffi::c_void {
        self.raw.cast()
    }

    /// Generation of the device's context that this belongs to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.context.generation()
    }

    /// Waits until all work so far is done.
    ///
    /// # Errors
    /// If any of it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let entered = self.context.enter()?;
        // SAFETY: the stream belongs to the context that was entered.
        let status = unsafe { (entered.table().cuStreamSynchronize)(self.raw) };
        entered.check("cuStreamSynchronize", status)
    }

    /// Lets work that is enqueued from here on wait until `event` has fired.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.context.check_same(&event.context)?;
        let entered = self.context.enter()?;
        // SAFETY: stream and event are alive, and of one context.
        let status = unsafe { (entered.table().cuStreamWaitEvent)(self.raw, event.raw, 0) };
        entered.check("cuStreamWaitEvent", status)
    }

    /// Lets `event` fire when all work so far is done.
    ///
    /// # Errors
    /// If the driver refuses, as it does for an event of another context.
    pub fn record(&self, event: &Event) -> Result<(), CudaError> {
        self.context.check_same(&event.context)?;
        let entered = self.context.enter()?;
        // SAFETY: stream and event are alive, and of one context.
        let status = unsafe { (entered.table().cuEventRecord)(event.raw, self.raw) };
        entered.check("cuEventRecord", status)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the stream is this value's own, and is not used again. Work in it goes on, which is why nothing
            // but a `Lane` enqueues transfers: it waits for them first.
            let _ = unsafe { (entered.table().cuStreamDestroy_v2)(self.raw) };
        }
    }
}

impl Event {
    /// An event that has fired already, as one that was never recorded counts.
    ///
    /// # Errors
    /// If the driver has no resources for it.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        let context = device.context();
        let mut raw: CUevent = ptr::null_mut();
        let entered = context.enter()?;
        // SAFETY: the context is current, and the event goes where it is told.
        let status =
            unsafe { (entered.table().cuEventCreate)(&raw mut raw, EVENT_BLOCKING_NO_TIMING) };
        entered.check("cuEventCreate", status)?;
        drop(entered);
        Ok(Self { context, raw })
    }

    /// The driver's handle, for an engine that records it itself. Valid while this lives and its context is not reset.
    #[must_use]
    pub fn as_ptr(&self) -> *mut std::ffi::c_void {
        self.raw.cast()
    }

    /// Whether it has fired.
    ///
    /// # Errors
    /// If the work before it failed.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        let entered = self.context.enter()?;
        // SAFETY: the event belongs to the context that was entered.
        let status = unsafe { (entered.table().cuEventQuery)(self.raw) };
        if status == NOT_READY {
            return Ok(false);
        }
        entered.check("cuEventQuery", status).map(|()| true)
    }

    /// Waits until it has fired: looks for 50 µs, then sleeps.
    ///
    /// # Errors
    /// If the work before it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.wait_by(PLAIN).map(drop)
    }

    /// Waits until it has fired, in that way.
    ///
    /// # Errors
    /// If the work before it failed.
    pub(crate) fn wait_by(&self, waiting: Waiting) -> Result<Waited, CudaError> {
        let Waiting { nap, look } = waiting;
        let start = Instant::now();
        let waited = |is_overslept| Waited {
            time: start.elapsed(),
            is_overslept,
        };
        if self.is_done()? {
            return Ok(waited(false));
        }
        if !nap.is_zero() {
            std::thread::sleep(nap);
            if self.is_done()? {
                return Ok(waited(true));
            }
        }
        let end = start.elapsed() + look;
        let mut looks = 0_u32;
        while start.elapsed() < end {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            if self.is_done()? {
                return Ok(waited(false));
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_YIELD) {
                std::thread::yield_now();
            }
        }
        let entered = self.context.enter()?;
        // SAFETY: the event belongs to the context that was entered.
        let status = unsafe { (entered.table().cuEventSynchronize)(self.raw) };
        entered.check("cuEventSynchronize", status)?;
        Ok(waited(false))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the event is this value's own, and is not used again; the driver keeps what waits for it.
            let _ = unsafe { (entered.table().cuEventDestroy_v2)(self.raw) };
        }
    }
}
