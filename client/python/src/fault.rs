//! From the client's errors to Python's exceptions.

use std::cell::Cell;
use std::time::Duration;

use adjoin_client::{ConnectError, InferError, RequestError, Status, TensorError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

/// A fault that is not an exception yet: making one runs code of Python's, which must not be done with a lock
/// held.
#[derive(Debug)]
pub(crate) enum Fault {
    /// With the server, or another thread has it.
    Busy,
    /// The request was closed.
    Closed,
    /// The client was closed.
    ClientClosed,
    /// The result was released.
    Released,
    /// The caller's time was up.
    TooLate(Duration),
    /// Nobody waits for the run any more.
    Abandoned,
    /// Nobody gave room while the caller's time lasted.
    NoRoom(Duration),
    /// An exception after all.
    Python(PyErr),
    Infer(InferError),
    Request(RequestError),
    Tensor(TensorError),
}

impl Fault {
    /// Whether it passes when the server answers what it has, whoever waits for that.
    pub(crate) fn is_for_want_of_places(&self) -> bool {
        use InferError::{SubmissionRingFull, TooManyInFlight};
        matches!(
            self,
            Self::Infer(SubmissionRingFull { .. } | TooManyInFlight { .. })
        )
    }

    /// Whether it may pass when other requests give back what they have.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        use InferError::{RegionFull, ResponseRegionFull};
        self.is_for_want_of_places()
            || matches!(
                self,
                Self::Request(RequestError::RegionFull(_))
                    | Self::Infer(RegionFull(_) | ResponseRegionFull(_))
            )
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Self {
        Self::Infer(error)
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<TensorError> for Fault {
    fn from(error: TensorError) -> Self {
        Self::Tensor(error)
    }
}

impl From<Fault> for PyErr {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Busy => raise("RequestBusy", BUSY),
            Fault::Closed => raise("Released", "the request was closed; make another one"),
            Fault::ClientClosed => raise("Closed", "the client was closed; connect again"),
            Fault::Released => raise("Released", RELEASED),
            Fault::TooLate(waited) => raise(
                "DeadlineExceeded",
                format_args!("no answer within {waited:?}"),
            ),
            Fault::Abandoned => raise("Cancelled", "whoever waited for the run gave it up"),
            Fault::NoRoom(waited) => Report {
                is_retryable: true,
                ..Report::new(
                    "DeadlineExceeded",
                    format_args!(
                        "no room in the session within {waited:?}; earlier requests have it"
                    ),
                )
            }
            .raise(),
            Fault::Python(error) => error,
            Fault::Infer(error) => of_infer(&error),
            Fault::Request(error) => of_request(&error),
            Fault::Tensor(error) => of_tensor(&error),
        }
    }
}

const BUSY: &str = "the request is with the server or in use by another thread; wait for its result, or make another request";

const RELEASED: &str = "the result was released; its outputs cannot be looked up any more";

/// What an exception says.
#[derive(Debug, Default)]
struct Report {
    /// Name of the class in `adjoin.errors`.
    class: &'static str,
    message: String,
    status: Option<Status>,
    is_retryable: bool,
    may_have_run: bool,
}

impl Report {
    fn new(class: &'static str, message: impl ToString) -> Self {
        Self {
            class,
            message: message.to_string(),
            ..Self::default()
        }
    }

    fn raise(self) -> PyErr {
        Python::attach(|py| self.exception(py).unwrap_or_else(|error| error))
    }

    fn exception(self, py: Python<'_>) -> PyResult<PyErr> {
        static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
        let import = || PyModule::import(py, "adjoin.errors").map(Bound::unbind);
        let class = ERRORS
            .get_or_try_init(py, import)?
            .bind(py)
            .getattr(self.class)?;
        let kwargs = PyDict::new(py);
        kwargs.set_item("status", self.status.map(Status::name))?;
        kwargs.set_item("retryable", self.is_retryable)?;
        kwargs.set_item("may_have_run", self.may_have_run)?;
        Ok(PyErr::from_value(
            class.call((self.message,), Some(&kwargs))?,
        ))
    }
}

/// Another exception that says the same, without the traceback of the first.
pub(crate) fn fresh(py: Python<'_>, error: &PyErr) -> PyErr {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let copy = || {
        let copy = COPY.import(py, "copy", "copy")?;
        PyResult::Ok(PyErr::from_value(copy.call1((error.value(py),))?))
    };
    copy().unwrap_or_else(|error| error)
}

/// An exception of this package with nothing but a message.
pub(crate) fn raise(class: &'static str, message: impl ToString) -> PyErr {
    Report::new(class, message).raise()
}

pub(crate) fn of_infer(error: &InferError) -> PyErr {
    let class = match error {
        InferError::Connect(error) => return of_connect(error),
        InferError::ModelNotFound(_) => "ModelNotFound",
        InferError::VersionNotFound(_) => "VersionNotFound",
        InferError::Invalid(explanation) => invalid_class(explanation.status()),
        InferError::QueueFull(_) => "QueueFull",
        InferError::DeadlineExceeded(_) | InferError::Timeout { .. } => "DeadlineExceeded",
        InferError::ResponseRegionFull(_) | InferError::OutputTooLarge(_) => "ResponseRegionFull",
        InferError::ModelNotReady(_) => "ModelNotReady",
        InferError::Cancelled(_) => "Cancelled",
        InferError::NotExecuted(_) => "NotExecuted",
        InferError::ExecutionFailed(_) => "ExecutionFailed",
        InferError::Device(_) => "DeviceUnavailable",
        InferError::Internal(_) => "ServerFault",
        InferError::SessionEnded(_) => "SessionEnded",
        InferError::ServerGone { .. } => "ServerUnavailable",
        InferError::Protocol { .. } => "ProtocolError",
        InferError::InputLost { .. } => "InputLost",
        InferError::RegionFull(_) => "RequestRegionFull",
        InferError::TooManyInFlight { .. } | InferError::SubmissionRingFull { .. } => {
            "TooManyInFlight"
        }
        InferError::Forked => "Forked",
        _ => "Error",
    };
    let advice = match error {
        InferError::ResponseRegionFull(_) | InferError::OutputTooLarge(_) => RESPONSE_ADVICE,
        InferError::RegionFull(_) => REQUEST_ADVICE,
        _ => "",
    };
    Report {
        status: error.status(),
        is_retryable: error.is_retryable(),
        may_have_run: error.may_have_run(),
        ..Report::new(class, format_args!("{error}{advice}"))
    }
    .raise()
}

const REQUEST_ADVICE: &str = ": adjoin.connect(..., request_bytes=...)";
const RESPONSE_ADVICE: &str = ": adjoin.connect(..., response_bytes=...)";

fn invalid_class(status: Status) -> &'static str {
    match status {
        Status::InputUnknown | Status::InputMissing | Status::OutputUnknown => "TensorNotFound",
        Status::ShapeMismatch => "ShapeMismatch",
        Status::DataTypeMismatch => "DataTypeMismatch",
        Status::BatchTooLarge => "BatchTooLarge",
        _ => "InvalidRequest",
    }
}

thread_local! {
    /// What a signal handler raised on this thread while it waited for a connection.
    static RAISED: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Runs the handlers of signals that came while a thread waits for a connection; whether one raised.
pub(crate) fn is_interrupted() -> bool {
    Python::attach(|py| {
        // One that waits for a thread that connects may hold the interpreter which that thread asks for here.
        py.detach(|| ());
        match py.check_signals() {
            Ok(()) => false,
            Err(raised) => {
                RAISED.set(Some(raised));
                true
            }
        }
    })
}

pub(crate) fn of_connect(error: &ConnectError) -> PyErr {
    if matches!(error, ConnectError::Interrupted)
        && let Some(raised) = RAISED.take()
    {
        return raised;
    }
    let class = match error {
        ConnectError::NoServer { .. }
        | ConnectError::Closed { .. }
        | ConnectError::Timeout { .. } => "ServerUnavailable",
        ConnectError::PermissionDenied { .. } => "PermissionDenied",
        ConnectError::NotAServer { .. } => "ProtocolError",
        ConnectError::ProtocolMismatch { .. } => "ProtocolMismatch",
        ConnectError::Refused(_) => "SessionRefused",
        ConnectError::Forked => "Forked",
        _ => "Error",
    };
    Report {
        status: error.status(),
        is_retryable: class == "ServerUnavailable",
        ..Report::new(class, error)
    }
    .raise()
}

pub(crate) fn of_request(error: &RequestError) -> PyErr {
    let class = match error {
        RequestError::Session(error) => return of_infer(error),
        RequestError::InputUnknown { .. }
        | RequestError::InputMissing { .. }
        | RequestError::OutputUnknown { .. } => "TensorNotFound",
        RequestError::ShapeMismatch { .. } | RequestError::ShapeOpen { .. } => "ShapeMismatch",
        RequestError::RegionFull(_) => {
            return raise("RequestRegionFull", format_args!("{error}{REQUEST_ADVICE}"));
        }
        _ => "InvalidRequest",
    };
    raise(class, error)
}

pub(crate) fn of_tensor(error: &TensorError) -> PyErr {
    let class = match error {
        TensorError::NameUnknown { .. } | TensorError::IndexOutOfRange { .. } => "TensorNotFound",
        TensorError::DataTypeMismatch { .. } => "DataTypeMismatch",
        TensorError::OnDevice { .. } => "InvalidRequest",
        TensorError::Lost => "OutputLost",
        TensorError::Forked => "Forked",
        _ => "Error",
    };
    raise(class, error)
}
