//! A request through its runs: what is shared by the objects that a program has of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adjoin_client::{Pending, Request};
use numpy::PyUntypedArray;
use parking_lot::{Condvar, Mutex, MutexGuard};
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::connection::Connection;
use crate::fault::Fault;
use crate::hold::Hold;
use crate::inputs::{self, Inputs};
use crate::options::RunOptions;
use crate::plan::Plan;
use crate::strings;

/// Longest stretch of a wait without a look whether a signal came, such as that of Ctrl-C.
const SLICE: Duration = Duration::from_millis(50);

/// Places for responses that a request keeps: one whose arrays the program still has, one for the next
/// run, and one to spare.
const HOLDS_MAX: usize = 3;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) connection: Arc<Connection>,
    state: Mutex<State>,
    /// Signalled when a run that another thread waited for is over.
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    stage: Stage,
    inputs: Inputs,
    holds: SmallVec<[Arc<Hold>; HOLDS_MAX]>,
}

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pending: Pending,
    hold: Arc<Hold>,
}

#[derive(Debug)]
enum Stage {
    Idle(Request),
    /// With the server.
    Out(Flight),
    /// With the server, and nobody waits for it any more.
    Abandoned(Pending),
    /// In the hands of a thread.
    Busy,
    Closed,
}

/// Where a run stands, for those who look from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Idle,
    UnderWay,
    Answered,
    /// Another thread waits for it.
    Elsewhere,
    /// The request was closed, and its run with it.
    Closed,
}

impl Core {
    pub(crate) fn new(
        py: Python<'_>,
        connection: &Arc<Connection>,
        plan: Plan,
        until: Option<Instant>,
    ) -> Result<Arc<Self>, Fault> {
        connection.check()?;
        let request = py.detach(|| plan.build(until))?;
        let state = State {
            inputs: Inputs::new(&request),
            stage: Stage::Idle(request),
            plan,
            holds: SmallVec::new(),
        };
        let core = Arc::new(Self {
            connection: Arc::clone(connection),
            state: Mutex::new(state),
            returned: Condvar::new(),
        });
        connection.enter(&core);
        Ok(core)
    }

    /// Only tried: whoever has the lock may run code of the program's, through a finalizer for one, and
    /// that may come here again.
    fn lock(&self) -> Result<MutexGuard<'_, State>, Fault> {
        self.state.try_lock().ok_or(Fault::Busy)
    }

    /// Works with the request while nobody else has it.
    fn with_request<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State, &mut Request) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut request = self.take_request(py)?;
        let mut state = self.state.lock();
        let outcome = work(&mut state, &mut request);
        drop(state);
        self.put(Stage::Idle(request));
        outcome
    }

    /// Takes the request out, to be used by this thread: it is with nobody else.
    fn take_request(&self, py: Python<'_>) -> Result<Request, Fault> {
        self.connection.check()?;
        let stage = {
            let mut state = self.lock()?;
            match state.stage {
                Stage::Idle(_) | Stage::Abandoned(_) => {
                    std::mem::replace(&mut state.stage, Stage::Busy)
                }
                Stage::Out(_) | Stage::Busy => return Err(Fault::Busy),
                Stage::Closed => return Err(Fault::Closed),
            }
        };
        let stage = match stage {
            Stage::Abandoned(pending) => {
                let (stage, fault) = py.detach(|| reclaim(pending));
                if let Some(fault) = fault {
                    self.put(stage);
                    return Err(fault);
                }
                stage
            }
            other => other,
        };
        match stage {
            Stage::Idle(request) => Ok(request),
            other => {
                self.put(other);
                Err(Fault::Busy)
            }
        }
    }

    /// Reads the plan.
    pub(crate) fn with_plan<T>(&self, read: impl FnOnce(&Plan) -> T) -> Result<T, Fault> {
        Ok(read(&self.lock()?.plan))
    }

    /// The array to be written for an input.
    pub(crate) fn input<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let (input, place) = match self.with_request(py, |state, request| {
            let present = state.inputs.present(py, request, index)?;
            Ok(present.map_err(|place| (state.plan.inputs[index].clone(), place)))
        })? {
            Ok(array) => return Ok(array),
            Err(absent) => absent,
        };
        let array = inputs::view(py, &input, &place)?;
        Ok(self.lock()?.inputs.show(index, array, place))
    }

    /// Writes the texts of an input of strings, which changes its size.
    pub(crate) fn set_texts(&self, py: Python<'_>, index: usize, bytes: &[u8]) -> PyResult<()> {
        let mut request = self.take_request(py)?;
        let plan = self.state.lock().plan.clone();
        let outcome = py.detach(|| resize(plan, &mut request, index, bytes));
        let outcome = outcome.map(|plan| self.state.lock().plan = plan);
        self.put(Stage::Idle(request));
        Ok(outcome?)
    }

    /// The texts of an input of strings, as they were last written.
    pub(crate) fn texts<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        let (shape, bytes) = self.with_request(py, |state, request| {
            let bytes = request.input_bytes_mut_at(index)?.to_vec();
            Ok((state.plan.inputs[index].shape.clone(), bytes))
        })?;
        strings::decode(py, &shape, &bytes)
    }

    /// Writes all inputs of a request of which no arrays were given out.
    pub(crate) fn write(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&mut Request) -> PyResult<()>,
    ) -> PyResult<()> {
        let mut request = self.take_request(py)?;
        let outcome = write(&mut request);
        self.put(Stage::Idle(request));
        outcome
    }

    /// Submits the request.
    pub(crate) fn start(&self, py: Python<'_>, options: &RunOptions) -> Result<Flight, Fault> {
        let mut request = self.take_request(py)?;
        self.connection.bury_orphans();
        let mut state = self.state.lock();
        if let Err(fault) = state.inputs.bring(py, &mut request) {
            state.stage = Stage::Idle(request);
            return Err(fault);
        }
        let hold = state.choose_hold(py, &mut request);
        drop(state);
        let submit = options.submit;
        let submitted = if request.is_connected() {
            request.submit_with(&submit)
        } else {
            py.detach(|| request.submit_with(&submit))
        };
        match submitted {
            Ok(pending) => Ok(Flight { pending, hold }),
            Err(failed) => {
                self.put(failed.request.map_or(Stage::Closed, Stage::Idle));
                Err(failed.error.into())
            }
        }
    }

    /// Waits for a run of this request; false when the time is up.
    ///
    /// The interpreter is let go of at once. To look for the answer first would spare a busy program some switches, but
    /// then its threads could not have requests under way at one time; and letting go costs less than can be measured.
    pub(crate) fn wait(
        &self,
        py: Python<'_>,
        flight: &mut Flight,
        until: Option<Instant>,
    ) -> PyResult<bool> {
        let pending = &mut flight.pending;
        if pending.is_done() {
            return Ok(true);
        }
        loop {
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return Ok(pending.is_done());
            }
            let slice = SLICE.min(rest.unwrap_or(SLICE));
            if py.detach(|| pending.wait_for(slice)) {
                return Ok(true);
            }
            py.check_signals()?;
        }
    }

    /// Takes the outcome of a run that is answered; the request is idle again.
    pub(crate) fn finish(&self, py: Python<'_>, flight: Flight) -> Result<Arc<Hold>, Fault> {
        let Flight { pending, hold } = flight;
        let outcome = pending.wait();
        let (stage, outcome) = match outcome {
            Ok(response) => {
                let (request, lease) = response.split();
                hold.fill(py, lease);
                (Stage::Idle(request), Ok(hold))
            }
            Err(failed) => (
                failed.request.map_or(Stage::Closed, Stage::Idle),
                Err(failed.error.into()),
            ),
        };
        self.put(stage);
        outcome
    }

    /// Runs the request and waits for its outputs.
    pub(crate) fn infer(&self, py: Python<'_>, options: &RunOptions) -> Result<Arc<Hold>, Fault> {
        let mut flight = self.start(py, options)?;
        match self.wait(py, &mut flight, options.until) {
            Ok(true) => self.finish(py, flight),
            Ok(false) => {
                self.abandon(flight);
                Err(Fault::TooLate(options.timeout.unwrap_or_default()))
            }
            Err(interrupted) => {
                self.abandon(flight);
                Err(interrupted.into())
            }
        }
    }

    /// Nobody waits for the run any more.
    pub(crate) fn abandon(&self, flight: Flight) {
        let mut pending = flight.pending;
        pending.cancel();
        self.put(Stage::Abandoned(pending));
    }

    /// Leaves a run to those who ask for it later.
    pub(crate) fn leave(&self, flight: Flight) {
        self.put(Stage::Out(flight));
    }

    /// Takes a run that was left; `None` while another thread has it, or it is over.
    pub(crate) fn take_flight(&self) -> Option<Flight> {
        let mut state = self.state.try_lock()?;
        match std::mem::replace(&mut state.stage, Stage::Busy) {
            Stage::Out(flight) => Some(flight),
            other => {
                state.stage = other;
                None
            }
        }
    }

    /// Where the run stands, after a look for its answer.
    pub(crate) fn look(&self) -> Standing {
        let Some(mut state) = self.state.try_lock() else {
            return Standing::Elsewhere;
        };
        match &mut state.stage {
            Stage::Out(flight) => match flight.pending.is_done() {
                true => Standing::Answered,
                false => Standing::UnderWay,
            },
            Stage::Busy => Standing::Elsewhere,
            Stage::Closed => Standing::Closed,
            Stage::Idle(_) | Stage::Abandoned(_) => Standing::Idle,
        }
    }

    /// As [`Core::look`], by what was harvested so far.
    pub(crate) fn glance(&self) -> Standing {
        let Some(state) = self.state.try_lock() else {
            return Standing::Elsewhere;
        };
        match &state.stage {
            Stage::Out(flight) if flight.pending.is_answered() => Standing::Answered,
            Stage::Out(_) => Standing::UnderWay,
            Stage::Busy => Standing::Elsewhere,
            Stage::Closed => Standing::Closed,
            Stage::Idle(_) | Stage::Abandoned(_) => Standing::Idle,
        }
    }

    /// Waits, without the interpreter, until no other thread has the run, or for a moment.
    pub(crate) fn wait_for_return(&self, at_most: Duration) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Busy) {
            self.returned.wait_for(&mut state, at_most);
        }
    }

    /// Reads the pending request of a run that was left.
    pub(crate) fn with_pending<T>(&self, read: impl FnOnce(&Pending) -> T) -> Option<T> {
        match &self.state.try_lock()?.stage {
            Stage::Out(flight) => Some(read(&flight.pending)),
            _ => None,
        }
    }

    /// Asks the server to drop a run that was left.
    pub(crate) fn cancel(&self) {
        if let Some(mut state) = self.state.try_lock()
            && let Stage::Out(flight) = &mut state.stage
        {
            flight.pending.cancel();
        }
    }

    /// Gives everything back that nobody has a view of.
    pub(crate) fn close(&self) {
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        // The thread that has it comes here when it puts it back.
        if matches!(state.stage, Stage::Busy) {
            return;
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Closed);
        let holds = std::mem::take(&mut state.holds);
        state.inputs.clear();
        drop(state);
        holds.iter().for_each(|hold| hold.let_go());
        drop(stage);
    }

    fn put(&self, stage: Stage) {
        // Nobody waits with the lock, and who has it is not this thread: it would not have come here.
        let before = std::mem::replace(&mut self.state.lock().stage, stage);
        self.returned.notify_all();
        drop(before);
        if self.connection.is_closed() {
            self.close();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let holds = std::mem::take(&mut state.holds);
        holds.iter().for_each(|hold| hold.let_go());
        if let Stage::Abandoned(pending) = std::mem::replace(&mut state.stage, Stage::Closed)
            && !self.connection.is_closed()
        {
            self.connection.enter_orphan(pending);
        }
    }
}

impl State {
    /// Where the next response goes: not where arrays are that somebody still has.
    fn choose_hold(&mut self, py: Python<'_>, request: &mut Request) -> Arc<Hold> {
        // One without a lease first, if the request has its preparation; otherwise one whose lease has it.
        let is_prepared = request.is_prepared();
        let is_wanted = |hold: &&Arc<Hold>| hold.has_lease() != is_prepared && hold.is_free(py);
        let hold = self.holds.iter().find(is_wanted);
        let hold = hold.or_else(|| self.holds.iter().find(|hold| hold.is_free(py)));
        if let Some(hold) = hold {
            if let Some(lease) = hold.take_lease() {
                request.take_back(lease);
            }
            return Arc::clone(hold);
        }
        if self.holds.len() == HOLDS_MAX {
            self.holds.remove(0).let_go();
        }
        let hold = Hold::kept();
        self.holds.push(Arc::clone(&hold));
        hold
    }
}

/// Writes the texts of an input, in another request if they are of another size; the plan of that one.
fn resize(
    mut plan: Plan,
    request: &mut Request,
    index: usize,
    bytes: &[u8],
) -> Result<Plan, Fault> {
    let len = bytes.len() as u64;
    if plan.inputs[index].string_bytes != Some(len) {
        plan.inputs[index].string_bytes = Some(len);
        let mut other = plan.build(None)?;
        for sibling in (0..plan.inputs.len()).filter(|&sibling| sibling != index) {
            let place = request.input_place_at(sibling)?;
            other.copy_input_from(sibling, &place)?;
        }
        *request = other;
    }
    request.input_bytes_mut_at(index)?.copy_from_slice(bytes);
    Ok(plan)
}

/// The request of a run that nobody waits for, in fresh memory if the server is not done with it; or why there is
/// none.
fn reclaim(mut pending: Pending) -> (Stage, Option<Fault>) {
    if !pending.is_done() {
        return match pending.duplicate() {
            Ok(request) => (Stage::Idle(request), None),
            Err(error) => (Stage::Abandoned(pending), Some(error.into())),
        };
    }
    match pending.wait() {
        Ok(response) => (Stage::Idle(response.into_request()), None),
        Err(failed) => match failed.request {
            Some(request) => (Stage::Idle(request), None),
            None => (Stage::Closed, Some(failed.error.into())),
        },
    }
}
