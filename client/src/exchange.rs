//! One request, its memory, and where it stands: idle, with the server, or answered.
//!
//! [`Request`](crate::Request), [`Pending`](crate::Pending) and [`Response`](crate::Response) are the
//! same exchange seen at these three moments. Whatever moment it is dropped at, what it holds goes
//! back when nobody uses it any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::{OutputRoom, Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::CompletionEntry;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{OwnedRange, SpinBudget};
use smallvec::SmallVec;

use crate::answer::Answer;
use crate::device::{DevicePlace, DeviceRoom};
use crate::inflight::Ticket;
use crate::model::Target;
use crate::reclaim::{Extents, Orphan, Preparation};
use crate::session::{Session, Standing};
use crate::{Client, Explanation, TensorError};

/// An input of a request.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Index in the model's description, where its name is.
    pub(crate) spec: usize,
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    pub(crate) byte_size: u64,
    /// Where it lies, if not in the request region.
    pub(crate) on_device: Option<DevicePlace>,
    /// Its bytes went with an earlier session and were not written again.
    pub(crate) is_lost: bool,
}

impl Input {
    /// Bytes that it takes in the request region.
    pub(crate) fn region_bytes(&self) -> u64 {
        match self.on_device {
            Some(_) => 0,
            None => self.byte_size,
        }
    }
}

/// A request that is with the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) ticket: Ticket,
    pub(crate) deadline_ns: u64,
    pub(crate) priority: u16,
    pub(crate) is_cancelled: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// With its owner.
    Idle,
    /// With the server.
    InFlight(Flight),
    /// With its owner, and the response is out.
    Answered(CompletionEntry),
}

/// See the module's documentation.
pub(crate) struct Exchange {
    pub(crate) client: Client,
    pub(crate) session: Arc<Session>,
    pub(crate) target: Arc<Target>,
    pub(crate) inputs: SmallVec<[Input; 2]>,
    pub(crate) extents: Extents,
    /// Names of the wanted outputs; none for all.
    pub(crate) wanted: Box<[String]>,
    /// Where outputs go that are not to lie in the response region.
    pub(crate) rooms: Box<[DeviceRoom]>,
    pub(crate) may_prepare: bool,
    pub(crate) preparation: Preparation,
    pub(crate) answer: Answer,
    /// Whether the inputs are in private memory, because the session runs nothing any more.
    pub(crate) is_ashore: bool,
    pub(crate) stage: Stage,
    pub(crate) spin: SpinBudget,
    pub(crate) is_any_lost: bool,
    /// Another number whenever the extents are others.
    pub(crate) place_id: u64,
    /// While it is ashore, the number that it had in the session which it left.
    pub(crate) left_place_id: Option<u64>,
}

impl Exchange {
    pub(crate) fn new(
        client: Client,
        session: Arc<Session>,
        target: Arc<Target>,
        inputs: SmallVec<[Input; 2]>,
        (wanted, rooms): (Box<[String]>, Box<[DeviceRoom]>),
        may_prepare: bool,
    ) -> Self {
        Self {
            client,
            target,
            inputs,
            extents: Extents::default(),
            wanted,
            rooms,
            may_prepare,
            preparation: initial(may_prepare),
            answer: Answer::default(),
            is_ashore: false,
            stage: Stage::Idle,
            spin: session.spin_budget(),
            is_any_lost: false,
            place_id: next_place_id(),
            left_place_id: None,
            session,
        }
    }

    pub(crate) fn input_name(&self, input: &Input) -> &str {
        // The index was looked up in this description.
        &self.target.info.inputs[input.spec].name
    }

    /// What the request says to the server, about its inputs in `ranges`, and about those and the rooms in device regions
    /// of these numbers.
    pub(crate) fn descriptor<'r>(
        &self,
        ranges: impl Iterator<Item = &'r OwnedRange>,
        regions: &[u32],
    ) -> RequestDescriptor<'_> {
        let number = |index: usize| regions.get(index).copied().unwrap_or(0);
        let place = |(index, (input, range)): (usize, (&Input, &OwnedRange))| {
            let offset = match &input.on_device {
                Some(place) => place.offset,
                None => range.offset(),
            };
            (number(index), offset)
        };
        let places: SmallVec<[(u32, u64); 2]> = (self.inputs.iter().zip(ranges))
            .enumerate()
            .map(place)
            .collect();
        let tensors = self
            .inputs
            .iter()
            .zip(places)
            .map(|(input, (region, offset))| TensorDescriptor {
                name: self.input_name(input),
                dtype: input.dtype,
                shape: input.shape.clone(),
                region,
                offset,
                byte_size: input.byte_size,
            });
        let rooms = self.rooms.iter().enumerate();
        let rooms = rooms.map(|(index, room)| OutputRoom {
            name: &room.name,
            region: number(self.inputs.len() + index),
            offset: room.place.offset,
            byte_size: room.byte_size,
        });
        RequestDescriptor {
            model: &self.target.info.model,
            version: self.target.version,
            label: &self.target.label,
            inputs: tensors.collect(),
            outputs: self.wanted.iter().map(String::as_str).collect(),
            rooms: rooms.collect(),
        }
    }

    pub(crate) fn explain(&self, rejection: Rejection) -> Explanation {
        let inputs = self.extents.inputs.iter().map(|range| &**range);
        let request = self.descriptor(inputs, &self.extents.regions);
        Explanation::new(rejection, Some(&request), Some(&self.target.info))
    }

    /// The extent of an input, to be written by its one owner.
    pub(crate) fn input_range(&mut self, index: usize) -> Result<&mut OwnedRange, TensorError> {
        let range = Arc::get_mut(self.shared_input(index)?);
        range.ok_or(TensorError::Shared)
    }

    /// The extent of an input, to be written by those who share it.
    pub(crate) fn shared_input(
        &mut self,
        index: usize,
    ) -> Result<&mut Arc<OwnedRange>, TensorError> {
        if !self.session.is_ours() {
            return Err(TensorError::Forked);
        }
        let count = self.inputs.len();
        if index >= count {
            return Err(TensorError::IndexOutOfRange { index, count });
        }
        if self.inputs[index].on_device.is_some() {
            let name = self.input_name(&self.inputs[index]).to_owned();
            return Err(TensorError::OnDevice { name });
        }
        self.release_answer();
        if self.session.standing() != Standing::Serving {
            // What is written now must not go with the session. Where there is no room to keep it, it may.
            let _ = self.leave_session();
        }
        if self.is_any_lost {
            self.inputs[index].is_lost = false;
            self.is_any_lost = self.inputs.iter().any(|input| input.is_lost);
        }
        Ok(&mut self.extents.inputs[index])
    }

    /// Gives the last response back. That of a prepared request stays until it is submitted again.
    pub(crate) fn release_answer(&mut self) {
        if let Stage::Answered(last) = self.stage {
            self.stage = Stage::Idle;
            if !matches!(self.preparation, Preparation::Done(_)) {
                self.session.release(&last);
            }
        }
    }

    /// Asks the server to drop the request.
    pub(crate) fn cancel(&mut self) {
        if let Stage::InFlight(flight) = &mut self.stage
            && self.session.is_ours()
            && !flight.is_cancelled
        {
            flight.is_cancelled = true;
            self.session.cancel(flight.ticket);
        }
    }

    /// The completion of an answered exchange.
    pub(crate) fn completion(&self) -> Option<&CompletionEntry> {
        match &self.stage {
            Stage::Answered(completion) => Some(completion),
            _ => None,
        }
    }

    /// The claim on a slot, while the request is with the server.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self.stage {
            Stage::InFlight(flight) => Some(flight.ticket),
            _ => None,
        }
    }

    /// What the server keeps for this request goes back, and it begins anew with other extents.
    pub(crate) fn begin_in(&mut self, session: Arc<Session>, extents: Extents) {
        self.session.retire(self.preparation, self.completion());
        self.place_id = next_place_id();
        self.left_place_id = None;
        self.extents = extents;
        self.preparation = initial(self.may_prepare);
        self.answer = Answer::default();
        self.stage = Stage::Idle;
        self.spin = session.spin_budget();
        self.session = session;
        self.is_any_lost = self.inputs.iter().any(|input| input.is_lost);
    }
}

/// A number that no place of a request had before.
fn next_place_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Whether the next submission asks for a preparation.
pub(crate) fn initial(may_prepare: bool) -> Preparation {
    if may_prepare {
        Preparation::Wanted
    } else {
        Preparation::Off
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("session", &self.session.facts.session_id)
            .field("model", &self.target.info.model)
            .field("inputs", &self.inputs)
            .field("preparation", &self.preparation)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let extents = std::mem::take(&mut self.extents);
        if !self.session.is_ours() {
            return extents.forget();
        }
        let Stage::InFlight(flight) = self.stage else {
            return self.session.retire(self.preparation, self.completion());
        };
        self.session.try_harvest();
        if !self.session.inflight.is_done(flight.ticket) {
            self.cancel();
        }
        let orphan = Box::new(Orphan {
            extents,
            preparation: self.preparation,
        });
        let inflight = &self.session.inflight;
        if let Err(orphan) = inflight.abandon(flight.ticket, orphan) {
            let completion = inflight.peek(flight.ticket);
            inflight.free(flight.ticket);
            self.session.bury(&orphan, &completion);
        }
    }
}
