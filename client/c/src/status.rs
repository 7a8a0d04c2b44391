//! The one list of outcomes: the wire's, with the wire's numbers, and from 1000 on those of this
//! side.

use std::ffi::{CStr, c_char};

use adjoin_client::{ConnectError, InferError, RequestError, Status, TensorError};

/// The outcome of a call. A number that was ever released keeps its meaning.
///
/// Below 1000 it is the server's answer, with the number that travels: 1xx the request is wrong,
/// 2xx there is too much load, 3xx the server or the model is starting or ending, 4xx the engine
/// failed, 5xx the session was refused or ended, 900 the server failed. Some of the 1xx are also
/// found before anything is sent. From 1000 on it is this process that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AdjoinStatus {
    /// Done.
    Ok = 0,

    /// No model of that name is loaded.
    ModelNotFound = 100,
    /// The model has no ready version of that number or label.
    VersionNotFound = 101,
    /// The model has no input of that name.
    InputUnknown = 102,
    /// An input of the model is missing.
    InputMissing = 103,
    /// An input is named twice.
    InputRepeated = 104,
    /// The data type is not the one that the tensor has.
    DataTypeMismatch = 105,
    /// A data type that the server does not know.
    DataTypeUnknown = 106,
    /// The shape is not one that the model takes.
    ShapeMismatch = 107,
    /// The byte size is not the one that data type and shape make.
    ByteSizeMismatch = 108,
    /// A tensor reaches past its region.
    ExtentOutOfRegion = 109,
    /// A tensor does not start at a multiple of 64.
    ExtentMisaligned = 110,
    /// Two tensors of one request share bytes.
    ExtentsOverlap = 111,
    /// The request takes more than 16 KiB to describe.
    DescriptorTooLarge = 112,
    /// The request breaks a limit of the protocol.
    DescriptorInvalid = 113,
    /// More rows than the model runs at once.
    BatchTooLarge = 114,
    /// The server does not know the prepared request. The library sends it again by itself.
    PreparedUnknown = 115,
    /// The prepared request is in flight already.
    PreparedBusy = 116,
    /// The model has no output of that name.
    OutputUnknown = 117,
    /// String elements whose lengths do not add up.
    BytesMalformed = 118,
    /// The model takes no such values, such as bytes that are no image.
    ValuesRefused = 119,
    /// No device region of that number is attached in this session.
    DeviceRegionUnknown = 120,
    /// The model does not take that tensor from a device, or give it there.
    DeviceRegionNotTaken = 121,
    /// The server's device was lost, and what was mapped of the region with it.
    DeviceRegionLost = 122,
    /// An output is to go to a device, and only the run shows its size.
    OutputSizeUnknown = 123,
    /// The room for an output on a device is smaller than the output.
    OutputRoomTooSmall = 124,
    /// A descriptor that is no memory of the device, or of another size.
    DeviceMemoryInvalid = 125,
    /// Memory of another device than the server uses.
    DeviceMismatch = 126,

    /// The model's queue is full. Not executed.
    QueueFull = 200,
    /// The deadline passed before the request ran.
    DeadlineExceeded = 201,
    /// The response region has no room for the outputs. Not executed.
    ResponseRegionFull = 202,
    /// The request would have ended after its deadline. Not executed.
    DeadlineUnreachable = 203,
    /// The session has as many device regions as it may.
    TooManyDeviceRegions = 204,
    /// The session or its user has as much device memory attached as it may.
    DeviceQuotaExceeded = 205,

    /// The model is loading, or failed to load.
    ModelNotReady = 300,
    /// The request was cancelled before it ran.
    Cancelled = 301,
    /// The server is draining and did not execute the request. Send it again: the next server takes
    /// it.
    NotExecuted = 302,
    /// The server uses no device, or its device is lost at the moment.
    DeviceUnavailable = 303,

    /// The engine failed.
    ExecutionFailed = 400,
    /// The outputs turned out larger than what was free of the response region.
    OutputTooLarge = 401,

    /// Server and library speak different protocols.
    ProtocolMismatch = 500,
    /// The server took the first message for none.
    HandshakeInvalid = 501,
    /// A token that is not good, or not any more.
    TokenInvalid = 502,
    /// A region size outside the limits.
    RegionSizeInvalid = 503,
    /// A ring size outside the limits, or no power of two.
    RingSizeInvalid = 504,
    /// The user's sessions hold as much memory as they may.
    MemoryQuotaExceeded = 505,
    /// The server has as many sessions as it takes.
    TooManySessions = 506,
    /// The user may not open sessions with this server.
    PeerNotAllowed = 507,
    /// The server's machine had no memory or descriptors for the session.
    SessionUnavailable = 508,
    /// The memory limit of the server has no room for the session.
    MemoryBudgetExceeded = 509,
    /// The server ended the session for a wrong ring index.
    RingIndexInvalid = 520,
    /// The server ended the session for a wrong ring entry.
    EntryInvalid = 521,
    /// The server ended the session for more requests in flight than it has places.
    TooManyInFlight = 522,
    /// The server ended the session for a wrong release.
    ReleaseInvalid = 523,

    /// The server broke one of its own rules; its log says more.
    Internal = 900,

    /// An argument is NULL that may not be, is not UTF-8, or is outside its limits.
    InvalidArgument = 1000,
    /// The handle is not where the call needs it, such as a request that is in flight already, or
    /// that another thread is using at the moment.
    WrongState = 1001,
    /// More than the number of rows is open in a shape; name the whole shape.
    ShapeOpen = 1002,
    /// The request region has too little room for the request.
    RequestRegionFull = 1003,
    /// As many requests are in flight as the session has places. Not submitted.
    InFlightLimit = 1004,
    /// The server has not taken earlier entries from the submission ring; it seems to have stopped.
    /// Not submitted.
    SubmissionRingFull = 1005,
    /// The time was up. A request that was submitted is still with the server.
    Timeout = 1006,
    /// The server is gone. The next call opens a session with the next server.
    ServerGone = 1007,
    /// The server broke the protocol; the session is over.
    ProtocolViolation = 1008,
    /// The inputs moved to another session since their addresses were asked for. Not submitted.
    InputMoved = 1009,
    /// An input was lost with the session of a server that shut down. Not submitted.
    InputLost = 1010,
    /// The outputs were lost with the session of a server that shut down.
    OutputLost = 1011,
    /// This process was forked after the client connected.
    Forked = 1012,

    /// No server listens in the socket directory.
    NoServer = 1100,
    /// This user may not connect to the server's socket.
    PermissionDenied = 1101,
    /// What listens there is no adjoin server.
    NotAServer = 1102,
    /// The connection was closed without an answer.
    ConnectionClosed = 1103,
    /// The system refused something that a session needs.
    System = 1104,

    /// The library broke one of its own rules.
    ClientInternal = 1900,
}

const NAMES: &[(AdjoinStatus, &CStr)] = &[
    (AdjoinStatus::Ok, c"ok"),
    (AdjoinStatus::ModelNotFound, c"model_not_found"),
    (AdjoinStatus::VersionNotFound, c"version_not_found"),
    (AdjoinStatus::InputUnknown, c"input_unknown"),
    (AdjoinStatus::InputMissing, c"input_missing"),
    (AdjoinStatus::InputRepeated, c"input_repeated"),
    (AdjoinStatus::DataTypeMismatch, c"data_type_mismatch"),
    (AdjoinStatus::DataTypeUnknown, c"data_type_unknown"),
    (AdjoinStatus::ShapeMismatch, c"shape_mismatch"),
    (AdjoinStatus::ByteSizeMismatch, c"byte_size_mismatch"),
    (AdjoinStatus::ExtentOutOfRegion, c"extent_out_of_region"),
    (AdjoinStatus::ExtentMisaligned, c"extent_misaligned"),
    (AdjoinStatus::ExtentsOverlap, c"extents_overlap"),
    (AdjoinStatus::DescriptorTooLarge, c"descriptor_too_large"),
    (AdjoinStatus::DescriptorInvalid, c"descriptor_invalid"),
    (AdjoinStatus::BatchTooLarge, c"batch_too_large"),
    (AdjoinStatus::PreparedUnknown, c"prepared_unknown"),
    (AdjoinStatus::PreparedBusy, c"prepared_busy"),
    (AdjoinStatus::OutputUnknown, c"output_unknown"),
    (AdjoinStatus::BytesMalformed, c"bytes_malformed"),
    (AdjoinStatus::ValuesRefused, c"values_refused"),
    (AdjoinStatus::DeviceRegionUnknown, c"device_region_unknown"),
    (
        AdjoinStatus::DeviceRegionNotTaken,
        c"device_region_not_taken",
    ),
    (AdjoinStatus::DeviceRegionLost, c"device_region_lost"),
    (AdjoinStatus::OutputSizeUnknown, c"output_size_unknown"),
    (AdjoinStatus::OutputRoomTooSmall, c"output_room_too_small"),
    (AdjoinStatus::DeviceMemoryInvalid, c"device_memory_invalid"),
    (AdjoinStatus::DeviceMismatch, c"device_mismatch"),
    (AdjoinStatus::QueueFull, c"queue_full"),
    (AdjoinStatus::DeadlineExceeded, c"deadline_exceeded"),
    (AdjoinStatus::ResponseRegionFull, c"response_region_full"),
    (AdjoinStatus::DeadlineUnreachable, c"deadline_unreachable"),
    (
        AdjoinStatus::TooManyDeviceRegions,
        c"too_many_device_regions",
    ),
    (AdjoinStatus::DeviceQuotaExceeded, c"device_quota_exceeded"),
    (AdjoinStatus::ModelNotReady, c"model_not_ready"),
    (AdjoinStatus::Cancelled, c"cancelled"),
    (AdjoinStatus::NotExecuted, c"not_executed"),
    (AdjoinStatus::DeviceUnavailable, c"device_unavailable"),
    (AdjoinStatus::ExecutionFailed, c"execution_failed"),
    (AdjoinStatus::OutputTooLarge, c"output_too_large"),
    (AdjoinStatus::ProtocolMismatch, c"protocol_mismatch"),
    (AdjoinStatus::HandshakeInvalid, c"handshake_invalid"),
    (AdjoinStatus::TokenInvalid, c"token_invalid"),
    (AdjoinStatus::RegionSizeInvalid, c"region_size_invalid"),
    (AdjoinStatus::RingSizeInvalid, c"ring_size_invalid"),
    (AdjoinStatus::MemoryQuotaExceeded, c"memory_quota_exceeded"),
    (AdjoinStatus::TooManySessions, c"too_many_sessions"),
    (AdjoinStatus::PeerNotAllowed, c"peer_not_allowed"),
    (AdjoinStatus::SessionUnavailable, c"session_unavailable"),
    (
        AdjoinStatus::MemoryBudgetExceeded,
        c"memory_budget_exceeded",
    ),
    (AdjoinStatus::RingIndexInvalid, c"ring_index_invalid"),
    (AdjoinStatus::EntryInvalid, c"entry_invalid"),
    (AdjoinStatus::TooManyInFlight, c"too_many_in_flight"),
    (AdjoinStatus::ReleaseInvalid, c"release_invalid"),
    (AdjoinStatus::Internal, c"internal"),
    (AdjoinStatus::InvalidArgument, c"invalid_argument"),
    (AdjoinStatus::WrongState, c"wrong_state"),
    (AdjoinStatus::ShapeOpen, c"shape_open"),
    (AdjoinStatus::RequestRegionFull, c"request_region_full"),
    (AdjoinStatus::InFlightLimit, c"in_flight_limit"),
    (AdjoinStatus::SubmissionRingFull, c"submission_ring_full"),
    (AdjoinStatus::Timeout, c"timeout"),
    (AdjoinStatus::ServerGone, c"server_gone"),
    (AdjoinStatus::ProtocolViolation, c"protocol_violation"),
    (AdjoinStatus::InputMoved, c"input_moved"),
    (AdjoinStatus::InputLost, c"input_lost"),
    (AdjoinStatus::OutputLost, c"output_lost"),
    (AdjoinStatus::Forked, c"forked"),
    (AdjoinStatus::NoServer, c"no_server"),
    (AdjoinStatus::PermissionDenied, c"permission_denied"),
    (AdjoinStatus::NotAServer, c"not_a_server"),
    (AdjoinStatus::ConnectionClosed, c"connection_closed"),
    (AdjoinStatus::System, c"system"),
    (AdjoinStatus::ClientInternal, c"client_internal"),
];

/// What C hands over where the header says `adjoin_status`: any number.
/// cbindgen:no-export
pub type RawStatus = u32;

/// The status in a word, such as "queue_full": the name that metrics and logs use. "unknown" for a
/// number that is none. The text is there for as long as the library is.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_status_name(status: RawStatus) -> *const c_char {
    let known = NAMES.iter().find(|(known, _)| *known as u32 == status);
    known.map_or(c"unknown", |(_, name)| name).as_ptr()
}

impl From<Status> for AdjoinStatus {
    fn from(status: Status) -> Self {
        let same = |(known, _): &&(Self, _)| *known as u32 == u32::from(status as u16);
        NAMES
            .iter()
            .find(same)
            .map_or(Self::Internal, |(known, _)| *known)
    }
}

impl From<&ConnectError> for AdjoinStatus {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::NoServer { .. } => Self::NoServer,
            ConnectError::PermissionDenied { .. } => Self::PermissionDenied,
            ConnectError::NotAServer { .. } => Self::NotAServer,
            ConnectError::Closed { .. } => Self::ConnectionClosed,
            ConnectError::Timeout { .. } => Self::Timeout,
            ConnectError::System { .. } => Self::System,
            ConnectError::Forked => Self::Forked,
            other => other.status().map_or(Self::ClientInternal, Self::from),
        }
    }
}

impl From<&InferError> for AdjoinStatus {
    fn from(error: &InferError) -> Self {
        match error {
            InferError::Connect(error) => error.into(),
            InferError::ServerGone { .. } => Self::ServerGone,
            InferError::Protocol { .. } => Self::ProtocolViolation,
            InferError::InputLost { .. } => Self::InputLost,
            InferError::RegionFull(_) => Self::RequestRegionFull,
            InferError::TooManyInFlight { .. } => Self::InFlightLimit,
            InferError::SubmissionRingFull { .. } => Self::SubmissionRingFull,
            InferError::Timeout { .. } => Self::Timeout,
            InferError::Forked => Self::Forked,
            other => other.status().map_or(Self::ClientInternal, Self::from),
        }
    }
}

impl From<&RequestError> for AdjoinStatus {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::InputUnknown { .. } => Self::InputUnknown,
            RequestError::InputRepeated { .. } => Self::InputRepeated,
            RequestError::InputMissing { .. } => Self::InputMissing,
            RequestError::OutputUnknown { .. } => Self::OutputUnknown,
            RequestError::ShapeMismatch { .. } => Self::ShapeMismatch,
            RequestError::ShapeOpen { .. } => Self::ShapeOpen,
            RequestError::ByteSize { .. } => Self::ByteSizeMismatch,
            RequestError::Descriptor(explanation) => explanation.status().into(),
            RequestError::RegionFull(_) => Self::RequestRegionFull,
            RequestError::Session(error) => error.as_ref().into(),
            _ => Self::ClientInternal,
        }
    }
}

impl From<&TensorError> for AdjoinStatus {
    fn from(error: &TensorError) -> Self {
        match error {
            TensorError::IndexOutOfRange { .. } => Self::InvalidArgument,
            TensorError::DataTypeMismatch { .. } => Self::DataTypeMismatch,
            TensorError::Lost => Self::OutputLost,
            TensorError::Forked => Self::Forked,
            TensorError::System(_) => Self::System,
            _ => Self::ClientInternal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_the_wire_have_their_numbers_and_names() {
        for &status in Status::ALL {
            let ours = AdjoinStatus::from(status);
            assert_eq!(ours as u32, u32::from(status as u16), "{status:?}");
            let entry = NAMES.iter().find(|(known, _)| *known == ours).unwrap();
            assert_eq!(entry.1.to_str(), Ok(status.name()));
        }
    }

    #[test]
    fn numbers_ascend_and_names_differ() {
        for pair in NAMES.windows(2) {
            assert!((pair[0].0 as u32) < pair[1].0 as u32, "{pair:?}");
        }
        let names: std::collections::HashSet<_> = NAMES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), NAMES.len());
    }
}
