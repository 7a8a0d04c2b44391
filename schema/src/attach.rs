//! Messages of the attach socket: the handshake, questions about models, and memory of devices.
//!
//! One message is one packet of a SOCK_SEQPACKET socket, so there is no framing. After [`Welcome`] the
//! socket stays open: its end is how either side learns that the other is gone. A message of exactly
//! one byte ([`WAKE`]) is no FlatBuffer but the server's doorbell for clients that poll the socket.

mod device;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, VerifierOptions, WIPOffset};
use thiserror::Error;

use crate::generated::adjoin::wire;
use crate::limits::{
    ATTACH_MESSAGE_BYTES_MAX, CLIENT_NAME_BYTES_MAX, LABEL_BYTES_MAX, RANK_MAX,
    TENSOR_NAME_BYTES_MAX, TENSORS_MAX, TOKEN_BYTES,
};
use crate::{DataType, Shape};

pub use device::{DeviceAttach, DeviceAttached, DeviceDetach, DeviceDetached, DeviceUuid};

/// What a server understands beside version 1 of the protocol. A client sends nothing of it to one that does not say so.
pub mod features {
    /// Memory of a device as a region: [`DeviceAttach`](super::DeviceAttach), tensors and rooms with a number of a
    /// region. Whether there is a device is told when one is attached.
    pub const DEVICE_REGIONS: u64 = 1;
    /// All that this build knows.
    pub const ALL: u64 = DEVICE_REGIONS;
}

/// The server's doorbell on the attach socket.
pub const WAKE: &[u8] = b"!";

/// A single-use token, or the secret of a session.
pub type Token = [u8; TOKEN_BYTES];

/// The client's first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The client's [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Wanted bytes of the request region.
    pub request_bytes: u64,
    /// Wanted bytes of the response region.
    pub response_bytes: u64,
    /// Wanted places in the completion ring.
    pub ring_entries: u32,
    /// From `OpenSession`, if the sizes were settled there.
    pub token: Option<Token>,
    /// What the client calls itself, for lists of sessions.
    pub client_name: String,
}

/// The server's answer, sent with the descriptors of the request region, the response region
/// (read-only) and the event descriptor, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol that both will speak.
    pub protocol: u32,
    /// Number of the session, unique in the life of the server.
    pub session_id: u64,
    /// Bytes of the request region.
    pub request_bytes: u64,
    /// Bytes of the response region.
    pub response_bytes: u64,
    /// Places in the completion ring.
    pub ring_entries: u32,
    /// Proves on another channel that the caller owns this session.
    pub secret: Token,
    /// Release of the server.
    pub server_version: String,
    /// What it understands beside version 1: [`features`].
    pub features: u64,
}

/// A question that the server could not answer, or a handshake that it refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The question's number; 0 for a handshake.
    pub query_id: u64,
    /// Wire number of a [`crate::status::Status`].
    pub status: u16,
    /// Its values.
    pub detail: [u64; 2],
}

/// A question about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelQuery {
    /// Comes back in the answer.
    pub query_id: u64,
    /// Name of the model.
    pub model: String,
    /// Version; 0 for the newest ready one, or the one that `label` stands for.
    pub version: u64,
    /// Version label; empty for none.
    pub label: String,
}

/// What a model takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the input or output.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Dimensions; -1 where the request decides.
    pub shape: Shape,
    /// One name per dimension, empty where there is none.
    pub dimension_names: Vec<String>,
}

/// A model as its users see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// The question's number.
    pub query_id: u64,
    /// Name of the model.
    pub model: String,
    /// The version that is described.
    pub version: u64,
    /// All versions that are ready, ascending.
    pub ready_versions: Vec<u64>,
    /// Engine that runs it.
    pub engine: String,
    /// Most rows of one execution; 0 if requests are never batched.
    pub max_batch_size: u32,
    /// Inputs in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the model's order.
    pub outputs: Vec<TensorSpec>,
}

/// A message on the attach socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each variant holds the documented type of its name"
)]
pub enum AttachMessage {
    Hello(Hello),
    Welcome(Welcome),
    Refusal(Refusal),
    ModelQuery(ModelQuery),
    ModelInfo(ModelInfo),
    DeviceAttach(DeviceAttach),
    DeviceAttached(DeviceAttached),
    DeviceDetach(DeviceDetach),
    DeviceDetached(DeviceDetached),
}

/// Why bytes on the attach socket are no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachMessageError {
    /// Not a FlatBuffer of this kind, or a kind that this build does not know.
    #[error("not a message of this protocol ({byte_size} bytes)")]
    Malformed {
        /// Bytes that came.
        byte_size: usize,
    },
    /// A field is outside what the protocol allows.
    #[error("field {field} of the message is outside the limits of the protocol")]
    Limit {
        /// Name of the field.
        field: &'static str,
    },
}

impl AttachMessage {
    /// The bytes of this message.
    pub fn encode(&self) -> Vec<u8> {
        let mut fbb = FlatBufferBuilder::new();
        let (kind, body) = match self {
            Self::Hello(hello) => (wire::AttachBody::Hello, write_hello(&mut fbb, hello)),
            Self::Welcome(welcome) => (wire::AttachBody::Welcome, write_welcome(&mut fbb, welcome)),
            Self::Refusal(refusal) => {
                (wire::AttachBody::Refusal, write_refusal(&mut fbb, *refusal))
            }
            Self::ModelQuery(query) => (wire::AttachBody::ModelQuery, write_query(&mut fbb, query)),
            Self::ModelInfo(info) => (wire::AttachBody::ModelInfo, write_info(&mut fbb, info)),
            Self::DeviceAttach(attach) => (wire::AttachBody::DeviceAttach, attach.write(&mut fbb)),
            Self::DeviceAttached(attached) => {
                (wire::AttachBody::DeviceAttached, attached.write(&mut fbb))
            }
            Self::DeviceDetach(detach) => (wire::AttachBody::DeviceDetach, detach.write(&mut fbb)),
            Self::DeviceDetached(detached) => {
                (wire::AttachBody::DeviceDetached, detached.write(&mut fbb))
            }
        };
        let args = wire::AttachMessageArgs {
            body_type: kind,
            body: Some(body),
        };
        let root = wire::AttachMessage::create(&mut fbb, &args);
        fbb.finish(root, None);
        fbb.finished_data().to_vec()
    }

    /// Reads a message from a private copy of a packet.
    ///
    /// # Errors
    /// See [`AttachMessageError`].
    pub fn parse(packet: &[u8]) -> Result<Self, AttachMessageError> {
        let malformed = || AttachMessageError::Malformed {
            byte_size: packet.len(),
        };
        let options = VerifierOptions {
            max_depth: 5,
            max_tables: 2 * TENSORS_MAX + 4,
            max_apparent_size: 4 * ATTACH_MESSAGE_BYTES_MAX,
            ignore_missing_null_terminator: false,
        };
        let root = flatbuffers::root_with_opts::<wire::AttachMessage<'_>>(&options, packet)
            .map_err(|_| malformed())?;
        if let Some(hello) = root.body_as_hello() {
            return read_hello(hello).map(Self::Hello);
        }
        if let Some(welcome) = root.body_as_welcome() {
            return read_welcome(welcome).map(Self::Welcome);
        }
        if let Some(refusal) = root.body_as_refusal() {
            let mut detail = [0; 2];
            for (slot, value) in detail
                .iter_mut()
                .zip(refusal.details().into_iter().flatten())
            {
                *slot = value;
            }
            return Ok(Self::Refusal(Refusal {
                query_id: refusal.query_id(),
                status: refusal.status(),
                detail,
            }));
        }
        if let Some(query) = root.body_as_model_query() {
            let (query_id, version) = (query.query_id(), query.version());
            let model = bounded(query.model(), TENSOR_NAME_BYTES_MAX, "model")?;
            let label = bounded(query.label().unwrap_or(""), LABEL_BYTES_MAX, "label")?;
            return Ok(Self::ModelQuery(ModelQuery {
                query_id,
                model,
                version,
                label,
            }));
        }
        if let Some(info) = root.body_as_model_info() {
            return read_info(info).map(Self::ModelInfo);
        }
        if let Some(attach) = root.body_as_device_attach() {
            return DeviceAttach::read(attach).map(Self::DeviceAttach);
        }
        if let Some(attached) = root.body_as_device_attached() {
            return Ok(Self::DeviceAttached(DeviceAttached::read(attached)));
        }
        if let Some(detach) = root.body_as_device_detach() {
            return Ok(Self::DeviceDetach(DeviceDetach::read(detach)));
        }
        if let Some(detached) = root.body_as_device_detached() {
            return Ok(Self::DeviceDetached(DeviceDetached::read(detached)));
        }
        Err(malformed())
    }
}

type Fbb<'b> = FlatBufferBuilder<'b>;
type Body = WIPOffset<UnionWIPOffset>;

fn write_hello(fbb: &mut Fbb<'_>, hello: &Hello) -> Body {
    let token = hello.token.as_ref().map(|token| fbb.create_vector(token));
    let client_name = Some(fbb.create_string(&hello.client_name));
    let args = wire::HelloArgs {
        protocol: hello.protocol,
        request_bytes: hello.request_bytes,
        response_bytes: hello.response_bytes,
        ring_entries: hello.ring_entries,
        token,
        client_name,
    };
    wire::Hello::create(fbb, &args).as_union_value()
}

fn write_welcome(fbb: &mut Fbb<'_>, welcome: &Welcome) -> Body {
    let secret = Some(fbb.create_vector(&welcome.secret));
    let server_version = Some(fbb.create_string(&welcome.server_version));
    let args = wire::WelcomeArgs {
        protocol: welcome.protocol,
        session_id: welcome.session_id,
        request_bytes: welcome.request_bytes,
        response_bytes: welcome.response_bytes,
        ring_entries: welcome.ring_entries,
        secret,
        server_version,
        features: welcome.features,
    };
    wire::Welcome::create(fbb, &args).as_union_value()
}

fn write_refusal(fbb: &mut Fbb<'_>, refusal: Refusal) -> Body {
    let details = Some(fbb.create_vector(&refusal.detail));
    let args = wire::RefusalArgs {
        query_id: refusal.query_id,
        status: refusal.status,
        details,
    };
    wire::Refusal::create(fbb, &args).as_union_value()
}

fn write_query(fbb: &mut Fbb<'_>, query: &ModelQuery) -> Body {
    let model = Some(fbb.create_string(&query.model));
    let label = Some(fbb.create_string(&query.label));
    let args = wire::ModelQueryArgs {
        query_id: query.query_id,
        model,
        version: query.version,
        label,
    };
    wire::ModelQuery::create(fbb, &args).as_union_value()
}

fn write_info(fbb: &mut Fbb<'_>, info: &ModelInfo) -> Body {
    let model = Some(fbb.create_string(&info.model));
    let ready_versions = Some(fbb.create_vector(&info.ready_versions));
    let engine = Some(fbb.create_string(&info.engine));
    let mut specs = |specs: &[TensorSpec]| {
        let offsets: Vec<_> = specs.iter().map(|spec| write_spec(fbb, spec)).collect();
        fbb.create_vector(&offsets)
    };
    let (inputs, outputs) = (Some(specs(&info.inputs)), Some(specs(&info.outputs)));
    let args = wire::ModelInfoArgs {
        query_id: info.query_id,
        model,
        version: info.version,
        ready_versions,
        engine,
        max_batch_size: info.max_batch_size,
        inputs,
        outputs,
    };
    wire::ModelInfo::create(fbb, &args).as_union_value()
}

fn write_spec<'b>(fbb: &mut Fbb<'b>, spec: &TensorSpec) -> WIPOffset<wire::TensorSpec<'b>> {
    let name = Some(fbb.create_string(&spec.name));
    let shape = Some(fbb.create_vector(&spec.shape));
    let names: Vec<_> = spec
        .dimension_names
        .iter()
        .map(|name| fbb.create_string(name))
        .collect();
    let dimension_names = Some(fbb.create_vector(&names));
    wire::TensorSpec::create(
        fbb,
        &wire::TensorSpecArgs {
            name,
            dtype: spec.dtype.to_flatbuffer(),
            shape,
            dimension_names,
        },
    )
}

fn bounded(
    text: &str,
    byte_size_max: usize,
    field: &'static str,
) -> Result<String, AttachMessageError> {
    if text.len() > byte_size_max {
        return Err(AttachMessageError::Limit { field });
    }
    Ok(text.to_owned())
}

fn read_token(
    bytes: flatbuffers::Vector<'_, u8>,
    field: &'static str,
) -> Result<Token, AttachMessageError> {
    bytes
        .bytes()
        .try_into()
        .map_err(|_| AttachMessageError::Limit { field })
}

fn read_hello(hello: wire::Hello<'_>) -> Result<Hello, AttachMessageError> {
    Ok(Hello {
        protocol: hello.protocol(),
        request_bytes: hello.request_bytes(),
        response_bytes: hello.response_bytes(),
        ring_entries: hello.ring_entries(),
        token: hello
            .token()
            .map(|token| read_token(token, "token"))
            .transpose()?,
        client_name: bounded(
            hello.client_name().unwrap_or(""),
            CLIENT_NAME_BYTES_MAX,
            "client_name",
        )?,
    })
}

fn read_welcome(welcome: wire::Welcome<'_>) -> Result<Welcome, AttachMessageError> {
    Ok(Welcome {
        protocol: welcome.protocol(),
        session_id: welcome.session_id(),
        request_bytes: welcome.request_bytes(),
        response_bytes: welcome.response_bytes(),
        ring_entries: welcome.ring_entries(),
        secret: read_token(welcome.secret(), "secret")?,
        server_version: bounded(
            welcome.server_version().unwrap_or(""),
            TENSOR_NAME_BYTES_MAX,
            "server_version",
        )?,
        features: welcome.features(),
    })
}

fn read_info(info: wire::ModelInfo<'_>) -> Result<ModelInfo, AttachMessageError> {
    Ok(ModelInfo {
        query_id: info.query_id(),
        model: bounded(info.model(), TENSOR_NAME_BYTES_MAX, "model")?,
        version: info.version(),
        ready_versions: info.ready_versions().iter().collect(),
        engine: bounded(info.engine().unwrap_or(""), TENSOR_NAME_BYTES_MAX, "engine")?,
        max_batch_size: info.max_batch_size(),
        inputs: info
            .inputs()
            .iter()
            .map(read_spec)
            .collect::<Result<_, _>>()?,
        outputs: info
            .outputs()
            .iter()
            .map(read_spec)
            .collect::<Result<_, _>>()?,
    })
}

fn read_spec(spec: wire::TensorSpec<'_>) -> Result<TensorSpec, AttachMessageError> {
    let limit = |field| AttachMessageError::Limit { field };
    if spec.shape().len() > RANK_MAX {
        return Err(limit("shape"));
    }
    let names = spec.dimension_names().into_iter().flatten();
    Ok(TensorSpec {
        name: bounded(spec.name(), TENSOR_NAME_BYTES_MAX, "name")?,
        dtype: DataType::from_wire(spec.dtype().0).ok_or_else(|| limit("dtype"))?,
        shape: spec.shape().iter().collect(),
        dimension_names: names
            .map(|name| bounded(name, TENSOR_NAME_BYTES_MAX, "dimension_names"))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let spec = TensorSpec {
            name: "x".into(),
            dtype: DataType::Fp16,
            shape: smallvec![-1, 3],
            dimension_names: vec!["batch".into(), String::new()],
        };
        let messages = [
            AttachMessage::Hello(Hello {
                protocol: 1,
                request_bytes: 1 << 20,
                token: Some([7; 16]),
                client_name: "me".into(),
                ..Hello::default()
            }),
            AttachMessage::Welcome(Welcome {
                session_id: 9,
                secret: [3; 16],
                server_version: "0.1.0".into(),
                features: features::ALL,
                ..Welcome::default()
            }),
            AttachMessage::Refusal(Refusal {
                query_id: 4,
                status: 505,
                detail: [1, 2],
            }),
            AttachMessage::ModelQuery(ModelQuery {
                query_id: 4,
                model: "digits".into(),
                version: 2,
                label: "stable".into(),
            }),
            AttachMessage::ModelInfo(ModelInfo {
                model: "digits".into(),
                ready_versions: vec![1, 2],
                inputs: vec![spec.clone()],
                outputs: vec![spec],
                ..ModelInfo::default()
            }),
        ];
        for message in messages {
            let bytes = message.encode();
            assert_ne!(bytes.len(), WAKE.len());
            assert_eq!(AttachMessage::parse(&bytes), Ok(message));
        }
    }

    #[test]
    fn damaged_and_oversized_messages_are_refused() {
        assert_eq!(
            AttachMessage::parse(b""),
            Err(AttachMessageError::Malformed { byte_size: 0 })
        );
        assert_eq!(
            AttachMessage::parse(&[0xff; 64]),
            Err(AttachMessageError::Malformed { byte_size: 64 })
        );
        let long = AttachMessage::Hello(Hello {
            client_name: "n".repeat(CLIENT_NAME_BYTES_MAX + 1),
            ..Hello::default()
        });
        assert_eq!(
            AttachMessage::parse(&long.encode()),
            Err(AttachMessageError::Limit {
                field: "client_name"
            })
        );
        let mut bytes = AttachMessage::Hello(Hello::default()).encode();
        for cut in 0..bytes.len() / 2 {
            assert!(AttachMessage::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.fill(0);
        AttachMessage::parse(&bytes).unwrap_err();
    }
}
