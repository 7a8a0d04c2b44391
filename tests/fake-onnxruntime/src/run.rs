//! A run on the device: the real library's, on the processor, when the stream comes to it.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ort::sys;
use parking_lot::Mutex;

use crate::driver::driver;
use crate::state::{DeviceSession, DeviceValue, State, state};

/// What a run reads and writes. Outputs that are `None` are made by the library.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    pub(crate) input_names: Vec<CString>,
    pub(crate) inputs: Vec<DeviceValue>,
    pub(crate) output_names: Vec<CString>,
    pub(crate) outputs: Vec<Option<DeviceValue>>,
}

/// How a run is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Whether it comes back before its work is done.
    pub(crate) is_not_waited_for: bool,
    /// The graph that it is captured in, or replayed from.
    pub(crate) graph: Option<String>,
}

/// Why a run failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The real library's report.
    Status(sys::OrtStatusPtr),
    Text(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Values that the real library has made, by address; 0 in places that were bound.
type MadeValues = Vec<usize>;

#[derive(Debug)]
struct Job {
    session: Arc<DeviceSession>,
    tensors: Tensors,
    outcome: Arc<Mutex<Option<Result<MadeValues, String>>>>,
}

/// Runs a session on the device. Returns the values that were made.
pub(crate) fn run(
    session: &Arc<DeviceSession>,
    tensors: Tensors,
    wishes: &Wishes,
) -> Result<MadeValues, Failure> {
    let state = state();
    let rows = tensors
        .inputs
        .first()
        .and_then(|input| input.shape.first())
        .copied();
    if state.fails("run") {
        let text = "CUDA error cudaErrorInvalidValue: a run that was asked to fail";
        return Err(Failure::Text(text.to_owned()));
    }
    let driver = driver().ok_or_else(|| "there is no CUDA driver of the tests".to_owned())?;
    check_profile(state, session, &tensors);
    let makes_some = tensors.outputs.iter().any(Option::is_none);
    let tensors = match wishes.graph.as_ref().filter(|_| session.has_graphs) {
        Some(_) if makes_some => {
            state.violation("a graph for a run whose outputs have no place".to_owned());
            tensors
        }
        Some(graph) => in_graph(state, session, tensors, graph)?,
        None => tensors,
    };
    if !makes_some {
        // What does not depend on values is found in the call.
        let mut scratch: Vec<Vec<u64>> = Vec::new();
        let made = call(state, session.address, &tensors, |value| {
            scratch.push(vec![0; value.byte_size / 8 + 1]);
            scratch.last_mut().map(|room| room.as_mut_ptr().cast())
        })?;
        debug_assert!(made.iter().all(|&made| made == 0));
    }
    let outcome = Arc::new(Mutex::new(None));
    let job = Box::new(Job {
        session: Arc::clone(session),
        tensors,
        outcome: Arc::clone(&outcome),
    });
    session.under_way.fetch_add(1, Ordering::AcqRel);
    {
        let report = &mut state.known.lock().report;
        report.runs += 1;
        *report.runs_by_rows.entry(rows.unwrap_or(1)).or_default() += 1;
        report.under_way += 1;
        report.under_way_max = report.under_way_max.max(report.under_way);
        report.runs_not_waited_for += u64::from(wishes.is_not_waited_for && !makes_some);
    }
    let data = Box::into_raw(job);
    if let Err(reason) = driver.launch(session.stream, execute, data.expose_provenance()) {
        // SAFETY: made above, and nobody was given it.
        drop(unsafe { Box::from_raw(data) });
        done(session);
        return Err(reason.into());
    }
    if wishes.is_not_waited_for && !makes_some {
        return Ok(Vec::new());
    }
    driver.synchronize(session.stream)?;
    let outcome = outcome.lock().take();
    Ok(outcome.unwrap_or_else(|| Err("CUDA failure: the run was not done".to_owned()))?)
}

/// How long a capture takes: long enough for others to be seen by it.
const CAPTURE_TIME: Duration = Duration::from_millis(1);

/// Captures a run, or has what was captured run in its place.
fn in_graph(
    state: &State,
    session: &DeviceSession,
    tensors: Tensors,
    graph: &str,
) -> Result<Tensors, Failure> {
    let key = (std::thread::current().id(), graph.to_owned());
    let mut graphs = session.graphs.lock();
    if let Some(captured) = graphs.get(&key) {
        state.known.lock().report.replays += 1;
        return Ok(captured.clone());
    }
    if state.fails("capture") {
        let text = "CUDA failure 900: operation not permitted when stream is capturing";
        return Err(Failure::Text(text.to_owned()));
    }
    if let Some(driver) = driver() {
        driver.capture(CAPTURE_TIME);
    }
    state.known.lock().report.captures += 1;
    graphs.insert(key, tensors.clone());
    Ok(tensors)
}

fn check_profile(state: &State, session: &DeviceSession, tensors: &Tensors) {
    for (name, input) in tensors.input_names.iter().zip(&tensors.inputs) {
        let Some([least, most]) = session.profile.get(&*name.to_string_lossy()) else {
            continue;
        };
        let ranges = least.iter().zip(most).zip(&input.shape);
        if !ranges
            .clone()
            .all(|((least, most), size)| (least..=most).contains(&size))
        {
            state.known.lock().report.rebuilds += 1;
        }
    }
}

fn done(session: &DeviceSession) {
    session.under_way.fetch_sub(1, Ordering::AcqRel);
    state().known.lock().report.under_way -= 1;
}

/// What the stream does when it comes to a run.
extern "C" fn execute(data: usize) {
    let state = state();
    // SAFETY: made by `run` for this one call.
    let job = unsafe { Box::from_raw(ptr::with_exposed_provenance_mut::<Job>(data)) };
    let outcome = execute_job(state, &job);
    *job.outcome.lock() = Some(outcome);
    done(&job.session);
}

fn execute_job(state: &State, job: &Job) -> Result<MadeValues, String> {
    let address = job.session.address;
    if !state.known.lock().sessions.contains_key(&address) {
        let what = "a session was released before a run of it was done".to_owned();
        state.violation(what.clone());
        return Err(what);
    }
    let made = call(state, address, &job.tensors, |value| {
        let memory = driver().and_then(|driver| driver.memory(value.address, value.byte_size));
        if memory.is_none() {
            state.violation(format!(
                "{} bytes at {:#x} of the device were given back before a run over them was done",
                value.byte_size, value.address
            ));
        }
        memory.map(ptr::with_exposed_provenance_mut)
    });
    made.map_err(|failure| match failure {
        Failure::Text(text) => text,
        Failure::Status(status) => text_of(state, status),
    })
}

/// Has the real library run a session over memory that a processor can reach.
fn call(
    state: &State,
    session: usize,
    tensors: &Tensors,
    mut place: impl FnMut(&DeviceValue) -> Option<*mut u8>,
) -> Result<MadeValues, Failure> {
    let real = state.real;
    let mut values = Values(Vec::new());
    let mut memory = ptr::null_mut();
    // SAFETY: writes a new description to where it is told.
    let status = unsafe {
        (real.CreateCpuMemoryInfo)(
            sys::OrtAllocatorType::OrtDeviceAllocator,
            sys::OrtMemType::OrtMemTypeDefault,
            &mut memory,
        )
    };
    check(status)?;
    let mut value = |tensor: &DeviceValue| -> Result<usize, Failure> {
        let start = place(tensor).ok_or_else(|| "memory that is none".to_owned())?;
        let value = over(real, memory, start, tensor)?;
        values.0.push(value);
        Ok(value)
    };
    let inputs: Result<Vec<usize>, Failure> = tensors.inputs.iter().map(&mut value).collect();
    let outputs: Result<Vec<usize>, Failure> = (tensors.outputs.iter())
        .map(|output| output.as_ref().map_or(Ok(0), &mut value))
        .collect();
    // SAFETY: the description is this function's own.
    unsafe { (real.ReleaseMemoryInfo)(memory) };
    let (inputs, outputs) = (inputs?, outputs?);
    let names = |names: &[CString]| -> Vec<*const c_char> {
        names.iter().map(|name| name.as_ptr()).collect()
    };
    let (input_names, output_names) = (names(&tensors.input_names), names(&tensors.output_names));
    let inputs: Vec<*const sys::OrtValue> = (inputs.iter())
        .map(|&value| ptr::with_exposed_provenance(value))
        .collect();
    let mut places: Vec<*mut sys::OrtValue> = (outputs.iter())
        .map(|&value| ptr::with_exposed_provenance_mut(value))
        .collect();
    // SAFETY: names and values live until the end of this function, and there are as many as is said; the session is one
    // that was not released; memory below the values is there, as `place` sees to it.
    let status = unsafe {
        (real.Run)(
            ptr::with_exposed_provenance_mut(session),
            ptr::null(),
            input_names.as_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            output_names.as_ptr(),
            output_names.len(),
            places.as_mut_ptr(),
        )
    };
    check(status)?;
    let made = outputs.iter().zip(&places);
    Ok(made
        .map(|(&bound, place)| {
            if bound == 0 {
                place.expose_provenance()
            } else {
                0
            }
        })
        .collect())
}

/// Values of the real library, which are released with this.
struct Values(Vec<usize>);

impl Drop for Values {
    fn drop(&mut self) {
        for &value in &self.0 {
            // SAFETY: made by `over`, and not used any more.
            unsafe { (state().real.ReleaseValue)(ptr::with_exposed_provenance_mut(value)) };
        }
    }
}

fn over(
    real: &sys::OrtApi,
    memory: *const sys::OrtMemoryInfo,
    start: *mut u8,
    tensor: &DeviceValue,
) -> Result<usize, Failure> {
    let mut value = ptr::null_mut();
    // SAFETY: keeps the address, and reads the shape, of which there is as much as is said.
    let status = unsafe {
        (real.CreateTensorWithDataAsOrtValue)(
            memory,
            start.cast::<c_void>(),
            tensor.byte_size,
            tensor.shape.as_ptr(),
            tensor.shape.len(),
            tensor.element,
            &mut value,
        )
    };
    check(status)?;
    Ok(value.expose_provenance())
}

fn check(status: sys::OrtStatusPtr) -> Result<(), Failure> {
    if status.0.is_null() {
        return Ok(());
    }
    Err(Failure::Status(status))
}

/// The text of a status, which is released.
fn text_of(state: &State, status: sys::OrtStatusPtr) -> String {
    // SAFETY: the status is not null, and lives until it is released below.
    let text = unsafe { (state.real.GetErrorMessage)(status.0) };
    // SAFETY: a text that ends with a zero.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    let text = text.to_string_lossy().into_owned();
    // SAFETY: the status is this function's own.
    unsafe { (state.real.ReleaseStatus)(status.0) };
    text
}
