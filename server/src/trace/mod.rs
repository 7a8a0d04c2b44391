//! Traces of requests: which are taken, and what is known of each, until the control plane sends them.
//!
//! Off, this costs a request one load. On, one request of so many is written down by whoever tells its outcome, from the
//! times that are taken anyway. Nothing is sent from here: the control plane takes what has gathered, now and then, and
//! what finds no room until then is dropped and counted.

mod parent;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use adjoin_schema::status::Status;
use adjoin_schema::text::is_model_name;
use adjoin_shm::clock::now_ns;
use parking_lot::Mutex;

pub use parent::Parent;

use crate::batch::queue::Ticket;
use crate::model::request::{Job, Outcome};

/// Most traces that wait to be sent.
const WAITING_MAX: usize = 4096;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Through the ring of a session.
    Ring,
    /// In a gRPC message.
    Grpc,
    /// In the body of an HTTP request.
    Http,
}

/// The run of a request, from its intake. All but one of the times follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it was taken in, in ns.
    pub enqueued_ns: u64,
    /// From then until its batch began.
    pub queue_ns: u64,
    /// Joining the inputs of the batch.
    pub gather_ns: u64,
    /// The batch in the engine.
    pub execute_ns: u64,
    /// Handing the outputs of the batch back.
    pub scatter_ns: u64,
    /// Rows of the batch.
    pub batch_size: u32,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What it belongs to, as its caller says.
    pub parent: Option<Parent>,
    /// How it came.
    pub transport: Transport,
    /// Its model as its caller names it; empty for a name that no model can have.
    pub model: Arc<str>,
    /// Version of the model; 0 while it is not known.
    pub version: u64,
    /// When it came, in ns.
    pub begin_ns: u64,
    /// When it was answered, in ns.
    pub end_ns: u64,
    /// Why it has no outputs, if so.
    pub error: Option<String>,
    /// Its run, if there was one.
    pub run: Option<Run>,
}

/// Traces that wait to be sent.
#[derive(Debug, Default)]
pub struct Traces {
    is_on: AtomicBool,
    /// One request of so many; 0: none but those whose callers want it.
    rate: AtomicU32,
    seen: AtomicU32,
    waiting: Mutex<Vec<Trace>>,
    dropped: AtomicU64,
}

impl Traces {
    /// Takes one request of `rate` from now on, and all that belong to a trace which is taken; with 0 only those.
    pub fn switch_on(&self, rate: u32) {
        self.is_on.store(true, Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether requests are taken that nobody asks it for.
    #[inline]
    pub fn is_sampling(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != 0
    }

    /// Whether it is a request's turn.
    fn is_due(&self) -> bool {
        match self.rate.load(Ordering::Relaxed) {
            0 => false,
            rate => self
                .seen
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(rate),
        }
    }

    /// Takes a request of a session, whose outcome was told, if it is its turn.
    #[cold]
    #[inline(never)]
    pub fn told(&self, ticket: &Ticket, job: &Job, outcome: &Outcome) {
        if !self.is_due() {
            return;
        }
        let version = &job.request.version;
        self.push(Trace {
            parent: None,
            transport: Transport::Ring,
            model: Arc::clone(version.name()),
            version: version.version(),
            begin_ns: ticket.enqueued_ns,
            end_ns: now_ns(),
            error: error(outcome.status),
            run: run(ticket.enqueued_ns, outcome),
        });
    }

    /// Begins with a request of a message. `parent` is the caller's `traceparent`.
    pub fn begin(&self, transport: Transport, parent: Option<&str>) -> Pending<'_> {
        let trace = self.is_on.load(Ordering::Relaxed).then(|| {
            let parent = parent.and_then(Parent::parse);
            let is_taken = parent.map_or_else(|| self.is_due(), |parent| parent.is_sampled);
            is_taken.then(|| Trace {
                parent,
                transport,
                model: Arc::from(""),
                version: 0,
                begin_ns: now_ns(),
                end_ns: 0,
                error: Some("the caller went away".into()),
                run: None,
            })
        });
        Pending {
            traces: self,
            trace: trace.flatten().map(Box::new),
        }
    }

    /// What has gathered, and how many were dropped since the last time.
    pub fn take(&self) -> (Vec<Trace>, u64) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        (waiting, self.dropped.swap(0, Ordering::Relaxed))
    }

    fn push(&self, trace: Trace) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(trace);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn error(status: Status) -> Option<String> {
    (status != Status::Ok).then(|| status.name().to_owned())
}

fn run(enqueued_ns: u64, outcome: &Outcome) -> Option<Run> {
    (outcome.batch_size > 0).then_some(Run {
        enqueued_ns,
        queue_ns: outcome.queue_ns,
        gather_ns: outcome.gather_ns,
        execute_ns: outcome.execute_ns,
        scatter_ns: outcome.scatter_ns,
        batch_size: outcome.batch_size,
    })
}

/// A request of a message, from its arrival until this is dropped. It may be one that is not taken: then nothing of
/// this does anything.
#[derive(Debug)]
pub struct Pending<'a> {
    traces: &'a Traces,
    trace: Option<Box<Trace>>,
}

impl Pending<'_> {
    /// Names the model that is asked for. A name that no model can have is left out: it may be as long as a message.
    pub fn asks_for(&mut self, model: &str) {
        if let Some(trace) = &mut self.trace
            && is_model_name(model)
        {
            trace.model = Arc::from(model);
        }
    }

    /// The request was taken in at `enqueued_ns`, and has an outcome.
    pub fn ran(&mut self, version: u64, enqueued_ns: u64, outcome: &Outcome) {
        if let Some(trace) = &mut self.trace {
            trace.version = version;
            trace.run = run(enqueued_ns, outcome);
        }
    }

    /// The request is answered, or refused with an error of this kind.
    pub fn answered(mut self, error: Option<String>) {
        if let Some(trace) = &mut self.trace {
            trace.error = error;
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(mut trace) = self.trace.take() {
            trace.end_ns = now_ns();
            self.traces.push(*trace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn arrive(traces: &Traces, parent: Option<&str>) {
        let mut pending = traces.begin(Transport::Http, parent);
        pending.asks_for("digits");
        pending.answered(None);
    }

    fn taken(traces: &Traces) -> usize {
        traces.take().0.len()
    }

    #[test]
    fn one_of_so_many_is_taken_and_what_the_caller_wants_traced() {
        let traces = Traces::default();
        for parent in [None, Some(SAMPLED)] {
            arrive(&traces, parent);
        }
        assert!(!traces.is_sampling());
        assert_eq!(taken(&traces), 0, "off");

        traces.switch_on(3);
        assert!(traces.is_sampling());
        (0..9).for_each(|_| arrive(&traces, None));
        assert_eq!(taken(&traces), 3);
        (0..9).for_each(|_| arrive(&traces, Some(SAMPLED)));
        assert_eq!(taken(&traces), 9);
        (0..9).for_each(|_| arrive(&traces, Some(NOT_SAMPLED)));
        assert_eq!(taken(&traces), 0);
        (0..9).for_each(|_| arrive(&traces, Some("00-wrong")));
        assert_eq!(taken(&traces), 3, "as if there was no parent");

        traces.switch_on(0);
        assert!(!traces.is_sampling());
        (0..9).for_each(|_| arrive(&traces, None));
        arrive(&traces, Some(SAMPLED));
        let (found, dropped) = traces.take();
        assert_eq!((found.len(), dropped), (1, 0));
        assert_eq!(found[0].parent, Parent::parse(SAMPLED));
        assert_eq!((&*found[0].model, &found[0].error), ("digits", &None));
        assert!(found[0].begin_ns <= found[0].end_ns);
    }

    #[test]
    fn what_nobody_answers_says_so() {
        let traces = Traces::default();
        traces.switch_on(1);
        let mut pending = traces.begin(Transport::Grpc, None);
        pending.asks_for(&"a".repeat(1 << 20));
        drop(pending);
        let (found, _) = traces.take();
        assert_eq!(found[0].error.as_deref(), Some("the caller went away"));
        assert_eq!(&*found[0].model, "", "no room for names without end");
    }

    #[test]
    fn what_finds_no_room_is_counted_once() {
        let traces = Traces::default();
        traces.switch_on(1);
        (0..WAITING_MAX + 5).for_each(|_| arrive(&traces, None));
        let (found, dropped) = traces.take();
        assert_eq!((found.len(), dropped), (WAITING_MAX, 5));
        arrive(&traces, None);
        let (found, dropped) = traces.take();
        assert_eq!((found.len(), dropped), (1, 0));
    }
}
