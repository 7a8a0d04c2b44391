//! One of the engine's values.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use adjoin_backend::strings;
use adjoin_schema::limits::RANK_MAX;
use adjoin_schema::{DataType, Shape, element_count};
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::sys;
use smallvec::smallvec;

use super::outcome;

/// A tensor of the engine's, released on drop. Its elements lie in the engine's memory, or in memory
/// that was given to [`Value::over`]; releasing the value does not touch them.
#[derive(Debug)]
pub(super) struct Value {
    pointer: NonNull<sys::OrtValue>,
}

// SAFETY: the engine's values belong to no thread.
unsafe impl Send for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: owned by `self`, and not used afterwards.
        unsafe { (ort::api().ReleaseValue)(self.pointer.as_ptr()) };
    }
}

impl Value {
    /// Takes over what the engine has made; `None` for null.
    ///
    /// # Safety
    /// `pointer` must be null or a value that nobody else releases.
    pub(super) unsafe fn from_raw(pointer: *mut sys::OrtValue) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self { pointer })
    }

    /// A tensor whose elements lie at `start`. Nothing is read or written there before a run, and who
    /// runs it must see to it that the memory is there.
    pub(super) fn over(
        memory: &MemoryInfo<'static>,
        start: *mut u8,
        byte_size: usize,
        dtype: DataType,
        shape: &[i64],
    ) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY:
        // - `memory` is alive, `shape` is valid for its length, and both are only read;
        // - `start` is kept, not used; the engine checks that `byte_size` is enough for the shape;
        // - `value` receives a new value, or null and the status is an error.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                start.cast::<c_void>(),
                byte_size,
                shape.as_ptr(),
                shape.len(),
                element_type(dtype),
                &mut value,
            )
        };
        Self::created(status, value)
    }

    /// A tensor with copies of these strings.
    pub(super) fn of_strings(shape: &[i64], elements: &[&[u8]]) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY:
        // - the allocator is the engine's own, which lives as long as the library;
        // - `shape` is valid for its length and only read;
        // - `value` receives a new value, or null and the status is an error.
        let status = unsafe {
            (ort::api().CreateTensorAsOrtValue)(
                Allocator::default().ptr().cast_mut(),
                shape.as_ptr(),
                shape.len(),
                element_type(DataType::Bytes),
                &mut value,
            )
        };
        let value = Self::created(status, value)?;
        for (index, element) in elements.iter().enumerate() {
            value.set_string(index, element)?;
        }
        Ok(value)
    }

    fn set_string(&self, index: usize, element: &[u8]) -> ort::Result<()> {
        let mut room = ptr::null_mut();
        // SAFETY: the value is a tensor of strings; the engine checks `index`; `room` receives the
        // address of `element.len()` bytes inside the value.
        let status = unsafe {
            (ort::api().GetResizedStringTensorElementBuffer)(
                self.pointer.as_ptr(),
                index,
                element.len(),
                &mut room,
            )
        };
        outcome(status)?;
        // SAFETY:
        // - `room` has the bytes that were asked for above, and the value is not used meanwhile;
        // - it was allocated by the engine just now, so it does not overlap `element`.
        unsafe { ptr::copy_nonoverlapping(element.as_ptr(), room.cast::<u8>(), element.len()) };
        Ok(())
    }

    fn created(status: sys::OrtStatusPtr, value: *mut sys::OrtValue) -> ort::Result<Self> {
        outcome(status)?;
        // SAFETY: the engine has just made it for the caller.
        let value = unsafe { Self::from_raw(value) };
        value.ok_or_else(|| ort::Error::new("the engine made no value"))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::OrtValue {
        self.pointer.as_ptr()
    }

    /// Where the elements are.
    pub(super) fn start(&self) -> ort::Result<*mut u8> {
        let mut start = ptr::null_mut();
        // SAFETY: alive as long as `self`; `start` is written.
        let status =
            unsafe { (ort::api().GetTensorMutableData)(self.pointer.as_ptr(), &mut start) };
        outcome(status)?;
        Ok(start.cast::<u8>())
    }

    /// Whether a processor may read the elements.
    #[cfg(feature = "cuda")]
    pub(super) fn is_on_host(&self) -> ort::Result<bool> {
        let mut memory = ptr::null();
        // SAFETY: alive; `memory` receives a description that lives as long as the value.
        let status =
            unsafe { (ort::api().GetTensorMemoryInfo)(self.pointer.as_ptr(), &mut memory) };
        outcome(status)?;
        // As a number, as a library may know kinds of devices that `ort` does not.
        let mut device = -1_i32;
        let out = (&raw mut device).cast::<sys::OrtMemoryInfoDeviceType>();
        // SAFETY: alive as long as the value; the enum is an `i32` in C, and written as one.
        unsafe { (ort::api().MemoryInfoGetDeviceType)(memory, out) };
        Ok(device == sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU as i32)
    }

    /// Data type and shape.
    pub(super) fn describe(&self) -> Result<(DataType, Shape), String> {
        let info = TensorInfo::of(self).map_err(|error| error.to_string())?;
        let number = info.element_number().map_err(|error| error.to_string())?;
        let dtype = DataType::ALL
            .into_iter()
            .find(|dtype| element_type(*dtype) as i32 == number);
        let dtype = dtype.ok_or_else(|| format!("a result has elements of type {number}"))?;
        let shape = info.shape().map_err(|error| error.to_string())?;
        Ok((dtype, shape))
    }

    /// The elements of a tensor of strings as the wire has them.
    pub(super) fn read_strings(&self, shape: &[i64]) -> Result<Vec<u8>, String> {
        let count = element_count(shape).map_err(|error| error.to_string())?;
        let count = usize::try_from(count).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut byte_size = 0;
        // SAFETY: the engine checks that this is a tensor of strings; `byte_size` is written.
        let status = unsafe {
            (ort::api().GetStringTensorDataLength)(self.pointer.as_ptr(), &mut byte_size)
        };
        outcome(status).map_err(|error| error.to_string())?;
        let mut contents = vec![0_u8; byte_size];
        let mut starts = vec![0_usize; count];
        // SAFETY: `contents` and `starts` have the room that is stated; the engine checks both against
        // what it has.
        let status = unsafe {
            (ort::api().GetStringTensorContent)(
                self.pointer.as_ptr(),
                contents.as_mut_ptr().cast::<c_void>(),
                byte_size,
                starts.as_mut_ptr(),
                count,
            )
        };
        outcome(status).map_err(|error| error.to_string())?;
        strings::join(&contents, &starts)
    }
}

/// A value's description, released on drop.
struct TensorInfo(NonNull<sys::OrtTensorTypeAndShapeInfo>);

impl Drop for TensorInfo {
    fn drop(&mut self) {
        // SAFETY: owned by `self`, and not used afterwards.
        unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0.as_ptr()) };
    }
}

impl TensorInfo {
    fn of(value: &Value) -> ort::Result<Self> {
        let mut info = ptr::null_mut();
        // SAFETY: `value` is alive; `info` receives a new description.
        let status = unsafe { (ort::api().GetTensorTypeAndShape)(value.as_ptr(), &mut info) };
        outcome(status)?;
        let info = NonNull::new(info).map(Self);
        info.ok_or_else(|| ort::Error::new("a result has no description"))
    }

    /// As a number, because a newer library may know types that `ort` does not, and a Rust enum must
    /// never hold those.
    fn element_number(&self) -> ort::Result<i32> {
        let mut number = 0_i32;
        let out = (&raw mut number).cast::<sys::ONNXTensorElementDataType>();
        // SAFETY: alive; the enum is an `i32` in C, and written as one.
        let status = unsafe { (ort::api().GetTensorElementType)(self.0.as_ptr(), out) };
        outcome(status)?;
        Ok(number)
    }

    fn shape(&self) -> ort::Result<Shape> {
        let mut rank = 0;
        // SAFETY: alive; `rank` is written.
        let status = unsafe { (ort::api().GetDimensionsCount)(self.0.as_ptr(), &mut rank) };
        outcome(status)?;
        if rank > RANK_MAX {
            return Err(ort::Error::new(format!("a result has {rank} dimensions")));
        }
        let mut shape: Shape = smallvec![0; rank];
        // SAFETY: alive; `shape` has room for `rank` dimensions.
        let status =
            unsafe { (ort::api().GetDimensions)(self.0.as_ptr(), shape.as_mut_ptr(), rank) };
        outcome(status)?;
        Ok(shape)
    }
}

fn element_type(dtype: DataType) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as Type;
    match dtype {
        DataType::Bool => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}
