//! Python client of adjoin: the extension module `adjoin._adjoin` under the package in `python/`.
//!
//! A thin layer over `adjoin-client`. `core` takes a request through its runs; `hold` keeps outputs
//! for the arrays that show them; `array` and `dlpack` are the edges to other libraries' memory.
//!
//! # Arrays over shared memory
//!
//! An array cannot be taken back from its user, so it keeps what it shows. An input's array owns an
//! `InputPlace`: its bytes are nobody else's while it lives, even after the request moved to another
//! session; then the bytes are copied over with each run. An output's array owns a share of a `hold::Hold`,
//! and a response is released, or its place used for the next one, when nobody else has a share.
//!
//! # Threads
//!
//! The interpreter is let go of while waiting, copying 1 MiB or more, and connecting. The locks of this crate are held for moments
//! and never while anything of Python runs, except where a lock is only tried.

mod array;
mod client;
mod connection;
mod core;
mod device;
mod dlpack;
mod dtype;
mod fault;
mod future;
mod hold;
mod inputs;
mod model;
mod options;
mod plan;
mod pool;
mod quick;
mod request;
mod result;
mod shapes;
mod strings;
mod watch;

use pyo3::prelude::*;

#[pymodule]
mod _adjoin {
    #[pymodule_export]
    use crate::client::{Client, connect};
    #[pymodule_export]
    use crate::device::{DeviceArray, DeviceRegion};
    #[pymodule_export]
    use crate::dlpack::export_dlpack;
    #[pymodule_export]
    use crate::future::Future;
    #[pymodule_export]
    use crate::model::{Model, TensorSpec};
    #[pymodule_export]
    use crate::request::Request;
    #[pymodule_export]
    use crate::result::{Result, Stats};
    #[pymodule_export]
    use crate::watch::Watch;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
