//! Ensembles of fake models on a data plane with real workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use adjoin_backend::{Copied, ExecuteError, Model, Output, TensorMetadata};
use adjoin_model_config::Checked;
use adjoin_schema::DataType;
use adjoin_schema::status::Status;
use adjoin_shm::Payload;
use adjoin_shm::clock::now_ns;

use super::EnsemblePlan;
use crate::engine::{Engine, ticket};
use crate::metrics::Metrics;
use crate::model::request::{Outcome, Request};
use crate::model::{ModelEntry, ModelSettings, ModelVersion, Models};
use crate::testing::{self, Fake, Given, tensor};

/// A server's data plane.
struct Plane {
    engine: Arc<Engine>,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.engine.stop();
        assert!(self.engine.is_idle(), "something was left behind");
    }
}

/// An answer: what became of it, and its outputs.
struct Answer {
    request: Arc<Request>,
    outcome: Outcome,
}

impl Answer {
    fn floats(&self, index: usize) -> Vec<f32> {
        assert_eq!(self.outcome.status, Status::Ok, "{:?}", self.outcome.reason);
        let response = self.outcome.response.as_ref().unwrap();
        let output = response.private_output(&self.request, index).unwrap();
        bytes_to_floats(output.bytes)
    }

    fn reason(&self) -> &str {
        self.outcome.reason.as_deref().unwrap_or_default()
    }
}

fn bytes_to_floats(bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.as_chunks().0.iter().copied();
    elements.map(f32::from_le_bytes).collect()
}

fn floats_to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn floats(payload: Payload<'_>) -> Vec<f32> {
    bytes_to_floats(&payload.to_vec())
}

fn put(output: &mut Output<'_>, values: &[f32]) {
    if let Output::Bound { payload, .. } = output {
        let bytes = floats_to_bytes(values);
        Payload::from_slice(&bytes).copy_to(payload);
    }
}

/// `y = f(x)`, element by element.
fn each(f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Box<dyn Model> {
    Fake::boxed(pair("x"), pair("y"), move |execution, _| {
        let x = floats(execution.inputs[0].payload);
        let y: Vec<f32> = x.into_iter().map(&f).collect();
        put(&mut execution.outputs[0], &y);
        Ok(Copied::default())
    })
}

/// `y = a + b`.
fn sum() -> Box<dyn Model> {
    let inputs = [pair("a"), pair("b")].concat();
    Fake::boxed(inputs, pair("y"), |execution, _| {
        let [a, b] = [0, 1].map(|index| floats(execution.inputs[index].payload));
        let y: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        put(&mut execution.outputs[0], &y);
        Ok(Copied::default())
    })
}

/// Rows of two numbers.
fn pair(name: &str) -> Vec<TensorMetadata> {
    vec![tensor(name, DataType::Fp32, &[2])]
}

/// Rows of two numbers, as a configuration has them.
const PAIR: &str = "data_type: TYPE_FP32 dims: 2";

/// The configuration of an ensemble from `in` to outputs with these names: of each step
/// `MODEL PORT=TENSOR,... PORT=TENSOR,...`.
fn configured(outputs: &[&str], steps: &[&str], tensor: &str, in_flight_max: u32) -> Checked {
    let mut text = format!("max_batch_size: 8 input {{ name: 'in' {tensor} }}");
    for output in outputs {
        text += &format!(" output {{ name: '{output}' {tensor} }}");
    }
    text += &format!(" ensemble_scheduling {{ max_inflight_requests: {in_flight_max}");
    for step in steps {
        let words: Vec<&str> = step.split(' ').collect();
        text += &format!(" step {{ model_name: '{}' model_version: -1", words[0]);
        for (map, pairs) in [("input_map", words[1]), ("output_map", words[2])] {
            for pair in pairs.split(',') {
                let (port, tensor) = pair.split_once('=').unwrap();
                text += &format!(" {map} {{ key: '{port}' value: '{tensor}' }}");
            }
        }
        text += " }";
    }
    text += " }";
    let message = adjoin_model_config::parse_text(&text).unwrap();
    Checked::new("ensemble", &message).unwrap().0
}

#[test]
fn steps_that_are_needed_are_found_from_what_is_wanted() {
    let steps = ["c x=b,z=in y=out", "b x=a y=b", "a x=in y=a,z=other"];
    let checked = configured(&["out", "other"], &steps, PAIR, 0);
    let plan = EnsemblePlan::new(&checked).unwrap();
    let numbers: Vec<_> = plan.steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert_eq!(plan.needed(plan.outputs.iter().copied()), [true; 3]);
    let only_other = plan.needed(plan.outputs[1..].iter().copied());
    assert_eq!(only_other, [true, false, false]);
    let shapes = plan.metadata().outputs[0].open_shape();
    assert_eq!(shapes.as_slice(), [-1, 2]);
    assert!(plan.metadata().has_batch_dimension());
}

impl Plane {
    fn new() -> Self {
        let models = Arc::new(Models::default());
        let metrics = Arc::new(Metrics::new("test"));
        let engine = testing::engine(&models, &metrics);
        engine.ensure_workers(3).unwrap();
        Self {
            engine,
            models,
            metrics,
        }
    }

    fn serve(&self, name: &str, model: Box<dyn Model>) {
        self.serve_with(name, model, testing::settings(8));
    }

    fn serve_with(&self, name: &str, model: Box<dyn Model>, settings: ModelSettings) {
        let version = testing::version(&self.metrics, name, model, settings);
        testing::serve(&self.models, version);
    }

    /// An ensemble of rows of two numbers: from `in` to `out`.
    fn ensemble(&self, name: &str, steps: &[&str], in_flight_max: u32) {
        self.serve_steps(name, &configured(&["out"], steps, PAIR, in_flight_max));
    }

    fn serve_steps(&self, name: &str, checked: &Checked) {
        let plan = EnsemblePlan::new(checked).unwrap();
        let settings = plan.settings(testing::settings(8));
        let parts = testing::parts(&self.metrics, name, plan.model(), settings, plan.places());
        let version = ModelVersion::new(parts).with_plan(Arc::new(plan));
        testing::serve(&self.models, Arc::new(version));
    }

    /// Sends a request, and gives what waits for its answer.
    fn send(
        &self,
        model: &str,
        given: &[Given<'_>],
        wanted: &[&str],
        deadline_ns: u64,
    ) -> impl FnOnce() -> Answer + use<> {
        let (job, receiver) = testing::job(&self.models, model, given, wanted).unwrap();
        let request = Arc::clone(&job.request);
        let ticket = ticket(&job, 0, 0, deadline_ns, now_ns());
        self.engine.submit(ticket, job);
        move || {
            let outcome = receiver.blocking_recv().unwrap();
            Answer { request, outcome }
        }
    }

    fn run(&self, model: &str, rows: &[f32]) -> Answer {
        let bytes = floats_to_bytes(rows);
        let shape = [i64::try_from(rows.len() / 2).unwrap(), 2];
        self.send(model, &[("in", DataType::Fp32, &shape, &bytes)], &[], 0)()
    }

    fn executions(&self, model: &str) -> u64 {
        let version = self.models.find(model, 0, "").unwrap();
        version.metrics().statistics().execution_count
    }
}

#[test]
fn each_step_gets_what_the_one_before_has_made_where_it_lies() {
    let plane = Plane::new();
    let place = Arc::new(Mutex::new(Vec::new()));
    plane.serve("double", each(|x| 2.0 * x));
    let seen = Arc::clone(&place);
    let second = Fake::boxed(pair("x"), pair("y"), move |execution, _| {
        let payload = execution.inputs[0].payload;
        seen.lock().unwrap().push(payload.as_ptr().addr());
        let y: Vec<f32> = floats(payload).into_iter().map(|x| x + 1.0).collect();
        put(&mut execution.outputs[0], &y);
        Ok(Copied::default())
    });
    plane.serve("next", second);
    plane.ensemble("both", &["double x=in y=t", "next x=t y=out"], 0);

    let answer = plane.run("both", &[1.0, 2.0, -3.0, 0.5]);
    assert_eq!(answer.floats(0), [3.0, 5.0, -5.0, 2.0]);
    assert_eq!(answer.outcome.batch_size, 2);
    let statistics = |model| {
        let version = plane.models.find(model, 0, "").unwrap();
        version.metrics().statistics()
    };
    // The request's bytes came in a message; the tensor between the steps is read where the first one wrote it.
    assert_eq!(statistics("next").copied, [0; 9]);
    assert_eq!(place.lock().unwrap()[0] % 64, 0);
    let both = statistics("both");
    assert_eq!((both.request_count, both.inference_count), (1, 2));
    assert_eq!(both.copied.iter().sum::<u64>(), 16, "the final output");
}

#[test]
fn steps_part_and_meet_and_only_those_that_are_needed_run() {
    let plane = Plane::new();
    plane.serve("double", each(|x| 2.0 * x));
    plane.serve("negate", each(|x| -x));
    plane.serve("sum", sum());
    let steps = [
        "sum a=p,b=q y=out",
        "double x=in y=p",
        "negate x=in y=q",
        "negate x=q y=half",
    ];
    plane.serve_steps("graph", &configured(&["out", "half"], &steps, PAIR, 0));
    let answer = plane.run("graph", &[1.0, 5.0]);
    assert_eq!(answer.floats(0), [1.0, 5.0]);
    assert_eq!(answer.floats(1), [1.0, 5.0]);

    let before = (plane.executions("sum"), plane.executions("negate"));
    let bytes = floats_to_bytes(&[3.0, 4.0]);
    let given = [("in", DataType::Fp32, [1, 2].as_slice(), bytes.as_slice())];
    let answer = plane.send("graph", &given, &["half"], 0)();
    assert_eq!(answer.floats(1), [3.0, 4.0]);
    assert_eq!(plane.executions("sum"), before.0);
    assert_eq!(plane.executions("negate"), before.1 + 2);
}

#[test]
fn steps_of_several_requests_meet_in_one_batch_with_others_of_the_model() {
    let plane = Plane::new();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let rows = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&rows);
    let slow = Fake::boxed(pair("x"), pair("y"), move |execution, _| {
        seen.lock().unwrap().push(execution.inputs[0].shape[0]);
        gate.lock().unwrap().recv().unwrap();
        let x = floats(execution.inputs[0].payload);
        put(&mut execution.outputs[0], &x);
        Ok(Copied::default())
    });
    plane.serve("double", each(|x| 2.0 * x));
    plane.serve("slow", slow);
    plane.ensemble("both", &["double x=in y=t", "slow x=t y=out"], 0);
    let send = |model: &str, port, value: f32| {
        let bytes = floats_to_bytes(&[value, value]);
        plane.send(model, &[(port, DataType::Fp32, &[1, 2], &bytes)], &[], 0)
    };
    let first = send("slow", "x", 7.0);
    while rows.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    // The instance is taken; these three wait for it together.
    let others = [
        send("both", "in", 1.0),
        send("both", "in", 2.0),
        send("slow", "x", 3.0),
    ];
    let waiting = plane.models.find("slow", 0, "").unwrap();
    while waiting.waiting() < 3 {
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(first().floats(0), [7.0, 7.0]);
    let answers = others.map(|answer| answer().floats(0)[0]);
    assert_eq!(answers, [2.0, 4.0, 3.0]);
    assert_eq!(*rows.lock().unwrap(), [1, 3]);
}

#[test]
fn as_many_requests_as_configured_are_on_their_way_at_once_and_the_others_wait() {
    let plane = Plane::new();
    let on_their_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, max) = (Arc::clone(&on_their_way), Arc::clone(&most));
    plane.serve(
        "enter",
        each(move |x| {
            max.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            x
        }),
    );
    let now = Arc::clone(&on_their_way);
    plane.serve(
        "leave",
        each(move |x| {
            now.fetch_sub(1, Ordering::SeqCst);
            x
        }),
    );
    plane.ensemble("narrow", &["enter x=in y=t", "leave x=t y=out"], 2);
    let send = |value: f32| {
        let bytes = floats_to_bytes(&[value, value]);
        plane.send("narrow", &[("in", DataType::Fp32, &[1, 2], &bytes)], &[], 0)
    };
    let answers: Vec<_> = (0..40_u8).map(|seed| send(seed.into())).collect();
    for (seed, answer) in (0..40_u8).zip(answers) {
        assert_eq!(answer().floats(0), [f32::from(seed); 2]);
    }
    // Two numbers a request.
    assert!(most.load(Ordering::SeqCst) <= 4, "{most:?}");
}

#[test]
fn what_fails_is_named_by_its_step() {
    let plane = Plane::new();
    plane.serve("double", each(|x| 2.0 * x));
    let picky = Fake::boxed(pair("x"), pair("y"), |_, _| {
        let reason = "row 0: not today".to_owned();
        Err(ExecuteError::Refused { reason })
    });
    plane.serve("picky", picky);
    let broken = Fake::boxed(pair("x"), pair("y"), |_, _| {
        Err(ExecuteError::Failed {
            engine: "fake",
            reason: "/secret/path".into(),
        })
    });
    plane.serve("broken", broken);
    let wide = Fake::boxed(
        vec![tensor("x", DataType::Fp32, &[3])],
        pair("y"),
        |_, _| Ok(Copied::default()),
    );
    plane.serve("wide", wide);
    let fail = |model: &str| {
        let second = format!("{model} x=t y=out");
        plane.ensemble("both", &["double x=in y=t", &second], 0);
        let answer = plane.run("both", &[1.0, 2.0]);
        let text = answer.reason().to_owned();
        (answer.outcome.status, answer.outcome.detail, text)
    };
    let (status, detail, text) = fail("picky");
    assert_eq!((status, detail), (Status::ValuesRefused, [2, 0]));
    assert_eq!(text, "step 2, model \"picky\": row 0: not today");
    let (status, detail, text) = fail("broken");
    let failed = Status::ExecutionFailed as u16;
    assert_eq!(
        (status, detail),
        (Status::ExecutionFailed, [2, failed.into()])
    );
    assert!(
        text.contains("\"broken\"") && !text.contains("secret"),
        "{text}"
    );
    let (status, detail, text) = fail("wide");
    let mismatch = Status::ShapeMismatch as u16;
    assert_eq!(
        (status, detail),
        (Status::ExecutionFailed, [2, mismatch.into()])
    );
    assert!(text.contains("[1,2]") && text.contains('3'), "{text}");
    let (status, _, text) = fail("gone");
    assert_eq!(status, Status::ModelNotReady);
    assert!(text.contains("\"gone\""), "{text}");
    // Found at each request: it is there from now on.
    plane.serve("gone", each(|x| x));
    assert_eq!(plane.run("both", &[1.0, 2.0]).floats(0), [2.0, 4.0]);
    let unload = |entry: &mut ModelEntry| {
        *entry = ModelEntry::default();
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(()) = plane.models.change("gone", unload);
    assert_eq!(
        plane.run("both", &[1.0, 2.0]).outcome.status,
        Status::ModelNotReady
    );
    assert_eq!(fail("broken").0, Status::ExecutionFailed);
    let both = plane.models.find("both", 0, "").unwrap();
    assert!(both.is_idle());
}

#[test]
fn outputs_that_are_not_as_configured_fail_the_request() {
    let plane = Plane::new();
    let wide = Fake::boxed(
        pair("x"),
        vec![tensor("y", DataType::Fp32, &[3])],
        |_, _| Ok(Copied::default()),
    );
    plane.serve("wide", wide);
    plane.ensemble("one", &["wide x=in y=out"], 0);
    let answer = plane.run("one", &[1.0, 2.0]);
    assert_eq!(answer.outcome.status, Status::ExecutionFailed);
    assert!(answer.reason().contains("[1, 3]"), "{}", answer.reason());
}

#[test]
fn ensembles_may_be_steps_but_not_in_circles_and_not_without_end() {
    let plane = Plane::new();
    plane.serve("double", each(|x| 2.0 * x));
    plane.ensemble("deep-1", &["double x=in y=out"], 1);
    for depth in 2..=9 {
        let inner = format!("deep-{} in=in out=t", depth - 1);
        let name = format!("deep-{depth}");
        plane.ensemble(&name, &[&inner, "double x=t y=out"], 1);
    }
    assert_eq!(plane.run("deep-2", &[1.0, 2.0]).floats(0), [4.0, 8.0]);
    assert_eq!(plane.run("deep-8", &[1.0, 0.0]).floats(0), [256.0, 0.0]);
    let answer = plane.run("deep-9", &[1.0, 0.0]);
    assert_eq!(answer.outcome.status, Status::ExecutionFailed);
    assert!(
        answer.reason().contains("the most is 8"),
        "{}",
        answer.reason()
    );

    // With one place each, a circle that were followed would wait for itself.
    plane.ensemble("a", &["b in=in out=out"], 1);
    plane.ensemble("b", &["a in=in out=out"], 1);
    let answer = plane.run("a", &[1.0, 2.0]);
    assert_eq!(answer.outcome.status, Status::ExecutionFailed);
    assert!(answer.reason().contains("itself"), "{}", answer.reason());
}

#[test]
fn deadlines_and_full_queues_of_steps_end_the_request() {
    let plane = Plane::new();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (started, starts) = mpsc::channel();
    let slow = Fake::boxed(pair("x"), pair("y"), move |execution, _| {
        started.send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        let x = floats(execution.inputs[0].payload);
        put(&mut execution.outputs[0], &x);
        Ok(Copied::default())
    });
    let settings = ModelSettings {
        queue_count_max: 1,
        ..testing::settings(1)
    };
    plane.serve_with("slow", slow, settings);
    plane.ensemble("one", &["slow x=in y=out"], 0);
    let bytes = floats_to_bytes(&[1.0, 2.0]);
    let given = [("in", DataType::Fp32, [1, 2].as_slice(), bytes.as_slice())];
    let first = plane.send("one", &given, &[], 0);
    starts.recv().unwrap();
    let late = plane.send("one", &given, &[], now_ns() + 2_000_000);
    // Which of the two depends on when the leader gets to see it.
    let status = late().outcome.status;
    let is_late = matches!(
        status,
        Status::DeadlineExceeded | Status::DeadlineUnreachable
    );
    assert!(is_late, "{status}");
    let waiting = plane.send("one", &given, &[], 0);
    let slow = plane.models.find("slow", 0, "").unwrap();
    while slow.waiting() < 1 {
        std::thread::yield_now();
    }
    let full = plane.send("one", &given, &[], 0)();
    assert_eq!(
        (full.outcome.status, full.outcome.detail),
        (Status::QueueFull, [1, 0])
    );
    release.send(()).unwrap();
    release.send(()).unwrap();
    first().floats(0);
    waiting().floats(0);
}

#[test]
fn of_a_run_that_nobody_waits_for_no_further_step_is_begun() {
    for is_forgotten in [false, true] {
        let plane = Plane::new();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (started, starts) = mpsc::channel();
        let first = Fake::boxed(pair("x"), pair("y"), move |execution, _| {
            started.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            let x = floats(execution.inputs[0].payload);
            put(&mut execution.outputs[0], &x);
            Ok(Copied::default())
        });
        plane.serve("first", first);
        plane.serve("second", each(|x| x));
        // The run that is waited for is one within another.
        plane.ensemble("inner", &["first x=in y=t", "second x=t y=out"], 0);
        plane.ensemble("outer", &["inner in=in out=out"], 0);
        let bytes = floats_to_bytes(&[1.0, 2.0]);
        let given = [("in", DataType::Fp32, [1, 2].as_slice(), bytes.as_slice())];
        let (mut job, receiver) = testing::job(&plane.models, "outer", &given, &[]).unwrap();
        job.request_id = 5;
        let ticket = ticket(&job, 77, 0, 0, now_ns());
        plane.engine.submit(ticket, job);
        starts.recv().unwrap();
        if is_forgotten {
            plane.engine.forget(77);
        } else {
            plane.engine.cancel(77, 5);
        }
        // What was asked before this answer came is known to the data plane.
        let given = [("x", DataType::Fp32, [1, 2].as_slice(), bytes.as_slice())];
        plane.send("second", &given, &[], 0)();
        release.send(()).unwrap();
        let outcome = receiver.blocking_recv().unwrap();
        assert_eq!(outcome.status, Status::Cancelled);
        assert_eq!(plane.executions("second"), 1);
    }
}

#[test]
fn strings_of_unknown_size_pass_from_step_to_step() {
    let plane = Plane::new();
    let text = |name: &str| vec![tensor(name, DataType::Bytes, &[1])];
    for name in ["first", "second"] {
        let echo = Fake::boxed(text("x"), text("y"), |execution, sink| {
            let input = &execution.inputs[0];
            sink.accept(0, input.dtype, input.shape, input.payload)?;
            Ok(Copied::default())
        });
        plane.serve(name, echo);
    }
    let steps = ["first x=in y=t", "second x=t y=out"];
    let strings = "data_type: TYPE_STRING dims: 1";
    plane.serve_steps("both", &configured(&["out"], &steps, strings, 0));
    let bytes: &[u8] = b"\x05\0\0\0hello\0\0\0\0";
    let answer = plane.send("both", &[("in", DataType::Bytes, &[2, 1], bytes)], &[], 0)();
    assert_eq!(answer.outcome.status, Status::Ok);
    let response = answer.outcome.response.unwrap();
    let output = response.private_output(&answer.request, 0).unwrap();
    assert_eq!((output.shape, output.bytes), ([2, 1].as_slice(), bytes));
}

#[test]
fn ensemble_is_ready_while_the_models_of_its_steps_are() {
    let plane = Plane::new();
    plane.ensemble("both", &["double x=in y=t", "next x=t y=out"], 0);
    plane.ensemble("outer", &["both in=in out=out"], 0);
    plane.ensemble("circle", &["circle in=in out=out"], 0);
    let is_ready = |name: &str| {
        let version = plane.models.find(name, 0, "").unwrap();
        super::is_ready(&plane.models, &version)
    };
    plane.serve("double", each(|x| 2.0 * x));
    assert!(is_ready("double") && !is_ready("both") && !is_ready("outer"));
    plane.serve("next", each(|x| x));
    assert!(is_ready("both") && is_ready("outer"));
    assert!(!is_ready("circle"));
}
