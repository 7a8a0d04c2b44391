//! A checked request, wherever it came from, and its way through queue and batch.

use std::sync::Arc;

use adjoin_backend::{BindingKey, Input};
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{Payload, padding};
use smallvec::SmallVec;

use super::{Claim, ModelVersion, ResolvedOutput};
use crate::ensemble::{StepSink, StepTensor};
use crate::session::Session;
use crate::session::device_regions::DeviceTensors;
use crate::session::response::ResponseBlock;

/// Where the payload of a request's inputs lies.
#[derive(Debug)]
pub enum Source {
    /// In the request region of a session.
    Session(Arc<Session>),
    /// In memory of the server (a gRPC body), one buffer for each input of the model.
    Owned(Vec<bytes::Bytes>),
    /// Where the request of an ensemble and its earlier steps have it, one tensor for each input of the model.
    Steps(SmallVec<[StepTensor; 4]>),
}

/// An input of a checked request.
#[derive(Clone, Debug)]
pub struct InputPlace {
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Shape,
    /// Offset in the request region; of no meaning for others.
    pub offset: u64,
    /// Bytes.
    pub byte_size: u64,
}

/// A request that fits its model. Kept for as long as it is prepared, so everything that changes from
/// one run to the next is in [`Job`].
#[derive(Debug)]
pub struct Request {
    /// The model version that runs it.
    pub version: Arc<ModelVersion>,
    /// Where the payload lies.
    pub source: Source,
    /// One for each input of the model, in its order.
    pub inputs: SmallVec<[InputPlace; 4]>,
    /// One for each output of the model, in its order.
    pub outputs: SmallVec<[ResolvedOutput; 4]>,
    /// Those of them that lie on the device, in regions of the session.
    pub device: Option<Box<DeviceTensors>>,
    /// Rows, at least 1.
    pub rows: u32,
    /// Equal for requests that can be joined.
    pub compatibility: u64,
    /// Names its places for the engine, if they come again.
    pub key: Option<BindingKey>,
    /// Keeps the version loaded until the request is over. `None` for requests of sessions: they are resolved and
    /// queued with the lead in hand, and those that are kept must not hold a version that drains.
    pub claim: Option<Claim>,
}

/// Who gets the outcome.
#[derive(Debug)]
pub enum Sink {
    /// The completion ring of the session that the request came from.
    Session {
        /// Set for a prepared request: its number.
        prepared: Option<u32>,
    },
    /// A task that waits for it; taken when it is told.
    Reply(Option<tokio::sync::oneshot::Sender<Outcome>>),
    /// The run of an ensemble that this is a step of.
    Step(StepSink),
}

/// One run of a request.
#[derive(Debug)]
pub struct Job {
    /// What to run.
    pub request: Arc<Request>,
    /// The sender's number for it.
    pub request_id: u64,
    /// Who gets the outcome.
    pub sink: Sink,
    /// Where the outputs go.
    pub response: Box<ResponseBlock>,
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// `Ok`, or why there are no outputs.
    pub status: Status,
    /// Details of another status.
    pub detail: [u64; 2],
    /// What more there is to say of it, to those who can be told in words. No path, no name of another client.
    pub reason: Option<Box<str>>,
    /// Rows of the batch that it ran in; 0 if it did not run.
    pub batch_size: u32,
    /// From intake to the start of the batch.
    pub queue_ns: u64,
    /// Joining the inputs of the batch.
    pub gather_ns: u64,
    /// Time in the engine.
    pub execute_ns: u64,
    /// Handing the outputs of the batch back.
    pub scatter_ns: u64,
    /// The block, for those who reply from private memory.
    pub response: Option<Box<ResponseBlock>>,
}

impl Request {
    /// The payload of an input; of one on the device, what stands for it.
    ///
    /// # Panics
    /// Never for a checked request: its extents were compared with the region.
    pub fn payload(&self, index: usize) -> Payload<'_> {
        let on_device = self.device.as_ref().and_then(|device| device.input(index));
        if let Some(payload) = on_device {
            return payload;
        }
        match &self.source {
            Source::Session(session) => {
                let place = &self.inputs[index];
                let region = session.memory().request();
                region
                    .payload(place.offset, place.byte_size)
                    .expect("extents were checked against the region")
            }
            Source::Owned(buffers) => Payload::from_slice(&buffers[index]),
            Source::Steps(tensors) => tensors[index].parts().2,
        }
    }

    /// Whether a client may be writing an input while it is read.
    #[must_use]
    pub fn is_shared(&self, index: usize) -> bool {
        match &self.source {
            Source::Session(_) => true,
            Source::Owned(_) => false,
            Source::Steps(tensors) => tensors[index].is_shared(),
        }
    }

    /// Whether an input begins where engines are promised it: the bytes of a message lie wherever the parser left them.
    #[must_use]
    pub fn is_aligned(&self, index: usize) -> bool {
        match &self.source {
            Source::Session(_) => true,
            Source::Owned(tensors) => padding(tensors[index].as_ptr().addr()) == 0,
            Source::Steps(tensors) => tensors[index].is_aligned(),
        }
    }

    /// Whether the transport has copied the payload on its way here, in a message or from a named region.
    #[must_use]
    pub fn came_by_copy(&self) -> bool {
        matches!(self.source, Source::Owned(_))
    }

    /// An input as the engine gets it when the request runs where it lies.
    pub fn input(&self, index: usize) -> Input<'_> {
        let place = &self.inputs[index];
        Input::whole(place.dtype, &place.shape, self.payload(index))
    }
}

impl Outcome {
    /// A run that did not take place.
    pub fn refused(status: Status, detail: [u64; 2]) -> Self {
        Self {
            status,
            detail,
            reason: None,
            batch_size: 0,
            queue_ns: 0,
            gather_ns: 0,
            execute_ns: 0,
            scatter_ns: 0,
            response: None,
        }
    }
}
