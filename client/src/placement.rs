//! Where a request's tensors lie: in which session, at which offsets, or in private memory while there
//! is no session. A request outlives its session that way, with its bytes.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use adjoin_schema::descriptor::DescriptorWriter;
use adjoin_schema::layout::RegionKind;
use adjoin_schema::limits::ALIGNMENT;
use adjoin_shm::{Arena, OwnedRange};
use smallvec::SmallVec;

use crate::exchange::{Exchange, Input};
use crate::reclaim::Extents;
use crate::session::Session;
use crate::{ConnectError, Explanation, InferError, InputPlace, RequestError};

type Ranges = SmallVec<[OwnedRange; 2]>;
/// Of device regions, as in [`Extents`].
type Numbers = SmallVec<[u32; 2]>;

impl Exchange {
    /// Takes room in a session, with the inputs as they happen to be there.
    pub(crate) fn place(&self, session: &Arc<Session>) -> Result<Extents, InferError> {
        let (inputs, regions, descriptor) = self.room(session)?;
        Ok(extents(inputs, regions, Some(descriptor)))
    }

    /// Takes room in a session, with the inputs as they are in this request.
    pub(crate) fn place_with_inputs(&self, session: &Arc<Session>) -> Result<Extents, InferError> {
        let (mut inputs, regions, descriptor) = self.room(session)?;
        self.copy_inputs(&mut inputs);
        Ok(extents(inputs, regions, Some(descriptor)))
    }

    /// Room for the inputs and the descriptor in a session, with the descriptor written; device regions are attached to it.
    fn room(&self, session: &Arc<Session>) -> Result<(Ranges, Numbers, OwnedRange), InferError> {
        let regions = self.region_numbers(session)?;
        let byte_sizes = self.inputs.iter().map(Input::region_bytes);
        let inputs = session.allocate_inputs(byte_sizes)?;
        let mut writer = DescriptorWriter::new();
        let request = self.descriptor(inputs.iter(), &regions);
        let bytes = writer.request(&request).map_err(|rejection| {
            InferError::Invalid(Explanation::new(rejection, Some(&request), None))
        })?;
        let mut descriptor = session.allocate_descriptor(bytes.len() as u64)?;
        descriptor.write(bytes);
        Ok((inputs, regions, descriptor))
    }

    /// Another exchange with the same inputs, in a session that takes requests.
    pub(crate) fn duplicate(&self) -> Result<Self, RequestError> {
        let session = self.client.live_session(None)?;
        let mut copy = Self::new(
            self.client.clone(),
            session,
            Arc::clone(&self.target),
            self.inputs.clone(),
            (self.wanted.clone(), self.rooms.clone()),
            self.may_prepare,
        );
        copy.extents = self
            .place_with_inputs(&copy.session)
            .map_err(RequestError::of_placement)?;
        copy.is_any_lost = self.is_any_lost;
        Ok(copy)
    }

    /// Takes the inputs out of a session that runs nothing any more, into private memory: a server that
    /// closes a session takes the session's memory with it.
    #[cold]
    pub(crate) fn leave_session(&mut self) -> Result<(), InferError> {
        if self.is_ashore {
            return Ok(());
        }
        let mut inputs = self.private_room()?;
        self.copy_inputs(&mut inputs);
        // Pages are taken back from the first one on. If that one is still there after the copy, then all
        // were there before it.
        fence(Ordering::Acquire);
        let is_lost = self.session.is_memory_taken_back(RegionKind::Request);
        for input in &mut self.inputs {
            input.is_lost |= is_lost && input.region_bytes() > 0;
        }
        let left = self.place_id;
        let left_extents = extents(inputs, Numbers::new(), None);
        self.begin_in(Arc::clone(&self.session), left_extents);
        self.left_place_id = Some(left);
        self.is_ashore = true;
        Ok(())
    }

    /// Takes over what was written, since the request left its session, where the input lay there; false if
    /// it lay elsewhere, or the bytes are gone.
    pub(crate) fn catch_up(&mut self, index: usize, place_id: u64, place: &InputPlace) -> bool {
        let is_there = || !place.session().is_memory_taken_back(RegionKind::Request);
        if self.left_place_id != Some(place_id) || !is_there() {
            return false;
        }
        let Some(to) = self.extents.inputs.get_mut(index).and_then(Arc::get_mut) else {
            return false;
        };
        place.range().payload().copy_to(&mut to.payload_mut());
        // As in `leave_session`.
        fence(Ordering::Acquire);
        if is_there() {
            return true;
        }
        self.inputs[index].is_lost = self.inputs[index].byte_size > 0;
        self.is_any_lost |= self.inputs[index].is_lost;
        false
    }

    /// Goes to a session that takes requests, with the inputs as they are; `until` is the limit of the wait for
    /// one.
    #[cold]
    pub(crate) fn move_over(&mut self, until: Option<Instant>) -> Result<(), InferError> {
        self.leave_session()?;
        let session = self.client.live_session(until)?;
        let extents = self.place_with_inputs(&session)?;
        self.begin_in(session, extents);
        self.is_ashore = false;
        Ok(())
    }

    fn private_room(&self) -> Result<Ranges, InferError> {
        let byte_sizes = self.inputs.iter().map(Input::region_bytes);
        let room = byte_sizes
            .clone()
            .map(|byte_size| byte_size.max(1).next_multiple_of(ALIGNMENT));
        let arena = Arena::private(room.sum()).map_err(|error| ConnectError::System {
            what: "keeping the inputs of a request",
            source: error.errno().into(),
        })?;
        let ranges = byte_sizes.map(|byte_size| arena.allocate(byte_size));
        Ok(ranges
            .collect::<Option<_>>()
            .expect("the arena was made as large as they are"))
    }

    fn copy_inputs(&self, to: &mut Ranges) {
        for (from, to) in self.extents.inputs.iter().zip(to) {
            from.payload().copy_to(&mut to.payload_mut());
        }
    }
}

fn extents(inputs: Ranges, regions: Numbers, descriptor: Option<OwnedRange>) -> Extents {
    Extents {
        inputs: inputs.into_iter().map(Arc::new).collect(),
        regions,
        descriptor,
    }
}
