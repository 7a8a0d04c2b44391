//! Messages about memory of a device: a client hands it over by a descriptor, and gets a number for it.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::{AttachMessage, AttachMessageError};
use crate::generated::adjoin::wire;
use crate::limits::DEVICE_UUID_BYTES;

/// The 16 bytes by which the driver names a device, in every process alike.
pub type DeviceUuid = [u8; DEVICE_UUID_BYTES];

/// Memory of a device that the server is to map. The message comes with one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAttach {
    /// Comes back in the answer; not 0.
    pub query_id: u64,
    /// All bytes of the allocation.
    pub byte_size: u64,
    /// The device that it is on.
    pub device_uuid: DeviceUuid,
}

/// The answer: the memory is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAttached {
    /// The question's number.
    pub query_id: u64,
    /// Number of the region in this session, never 0 and never given out again in it.
    pub region: u32,
}

/// The client takes a region back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceDetach {
    /// Comes back in the answer; not 0.
    pub query_id: u64,
    /// Number of the region.
    pub region: u32,
}

/// The answer: the number stands for nothing any more. Requests that were taken before still use the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceDetached {
    /// The question's number.
    pub query_id: u64,
}

impl From<DeviceAttach> for AttachMessage {
    fn from(attach: DeviceAttach) -> Self {
        Self::DeviceAttach(attach)
    }
}

impl From<DeviceDetach> for AttachMessage {
    fn from(detach: DeviceDetach) -> Self {
        Self::DeviceDetach(detach)
    }
}

type Fbb<'b> = FlatBufferBuilder<'b>;
type Body = WIPOffset<UnionWIPOffset>;

impl DeviceAttach {
    pub(super) fn write(&self, fbb: &mut Fbb<'_>) -> Body {
        let device_uuid = Some(fbb.create_vector(&self.device_uuid));
        let args = wire::DeviceAttachArgs {
            query_id: self.query_id,
            byte_size: self.byte_size,
            device_uuid,
        };
        wire::DeviceAttach::create(fbb, &args).as_union_value()
    }

    pub(super) fn read(attach: wire::DeviceAttach<'_>) -> Result<Self, AttachMessageError> {
        let field = "device_uuid";
        let device_uuid = attach.device_uuid().bytes().try_into();
        Ok(Self {
            query_id: attach.query_id(),
            byte_size: attach.byte_size(),
            device_uuid: device_uuid.map_err(|_| AttachMessageError::Limit { field })?,
        })
    }
}

impl DeviceAttached {
    pub(super) fn write(&self, fbb: &mut Fbb<'_>) -> Body {
        let args = wire::DeviceAttachedArgs {
            query_id: self.query_id,
            region: self.region,
        };
        wire::DeviceAttached::create(fbb, &args).as_union_value()
    }

    pub(super) fn read(attached: wire::DeviceAttached<'_>) -> Self {
        Self {
            query_id: attached.query_id(),
            region: attached.region(),
        }
    }
}

impl DeviceDetach {
    pub(super) fn write(&self, fbb: &mut Fbb<'_>) -> Body {
        let args = wire::DeviceDetachArgs {
            query_id: self.query_id,
            region: self.region,
        };
        wire::DeviceDetach::create(fbb, &args).as_union_value()
    }

    pub(super) fn read(detach: wire::DeviceDetach<'_>) -> Self {
        Self {
            query_id: detach.query_id(),
            region: detach.region(),
        }
    }
}

impl DeviceDetached {
    pub(super) fn write(&self, fbb: &mut Fbb<'_>) -> Body {
        let args = wire::DeviceDetachedArgs {
            query_id: self.query_id,
        };
        wire::DeviceDetached::create(fbb, &args).as_union_value()
    }

    pub(super) fn read(detached: wire::DeviceDetached<'_>) -> Self {
        Self {
            query_id: detached.query_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let (query_id, region) = (4, 7);
        let messages = [
            AttachMessage::DeviceAttach(DeviceAttach {
                query_id,
                byte_size: 1 << 30,
                device_uuid: [9; 16],
            }),
            AttachMessage::DeviceAttached(DeviceAttached { query_id, region }),
            AttachMessage::DeviceDetach(DeviceDetach { query_id, region }),
            AttachMessage::DeviceDetached(DeviceDetached { query_id }),
        ];
        for message in messages {
            assert_eq!(AttachMessage::parse(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_device_is_named_by_sixteen_bytes() {
        let mut fbb = FlatBufferBuilder::new();
        let args = wire::DeviceAttachArgs {
            device_uuid: Some(fbb.create_vector(&[1_u8; 15])),
            ..Default::default()
        };
        let body = wire::DeviceAttach::create(&mut fbb, &args).as_union_value();
        let args = wire::AttachMessageArgs {
            body_type: wire::AttachBody::DeviceAttach,
            body: Some(body),
        };
        let root = wire::AttachMessage::create(&mut fbb, &args);
        fbb.finish(root, None);
        let field = "device_uuid";
        assert_eq!(
            AttachMessage::parse(fbb.finished_data()),
            Err(AttachMessageError::Limit { field })
        );
    }
}
