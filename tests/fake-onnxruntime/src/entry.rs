//! The functions that are replaced, as ONNX Runtime declares them.
#![allow(non_snake_case, reason = "ONNX Runtime's own names")]
#![allow(unreachable_pub, reason = "reached by name, from C")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libloading::Library;
use ort::sys::{self, OrtStatusPtr};

use crate::driver::{Driver, driver};
use crate::report::Provider;
use crate::run::{Failure, Tensors, Wishes, run};
use crate::state::{DeviceSession, DeviceValue, build_engine, set, state};

/// The real library's base, and what is handed out in its place.
struct Handed {
    _library: Library,
    real: &'static sys::OrtApiBase,
    base: sys::OrtApiBase,
}

// SAFETY: functions and constants.
unsafe impl Send for Handed {}
// SAFETY: nothing changes.
unsafe impl Sync for Handed {}

fn handed() -> Option<&'static Handed> {
    static HANDED: OnceLock<Option<Handed>> = OnceLock::new();
    let handed = HANDED.get_or_init(|| {
        let path = std::env::var_os(crate::harness::REAL)?;
        // SAFETY: the initialisers of the library run; the test names it.
        let library = unsafe { Library::new(path) }.ok()?;
        // SAFETY: every release declares the function like this.
        let base = *unsafe {
            library.get::<unsafe extern "C" fn() -> *const sys::OrtApiBase>(b"OrtGetApiBase")
        }
        .ok()?;
        // SAFETY: takes nothing, and may be called at any time.
        let real = unsafe { base() };
        // SAFETY: a structure that lives as long as the library.
        let real = unsafe { real.as_ref() }?;
        Some(Handed {
            _library: library,
            real,
            base: sys::OrtApiBase {
                GetApi: get_api,
                GetVersionString: real.GetVersionString,
            },
        })
    });
    handed.as_ref()
}

#[unsafe(no_mangle)]
pub extern "C" fn OrtGetApiBase() -> *const sys::OrtApiBase {
    handed().map_or(ptr::null(), |handed| &raw const handed.base)
}

unsafe extern "system" fn get_api(version: u32) -> *const sys::OrtApi {
    static API: OnceLock<Option<Box<sys::OrtApi>>> = OnceLock::new();
    let Some(handed) = handed().filter(|_| version == sys::ORT_API_VERSION) else {
        return ptr::null();
    };
    let api = API.get_or_init(|| {
        // SAFETY: any number may be asked for.
        let real = unsafe { (handed.real.GetApi)(version) };
        // SAFETY: null, or a structure that lives as long as the library, with all that this version has.
        let real = unsafe { real.as_ref() }?;
        set(real);
        let mut api = Box::new(real.clone());
        api.CreateCUDAProviderOptions = create_cuda;
        api.UpdateCUDAProviderOptions = update_cuda;
        api.ReleaseCUDAProviderOptions = release_cuda;
        api.SessionOptionsAppendExecutionProvider_CUDA_V2 = append_cuda;
        api.CreateTensorRTProviderOptions = create_tensorrt;
        api.UpdateTensorRTProviderOptions = update_tensorrt;
        api.ReleaseTensorRTProviderOptions = release_tensorrt;
        api.SessionOptionsAppendExecutionProvider_TensorRT_V2 = append_tensorrt;
        api.ReleaseSessionOptions = release_session_options;
        api.CreateSessionFromArray = create_session;
        api.ReleaseSession = release_session;
        api.CreateMemoryInfo = create_memory_info;
        api.ReleaseMemoryInfo = release_memory_info;
        api.CreateTensorWithDataAsOrtValue = create_value;
        api.ReleaseValue = release_value;
        api.AddRunConfigEntry = add_run_entry;
        api.ReleaseRunOptions = release_run_options;
        api.Run = run_session;
        Some(api)
    });
    api.as_ref().map_or(ptr::null(), |api| &raw const **api)
}

/// The counts so far, as JSON, in at most `room` bytes. Returns the bytes that it takes.
///
/// # Safety
/// `to` must be null or the address of `room` bytes to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_onnxruntime_counts(to: *mut c_char, room: usize) -> usize {
    let text = serde_json::to_vec(&state().report()).unwrap_or_default();
    if text.len() <= room && !to.is_null() {
        // SAFETY: the caller says that there is that much room.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len()) };
    }
    text.len()
}

const GOOD: OrtStatusPtr = OrtStatusPtr(ptr::null_mut());

fn fail(text: &str) -> OrtStatusPtr {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the text is copied.
    unsafe { (state().real.CreateStatus)(sys::OrtErrorCode::ORT_FAIL, text.as_ptr()) }
}

/// A text of the caller's.
fn text(of: *const c_char) -> String {
    // SAFETY: by ONNX Runtime's interface a text that ends with a zero.
    unsafe { CStr::from_ptr(of) }.to_string_lossy().into_owned()
}

/// `count` values of the caller's.
fn list<T: Copy>(of: *const T, count: usize) -> Vec<T> {
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: by ONNX Runtime's interface the address of so many.
    unsafe { std::slice::from_raw_parts(of, count) }.to_vec()
}

fn create_options<T>(name: &str, out: *mut *mut T) -> OrtStatusPtr {
    let mut known = state().known.lock();
    // An address that is used once: no program follows it.
    let address = 0x1000 + known.options.len() * 0x10;
    let provider = Provider {
        name: name.to_owned(),
        options: BTreeMap::new(),
    };
    known.options.insert(address, provider);
    // SAFETY: the result goes where the caller says.
    unsafe { out.write(ptr::without_provenance_mut(address)) };
    GOOD
}

fn update_options(
    options: usize,
    keys: *const *const c_char,
    values: *const *const c_char,
    count: usize,
) -> OrtStatusPtr {
    let mut known = state().known.lock();
    let Some(provider) = known.options.get_mut(&options) else {
        return fail("options that are none");
    };
    for (key, value) in list(keys, count).into_iter().zip(list(values, count)) {
        provider.options.insert(text(key), text(value));
    }
    GOOD
}

fn append(options: usize, session_options: usize) -> OrtStatusPtr {
    let state = state();
    let provider = state.known.lock().options.get(&options).cloned();
    let Some(provider) = provider else {
        return fail("options that are none");
    };
    if state.fails(&provider.name) {
        let name = &provider.name;
        return fail(&format!(
            "Failed to load library libonnxruntime_providers_{name}.so with error: libcublasLt.so.13: cannot open shared \
             object file"
        ));
    }
    let mut known = state.known.lock();
    known
        .appended
        .entry(session_options)
        .or_default()
        .push(provider);
    GOOD
}

unsafe extern "system" fn create_cuda(
    out: *mut *mut sys::OrtCUDAProviderOptionsV2,
) -> OrtStatusPtr {
    create_options("cuda", out)
}

unsafe extern "system" fn create_tensorrt(
    out: *mut *mut sys::OrtTensorRTProviderOptionsV2,
) -> OrtStatusPtr {
    create_options("tensorrt", out)
}

unsafe extern "system" fn update_cuda(
    options: *mut sys::OrtCUDAProviderOptionsV2,
    keys: *const *const c_char,
    values: *const *const c_char,
    count: usize,
) -> OrtStatusPtr {
    update_options(options.addr(), keys, values, count)
}

unsafe extern "system" fn update_tensorrt(
    options: *mut sys::OrtTensorRTProviderOptionsV2,
    keys: *const *const c_char,
    values: *const *const c_char,
    count: usize,
) -> OrtStatusPtr {
    update_options(options.addr(), keys, values, count)
}

unsafe extern "system" fn release_cuda(options: *mut sys::OrtCUDAProviderOptionsV2) {
    state().known.lock().options.remove(&options.addr());
}

unsafe extern "system" fn release_tensorrt(options: *mut sys::OrtTensorRTProviderOptionsV2) {
    state().known.lock().options.remove(&options.addr());
}

unsafe extern "system" fn append_cuda(
    session_options: *mut sys::OrtSessionOptions,
    options: *const sys::OrtCUDAProviderOptionsV2,
) -> OrtStatusPtr {
    append(options.addr(), session_options.addr())
}

unsafe extern "system" fn append_tensorrt(
    session_options: *mut sys::OrtSessionOptions,
    options: *const sys::OrtTensorRTProviderOptionsV2,
) -> OrtStatusPtr {
    append(options.addr(), session_options.addr())
}

unsafe extern "system" fn release_session_options(options: *mut sys::OrtSessionOptions) {
    let state = state();
    state.known.lock().appended.remove(&options.addr());
    // SAFETY: the caller's own, as in the function that this stands for.
    unsafe { (state.real.ReleaseSessionOptions)(options) };
}

unsafe extern "system" fn create_session(
    environment: *const sys::OrtEnv,
    model: *const c_void,
    byte_size: usize,
    options: *const sys::OrtSessionOptions,
    out: *mut *mut sys::OrtSession,
) -> OrtStatusPtr {
    let state = state();
    let providers = state.known.lock().appended.get(&options.addr()).cloned();
    if providers.is_some() && state.fails("session") {
        return fail("CUDA failure 2: out of memory: a session that was asked to fail");
    }
    // SAFETY: the caller's arguments, as in the function that this stands for.
    let status =
        unsafe { (state.real.CreateSessionFromArray)(environment, model, byte_size, options, out) };
    let Some(providers) = providers.filter(|_| status.0.is_null()) else {
        return status;
    };
    // SAFETY: the session was written there just now.
    let address = unsafe { out.read() }.expose_provenance();
    let made = DeviceSession::new(address, &providers).and_then(|session| {
        let report = &mut state.known.lock().report;
        for provider in providers
            .iter()
            .filter(|provider| provider.name == "tensorrt")
        {
            build_engine(provider, report)?;
        }
        Ok(session)
    });
    match made {
        Ok(session) => {
            let mut known = state.known.lock();
            known.report.sessions.push(providers);
            known.sessions.insert(address, Arc::new(session));
            GOOD
        }
        Err(reason) => {
            // SAFETY: made above, and not handed out.
            unsafe { (state.real.ReleaseSession)(ptr::with_exposed_provenance_mut(address)) };
            // SAFETY: where the caller wants the session.
            unsafe { out.write(ptr::null_mut()) };
            fail(&reason)
        }
    }
}

unsafe extern "system" fn release_session(session: *mut sys::OrtSession) {
    let state = state();
    let known = state.known.lock().sessions.remove(&session.addr());
    let is_under_way = known.is_some_and(|session| session.under_way.load(Ordering::Acquire) > 0);
    // What was under way when the context was lost never ends, and does not go on either.
    if is_under_way && !driver().is_some_and(Driver::is_lost) {
        state.violation("a session is released while a run of it is under way".to_owned());
    }
    // SAFETY: the caller's own, as in the function that this stands for.
    unsafe { (state.real.ReleaseSession)(session) };
}

unsafe extern "system" fn create_memory_info(
    name: *const c_char,
    allocator: sys::OrtAllocatorType,
    device: c_int,
    kind: sys::OrtMemType,
    out: *mut *mut sys::OrtMemoryInfo,
) -> OrtStatusPtr {
    let state = state();
    // SAFETY: the caller's arguments, as in the function that this stands for.
    let status = unsafe { (state.real.CreateMemoryInfo)(name, allocator, device, kind, out) };
    if status.0.is_null() && text(name) == "Cuda" {
        // SAFETY: written there just now.
        let made = unsafe { out.read() };
        state.known.lock().memory.insert(made.addr());
    }
    status
}

unsafe extern "system" fn release_memory_info(memory: *mut sys::OrtMemoryInfo) {
    let state = state();
    state.known.lock().memory.remove(&memory.addr());
    // SAFETY: the caller's own, as in the function that this stands for.
    unsafe { (state.real.ReleaseMemoryInfo)(memory) };
}

unsafe extern "system" fn create_value(
    memory: *const sys::OrtMemoryInfo,
    start: *mut c_void,
    byte_size: usize,
    shape: *const i64,
    rank: usize,
    element: sys::ONNXTensorElementDataType,
    out: *mut *mut sys::OrtValue,
) -> OrtStatusPtr {
    let state = state();
    let is_device = state.known.lock().memory.contains(&memory.addr());
    let lies_there =
        driver().is_some_and(|driver| driver.memory(start.addr(), byte_size).is_some());
    if is_device != lies_there {
        state.violation(format!(
            "a value of {byte_size} bytes at {:#x}, which is said to be of {}, and is not",
            start.addr(),
            if is_device { "the device" } else { "the host" }
        ));
        return fail("memory that is not where it is said to be");
    }
    // SAFETY: the caller's arguments, as in the function that this stands for.
    let status = unsafe {
        (state.real.CreateTensorWithDataAsOrtValue)(
            memory, start, byte_size, shape, rank, element, out,
        )
    };
    if status.0.is_null() && is_device {
        // SAFETY: written there just now.
        let made = unsafe { out.read() };
        let value = DeviceValue {
            address: start.addr(),
            byte_size,
            shape: list(shape, rank),
            element,
        };
        state.known.lock().values.insert(made.addr(), value);
    }
    status
}

unsafe extern "system" fn release_value(value: *mut sys::OrtValue) {
    let state = state();
    state.known.lock().values.remove(&value.addr());
    // SAFETY: the caller's own, as in the function that this stands for.
    unsafe { (state.real.ReleaseValue)(value) };
}

unsafe extern "system" fn add_run_entry(
    options: *mut sys::OrtRunOptions,
    key: *const c_char,
    value: *const c_char,
) -> OrtStatusPtr {
    let state = state();
    let mut known = state.known.lock();
    let entries = known.run_options.entry(options.addr()).or_default();
    entries.insert(text(key), text(value));
    drop(known);
    // SAFETY: the caller's arguments, as in the function that this stands for.
    unsafe { (state.real.AddRunConfigEntry)(options, key, value) }
}

unsafe extern "system" fn release_run_options(options: *mut sys::OrtRunOptions) {
    let state = state();
    state.known.lock().run_options.remove(&options.addr());
    // SAFETY: the caller's own, as in the function that this stands for.
    unsafe { (state.real.ReleaseRunOptions)(options) };
}

unsafe extern "system" fn run_session(
    session: *mut sys::OrtSession,
    options: *const sys::OrtRunOptions,
    input_names: *const *const c_char,
    inputs: *const *const sys::OrtValue,
    input_count: usize,
    output_names: *const *const c_char,
    output_count: usize,
    outputs: *mut *mut sys::OrtValue,
) -> OrtStatusPtr {
    let state = state();
    let known = state.known.lock();
    let Some(device) = known.sessions.get(&session.addr()).cloned() else {
        drop(known);
        // SAFETY: the caller's arguments, as in the function that this stands for.
        return unsafe {
            (state.real.Run)(
                session,
                options,
                input_names,
                inputs,
                input_count,
                output_names,
                output_count,
                outputs,
            )
        };
    };
    let entry = |key: &str| known.run_options.get(&options.addr())?.get(key).cloned();
    let wishes = Wishes {
        is_not_waited_for: entry("disable_synchronize_execution_providers").as_deref() == Some("1"),
        graph: entry("gpu_graph_id").filter(|graph| graph != "-1"),
    };
    let value = |address: usize| known.values.get(&address).cloned();
    let names = |names| -> Vec<CString> {
        let name = |&name: &*const c_char| CString::new(text(name)).unwrap_or_default();
        let names: Vec<*const c_char> = names;
        names.iter().map(name).collect()
    };
    let given: Option<Vec<DeviceValue>> = list(inputs, input_count)
        .into_iter()
        .map(|input| value(input.addr()))
        .collect();
    let places = list(outputs.cast_const(), output_count);
    let wanted: Option<Vec<Option<DeviceValue>>> = (places.iter())
        .map(|place| {
            if place.is_null() {
                Some(None)
            } else {
                value(place.addr()).map(Some)
            }
        })
        .collect();
    let (Some(inputs), Some(wanted)) = (given, wanted) else {
        drop(known);
        return fail("a run on the device over values of the host, which no test needs");
    };
    let tensors = Tensors {
        input_names: names(list(input_names, input_count)),
        inputs,
        output_names: names(list(output_names, output_count)),
        outputs: wanted,
    };
    drop(known);
    match run(&device, tensors, &wishes) {
        Ok(made) => {
            for (index, made) in made.into_iter().enumerate().filter(|(_, made)| *made != 0) {
                // SAFETY: there are as many places as names of outputs.
                let place = unsafe { outputs.add(index) };
                // SAFETY: one of the places.
                unsafe { place.write(ptr::with_exposed_provenance_mut(made)) };
            }
            GOOD
        }
        Err(Failure::Status(status)) => status,
        Err(Failure::Text(text)) => fail(&text),
    }
}
