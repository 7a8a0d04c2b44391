//! The shim as values of Rust: a library, an engine, a context. Every address that C++ keeps is kept alive by these types.

#![allow(
    unsafe_code,
    reason = "calls of the C++ shim, each with addresses that its types own"
)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use adjoin_backend::BackendError;
use adjoin_cuda::{Device, DeviceBuffer, Stream};
use adjoin_schema::Shape;
use adjoin_schema::limits::RANK_MAX;

use crate::NAME;

/// Bytes of an error's text.
const ERROR_BYTES: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy)]
struct RawShape {
    sizes: [i64; RANK_MAX],
    rank: i32,
}

#[repr(C)]
struct RawTensor {
    name: *const c_char,
    shape: RawShape,
    dtype: i32,
    mode: i32,
    is_shape: i32,
    is_linear: i32,
}

/// What the shim keeps behind its pointers.
type Opaque = c_void;

// `shim/shim.h`.
unsafe extern "C" {
    safe fn adjoin_trt_header_version() -> i32;
    fn adjoin_trt_open(
        path: *const c_char,
        library: *mut *mut Opaque,
        version: *mut i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_load(
        library: *mut Opaque,
        plan: *const c_void,
        byte_size: usize,
        is_trusted: i32,
        engine: *mut *mut Opaque,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_engine_free(engine: *mut Opaque);
    fn adjoin_trt_tensor_count(engine: *const Opaque) -> i32;
    fn adjoin_trt_tensor_at(
        engine: *const Opaque,
        index: i32,
        profile: i32,
        tensor: *mut RawTensor,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_profile_count(engine: *const Opaque) -> i32;
    fn adjoin_trt_profile_shape(
        engine: *const Opaque,
        name: *const c_char,
        profile: i32,
        which: i32,
        shape: *mut RawShape,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_context_new(
        engine: *mut Opaque,
        profile: i32,
        stream: *mut c_void,
        context: *mut *mut Opaque,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_context_free(context: *mut Opaque);
    fn adjoin_trt_set_shape(
        context: *mut Opaque,
        name: *const c_char,
        shape: *const RawShape,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_shape_of(
        context: *const Opaque,
        name: *const c_char,
        shape: *mut RawShape,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_set_address(
        context: *mut Opaque,
        name: *const c_char,
        address: *mut c_void,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    fn adjoin_trt_enqueue(
        context: *mut Opaque,
        stream: *mut c_void,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
}

/// A release of TensorRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(i32);

impl Version {
    /// That of the headers.
    pub(crate) fn of_headers() -> Self {
        Self(adjoin_trt_header_version())
    }

    fn major(self) -> i32 {
        self.0 / 10_000
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        write!(
            f,
            "{}.{}.{}",
            number / 10_000,
            number / 100 % 100,
            number % 100
        )
    }
}

/// What files of the full library and of the lean runtime are called: that of the headers' major release.
pub(crate) fn library_names() -> [String; 2] {
    let major = Version::of_headers().major();
    ["libnvinfer.so", "libnvinfer_lean.so"].map(|name| format!("{name}.{major}"))
}

/// Room for a sentence of the shim.
struct ErrorText([u8; ERROR_BYTES]);

impl ErrorText {
    fn new() -> Self {
        Self([0; ERROR_BYTES])
    }

    fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    fn check(&self, status: i32) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&self.0);
        Err(text.map_or_else(
            |_| String::new(),
            |text| text.to_string_lossy().into_owned(),
        ))
    }
}

/// TensorRT in this process. Never unloaded.
#[derive(Debug)]
pub(crate) struct Library {
    address: NonNull<Opaque>,
    version: Version,
}

// SAFETY: the runtime may be used from any thread, and the shim's log behind it has a lock.
unsafe impl Send for Library {}
// SAFETY: as for Send; models are loaded one after another, under the loader's thread, and TensorRT allows more.
unsafe impl Sync for Library {}

impl Library {
    /// Opens it. The device is the proof that there is a driver, without which TensorRT must not be touched.
    pub(crate) fn open(path: &Path, _: &Device) -> Result<Self, BackendError> {
        let unusable = |reason: String| BackendError::LibraryUnusable {
            engine: NAME,
            path: path.to_owned(),
            reason,
        };
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|error| unusable(error.to_string()))?;
        let (mut address, mut version, mut error) = (null_mut(), 0, ErrorText::new());
        // SAFETY: a string that ends with a zero, and places for what comes back, all alive during the call.
        let status = unsafe {
            adjoin_trt_open(
                name.as_ptr(),
                &raw mut address,
                &raw mut version,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        let version = Version(version);
        error.check(status).map_err(|reason| {
            let headers = Version::of_headers();
            unusable(if version.0 == 0 || version.major() == headers.major() {
                reason
            } else {
                format!("it is TensorRT {version}, and this program was built with the headers of {headers}: {reason}")
            })
        })?;
        let address =
            NonNull::new(address).ok_or_else(|| unusable("it gives no runtime".into()))?;
        Ok(Self { address, version })
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

/// A loaded plan.
#[derive(Debug)]
pub(crate) struct Engine {
    address: NonNull<Opaque>,
    /// The device that it is on.
    device: Device,
    /// Its runtime has to outlive it.
    _library: Arc<Library>,
}

// SAFETY: TensorRT's engines may be used from any thread.
unsafe impl Send for Engine {}
// SAFETY: what is called through a shared reference only reads, but for the making of contexts, which TensorRT allows from
// several threads.
unsafe impl Sync for Engine {}

impl Drop for Engine {
    fn drop(&mut self) {
        self.device.make_current_to_free();
        // SAFETY: made by `adjoin_trt_load`, and given back once; every context of it holds it alive.
        unsafe { adjoin_trt_engine_free(self.address.as_ptr()) };
    }
}

/// Whether a tensor goes in or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Input,
    Output,
}

/// A tensor of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: CString,
    pub(crate) direction: Option<Direction>,
    /// -1 for open dimensions.
    pub(crate) shape: Shape,
    /// TensorRT's number for the type.
    pub(crate) dtype: i32,
    /// Its values are read on the host, or shapes follow from them.
    pub(crate) is_shape: bool,
    /// Elements lie one after another.
    pub(crate) is_linear: bool,
}

/// Which of a profile's shapes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extreme {
    Least = 0,
    Most = 2,
}

impl Engine {
    /// Loads a plan; the context of `device` is current.
    pub(crate) fn load(
        library: &Arc<Library>,
        device: &Device,
        plan: &[u8],
        is_trusted: bool,
    ) -> Result<Self, String> {
        let (mut address, mut error) = (null_mut(), ErrorText::new());
        // SAFETY: the library is open, the plan is a slice, and the places for what comes back are alive.
        let status = unsafe {
            adjoin_trt_load(
                library.address.as_ptr(),
                plan.as_ptr().cast(),
                plan.len(),
                i32::from(is_trusted),
                &raw mut address,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)?;
        let address = NonNull::new(address).ok_or("TensorRT gave no engine")?;
        Ok(Self {
            address,
            device: device.clone(),
            _library: Arc::clone(library),
        })
    }

    /// Its inputs and outputs in the plan's order, under a profile.
    pub(crate) fn tensors(&self, profile: i32) -> Result<Vec<Tensor>, String> {
        // SAFETY: the engine is alive.
        let count = unsafe { adjoin_trt_tensor_count(self.address.as_ptr()) };
        (0..count)
            .map(|index| self.tensor(index, profile))
            .collect()
    }

    fn tensor(&self, index: i32, profile: i32) -> Result<Tensor, String> {
        let mut tensor = RawTensor {
            name: std::ptr::null(),
            shape: RawShape::EMPTY,
            dtype: 0,
            mode: 0,
            is_shape: 0,
            is_linear: 0,
        };
        let mut error = ErrorText::new();
        // SAFETY: the engine is alive, and so are the places for what comes back.
        let status = unsafe {
            adjoin_trt_tensor_at(
                self.address.as_ptr(),
                index,
                profile,
                &raw mut tensor,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)?;
        // SAFETY: a string of the engine's, which is alive, that ends with a zero; the shim has compared it with null.
        let name = unsafe { CStr::from_ptr(tensor.name) }.to_owned();
        Ok(Tensor {
            name,
            direction: match tensor.mode {
                1 => Some(Direction::Input),
                2 => Some(Direction::Output),
                _ => None,
            },
            shape: tensor.shape.to_shape()?,
            dtype: tensor.dtype,
            is_shape: tensor.is_shape != 0,
            is_linear: tensor.is_linear != 0,
        })
    }

    /// How many optimization profiles it has.
    pub(crate) fn profile_count(&self) -> i32 {
        // SAFETY: the engine is alive.
        unsafe { adjoin_trt_profile_count(self.address.as_ptr()) }
    }

    /// The least or the largest shape of an input in a profile.
    pub(crate) fn profile_shape(
        &self,
        input: &CStr,
        profile: i32,
        which: Extreme,
    ) -> Result<Shape, String> {
        let (mut shape, mut error) = (RawShape::EMPTY, ErrorText::new());
        // SAFETY: the engine and the name are alive, and so are the places for what comes back.
        let status = unsafe {
            adjoin_trt_profile_shape(
                self.address.as_ptr(),
                input.as_ptr(),
                profile,
                which as i32,
                &raw mut shape,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)?;
        shape.to_shape()
    }
}

impl RawShape {
    const EMPTY: Self = Self {
        sizes: [0; RANK_MAX],
        rank: 0,
    };

    fn to_shape(self) -> Result<Shape, String> {
        let sizes = usize::try_from(self.rank)
            .ok()
            .and_then(|rank| self.sizes.get(..rank));
        sizes
            .map(Shape::from_slice)
            .ok_or_else(|| format!("a tensor has {} dimensions", self.rank))
    }

    fn new(shape: &[i64]) -> Result<Self, String> {
        let mut raw = Self::EMPTY;
        let sizes = raw.sizes.get_mut(..shape.len());
        sizes
            .ok_or_else(|| format!("a shape has {} dimensions", shape.len()))?
            .copy_from_slice(shape);
        raw.rank = i32::try_from(shape.len()).unwrap_or(i32::MAX);
        Ok(raw)
    }
}

/// What runs one batch at a time.
#[derive(Debug)]
pub(crate) struct Context {
    address: NonNull<Opaque>,
    /// Its engine has to outlive it.
    engine: Arc<Engine>,
}

// SAFETY: a context may be used from any thread, by one at a time.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        self.engine.device.make_current_to_free();
        // SAFETY: made by `adjoin_trt_context_new`, and given back once; nothing that it enqueued is under way, as the
        // instance waits for each of its batches.
        unsafe { adjoin_trt_context_free(self.address.as_ptr()) };
    }
}

impl Context {
    /// A context with a profile; `stream` is idle when this returns.
    pub(crate) fn new(engine: &Arc<Engine>, profile: i32, stream: &Stream) -> Result<Self, String> {
        let (mut address, mut error) = (null_mut(), ErrorText::new());
        // SAFETY: the engine and the stream are alive, and so are the places for what comes back.
        let status = unsafe {
            adjoin_trt_context_new(
                engine.address.as_ptr(),
                profile,
                stream.as_ptr(),
                &raw mut address,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)?;
        let address = NonNull::new(address).ok_or("TensorRT gave no execution context")?;
        let context = Self {
            address,
            engine: Arc::clone(engine),
        };
        stream.synchronize().map_err(|error| error.to_string())?;
        Ok(context)
    }

    /// Sets the shape of an input for the next run.
    pub(crate) fn set_shape(&mut self, input: &CStr, shape: &[i64]) -> Result<(), String> {
        let (shape, mut error) = (RawShape::new(shape)?, ErrorText::new());
        // SAFETY: the context, the name and the shape are alive during the call.
        let status = unsafe {
            adjoin_trt_set_shape(
                self.address.as_ptr(),
                input.as_ptr(),
                &raw const shape,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)
    }

    /// The shape of a tensor under the shapes that are set.
    pub(crate) fn shape_of(&self, tensor: &CStr) -> Result<Shape, String> {
        let (mut shape, mut error) = (RawShape::EMPTY, ErrorText::new());
        // SAFETY: the context and the name are alive, and so are the places for what comes back.
        let status = unsafe {
            adjoin_trt_shape_of(
                self.address.as_ptr(),
                tensor.as_ptr(),
                &raw mut shape,
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)?;
        shape.to_shape()
    }

    /// Sets where a tensor lies. The buffer has to live until the last run that was enqueued with it is over; the slots of an
    /// instance do.
    pub(crate) fn set_address(
        &mut self,
        tensor: &CStr,
        buffer: &DeviceBuffer,
    ) -> Result<(), String> {
        let address =
            usize::try_from(buffer.device_address()).map_err(|error| error.to_string())?;
        let mut error = ErrorText::new();
        // SAFETY: the context and the name are alive; the address is one of the device, which nobody here reads.
        let status = unsafe {
            adjoin_trt_set_address(
                self.address.as_ptr(),
                tensor.as_ptr(),
                std::ptr::without_provenance_mut(address),
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)
    }

    /// Enqueues a run.
    pub(crate) fn enqueue(&mut self, stream: &Stream) -> Result<(), String> {
        let mut error = ErrorText::new();
        // SAFETY: context and stream are alive; the buffers whose addresses are set hold the shapes that are set, which the
        // instance compared with their sizes.
        let status = unsafe {
            adjoin_trt_enqueue(
                self.address.as_ptr(),
                stream.as_ptr(),
                error.as_mut_ptr(),
                ERROR_BYTES,
            )
        };
        error.check(status)
    }
}
