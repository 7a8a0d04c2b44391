//! Data types of tensors as numpy's.

use adjoin_client::DataType;
use numpy::PyArrayDescr;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::fault;

/// The name in numpy, or in `ml_dtypes`.
pub(crate) fn name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Bool => "bool",
        DataType::Uint8 => "uint8",
        DataType::Uint16 => "uint16",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Fp16 => "float16",
        DataType::Bf16 => "bfloat16",
        DataType::Fp32 => "float32",
        DataType::Fp64 => "float64",
        DataType::Bytes => "object",
    }
}

/// numpy's description of a data type; that of objects for strings.
pub(crate) fn descr(py: Python<'_>, dtype: DataType) -> PyResult<&Bound<'_, PyArrayDescr>> {
    static DESCRS: [PyOnceLock<Py<PyArrayDescr>>; DataType::ALL.len()] =
        [const { PyOnceLock::new() }; DataType::ALL.len()];
    let cell = &DESCRS[dtype as usize - 1];
    let descr = cell.get_or_try_init(py, || make(py, dtype).map(Bound::unbind))?;
    Ok(descr.bind(py))
}

fn make(py: Python<'_>, dtype: DataType) -> PyResult<Bound<'_, PyArrayDescr>> {
    if dtype != DataType::Bf16 {
        return PyArrayDescr::new(py, name(dtype));
    }
    let module = py.import("ml_dtypes").map_err(|error| {
        let advice = "tensors of type bfloat16 need the package ml_dtypes: pip install ml_dtypes";
        let raised = fault::raise("DataTypeMismatch", advice);
        raised.set_cause(py, Some(error));
        raised
    })?;
    PyArrayDescr::new(py, module.getattr("bfloat16")?)
}

const _: () = {
    let mut index = 0;
    while index < DataType::ALL.len() {
        assert!(DataType::ALL[index] as usize == index + 1);
        index += 1;
    }
};
