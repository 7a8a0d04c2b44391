//! Streams and events. A stream is a thread that does its work in order; an event is a gate at the end of the work
//! before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::host_memory::PinnedUse;
use super::state::{Context, driver};
use super::status::{CAPTURE_UNSUPPORTED, INVALID_VALUE, Status, is_sticky};
use super::work::Operation;

/// How often somebody who waits looks whether the context has been spoiled.
const LOOK: Duration = Duration::from_millis(1);

/// Opens once.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.is_open.lock()
    }

    fn wait(&self) {
        let mut is_open = self.is_open.lock();
        while !*is_open {
            self.opened.wait(&mut is_open);
        }
    }

    /// Waits until it opens, or the context is spoiled: then nobody knows what the work before it does.
    pub(crate) fn wait_or_fail(&self, context: &Context) -> Result<(), Status> {
        let mut is_open = self.is_open.lock();
        loop {
            context.failure()?;
            if *is_open {
                return Ok(());
            }
            self.opened.wait_for(&mut is_open, LOOK);
        }
    }
}

/// The gate that was put behind the work when the event was last recorded.
#[derive(Debug, Default)]
pub(crate) struct Event {
    gate: Mutex<Option<Arc<Gate>>>,
}

impl Event {
    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.lock().clone()
    }
}

#[derive(Debug)]
enum Job {
    Operation(Operation, Vec<PinnedUse>),
    Open(Arc<Gate>),
    Wait(Arc<Gate>),
}

#[derive(Debug)]
pub(crate) struct Stream {
    jobs: Sender<Job>,
    pending: Arc<AtomicU64>,
    /// What was enqueued since a capture began.
    capture: Mutex<Option<Vec<Operation>>>,
    capture_failed: AtomicBool,
}

impl Stream {
    pub(crate) fn start(context: &Arc<Context>) -> Arc<Self> {
        let (jobs, queue) = mpsc::channel();
        let pending = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            context: context.clone(),
            queue,
            pending: pending.clone(),
        };
        std::thread::Builder::new()
            .name("fake-cuda-stream".to_owned())
            .spawn(move || worker.run())
            .expect("fake CUDA driver: no thread for a stream");
        Arc::new(Self {
            jobs,
            pending,
            capture: Mutex::new(None),
            capture_failed: AtomicBool::new(false),
        })
    }

    /// Work that has not been done.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    pub(crate) fn wait_idle(&self) {
        let gate = Arc::new(Gate::default());
        self.push(Job::Open(gate.clone()));
        gate.wait();
    }

    fn push(&self, job: Job) {
        // A gate is no work: whoever frees memory puts one into every stream of the device.
        if !matches!(job, Job::Open(_)) {
            self.pending.fetch_add(1, Ordering::AcqRel);
        }
        self.jobs
            .send(job)
            .expect("fake CUDA driver: a stream's thread has ended");
    }

    /// Enqueues an operation, or records it while the stream captures.
    pub(crate) fn enqueue(&self, operation: Operation, context: &Context) -> Result<(), Status> {
        let mut capture = self.capture.lock();
        if let Some(recorded) = capture.as_mut() {
            if operation.is_synchronous() {
                self.capture_failed.store(true, Ordering::Release);
                return Err(CAPTURE_UNSUPPORTED);
            }
            recorded.push(operation);
            return Ok(());
        }
        drop(capture);
        let is_synchronous = operation.is_synchronous();
        let uses = operation.uses();
        self.push(Job::Operation(operation, uses));
        if is_synchronous {
            return self.synchronize(context);
        }
        Ok(())
    }

    pub(crate) fn synchronize(&self, context: &Context) -> Result<(), Status> {
        self.refuse_while_capturing()?;
        let gate = Arc::new(Gate::default());
        self.push(Job::Open(gate.clone()));
        gate.wait_or_fail(context)
    }

    pub(crate) fn record(&self, event: &Event) -> Result<(), Status> {
        self.refuse_while_capturing()?;
        let gate = Arc::new(Gate::default());
        *event.gate.lock() = Some(gate.clone());
        self.push(Job::Open(gate));
        Ok(())
    }

    pub(crate) fn wait_for(&self, event: &Event) -> Result<(), Status> {
        self.refuse_while_capturing()?;
        if let Some(gate) = event.gate() {
            self.push(Job::Wait(gate));
        }
        Ok(())
    }

    fn refuse_while_capturing(&self) -> Result<(), Status> {
        if self.capture.lock().is_some() {
            self.capture_failed.store(true, Ordering::Release);
            return Err(CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    pub(crate) fn begin_capture(&self) -> Result<(), Status> {
        let mut capture = self.capture.lock();
        if capture.is_some() {
            return Err(INVALID_VALUE);
        }
        self.capture_failed.store(false, Ordering::Release);
        *capture = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end_capture(&self) -> Result<Vec<Operation>, Status> {
        let recorded = self.capture.lock().take().ok_or(INVALID_VALUE)?;
        if self.capture_failed.load(Ordering::Acquire) {
            return Err(CAPTURE_UNSUPPORTED);
        }
        Ok(recorded)
    }
}

struct Worker {
    context: Arc<Context>,
    queue: Receiver<Job>,
    pending: Arc<AtomicU64>,
}

impl Worker {
    fn run(self) {
        while let Ok(job) = self.queue.recv() {
            match job {
                Job::Operation(operation, uses) => {
                    self.operate(&operation);
                    drop(uses);
                    self.done();
                }
                Job::Open(gate) => gate.open(),
                Job::Wait(gate) => {
                    gate.wait();
                    self.done();
                }
            }
        }
    }

    fn done(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    fn operate(&self, operation: &Operation) {
        let driver = driver();
        std::thread::sleep(delay());
        // In a spoiled context kernels do not start, functions of the host are not called, and copies that the engine has
        // begun go on: the worst that a program must be prepared for.
        let starts_late = matches!(operation, Operation::Kernel(_) | Operation::HostCall { .. });
        if starts_late && self.context.failure().is_err() {
            return;
        }
        let outcome = match driver.settings.failure(operation.name()) {
            Some(status) => Err(status),
            None => operation.run(driver),
        };
        if let Err(status) = outcome {
            self.context
                .spoil(if is_sticky(status) { status } else { 719 });
        }
    }
}

/// How long the next operation takes.
fn delay() -> Duration {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let settings = &driver().settings;
    let (least, most) = (*settings.delay_us.start(), *settings.delay_us.end());
    if most <= least {
        return Duration::from_micros(least);
    }
    // A Weyl sequence, mixed: cheap, and the same for the same seed as far as threads allow.
    let step = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    let mut mixed = step ^ settings.seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^= mixed >> 32;
    Duration::from_micros(least + mixed % (most - least + 1))
}
