//! The thread that runs a session.
//!
//! ONNX Runtime keeps the graphs that it has captured, and the handles of NVIDIA's libraries, for each thread that runs a
//! session, and the server's workers take batches as they come. So a session is run by one thread of its own: what was captured
//! when the model was loaded is replayed for every batch, whoever brings it. For convolutions that is not only faster: the
//! provider prepares them for one size at a time, and anew whenever the size changes, which takes a tenth of a second for
//! ResNet-50 (seen on an H200 with release 1.31.1). A graph has all that behind it.
//!
//! A run is asked for and waited for; it is enqueued then, not done. Both sides look for each other for a while before they
//! sleep, as a wake-up takes longer than the launch of a graph.

use std::sync::mpsc::{
    Receiver, RecvError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use adjoin_cuda::Device;
use adjoin_shm::SpinBudget;
use adjoin_shm::clock::now_ns;

use crate::raw::device::{DeviceOutput, DeviceRunner, DeviceTensor, Made};

/// What a session is to run.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) inputs: Vec<DeviceTensor>,
    pub(crate) outputs: Vec<DeviceOutput>,
    /// The graph that the run is captured in or replayed from.
    pub(crate) graph: Option<i32>,
}

struct Job {
    work: Work,
    answer: SyncSender<Result<Made, String>>,
}

/// A thread with a session. Dropping it ends both.
pub(crate) struct Launcher {
    /// `None` while it is being dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher").finish_non_exhaustive()
    }
}

impl Launcher {
    /// Gives a session to a thread of its own, which looks for work for `spin` before it sleeps.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub(crate) fn start(runner: DeviceRunner, device: Device, spin: Duration) -> io::Result<Self> {
        let (jobs, given) = channel();
        let thread = std::thread::Builder::new().name("gpu-launcher".to_owned());
        let thread = thread.spawn(move || work(runner, &device, &given, spin))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Enqueues a run in the session's stream; what it reads and writes has to stay until the work there is done. `budget` is
    /// for the wait.
    ///
    /// # Errors
    /// What the engine reports; some of the work may be under way then.
    pub(crate) fn enqueue(&self, work: Work, budget: &mut SpinBudget) -> Result<Made, String> {
        let gone = || "the thread that runs the session has ended".to_owned();
        let (answer, answered) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { work, answer }).map_err(|_| gone())?;
        receive(&answered, budget).map_err(|_| gone())?
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Runs what comes, until nobody is left to bring anything.
fn work(mut runner: DeviceRunner, device: &Device, jobs: &Receiver<Job>, spin: Duration) {
    let mut budget = budget(spin);
    while let Ok(Job { work, answer }) = receive(jobs, &mut budget) {
        let Work {
            inputs,
            outputs,
            graph,
        } = work;
        let ran = match device.make_current() {
            Ok(()) => runner.enqueue(&inputs, &outputs, graph),
            Err(error) => Err(error.to_string()),
        };
        // Whoever asked waits for it, unless he panicked.
        let _ = answer.send(ran);
    }
    if device.is_lost() && runner.has_graphs() {
        // The engine's end of a graph throws where the driver refuses, out of a destructor, which ends the process. What it
        // has on the device goes with the context.
        std::mem::forget(runner);
        return;
    }
    device.make_current_to_free();
    drop(runner);
}

/// A budget for one side's waits.
pub(crate) fn budget(spin: Duration) -> SpinBudget {
    SpinBudget::new(u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX))
}

/// What comes, looked for before it is slept for.
fn receive<T>(from: &Receiver<T>, budget: &mut SpinBudget) -> Result<T, RecvError> {
    let mut received = Err(RecvError);
    let mut look = || match from.try_recv() {
        Ok(value) => {
            received = Ok(value);
            true
        }
        Err(TryRecvError::Disconnected) => true,
        Err(TryRecvError::Empty) => false,
    };
    if budget.spin(&mut look, || false) {
        return received;
    }
    let start_ns = now_ns();
    let received = from.recv();
    budget.slept(now_ns().saturating_sub(start_ns));
    received
}
