//! Outcomes of requests and handshakes: stable numbers on the wire, text made on the reader's side.
//!
//! A number that was ever released keeps its meaning for good. The hundreds say whose fault it is and
//! therefore what happens: 1xx the request (the session goes on), 2xx overload (try again, or less),
//! 3xx the life of server and models, 4xx the engine, 5xx the session (it ends, or never begins).

use std::fmt;

macro_rules! statuses {
    ($( $(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal; )+) => {
        /// The outcome of a request, a handshake or a session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Status {
            $( $(#[doc = $doc])+ $name = $number, )+
        }

        impl Status {
            /// All statuses in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The status with that wire number, or `None` for one that this build does not know.
            pub const fn from_wire(number: u16) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// A name for programs: metrics, logs, language bindings.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

statuses! {
    /// The request ran; its outputs are in the response region.
    Ok = 0, "ok";

    /// No model of that name is loaded.
    ModelNotFound = 100, "model_not_found";
    /// The model has no ready version of that number or label. Detail: the number that was asked for.
    VersionNotFound = 101, "version_not_found";
    /// An input of that name is not the model's. Detail: index of the input in the request.
    InputUnknown = 102, "input_unknown";
    /// An input of the model is missing. Detail: index of the input in the model's description.
    InputMissing = 103, "input_missing";
    /// An input is named twice. Detail: index of the second one in the request.
    InputRepeated = 104, "input_repeated";
    /// Wrong data type. Details: index of the input in the request, wire number of what the model takes.
    DataTypeMismatch = 105, "data_type_mismatch";
    /// A data type that this server does not know. Detail: index of the tensor in the request.
    DataTypeUnknown = 106, "data_type_unknown";
    /// Wrong shape. Details: index of the input in the request, index of the dimension (or the rank expected, plus 2^32).
    ShapeMismatch = 107, "shape_mismatch";
    /// The byte size is not what data type and shape make. Details: index of the tensor, bytes they make.
    ByteSizeMismatch = 108, "byte_size_mismatch";
    /// A tensor reaches past its region. Details: index of the tensor, bytes of the region.
    ExtentOutOfRegion = 109, "extent_out_of_region";
    /// A tensor does not start at a multiple of 64. Detail: index of the tensor.
    ExtentMisaligned = 110, "extent_misaligned";
    /// Two tensors of one request share bytes. Details: the index of either.
    ExtentsOverlap = 111, "extents_overlap";
    /// A descriptor longer than the protocol allows, or past its region. Details: its bytes, the most allowed.
    DescriptorTooLarge = 112, "descriptor_too_large";
    /// A descriptor that is no valid FlatBuffer of its kind, or breaks a limit of the protocol.
    DescriptorInvalid = 113, "descriptor_invalid";
    /// More rows than the model runs at once. Details: rows, the model's `max_batch_size`.
    BatchTooLarge = 114, "batch_too_large";
    /// No prepared request of that number in this session. Detail: the number.
    PreparedUnknown = 115, "prepared_unknown";
    /// The prepared request is in flight already. Detail: its number.
    PreparedBusy = 116, "prepared_busy";
    /// An output of that name is not the model's. Detail: index of the name in the request.
    OutputUnknown = 117, "output_unknown";
    /// String elements whose lengths do not add up. Detail: index of the tensor.
    BytesMalformed = 118, "bytes_malformed";
    /// The model takes no such values, such as bytes that are no image. Detail: number of the ensemble's step that refused them, from 1; 0 if it was the model itself.
    ValuesRefused = 119, "values_refused";
    /// No device region of that number is attached in this session. Details: index of the tensor (0 for a detach), the number.
    DeviceRegionUnknown = 120, "device_region_unknown";
    /// The model does not take that tensor from a device, or give it there. Details: index of the tensor, the number of the region.
    DeviceRegionNotTaken = 121, "device_region_not_taken";
    /// The device was lost, and what was mapped of this region with it. Details: index of the tensor, the number of the region.
    DeviceRegionLost = 122, "device_region_lost";
    /// An output with a room whose size only the run shows. Detail: index of the room.
    OutputSizeUnknown = 123, "output_size_unknown";
    /// A room that is smaller than its output. Details: index of the room, bytes of the output.
    OutputRoomTooSmall = 124, "output_room_too_small";
    /// A descriptor that is no memory of the device, or of another size. Detail: the size that was said.
    DeviceMemoryInvalid = 125, "device_memory_invalid";
    /// Memory of another device than the server uses.
    DeviceMismatch = 126, "device_mismatch";

    /// The model's queue is full. Detail: the limit.
    QueueFull = 200, "queue_full";
    /// The deadline passed before the request ran. Details: the deadline, the time when it was refused (ns, CLOCK_MONOTONIC).
    DeadlineExceeded = 201, "deadline_exceeded";
    /// The response region has no room for the outputs. Details: bytes needed, bytes of the region's payload.
    ResponseRegionFull = 202, "response_region_full";
    /// The request would have ended after its deadline, and was refused before it waited. Details: the deadline, the end that was predicted (ns, CLOCK_MONOTONIC).
    DeadlineUnreachable = 203, "deadline_unreachable";
    /// As many device regions as a session may have. Detail: the limit.
    TooManyDeviceRegions = 204, "too_many_device_regions";
    /// The session or its user has as much device memory attached as it may. Details: bytes wanted, bytes left.
    DeviceQuotaExceeded = 205, "device_quota_exceeded";

    /// The model is there, but not ready (loading, or failed).
    ModelNotReady = 300, "model_not_ready";
    /// The client cancelled the request before it ran.
    Cancelled = 301, "cancelled";
    /// The server is draining; the request was not executed and can be sent elsewhere.
    NotExecuted = 302, "not_executed";
    /// The server uses no device, or its device is lost at the moment.
    DeviceUnavailable = 303, "device_unavailable";

    /// The engine failed on the batch that the request was part of. Details: number of the ensemble's step that failed, from 1, and its status; 0 if it was the model itself.
    ExecutionFailed = 400, "execution_failed";
    /// The outputs were larger than the room that was left. Detail: bytes of all outputs whose size only the run has shown.
    OutputTooLarge = 401, "output_too_large";

    /// The two sides speak different protocols. Details: the client's version, the server's.
    ProtocolMismatch = 500, "protocol_mismatch";
    /// A first message that is none. No details.
    HandshakeInvalid = 501, "handshake_invalid";
    /// A token that was never given out, was used before, has expired, or is another user's.
    TokenInvalid = 502, "token_invalid";
    /// A region size outside the limits. Details: bytes wanted, the most allowed.
    RegionSizeInvalid = 503, "region_size_invalid";
    /// A ring size outside the limits or no power of two. Details: entries wanted, the most allowed.
    RingSizeInvalid = 504, "ring_size_invalid";
    /// The user's sessions hold as much memory as they may. Details: bytes wanted, bytes left.
    MemoryQuotaExceeded = 505, "memory_quota_exceeded";
    /// As many sessions as the server takes. Detail: the limit.
    TooManySessions = 506, "too_many_sessions";
    /// The user may not open sessions here. Detail: the user's id.
    PeerNotAllowed = 507, "peer_not_allowed";
    /// The machine had no memory or descriptors for the session.
    SessionUnavailable = 508, "session_unavailable";
    /// The server's memory limit has no room for the session. Details: bytes wanted, bytes left.
    MemoryBudgetExceeded = 509, "memory_budget_exceeded";

    /// A ring index that cannot be. Details: the index, the one expected at most.
    RingIndexInvalid = 520, "ring_index_invalid";
    /// A ring entry of no known kind, or with reserved bits set.
    EntryInvalid = 521, "entry_invalid";
    /// More requests in flight than the completion ring has places.
    TooManyInFlight = 522, "too_many_in_flight";
    /// A release of a response that is not out.
    ReleaseInvalid = 523, "release_invalid";

    /// The server broke one of its own rules; its log says more.
    Internal = 900, "internal";
}

impl Status {
    /// Whether nothing but time or load stands in the way, so that the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::QueueFull | Self::ResponseRegionFull | Self::ModelNotReady | Self::NotExecuted
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_lead_back() {
        for pair in Status::ALL.windows(2) {
            assert!(
                (pair[0] as u16) < (pair[1] as u16),
                "{:?} stands after {:?}",
                pair[1],
                pair[0]
            );
        }
        for &status in Status::ALL {
            assert_eq!(Status::from_wire(status as u16), Some(status));
        }
        assert_eq!(Status::from_wire(999), None);
    }
}
