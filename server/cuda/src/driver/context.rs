//! A device's primary context: one generation of it, from its making to the reset that ends it.
//!
//! Everything that is made in a context (streams, events, memory, registrations) becomes invalid at once when the
//! context is reset, and the driver does not check: a stale handle is undefined behaviour in it. So each call is made
//! through an [`Entered`], which holds off a reset while it lives, and there is none for a context that is gone.

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{CUcontext, CUdevice, CUstreamCaptureMode};
use parking_lot::{Mutex, RecursiveRwLock, RecursiveRwLockReadGuard};

use super::hold::Hold;
use super::table::{Status, Table};
use crate::error::{CudaError, is_sticky_code};

/// The driver's "unknown error".
const UNKNOWN: Status = 999;

/// One generation of a device's context.
pub(crate) struct Context {
    table: &'static Table,
    device: CUdevice,
    ordinal: u32,
    raw: CUcontext,
    generation: u64,
    /// Whether a call reported an error that spoils the context.
    lost: AtomicBool,
    /// Whether handles of this context may still be used.
    open: RecursiveRwLock<bool>,
    /// What a transfer may still touch although nobody can wait for it: kept until the context is gone.
    quarantine: Mutex<Vec<Hold>>,
}

// SAFETY: a context belongs to no thread; it is made current on each thread that calls.
unsafe impl Send for Context {}
// SAFETY: the driver's functions may be called from several threads at once.
unsafe impl Sync for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("device", &self.ordinal)
            .field("generation", &self.generation)
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// A context that is current on this thread and stays valid for as long as this lives.
pub(crate) struct Entered<'c> {
    context: &'c Context,
    _open: RecursiveRwLockReadGuard<'c, bool>,
}

impl Context {
    /// Makes the primary context of a device.
    pub(super) fn new(
        table: &'static Table,
        device: CUdevice,
        ordinal: u32,
        generation: u64,
    ) -> Result<Arc<Self>, CudaError> {
        let mut raw: CUcontext = ptr::null_mut();
        // SAFETY: the device is one of the driver's, and the context goes where it is told.
        let status = unsafe { (table.cuDevicePrimaryCtxRetain)(&raw mut raw, device) };
        table.check("cuDevicePrimaryCtxRetain", status)?;
        Ok(Arc::new(Self {
            table,
            device,
            ordinal,
            raw,
            generation,
            lost: AtomicBool::new(false),
            open: RecursiveRwLock::new(true),
            quarantine: Mutex::new(Vec::new()),
        }))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether an object of `other` may be used together with one of this context.
    ///
    /// # Errors
    /// If it is another context: the driver does not check handles of one that is gone.
    pub(crate) fn check_same(&self, other: &Self) -> Result<(), CudaError> {
        if ptr::eq(self, other) {
            return Ok(());
        }
        if self.ordinal == other.ordinal {
            let (device, generation) = (self.ordinal, self.generation.min(other.generation));
            return Err(CudaError::ContextGone { device, generation });
        }
        Err(CudaError::Arguments {
            reason: format!(
                "objects of CUDA devices {} and {} are used together",
                self.ordinal, other.ordinal
            ),
        })
    }

    pub(crate) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Keeps the context from being ended.
    fn stay(&self) -> Result<RecursiveRwLockReadGuard<'_, bool>, CudaError> {
        // Recursive, because an object may be dropped while its owner is inside.
        let open = self.open.read();
        let (device, generation) = (self.ordinal, self.generation);
        if !*open {
            return Err(CudaError::ContextGone { device, generation });
        }
        if self.is_lost() {
            return Err(CudaError::ContextLost { device });
        }
        Ok(open)
    }

    /// That what was made in this context can be used.
    ///
    /// # Errors
    /// If it is lost or gone.
    pub(crate) fn check_usable(&self) -> Result<(), CudaError> {
        self.stay().map(drop)
    }

    /// Makes the context current on this thread.
    ///
    /// # Errors
    /// If it is lost or gone.
    pub(crate) fn enter(&self) -> Result<Entered<'_>, CudaError> {
        let open = self.stay()?;
        let entered = Entered {
            context: self,
            _open: open,
        };
        // SAFETY: the context is open, and stays so while `entered` lives.
        let status = unsafe { (self.table.cuCtxSetCurrent)(self.raw) };
        entered.check("cuCtxSetCurrent", status)?;
        leave_captures_to_others(self.table);
        Ok(entered)
    }

    /// Makes the context current on this thread if it is not gone, lost or not: for giving back what is in it.
    pub(crate) fn bind(&self) {
        let open = self.open.read();
        if *open {
            // SAFETY: the context is open, and stays so while the lock is held.
            let _ = unsafe { (self.table.cuCtxSetCurrent)(self.raw) };
            leave_captures_to_others(self.table);
        }
    }

    /// Keeps what a transfer that cannot be waited for may touch. Without a context there is no transfer, so what
    /// comes after its end is dropped at once.
    pub(crate) fn quarantine(&self, holds: impl IntoIterator<Item = Hold>) {
        let open = self.open.read();
        if *open {
            self.quarantine.lock().extend(holds);
        }
    }

    /// Counts the context as lost although no call has said so: its work cannot be waited for.
    pub(crate) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// How many holds are in quarantine.
    pub(crate) fn quarantined(&self) -> usize {
        self.quarantine.lock().len()
    }

    /// Ends the context: every handle of it is invalid from here on, every transfer is over, and what was in quarantine
    /// is dropped. Waits for calls that are under way.
    ///
    /// # Errors
    /// What the driver says of the reset. The context counts as gone all the same.
    pub(crate) fn end(&self) -> Result<(), CudaError> {
        self.lost.store(true, Ordering::Release);
        let held: Vec<Hold>;
        let outcome;
        {
            let mut open = self.open.write();
            if !*open {
                return Ok(());
            }
            *open = false;
            // SAFETY: no call of this context is under way, and none will be made: the lock is held, and it is closed.
            let status = unsafe { (self.table.cuDevicePrimaryCtxReset_v2)(self.device) };
            outcome = self.table.check("cuDevicePrimaryCtxReset_v2", status);
            // SAFETY: gives back the one reference that `new` took.
            let _ = unsafe { (self.table.cuDevicePrimaryCtxRelease_v2)(self.device) };
            held = std::mem::take(&mut *self.quarantine.lock());
        }
        match outcome {
            Ok(()) => drop(held),
            // The engine may still be copying: never give this memory back.
            Err(_) => std::mem::forget(held),
        }
        outcome
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !*self.open.get_mut() {
            return;
        }
        // Nothing is left that was made in it, or somebody would hold it.
        // SAFETY: gives back the one reference that `new` took.
        let _ = unsafe { (self.table.cuDevicePrimaryCtxRelease_v2)(self.device) };
        if self.lost.load(Ordering::Acquire) {
            // What a transfer may touch in a context that was never reset stays for ever.
            std::mem::forget(std::mem::take(self.quarantine.get_mut()));
        }
    }
}

thread_local! {
    /// Whether captures of other threads are none of this thread's business.
    static MINDS_OWN_CAPTURES: Cell<bool> = const { Cell::new(false) };
}

/// Has calls of this thread depend on its own captures only. ONNX Runtime captures for all threads to see: while it does, the
/// driver refuses what other threads ask, whether an event has fired among it, and spoils the capture as well.
fn leave_captures_to_others(table: &Table) {
    if MINDS_OWN_CAPTURES.get() {
        return;
    }
    let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: reads the mode, and writes the one that there was in its place.
    let status = unsafe { (table.cuThreadExchangeStreamCaptureMode)(&raw mut mode) };
    MINDS_OWN_CAPTURES.set(status == 0);
}

impl Entered<'_> {
    pub(super) fn table(&self) -> &'static Table {
        self.context.table
    }

    /// A result of a status; marks the context as lost where the status says so.
    pub(super) fn check(&self, call: &'static str, status: Status) -> Result<(), CudaError> {
        if status == 0 {
            return Ok(());
        }
        // "Unknown" is what the driver says of many things, a descriptor that is none of its own among them.
        let is_certain = status != UNKNOWN || !self.is_alive();
        if is_sticky_code(status) && is_certain {
            self.context.lost.store(true, Ordering::Release);
        }
        self.table().check(call, status)
    }

    /// The same for a call that looks at something of a peer's, whatever that may be: it is the peer's fault if the context
    /// works all the same.
    pub(super) fn check_given(&self, call: &'static str, status: Status) -> Result<(), CudaError> {
        if is_sticky_code(status) && self.is_alive() {
            return Err(CudaError::NotTaken { call, code: status });
        }
        self.check(call, status)
    }

    /// Whether calls in the context still work: one that is spoiled refuses all of them.
    fn is_alive(&self) -> bool {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers to where it is told.
        unsafe { (self.table().cuMemGetInfo_v2)(&raw mut free, &raw mut total) == 0 }
    }

    /// Waits for all work in the context.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: takes no argument; the context is current.
        let status = unsafe { (self.table().cuCtxSynchronize)() };
        self.check("cuCtxSynchronize", status)
    }

    /// Free and total device memory in bytes.
    pub(crate) fn memory_info(&self) -> Result<(usize, usize), CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers to where it is told.
        let status = unsafe { (self.table().cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        self.check("cuMemGetInfo_v2", status)?;
        Ok((free, total))
    }
}
