//! A stream with everything that its transfers touch.
//!
//! A transfer goes on after the call that asked for it has returned, after an error, and after its caller has panicked.
//! If its memory is unmapped meanwhile, the device reads or writes what is no longer there. So only a lane enqueues
//! transfers; it holds what they touch, and lets go of it when an event behind them has fired. A lane that is dropped
//! waits first. A lane that cannot wait, because the context is lost, hands what it holds to the context's quarantine.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copies::CopyList;
use super::graph::{self, Graph};
use super::hold::Hold;
use super::memory::DeviceBuffer;
use super::module::{Grid, Kernel, Module};
use super::stream::{Event, Stream, Waited, Waiting};
use crate::device::Device;
use crate::error::CudaError;

/// How long another thread's capture may keep a lane from waiting: some take as long as a first run.
const CAPTURES_END: Duration = Duration::from_secs(10);
/// Between two attempts.
const CAPTURE_PAUSE: Duration = Duration::from_millis(1);

/// A stream, the event behind its work, and what that work touches.
#[derive(Debug)]
pub struct Lane {
    stream: Stream,
    done: Event,
    holds: Vec<Hold>,
    /// Whether there may be work that was not waited for.
    in_flight: bool,
    /// Whether `done` is behind all of it.
    is_marked: bool,
}

impl Lane {
    /// A lane on `device` with room for what `pieces` transfers touch, so that holding it needs no allocation.
    ///
    /// # Errors
    /// If the driver has no resources for it.
    pub fn new(device: &Device, pieces: usize) -> Result<Self, CudaError> {
        Ok(Self {
            stream: Stream::new(device)?,
            done: Event::new(device)?,
            holds: Vec::with_capacity(pieces + 8),
            in_flight: false,
            is_marked: false,
        })
    }

    /// The stream, to wait for events, to record them, and for an engine's own work.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Lets work that is enqueued from here on wait until `event` has fired. That is work itself: a batch that copies
    /// nothing is not done before what it waits for.
    ///
    /// # Errors
    /// If the driver refuses.
    pub(crate) fn wait(&mut self, event: &Event) -> Result<(), CudaError> {
        self.touch();
        self.stream.wait(event)
    }

    /// Keeps a device buffer until all work so far and that of now is done: for work that an engine enqueues itself.
    pub fn keep(&mut self, buffer: &DeviceBuffer) {
        self.touch();
        self.holds.push(buffer.hold());
    }

    pub(crate) fn keep_buffer(&mut self, buffer: Option<&DeviceBuffer>) {
        if let Some(buffer) = buffer {
            self.keep(buffer);
        }
    }

    /// That a buffer is of this lane's context.
    pub(super) fn check_buffer(&self, buffer: &DeviceBuffer) -> Result<(), CudaError> {
        self.stream.context().check_same(buffer.context())
    }

    pub(super) fn hold(&mut self, hold: Hold) {
        self.touch();
        self.holds.push(hold);
    }

    pub(super) fn keep_module(&mut self, module: &Arc<Module>) {
        self.holds.push(module.hold());
    }

    /// Enqueues a kernel. `arguments` are addresses of values of the types that it takes, in its order; they are read
    /// before this returns.
    pub(super) fn launch(
        &mut self,
        module: &Module,
        kernel: Kernel,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        self.stream.context().check_same(module.context())?;
        self.touch();
        let entered = self.stream.context().enter()?;
        let [x, y, z] = grid.blocks;
        // SAFETY:
        // - the arguments are those of the kernel, as its callers in this module's parent see to;
        // - what they lead to is held by this lane.
        let status = unsafe {
            (entered.table().cuLaunchKernel)(
                module.get(kernel),
                x,
                y,
                z,
                grid.threads,
                1,
                1,
                0,
                self.stream.raw(),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        entered.check("cuLaunchKernel", status)
    }

    /// Enqueues a copy within the device.
    ///
    /// # Errors
    /// If a range does not fit, or the driver refuses.
    pub fn copy_on_device(
        &mut self,
        to: (&DeviceBuffer, usize),
        from: (&DeviceBuffer, usize),
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let destination = to.0.range(to.1, byte_size)?;
        let source = from.0.range(from.1, byte_size)?;
        self.check_buffer(to.0)?;
        self.check_buffer(from.0)?;
        self.keep(to.0);
        self.keep(from.0);
        let entered = self.stream.context().enter()?;
        // SAFETY: both ranges lie in buffers that this lane holds.
        let status = unsafe {
            (entered.table().cuMemcpyDtoDAsync_v2)(
                destination,
                source,
                byte_size,
                self.stream.raw(),
            )
        };
        entered.check("cuMemcpyDtoDAsync_v2", status)
    }

    /// Enqueues zeros for a range of a buffer: rows that a batch does not fill.
    ///
    /// # Errors
    /// If the range does not fit, or the driver refuses.
    pub fn clear_range(
        &mut self,
        buffer: &DeviceBuffer,
        at: usize,
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let address = buffer.range(at, byte_size)?;
        if byte_size == 0 {
            return Ok(());
        }
        self.check_buffer(buffer)?;
        self.keep(buffer);
        let entered = self.stream.context().enter()?;
        // SAFETY: the range lies in a buffer that this lane holds.
        let status =
            unsafe { (entered.table().cuMemsetD8Async)(address, 0, byte_size, self.stream.raw()) };
        entered.check("cuMemsetD8Async", status)
    }

    /// Records what `enqueue` enqueues in this lane, instead of running it.
    ///
    /// # Errors
    /// What `enqueue` returns, or the driver's refusal to record something of it.
    pub fn capture<E: From<CudaError>>(
        &mut self,
        enqueue: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Graph, E> {
        self.settle()?;
        graph::begin_capture(&self.stream)?;
        let outcome = enqueue(self);
        // What was recorded belongs to the graph; nothing of it runs.
        let holds = std::mem::take(&mut self.holds);
        self.in_flight = false;
        match outcome {
            Ok(()) => Ok(graph::end_capture(&self.stream, holds)?),
            Err(error) => {
                graph::abandon_capture(&self.stream);
                Err(error)
            }
        }
    }

    /// Enqueues all work of a graph.
    ///
    /// # Errors
    /// If the graph is of an earlier generation of the context, or the driver refuses.
    pub fn replay(&mut self, graph: &Graph) -> Result<(), CudaError> {
        if graph.generation() != self.stream.generation() {
            let device = self.stream.context().ordinal();
            let generation = graph.generation();
            return Err(CudaError::ContextGone { device, generation });
        }
        self.touch();
        self.holds.push(Hold::Graph(graph.parts.clone()));
        graph::launch(graph, &self.stream)
    }

    /// Puts the event behind the work so far, once.
    fn mark(&mut self) -> Result<(), CudaError> {
        if self.is_marked {
            return Ok(());
        }
        self.stream.record(&self.done)?;
        self.is_marked = true;
        Ok(())
    }

    /// Waits until all work is done, and lets go of what it touched.
    ///
    /// # Errors
    /// If the work failed.
    pub fn settle(&mut self) -> Result<(), CudaError> {
        if self.in_flight {
            self.mark()?;
            self.done.synchronize()?;
            self.let_go();
        }
        Ok(())
    }

    /// The same, waiting in that way; `None` if there was nothing to wait for.
    ///
    /// # Errors
    /// If the work failed.
    pub(crate) fn settle_by(&mut self, waiting: Waiting) -> Result<Option<Waited>, CudaError> {
        if !self.in_flight {
            return Ok(None);
        }
        self.mark()?;
        let waited = self.done.wait_by(waiting)?;
        self.let_go();
        Ok(Some(waited))
    }

    /// Whether all work is done, without waiting. What it touched is let go of if it is.
    ///
    /// # Errors
    /// If the work failed.
    pub fn is_settled(&mut self) -> Result<bool, CudaError> {
        if self.in_flight {
            self.mark()?;
            if self.done.is_done()? {
                self.let_go();
            }
        }
        Ok(!self.in_flight)
    }

    /// Waits for whatever is under way, by every means there is, and lets go of what it touched. To be called after an
    /// error: no transfer is left when it returns, or its memory is in quarantine.
    pub fn drain(&mut self) {
        if !self.in_flight {
            return;
        }
        let context = self.stream.context().clone();
        let synchronize = || {
            self.stream.synchronize().or_else(|_| {
                // An error of this one call says nothing of the transfers: ask again, for all of the context.
                context.enter()?.synchronize()
            })
        };
        let mut synchronized = synchronize();
        let end = Instant::now() + CAPTURES_END;
        // A capture is in the way: that says nothing of the transfers either.
        while matches!(&synchronized, Err(error) if error.is_capture()) && Instant::now() < end {
            std::thread::sleep(CAPTURE_PAUSE);
            synchronized = synchronize();
        }
        match synchronized {
            Ok(()) => self.let_go(),
            Err(_) => {
                // Nobody knows what the device still does. What it touches stays, and nothing new starts.
                context.give_up();
                context.quarantine(self.holds.drain(..));
                self.in_flight = false;
            }
        }
    }

    /// There is work from here on that nobody has waited for.
    pub(super) fn touch(&mut self) {
        self.in_flight = true;
        self.is_marked = false;
    }

    fn let_go(&mut self) {
        self.holds.clear();
        self.in_flight = false;
    }

    pub(super) fn hold_all(&mut self, list: &mut CopyList) {
        self.touch();
        self.holds.append(&mut list.holds);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.drain();
    }
}
