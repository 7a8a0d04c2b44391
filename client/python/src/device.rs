//! `adjoin.DeviceRegion` and `adjoin.DeviceArray`: memory of a GPU that the server maps too, for tensors that stay there.

use std::sync::Arc;

use adjoin_client::DataType;
use adjoin_client::cuda::DeviceMemory;
use numpy::PyArrayDescr;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::dtype;
use crate::fault::{self, Fault};
use crate::plan::Dims;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 64;

/// Memory of a GPU that this process and the server share. Made by `Client.device_region`.
///
/// It is an array of bytes to what knows ``__cuda_array_interface__``: ``torch.as_tensor(region, device="cuda")``, or
/// ``cupy.asarray(region)``, and those write it. `array` makes the tensors of requests of it.
///
/// Wait for the kernels that write an input before the request is run, and do not read an output before it is
/// answered.
#[pyclass(frozen, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct DeviceRegion {
    memory: Arc<DeviceMemory>,
    region: adjoin_client::DeviceRegion,
}

/// A tensor in a `DeviceRegion`, whose memory it keeps. Made by `DeviceRegion.array`.
#[pyclass(frozen, from_py_object, module = "adjoin")]
#[derive(Clone, Debug)]
pub(crate) struct DeviceArray {
    memory: Arc<DeviceMemory>,
    pub(crate) region: adjoin_client::DeviceRegion,
    pub(crate) offset: u64,
    pub(crate) dtype: DataType,
    pub(crate) shape: Dims,
    pub(crate) byte_size: u64,
}

/// Memory on a device, attached to the client's session.
pub(crate) fn make(
    py: Python<'_>,
    client: &adjoin_client::Client,
    byte_size: usize,
    device: u32,
) -> PyResult<DeviceRegion> {
    let unavailable = |error: &dyn std::fmt::Display| fault::raise("DeviceUnavailable", error);
    let memory = py.detach(|| DeviceMemory::allocate(device, byte_size));
    let memory = memory.map_err(|error| unavailable(&error))?;
    let exported = memory.export().map_err(|error| unavailable(&error))?;
    let attached = py.detach(|| client.attach_device(exported));
    Ok(DeviceRegion {
        memory: Arc::new(memory),
        region: attached.map_err(Fault::from)?,
    })
}

#[pymethods]
impl DeviceRegion {
    /// Bytes of the region: what was wanted, rounded up to what the device gives.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.region.byte_size()
    }

    /// A tensor in the region.
    ///
    /// Parameters
    /// ----------
    /// offset : int
    ///     Bytes from the start of the region, a multiple of 64.
    /// shape : sequence of int
    /// dtype : numpy.dtype, or what makes one
    ///
    /// Raises
    /// ------
    /// InvalidRequest
    ///     It does not lie in the region, or no tensor can be of that type.
    fn array(
        &self,
        offset: u64,
        shape: Vec<i64>,
        dtype: &Bound<'_, PyAny>,
    ) -> PyResult<DeviceArray> {
        let dtype = data_type(dtype)?;
        let byte_size = dtype.byte_size(&shape).ok().flatten();
        let end = byte_size.and_then(|byte_size| offset.checked_add(byte_size));
        let fits = end.is_some_and(|end| end <= self.region.byte_size());
        let (Some(byte_size), true, 0) = (byte_size, fits, offset % ALIGNMENT) else {
            let message = format!(
                "{} of shape {shape:?} at byte {offset} does not lie in a region of {} bytes, at a multiple of 64",
                dtype::name(dtype),
                self.region.byte_size()
            );
            return Err(fault::raise("InvalidRequest", message));
        };
        Ok(DeviceArray {
            memory: Arc::clone(&self.memory),
            region: self.region.clone(),
            offset,
            dtype,
            shape: Dims::from_vec(shape),
            byte_size,
        })
    }

    /// The whole region as an array of bytes, by version 3 of the interface.
    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let size = i64::try_from(self.region.byte_size()).unwrap_or(i64::MAX);
        interface(py, &self.memory, 0, DataType::Uint8, &[size])
    }

    fn __repr__(&self) -> String {
        format!("<adjoin.DeviceRegion of {} bytes>", self.region.byte_size())
    }
}

#[pymethods]
impl DeviceArray {
    /// Bytes from the start of the region.
    #[getter]
    fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the tensor.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.byte_size
    }

    /// Dimensions.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Type of the elements.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDescr>> {
        dtype::descr(py, self.dtype).cloned()
    }

    /// The tensor, by version 3 of the interface.
    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interface(py, &self.memory, self.offset, self.dtype, &self.shape)
    }

    fn __repr__(&self) -> String {
        format!(
            "<adjoin.DeviceArray {} {:?} at byte {}>",
            dtype::name(self.dtype),
            self.shape.as_slice(),
            self.offset
        )
    }
}

fn interface<'py>(
    py: Python<'py>,
    memory: &DeviceMemory,
    offset: u64,
    dtype: DataType,
    shape: &[i64],
) -> PyResult<Bound<'py, PyDict>> {
    let interface = PyDict::new(py);
    interface.set_item("shape", PyTuple::new(py, shape)?)?;
    interface.set_item("typestr", dtype::descr(py, dtype)?.getattr("str")?)?;
    // The address, and that it may be written.
    interface.set_item("data", (memory.device_address() + offset, false))?;
    interface.set_item("strides", py.None())?;
    // Nothing of this side is under way in it.
    interface.set_item("stream", py.None())?;
    interface.set_item("version", 3)?;
    Ok(interface)
}

/// The data type of what numpy takes for one.
fn data_type(given: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let descr = PyArrayDescr::new(given.py(), given)?;
    let name: String = descr.getattr("name")?.extract()?;
    let is_native: bool = descr.getattr("isnative")?.extract()?;
    let fixed = DataType::ALL.iter().copied();
    let mut fixed = fixed.filter(|dtype| *dtype != DataType::Bytes);
    let found = fixed.find(|dtype| is_native && dtype::name(*dtype) == name);
    found.ok_or_else(|| {
        let message = format!("no tensor on a device can be of type {descr}");
        fault::raise("InvalidRequest", message)
    })
}
