//! What the library knows of what it handed out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ort::sys;
use parking_lot::Mutex;

use crate::report::{Provider, Report};

/// The library of this process.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) real: &'static sys::OrtApi,
    pub(crate) known: Mutex<Known>,
}

/// Handles of the real library by address, and what they stand for here.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Options of providers in the making.
    pub(crate) options: HashMap<usize, Provider>,
    /// Providers that were appended to options of sessions.
    pub(crate) appended: HashMap<usize, Vec<Provider>>,
    pub(crate) sessions: HashMap<usize, Arc<DeviceSession>>,
    /// Descriptions of memory of the device.
    pub(crate) memory: HashSet<usize>,
    pub(crate) values: HashMap<usize, DeviceValue>,
    pub(crate) run_options: HashMap<usize, HashMap<String, String>>,
    pub(crate) report: Report,
    calls: HashMap<String, u64>,
}

/// A value over memory of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceValue {
    pub(crate) address: usize,
    pub(crate) byte_size: usize,
    pub(crate) shape: Vec<i64>,
    pub(crate) element: sys::ONNXTensorElementDataType,
}

/// A session whose runs go to a stream.
#[derive(Debug)]
pub(crate) struct DeviceSession {
    /// The real one.
    pub(crate) address: usize,
    pub(crate) stream: usize,
    pub(crate) has_graphs: bool,
    /// The least and the largest shapes, by name, of the provider of TensorRT.
    pub(crate) profile: HashMap<String, [Vec<i64>; 2]>,
    /// What each graph was captured over, by thread and number.
    pub(crate) graphs: Mutex<HashMap<(std::thread::ThreadId, String), crate::run::Tensors>>,
    /// Runs whose work is not done.
    pub(crate) under_way: std::sync::atomic::AtomicU64,
}

static STATE: OnceLock<State> = OnceLock::new();

pub(crate) fn set(real: &'static sys::OrtApi) -> &'static State {
    STATE.get_or_init(|| State {
        real,
        known: Mutex::default(),
    })
}

/// There is one as soon as the API was handed out, which is before any function of it is called.
pub(crate) fn state() -> &'static State {
    STATE
        .get()
        .expect("fake ONNX Runtime: its API was handed out")
}

impl State {
    /// Takes note of something that no correct program does.
    #[expect(
        clippy::print_stderr,
        reason = "whoever runs the program should see it where it happens"
    )]
    pub(crate) fn violation(&self, what: String) {
        eprintln!("fake ONNX Runtime: violation: {what}");
        self.known.lock().report.violations.push(what);
    }

    /// Counts an event, and says whether the environment asks for it to fail.
    pub(crate) fn fails(&self, event: &str) -> bool {
        let mut known = self.known.lock();
        let call = known.calls.entry(event.to_owned()).or_default();
        *call += 1;
        let asked = std::env::var(crate::harness::FAIL).unwrap_or_default();
        asked.split(',').any(|failure| {
            let (name, number) = failure.split_once(':').unwrap_or((failure, "1+"));
            let (first, goes_on) = match number.strip_suffix('+') {
                Some(first) => (first, true),
                None => (number, false),
            };
            let first: u64 = match first.parse() {
                Ok(first) => first,
                Err(_) => panic!("fake ONNX Runtime: {failure:?} is no failure"),
            };
            name == event && (*call == first || (goes_on && *call > first))
        })
    }

    /// The counts as of now.
    pub(crate) fn report(&self) -> Report {
        let known = self.known.lock();
        Report {
            sessions_live: known.sessions.len(),
            values_live: known.values.len(),
            ..known.report.clone()
        }
    }
}

impl DeviceSession {
    /// A session on what its providers were told.
    pub(crate) fn new(address: usize, providers: &[Provider]) -> Result<Self, String> {
        let option = |name: &str, key: &str| {
            let mut of_name = providers.iter().filter(|provider| provider.name == name);
            of_name.find_map(|provider| provider.options.get(key))
        };
        let mut streams = providers
            .iter()
            .map(|provider| provider.options.get("user_compute_stream"));
        let first = streams.next().flatten();
        let stream = first
            .and_then(|stream| stream.parse().ok())
            .ok_or("a provider without a stream of the caller's")?;
        if !streams.all(|stream| stream == first) {
            return Err("providers of one session with different streams".to_owned());
        }
        let shapes = |key| option("tensorrt", key).map_or_else(BTreeMap::new, |text| shapes(text));
        let mut most = shapes("trt_profile_max_shapes");
        let least = shapes("trt_profile_min_shapes");
        let profile = least.into_iter().filter_map(|(name, least)| {
            let most = most.remove(&name)?;
            Some((name, [least, most]))
        });
        Ok(Self {
            address,
            stream,
            has_graphs: option("cuda", "enable_cuda_graph").is_some_and(|value| value == "1"),
            profile: profile.collect(),
            graphs: Mutex::default(),
            under_way: 0.into(),
        })
    }
}

/// Shapes by name, from `NAME:1x3,NAME:4`.
fn shapes(text: &str) -> BTreeMap<String, Vec<i64>> {
    let shape = |part: &str| {
        let (name, sizes) = part.rsplit_once(':')?;
        let sizes: Result<_, _> = sizes.split('x').map(str::parse).collect();
        Some((name.to_owned(), sizes.ok()?))
    };
    text.split(',').filter_map(shape).collect()
}

/// Builds what the provider of TensorRT would build, or finds it in the cache that it was given.
pub(crate) fn build_engine(provider: &Provider, report: &mut Report) -> Result<(), String> {
    let option = |key: &str| provider.options.get(key).map(String::as_str);
    if option("trt_engine_cache_enable") != Some("1") {
        report.engines_built += 1;
        return Ok(());
    }
    let directory = option("trt_engine_cache_path").ok_or("an engine cache without a path")?;
    let file = Path::new(directory).join("fake.engine");
    if file.exists() {
        report.engines_loaded += 1;
        return Ok(());
    }
    report.engines_built += 1;
    std::fs::write(&file, b"engine").map_err(|error| format!("{}: {error}", file.display()))
}
