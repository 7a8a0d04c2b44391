//! From a status and its values to a sentence that says what was wrong, what holds and what to do.
//!
//! Only numbers travel. The reader puts the sentence together from what it knows itself: its own
//! request, and the model's description. So no text of the server's side ever crosses the wire.

use std::fmt::Write as _;

use crate::attach::ModelInfo;
use crate::descriptor::{OutputRoom, Rejection, RequestDescriptor, TensorDescriptor};
use crate::limits::MODEL_NAME_BYTES_MAX;
use crate::status::Status;
use crate::{DataType, PROTOCOL_VERSION};

/// Whether a model may be called that: one path segment of letters, digits, `.`, `_` and `-`, not
/// starting with a dot, at most [`MODEL_NAME_BYTES_MAX`] bytes.
pub fn is_model_name(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX && !name.starts_with('.');
    fits && name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Dimensions as people read them, such as `[batch,3,-1]`.
pub fn shape_text(dims: &[i64], names: &[String]) -> String {
    let mut text = String::from("[");
    for (index, dim) in dims.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match names.get(index) {
            Some(name) if *dim < 0 && !name.is_empty() => text.push_str(name),
            _ => _ = write!(text, "{dim}"),
        }
    }
    text.push(']');
    text
}

/// The sentence for a refusal. With the request and the model at hand it names tensors and shapes.
pub fn explain(
    rejection: Rejection,
    request: Option<&RequestDescriptor<'_>>,
    model: Option<&ModelInfo>,
) -> String {
    let Rejection {
        status,
        detail: [first, second],
    } = rejection;
    let model_name = request.map_or("?", |r| r.model);
    let facts = Facts { request, model };
    match status {
        Status::Ok => "ok".into(),
        Status::ModelNotFound => {
            format!("no model named {model_name:?} is loaded; `adjoin models` lists them")
        }
        Status::VersionNotFound => match request.map(|r| r.label).filter(|label| !label.is_empty())
        {
            Some(label) => format!("model {model_name:?} has no ready version labelled {label:?}"),
            None => format!("model {model_name:?} has no ready version {first}"),
        },
        Status::InputUnknown => format!(
            "model {model_name:?} has no {}; it takes {}",
            facts.input(first),
            facts.inputs()
        ),
        Status::InputMissing => {
            let name = model
                .and_then(|m| m.inputs.get(usize::try_from(first).ok()?))
                .map(|spec| spec.name.as_str());
            format!(
                "input {:?} of model {model_name:?} is missing; it takes {}",
                name.unwrap_or("?"),
                facts.inputs()
            )
        }
        Status::InputRepeated => format!("{} is named twice", facts.input(first)),
        Status::DataTypeMismatch => {
            let expected = u8::try_from(second)
                .ok()
                .and_then(DataType::from_wire)
                .map_or("another type", DataType::name);
            format!(
                "{} has data type {}; the model takes {expected}",
                facts.input(first),
                facts.dtype(first)
            )
        }
        Status::DataTypeUnknown => format!(
            "{} has a data type that the server does not know",
            facts.input(first)
        ),
        Status::ShapeMismatch => format!(
            "{} has shape {}; the model takes {}{}",
            facts.input(first),
            facts.shape(first),
            facts.expected(first),
            facts.why_not(first, second)
        ),
        Status::ByteSizeMismatch => format!(
            "{} has {} bytes; its data type and shape make {second}",
            facts.input(first),
            facts.byte_size(first)
        ),
        Status::ExtentOutOfRegion => {
            format!(
                "{} at offset {} with {} bytes does not fit a region of {second} bytes",
                facts.input(first),
                facts.offset(first),
                facts.byte_size(first)
            )
        }
        Status::ExtentMisaligned => format!(
            "{} starts at offset {}, which is no multiple of 64",
            facts.input(first),
            facts.offset(first)
        ),
        Status::ExtentsOverlap => format!(
            "{} and {} share bytes",
            facts.input(first),
            facts.input(second)
        ),
        Status::DescriptorTooLarge => {
            format!("the descriptor has {first} bytes; the most allowed is {second}")
        }
        Status::DescriptorInvalid => {
            "the descriptor is not valid, or breaks a limit of the protocol".into()
        }
        Status::BatchTooLarge => {
            format!("a request of {first} rows; model {model_name:?} runs at most {second} at once")
        }
        Status::PreparedUnknown => format!("no request is prepared under number {first}"),
        Status::PreparedBusy => format!("prepared request {first} is in flight; wait for it first"),
        Status::OutputUnknown => {
            let names = request.map(|r| {
                let rooms = r.rooms.iter().map(|room| room.name);
                r.outputs.iter().copied().chain(rooms)
            });
            let name = names
                .and_then(|mut names| names.nth(usize::try_from(first).ok()?))
                .unwrap_or("?");
            format!(
                "model {model_name:?} has no output {name:?}; it gives {}",
                facts.outputs()
            )
        }
        Status::BytesMalformed => format!(
            "the string elements of {} do not add up to its byte size",
            facts.input(first)
        ),
        Status::ValuesRefused if first > 0 => {
            format!("step {first} of model {model_name:?} does not take these values")
        }
        Status::ValuesRefused => format!("model {model_name:?} does not take these values"),
        Status::DeviceRegionUnknown => format!(
            "{} names device region {second}, which is not attached in this session; attach it, and build the request anew",
            facts.input(first)
        ),
        Status::DeviceRegionNotTaken => format!(
            "model {model_name:?} has {} not on the device (region {second}): it does not run there, or looks at these \
             values on the processor; put the tensor into the session's own memory",
            facts.input(first)
        ),
        Status::DeviceRegionLost => format!(
            "the server's device was lost, and device region {second} with it ({}); detach it, attach it again, and \
             build the request anew",
            facts.input(first)
        ),
        Status::OutputSizeUnknown => format!(
            "{} has a size that only the run shows, so it cannot go to a device region; read it from the response",
            facts.input(first)
        ),
        Status::OutputRoomTooSmall => format!(
            "{} takes {second} bytes and has room for {}",
            facts.input(first),
            facts.byte_size(first)
        ),
        Status::DeviceMemoryInvalid => format!(
            "the descriptor is no device memory that can be mapped as {first} bytes; give what \
             cuMemExportToShareableHandle returns, and the size of the whole allocation"
        ),
        Status::DeviceMismatch => {
            "the memory is on another device than the one that the server uses; allocate it there".into()
        }
        Status::TooManyDeviceRegions => {
            format!("the session has all the {first} device regions that it may; detach some")
        }
        Status::DeviceQuotaExceeded => format!(
            "{first} bytes of device memory are to be attached and {second} are left; detach some, or raise the server's limits"
        ),
        Status::DeviceUnavailable => {
            "the server uses no GPU, or its GPU is lost at the moment; send tensors by the session's own memory".into()
        }
        Status::QueueFull => format!(
            "the queue of model {model_name:?} is full ({first} requests); send less or try again"
        ),
        Status::DeadlineExceeded if second > 0 => {
            format!(
                "the deadline had passed {} us before",
                second.saturating_sub(first) / 1000
            )
        }
        Status::DeadlineExceeded => "the deadline passed".into(),
        Status::DeadlineUnreachable => format!(
            "behind what waits already the request would end {} us after its deadline; send less, or with more time",
            second.saturating_sub(first) / 1000
        ),
        Status::ResponseRegionFull => {
            format!(
                "the outputs need {first} bytes and do not fit what is left of {second}; release responses, or open the session with more"
            )
        }
        Status::ModelNotReady => format!("model {model_name:?} is not ready"),
        Status::Cancelled => "cancelled before it ran".into(),
        Status::NotExecuted => "the server is shutting down and did not run the request".into(),
        Status::ExecutionFailed if first > 0 => {
            let status = u16::try_from(second).ok().and_then(Status::from_wire);
            let status = status.map_or("unknown", Status::name);
            format!(
                "step {first} of model {model_name:?} failed ({status}); the server's log has its message"
            )
        }
        Status::ExecutionFailed => {
            "the engine failed on this batch; the server's log has its message".into()
        }
        Status::OutputTooLarge => format!(
            "the outputs turned out to need {first} bytes, more than the response region had left"
        ),
        Status::ProtocolMismatch => format!(
            "the client speaks protocol {first}, the server {second}; this build speaks {PROTOCOL_VERSION}"
        ),
        Status::HandshakeInvalid => {
            "the first message on the attach socket was no valid hello".into()
        }
        Status::TokenInvalid => {
            "the attach token is wrong, used, expired, or another user's; open the session anew"
                .into()
        }
        Status::RegionSizeInvalid => format!(
            "a region of {first} bytes is not possible; the most is {second}, the least 64 KiB and room for the rings"
        ),
        Status::RingSizeInvalid => format!(
            "a ring of {first} entries is not possible; it takes a power of two from 8 to {second}"
        ),
        Status::MemoryQuotaExceeded => format!(
            "the session wants {first} bytes and {second} are left; close sessions, or raise the server's memory limits"
        ),
        Status::TooManySessions => format!("the server has all the {first} sessions it takes"),
        Status::PeerNotAllowed => format!("user {first} may not open sessions here"),
        Status::SessionUnavailable => {
            "the server's machine had no memory or descriptors left for a session".into()
        }
        Status::MemoryBudgetExceeded => format!(
            "the session wants {first} bytes and the server's memory limit leaves {second}; ask for less, close sessions, or raise the limit"
        ),
        Status::RingIndexInvalid => {
            format!("ring index {first} is impossible; the most was {second}")
        }
        Status::EntryInvalid => "a ring entry of no known kind, or with reserved bits set".into(),
        Status::TooManyInFlight => format!("more than {first} requests in flight"),
        Status::ReleaseInvalid => "a response was released that was not out".into(),
        Status::Internal => "the server broke one of its own rules; its log says more".into(),
    }
}

/// What the reader knows beside the refusal; every look-up falls back to a word when it is missing.
struct Facts<'r, 'd> {
    request: Option<&'r RequestDescriptor<'d>>,
    model: Option<&'r ModelInfo>,
}

impl<'r, 'd> Facts<'r, 'd> {
    fn tensor(&self, index: u64) -> Option<&'r TensorDescriptor<'d>> {
        self.request?.inputs.get(usize::try_from(index).ok()?)
    }

    /// A room for an output; they count behind the inputs.
    fn room(&self, index: u64) -> Option<&'r OutputRoom<'d>> {
        let index = usize::try_from(index).ok()?;
        let request = self.request?;
        request.rooms.get(index.checked_sub(request.inputs.len())?)
    }

    fn input(&self, index: u64) -> String {
        match (self.tensor(index), self.room(index)) {
            (Some(tensor), _) => format!("input {:?}", tensor.name),
            (None, Some(room)) => format!("output {:?}", room.name),
            (None, None) => format!("input {index}"),
        }
    }

    fn dtype(&self, index: u64) -> &'static str {
        self.tensor(index).map_or("?", |t| t.dtype.name())
    }

    fn shape(&self, index: u64) -> String {
        self.tensor(index)
            .map_or_else(|| "?".into(), |t| shape_text(&t.shape, &[]))
    }

    fn offset(&self, index: u64) -> u64 {
        let room = || self.room(index).map(|room| room.offset);
        (self.tensor(index).map(|t| t.offset).or_else(room)).unwrap_or(0)
    }

    fn byte_size(&self, index: u64) -> u64 {
        let room = || self.room(index).map(|room| room.byte_size);
        (self.tensor(index).map(|t| t.byte_size).or_else(room)).unwrap_or(0)
    }

    fn expected(&self, index: u64) -> String {
        let spec = self
            .tensor(index)
            .and_then(|t| self.model?.inputs.iter().find(|spec| spec.name == t.name));
        spec.map_or_else(
            || "another shape".into(),
            |spec| shape_text(&spec.shape, &spec.dimension_names),
        )
    }

    /// Where the model leaves the dimension open, what else was wrong with it.
    fn why_not(&self, index: u64, dimension: u64) -> &'static str {
        let at = usize::try_from(dimension).ok();
        let tensor = self.tensor(index);
        let spec = tensor.and_then(|t| self.model?.inputs.iter().find(|spec| spec.name == t.name));
        let is_open = spec.and_then(|spec| Some(*spec.shape.get(at?)? < 0));
        match tensor.and_then(|t| t.shape.get(at?)) {
            Some(1..) if is_open == Some(true) => {
                ", and dimensions of one name have one size in all inputs"
            }
            Some(0) if is_open == Some(true) => ", and at least one row",
            _ => "",
        }
    }

    fn inputs(&self) -> String {
        names(self.model.map(|m| m.inputs.as_slice()))
    }

    fn outputs(&self) -> String {
        names(self.model.map(|m| m.outputs.as_slice()))
    }
}

fn names(specs: Option<&[crate::attach::TensorSpec]>) -> String {
    let Some(specs) = specs else {
        return "others".into();
    };
    specs
        .iter()
        .map(|spec| format!("{:?}", spec.name))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::attach::TensorSpec;

    #[test]
    fn every_status_has_a_sentence_of_its_own() {
        let texts: std::collections::HashSet<String> = Status::ALL
            .iter()
            .map(|&s| explain(Rejection::new(s, [3, 4]), None, None))
            .collect();
        assert_eq!(texts.len(), Status::ALL.len());
    }

    #[test]
    fn wrong_shape_says_expected_and_got() {
        let input = TensorDescriptor {
            name: "image",
            dtype: DataType::Fp32,
            shape: smallvec![2, 7],
            region: 0,
            offset: 0,
            byte_size: 56,
        };
        let request = RequestDescriptor {
            model: "digits",
            version: 0,
            label: "",
            inputs: smallvec![input],
            outputs: smallvec![],
            rooms: smallvec![],
        };
        let spec = TensorSpec {
            name: "image".into(),
            dtype: DataType::Fp32,
            shape: smallvec![-1, 1, 8, 8],
            dimension_names: vec!["batch".into(), String::new(), String::new(), String::new()],
        };
        let model = ModelInfo {
            inputs: vec![spec],
            ..ModelInfo::default()
        };
        let text = explain(
            Rejection::new(Status::ShapeMismatch, [0, 1]),
            Some(&request),
            Some(&model),
        );
        assert_eq!(
            text,
            r#"input "image" has shape [2,7]; the model takes [batch,1,8,8]"#
        );
        let text = explain(
            Rejection::new(Status::ShapeMismatch, [0, 0]),
            Some(&request),
            Some(&model),
        );
        assert!(text.ends_with("one size in all inputs"), "{text}");
    }

    #[test]
    fn model_names_are_one_path_segment() {
        for good in ["digits", "resnet-50.v1_5", "A"] {
            assert!(is_model_name(good), "{good}");
        }
        let long = "m".repeat(MODEL_NAME_BYTES_MAX + 1);
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "ä", &long] {
            assert!(!is_model_name(bad), "{bad}");
        }
    }
}
