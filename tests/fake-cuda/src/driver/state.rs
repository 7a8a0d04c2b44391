//! The process's one driver: contexts, handles, counts.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::device_memory::DeviceMemory;
use super::host_memory::{HostMemory, Kind};
use super::kernels::Module;
use super::settings::Settings;
use super::sharing::{Physical, Reservations};
use super::status::{
    CAPTURE_UNSUPPORTED, INVALID_CONTEXT, INVALID_DEVICE, INVALID_HANDLE, SUCCESS, Status,
    is_sticky,
};
use super::stream::{Event, Stream};
use super::work::Operation;
use crate::report::Report;

/// Everything that the driver knows.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) memory: Mutex<DeviceMemory>,
    pub(crate) host: Mutex<HostMemory>,
    pub(crate) report: Mutex<Report>,
    pub(crate) reservations: Mutex<Reservations>,
    devices: Vec<Mutex<Primary>>,
    handles: Mutex<Handles>,
}

/// The primary context of a device and who retains it.
#[derive(Debug, Default)]
struct Primary {
    context: Option<Arc<Context>>,
    retained: u32,
}

/// A context: a handle, the device, and the failure that spoiled it.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) handle: u64,
    pub(crate) device: u32,
    failure: AtomicU32,
    /// For work that names no stream.
    pub(crate) default_stream: OnceLock<Arc<Stream>>,
}

impl Context {
    /// What every call answers since the context was spoiled.
    pub(crate) fn failure(&self) -> Result<(), Status> {
        match self.failure.load(Ordering::Acquire) {
            SUCCESS => Ok(()),
            failure => Err(failure),
        }
    }

    pub(crate) fn spoil(&self, status: Status) {
        // The first failure is the one that is told.
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self
            .failure
            .compare_exchange(SUCCESS, status, order.0, order.1);
    }
}

/// What a handle stands for.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    Context(Arc<Context>),
    Event(Arc<Event>),
    Function(Arc<Module>, &'static str),
    Graph(Arc<Vec<Operation>>),
    Module(Arc<Module>),
    Physical(Arc<Physical>),
    Stream(Arc<Stream>),
}

/// Handles are numbers that are used once, so that a stale one is found out.
#[derive(Debug, Default)]
struct Handles {
    made: u64,
    objects: HashMap<u64, (u32, Object)>,
}

/// Where handles start, and how far apart they are: nobody should take one for an address that can be used.
const FIRST_HANDLE: u64 = 0x1000;
const HANDLE_STEP: u64 = 0x10;

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
    static CAPTURE_MODE: Cell<u32> = const { Cell::new(GLOBAL) };
}

/// The mode of a thread that says nothing: captures that are for all threads to see concern it.
const GLOBAL: u32 = 0;

/// Captures under way that are for all threads to see.
static CAPTURES_OF_ALL: AtomicU32 = AtomicU32::new(0);

/// The driver of this process, made at the first call.
pub(crate) fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let settings = Settings::from_environment();
        // SAFETY: the function takes nothing, and may run at any time.
        let registered = unsafe { libc::atexit(report_at_exit) };
        assert_eq!(registered, 0, "fake CUDA driver: no report at exit");
        Driver {
            devices: (0..settings.devices).map(|_| Mutex::default()).collect(),
            settings,
            memory: Mutex::default(),
            host: Mutex::default(),
            report: Mutex::default(),
            reservations: Mutex::default(),
            handles: Mutex::default(),
        }
    })
}

extern "C" fn report_at_exit() {
    let driver = driver();
    let Some(path) = &driver.settings.report else {
        return;
    };
    let text = serde_json::to_string_pretty(&driver.counts()).unwrap_or_default();
    if let Err(error) = std::fs::write(path, text) {
        panic!("fake CUDA driver: the report cannot be written to {path:?}: {error}");
    }
}

impl Driver {
    /// Counts as of now.
    pub(crate) fn counts(&self) -> Report {
        let mut report = self.report.lock().clone();
        let host = self.host.lock();
        report.registrations_live = host.count(Kind::Registered);
        report.pinned_allocations_live = host.count(Kind::Allocated);
        drop(host);
        let handles = self.handles.lock();
        let objects = handles.objects.values().map(|(_, object)| object);
        for object in objects {
            match object {
                Object::Context(context) => {
                    if let Some(stream) = context.default_stream.get() {
                        report.pending += stream.pending();
                    }
                }
                Object::Stream(stream) => {
                    report.pending += stream.pending();
                    report.handles_live += 1;
                }
                // Functions go with their module.
                Object::Function(..) => {}
                _ => report.handles_live += 1,
            }
        }
        report
    }

    /// Takes note of something that no correct program does.
    #[expect(
        clippy::print_stderr,
        reason = "whoever runs the program should see it where it happens"
    )]
    pub(crate) fn violation(&self, what: String) {
        eprintln!("fake CUDA driver: violation: {what}");
        self.report.lock().violations.push(what);
    }

    pub(crate) fn make(&self, device: u32, object: Object) -> u64 {
        let mut handles = self.handles.lock();
        let handle = FIRST_HANDLE + handles.made * HANDLE_STEP;
        handles.made += 1;
        handles.objects.insert(handle, (device, object));
        handle
    }

    pub(crate) fn find(&self, handle: u64) -> Result<Object, Status> {
        let handles = self.handles.lock();
        let found = handles.objects.get(&handle);
        let object = found.map(|(_, object)| object.clone());
        drop(handles);
        object.ok_or_else(|| {
            self.violation(format!(
                "handle {handle:#x} is used, and there is none (any more)"
            ));
            INVALID_HANDLE
        })
    }

    pub(crate) fn forget(&self, handle: u64) -> Result<Object, Status> {
        let object = self.find(handle)?;
        self.handles.lock().objects.remove(&handle);
        Ok(object)
    }

    /// Streams of a device, the default one among them.
    pub(crate) fn streams(&self, device: u32) -> Vec<Arc<Stream>> {
        let handles = self.handles.lock();
        let mine = handles.objects.values().filter(|(of, _)| *of == device);
        mine.filter_map(|(_, object)| match object {
            Object::Stream(stream) => Some(stream.clone()),
            Object::Context(context) => context.default_stream.get().cloned(),
            _ => None,
        })
        .collect()
    }

    /// Waits for all work in a context.
    pub(crate) fn wait_for_all(&self, context: &Context) -> Result<(), Status> {
        let streams = self.streams(context.device);
        streams
            .iter()
            .try_for_each(|stream| stream.synchronize(context))
    }

    /// Functions go with their module.
    pub(crate) fn forget_functions(&self, module: &Arc<Module>) {
        let of_module =
            |object: &Object| matches!(object, Object::Function(of, _) if Arc::ptr_eq(of, module));
        let mut handles = self.handles.lock();
        handles.objects.retain(|_, (_, object)| !of_module(object));
    }

    fn primary(&self, device: u32) -> Result<&Mutex<Primary>, Status> {
        let index = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
        self.devices.get(index).ok_or(INVALID_DEVICE)
    }

    pub(crate) fn retain(&self, device: u32) -> Result<u64, Status> {
        let mut primary = self.primary(device)?.lock();
        primary.retained += 1;
        if let Some(context) = &primary.context {
            return Ok(context.handle);
        }
        let mut handles = self.handles.lock();
        let handle = FIRST_HANDLE + handles.made * HANDLE_STEP;
        handles.made += 1;
        let context = Arc::new(Context {
            handle,
            device,
            failure: AtomicU32::new(SUCCESS),
            default_stream: OnceLock::new(),
        });
        handles
            .objects
            .insert(handle, (device, Object::Context(context.clone())));
        primary.context = Some(context);
        Ok(handle)
    }

    pub(crate) fn release(&self, device: u32) -> Result<(), Status> {
        let mut primary = self.primary(device)?.lock();
        if primary.retained == 0 {
            return Err(INVALID_CONTEXT);
        }
        primary.retained -= 1;
        if primary.retained == 0 && primary.context.take().is_some() {
            self.destroy(device);
        }
        Ok(())
    }

    /// Ends a device's context: work that is under way is waited for, and everything in the context is gone.
    pub(crate) fn reset(&self, device: u32) -> Result<(), Status> {
        let mut primary = self.primary(device)?.lock();
        if primary.context.take().is_some() {
            self.destroy(device);
        }
        self.report.lock().resets += 1;
        Ok(())
    }

    fn destroy(&self, device: u32) {
        for stream in self.streams(device) {
            stream.wait_idle();
        }
        self.handles
            .lock()
            .objects
            .retain(|_, (of, _)| *of != device);
        let gone = self.memory.lock().remove_all(device).len() as u64;
        drop(self.host.lock().remove_all(device));
        self.report.lock().device_allocations_live -= gone;
    }

    /// Makes a context current on this thread; 0 is none.
    pub(crate) fn set_current(&self, handle: u64) -> Result<(), Status> {
        if handle != 0 {
            let Object::Context(_) = self.find(handle)? else {
                return Err(INVALID_CONTEXT);
            };
        }
        CURRENT.set(handle);
        Ok(())
    }

    /// The context that is current on this thread, if there is one and it is not spoiled.
    pub(crate) fn current(&self) -> Result<Arc<Context>, Status> {
        let handle = CURRENT.get();
        if handle == 0 {
            self.violation("a call without a current context".to_owned());
            return Err(INVALID_CONTEXT);
        }
        let Object::Context(context) = self.find(handle)? else {
            return Err(INVALID_CONTEXT);
        };
        context.failure()?;
        Ok(context)
    }

    pub(crate) fn current_handle(&self) -> u64 {
        CURRENT.get()
    }

    /// What the environment asked this call to fail with. A failure that spoils a context spoils the current one.
    pub(crate) fn injected(&self, name: &str) -> Result<(), Status> {
        let Some(status) = self.settings.failure(name) else {
            return Ok(());
        };
        let handle = CURRENT.get();
        let current = self.handles.lock().objects.get(&handle).cloned();
        if is_sticky(status)
            && let Some((_, Object::Context(context))) = current
        {
            context.spoil(status);
        }
        Err(status)
    }

    /// Calls that may not be made on a thread that captures, nor while another one captures for all to see, unless the
    /// calling thread has said that only its own captures concern it.
    pub(crate) fn check_not_capturing(&self) -> Result<(), Status> {
        let is_anothers =
            CAPTURE_MODE.get() == GLOBAL && CAPTURES_OF_ALL.load(Ordering::SeqCst) > 0;
        if CAPTURING.get() || is_anothers {
            return Err(CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    /// The mode of this thread, which gets another one.
    pub(crate) fn exchange_capture_mode(&self, mode: u32) -> u32 {
        CAPTURE_MODE.replace(mode)
    }

    /// A capture for all to see begins or ends.
    pub(crate) fn set_capture_of_all(&self, begins: bool) {
        if begins {
            CAPTURES_OF_ALL.fetch_add(1, Ordering::SeqCst);
        } else {
            CAPTURES_OF_ALL.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn set_capturing(&self, capturing: bool) {
        CAPTURING.set(capturing);
    }
}
