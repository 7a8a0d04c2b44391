//! Memory of a GPU in which inputs and outputs lie, so that what is there already need not leave it.
//!
//! The program allocates memory that can be shared (`cuMemCreate` with a handle of the POSIX kind) and hands the server
//! a descriptor of it; with the feature `cuda`, [`DeviceMemory`](crate::cuda::DeviceMemory) does both. A request then names
//! ranges of it. The server maps it too, copies from it and to it within the device, and its processor sees none
//! of it.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use adjoin_schema::attach::{DeviceAttach, DeviceDetach, DeviceUuid, features};
use adjoin_schema::descriptor::Regions;
use adjoin_schema::layout::RegionKind;
use adjoin_schema::status::Status;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::exchange::Exchange;
use crate::inbox::Reply;
use crate::session::{Session, Standing};
use crate::{Client, Explanation, InferError};

/// Memory of a device as another process can map it.
#[derive(Debug)]
pub struct ExportedMemory {
    /// What `cuMemExportToShareableHandle` gave.
    pub descriptor: OwnedFd,
    /// All bytes of the allocation.
    pub byte_size: u64,
    /// What `cuDeviceGetUuid` says of the device that it is on.
    pub device_uuid: DeviceUuid,
}

/// Memory of a device that requests may name. Clones are the same region. When the last of them and of the requests that
/// name it is dropped, the server lets go of it as soon as nothing runs in it.
///
/// It belongs to no session: it is attached to each one that a request which names it goes to.
#[derive(Clone)]
pub struct DeviceRegion {
    inner: Arc<Inner>,
}

struct Inner {
    memory: ExportedMemory,
    attached: Mutex<SmallVec<[Attached; 2]>>,
}

/// A session that a region is attached to, and its number there.
type Attached = (Weak<Session>, u32);

/// A range of a region.
#[derive(Clone, Debug)]
pub(crate) struct DevicePlace {
    pub(crate) region: DeviceRegion,
    pub(crate) offset: u64,
}

/// Room for an output.
#[derive(Clone, Debug)]
pub(crate) struct DeviceRoom {
    pub(crate) name: String,
    pub(crate) place: DevicePlace,
    pub(crate) byte_size: u64,
}

impl Client {
    /// Hands memory of a device to the server.
    ///
    /// # Errors
    /// `Device` if the server uses no device, or another one, or takes no more memory; `Invalid` if it is no such memory or
    /// has another size; and what stands in the way of asking.
    pub fn attach_device(&self, memory: ExportedMemory) -> Result<DeviceRegion, InferError> {
        let region = DeviceRegion {
            inner: Arc::new(Inner {
                memory,
                attached: Mutex::default(),
            }),
        };
        let session = self.live_session(None)?;
        region.number_in(&session, self)?;
        Ok(region)
    }
}

impl DeviceRegion {
    /// Bytes of the region.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.inner.memory.byte_size
    }

    /// The device that it is on.
    #[must_use]
    pub fn device_uuid(&self) -> &DeviceUuid {
        &self.inner.memory.device_uuid
    }

    /// Its number in a session, to which it is attached if it is not.
    pub(crate) fn number_in(
        &self,
        session: &Arc<Session>,
        client: &Client,
    ) -> Result<u32, InferError> {
        let mut attached = self.inner.attached.lock();
        attached.retain(|(session, _)| {
            let session = session.upgrade();
            session.is_some_and(|session| session.standing() != Standing::Ended)
        });
        let is_this = |(other, _): &&Attached| other.as_ptr() == Arc::as_ptr(session);
        if let Some((_, number)) = attached.iter().find(is_this) {
            return Ok(*number);
        }
        let number = session.attach_device(&self.inner.memory, client)?;
        attached.push((Arc::downgrade(session), number));
        Ok(number)
    }
}

impl fmt::Debug for DeviceRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceRegion")
            .field("byte_size", &self.byte_size())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (session, number) in self.attached.get_mut().drain(..) {
            if let Some(session) = session.upgrade().filter(|session| session.is_ours()) {
                session.detach_device(number);
            }
        }
    }
}

impl Session {
    fn attach_device(&self, memory: &ExportedMemory, client: &Client) -> Result<u32, InferError> {
        if self.facts.features & features::DEVICE_REGIONS == 0 {
            let text = "the server is of a release that takes no memory of a device".to_owned();
            let explanation = Explanation::with_text(Status::DeviceUnavailable, text);
            return Err(InferError::Device(explanation));
        }
        let attach = |query_id| {
            DeviceAttach {
                query_id,
                byte_size: memory.byte_size,
                device_uuid: memory.device_uuid,
            }
            .into()
        };
        let options = client.options();
        let limit = options.limit(None);
        let descriptors = [memory.descriptor.as_fd()];
        let reply = self.ask_for(attach, &descriptors, options.answer_timeout, &limit)?;
        match reply {
            // 0 is the session's own region.
            Ok(Reply::DeviceAttached(number @ 1..)) => Ok(number),
            Ok(_) => Err(InferError::protocol("another answer than was asked for")),
            Err(rejection) => Err(InferError::from_explanation(Explanation::new(
                rejection, None, None,
            ))),
        }
    }

    /// Does not wait for an answer. Where the socket has no room, the server keeps the region until the session ends.
    pub(crate) fn detach_device(&self, region: u32) {
        if self.has_ended() {
            return;
        }
        let query_id = self.inbox.lock().number();
        let detach = DeviceDetach { query_id, region };
        let message = adjoin_schema::attach::AttachMessage::from(detach);
        let _ = self.socket.send(&message.encode(), &[]);
    }
}

impl Exchange {
    /// Number of the region of each input, 0 for those of the session, and then of each room.
    pub(crate) fn region_numbers(
        &self,
        session: &Arc<Session>,
    ) -> Result<SmallVec<[u32; 2]>, InferError> {
        let inputs = self.inputs.iter().map(|input| input.on_device.as_ref());
        let rooms = self.rooms.iter().map(|room| Some(&room.place));
        inputs
            .chain(rooms)
            .map(|place| match place {
                Some(place) => place.region.number_in(session, &self.client),
                None => Ok(0),
            })
            .collect()
    }
}

/// Where the outputs of a request may lie: in the response region, or in the regions of its rooms.
pub(crate) struct AnswerRegions<'e> {
    pub(crate) own: Range<u64>,
    pub(crate) rooms: &'e [DeviceRoom],
    /// Of the rooms.
    pub(crate) numbers: &'e [u32],
}

impl<'e> AnswerRegions<'e> {
    pub(crate) fn new(session: &Session, rooms: &'e [DeviceRoom], numbers: &'e [u32]) -> Self {
        let first = numbers.len().saturating_sub(rooms.len());
        Self {
            own: session.memory.layout().payload(RegionKind::Response),
            rooms,
            numbers: &numbers[first..],
        }
    }
}

impl Regions for AnswerRegions<'_> {
    fn payload(&self, region: u32) -> Option<Range<u64>> {
        if region == 0 {
            return Some(self.own.clone());
        }
        let mut rooms = self.rooms.iter().zip(self.numbers);
        let (room, _) = rooms.find(|(_, number)| **number == region)?;
        Some(0..room.place.region.byte_size())
    }
}
