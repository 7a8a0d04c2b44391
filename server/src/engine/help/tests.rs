//! A data plane whose worker, if it has one, is not needed for what is short.

use std::sync::Arc;
use std::thread;

use adjoin_backend::Copied;
use adjoin_schema::DataType;
use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::{HELP_NS, WAITING_MAX};
use crate::engine::{Engine, ticket};
use crate::metrics::Metrics;
use crate::model::Models;
use crate::model::request::Outcome;
use crate::testing::{self, Fake, tensor};

const FLOW: u64 = 7;

struct Plane {
    engine: Arc<Engine>,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

impl Plane {
    /// With a model `quick` that says on which thread it ran, and takes `execute_ns` as far as the server knows.
    fn new(execute_ns: u64) -> Self {
        let models = Arc::new(Models::default());
        let metrics = Arc::new(Metrics::new("test"));
        let engine = testing::engine(&models, &metrics);
        let rows = |name, size| vec![tensor(name, DataType::Fp32, &[size])];
        let model = Fake::boxed(rows("x", -1), rows("y", 1), |_, _| Ok(Copied::default()));
        let version = testing::version(&metrics, "quick", model, testing::settings(8));
        version.timing().observe(1, execute_ns);
        testing::serve(&models, version);
        Self {
            engine,
            models,
            metrics,
        }
    }

    fn send(&self) -> Receiver<Outcome> {
        self.send_of(1)
    }

    /// A request of one row with so many elements.
    fn send_of(&self, size: usize) -> Receiver<Outcome> {
        let shape = [1, i64::try_from(size).unwrap()];
        let bytes = vec![0; 4 * size];
        let given = [("x", DataType::Fp32, shape.as_slice(), bytes.as_slice())];
        let (job, receiver) = testing::job(&self.models, "quick", &given, &[]).unwrap();
        let ticket = ticket(&job, FLOW, 0, 0, now_ns());
        self.engine.submit(ticket, job);
        receiver
    }

    fn executions(&self) -> u64 {
        let version = self.models.find("quick", 0, "").unwrap();
        version.metrics().statistics().execution_count
    }
}

#[test]
fn what_is_short_runs_together_on_the_helping_thread_and_needs_no_worker() {
    // The time for four rows is taken to be four times as long.
    let plane = Plane::new(HELP_NS / 8);
    plane.engine.helps_from_here();
    let mut answers: Vec<_> = (0..4).map(|_| plane.send()).collect();
    for answer in &mut answers {
        assert_eq!(answer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
    plane.engine.help();
    for answer in &mut answers {
        let outcome = answer.try_recv().unwrap();
        assert_eq!((outcome.status, outcome.batch_size), (Status::Ok, 4));
    }
    assert_eq!(plane.executions(), 1);
    assert!(plane.engine.is_idle());
    plane.engine.help();
    assert_eq!(plane.executions(), 1);
}

#[test]
fn what_is_long_goes_to_a_worker() {
    let plane = Plane::new(HELP_NS * 2);
    plane.engine.helps_from_here();
    let mut answer = plane.send();
    for _ in 0..2 {
        plane.engine.help();
        assert_eq!(answer.try_recv().unwrap_err(), TryRecvError::Empty);
        assert!(!plane.engine.is_idle());
    }
    plane.engine.ensure_workers(1).unwrap();
    assert_eq!(answer.blocking_recv().unwrap().status, Status::Ok);
    assert_eq!(plane.executions(), 1);
}

#[test]
fn inputs_larger_than_those_that_were_timed_go_to_a_worker() {
    let plane = Plane::new(HELP_NS / 8);
    plane.engine.helps_from_here();
    let version = plane.models.find("quick", 0, "").unwrap();
    version.timing().observe_inputs(1, 4);
    let mut small = plane.send();
    plane.engine.help();
    assert_eq!(small.try_recv().unwrap().status, Status::Ok);
    let mut large = plane.send_of(1 << 20);
    plane.engine.help();
    assert_eq!(large.try_recv().unwrap_err(), TryRecvError::Empty);
    plane.engine.ensure_workers(1).unwrap();
    assert_eq!(large.blocking_recv().unwrap().status, Status::Ok);
}

#[test]
fn worker_that_sleeps_is_woken_for_what_is_long() {
    let plane = Plane::new(HELP_NS * 2);
    plane.engine.ensure_workers(1).unwrap();
    plane.engine.helps_from_here();
    let version = plane.models.find("quick", 0, "").unwrap();
    for _ in 0..100 {
        version.timing().observe(1, 1_000_000_000);
        let answer = plane.send();
        plane.engine.help();
        assert_eq!(answer.blocking_recv().unwrap().status, Status::Ok);
    }
    assert!(plane.metrics.wakeups.get() > 0);
}

#[test]
fn other_threads_and_a_helper_that_is_busy_leave_it_to_the_workers() {
    let plane = Plane::new(HELP_NS / 2);
    plane.engine.ensure_workers(1).unwrap();
    plane.engine.helps_from_here();
    thread::scope(|scope| {
        let outcome = scope.spawn(|| plane.send().blocking_recv().unwrap()).join();
        assert_eq!(outcome.unwrap().status, Status::Ok);
    });
    // It never comes to `help` here.
    let answers: Vec<_> = (0..WAITING_MAX).map(|_| plane.send()).collect();
    for answer in answers {
        assert_eq!(answer.blocking_recv().unwrap().status, Status::Ok);
    }
}

#[test]
fn nothing_is_lost_between_a_helper_and_workers_that_sleep_and_wake() {
    let plane = Plane::new(HELP_NS / 2);
    plane.engine.ensure_workers(2).unwrap();
    plane.engine.helps_from_here();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    assert_eq!(plane.send().blocking_recv().unwrap().status, Status::Ok);
                }
            });
        }
        for _ in 0..2000 {
            let mut answer = plane.send();
            plane.engine.help();
            // A worker may have been at it.
            match answer.try_recv() {
                Ok(outcome) => assert_eq!(outcome.status, Status::Ok),
                Err(_) => assert_eq!(answer.blocking_recv().unwrap().status, Status::Ok),
            }
        }
    });
}
