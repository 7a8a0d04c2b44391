//! Where the outputs of one run go: a block of the session's response region, or private memory; and those that the client
//! has room for on the device, there.
//!
//! The block of a session holds the response descriptor first, then each output whose size is known
//! before the run. Outputs whose size only the run shows get ranges of their own afterwards.

use adjoin_backend::{Output, SinkError};
use adjoin_schema::descriptor::{
    DescriptorWriter, Rejection, ResponseDescriptor, TensorDescriptor, response_descriptor_bytes,
};
use adjoin_schema::limits::{ALIGNMENT, RANK_MAX};
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{AlignedBytes, Arena, OwnedRange, Payload, PayloadMut};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::ResolvedOutput;
use crate::model::request::Request;

#[derive(Debug)]
enum Room {
    Region { arena: Arena, range: OwnedRange },
    Private(AlignedBytes),
}

/// An output that found its room after the run.
#[derive(Debug)]
pub struct Dynamic {
    index: usize,
    dtype: DataType,
    shape: Shape,
    room: DynamicRoom,
}

#[derive(Debug)]
enum DynamicRoom {
    Region(OwnedRange),
    Private(AlignedBytes),
}

/// Where outputs of unknown size find room while the block itself is lent to the engine.
#[derive(Clone, Debug)]
pub enum DynamicTarget {
    /// In the response region of a session.
    Region(Arena),
    /// In private memory.
    Private,
}

impl Dynamic {
    /// Bytes of the output.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        match &self.room {
            DynamicRoom::Region(range) => range.byte_size(),
            DynamicRoom::Private(room) => room.bytes().len() as u64,
        }
    }
}

impl DynamicTarget {
    /// Copies an output to where it can stay.
    ///
    /// # Errors
    /// If the region has no room for it.
    pub fn store(
        &self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<Dynamic, SinkError> {
        let byte_size = payload.byte_size() as u64;
        let error = SinkError { byte_size };
        if shape.len() > RANK_MAX {
            return Err(error);
        }
        let room = match self {
            Self::Region(arena) => {
                let mut range = arena.allocate(byte_size).ok_or(error)?;
                payload.copy_to(&mut range.payload_mut());
                DynamicRoom::Region(range)
            }
            Self::Private => DynamicRoom::Private(AlignedBytes::holding(payload)),
        };
        Ok(Dynamic {
            index,
            dtype,
            shape: shape.into(),
            room,
        })
    }
}

/// The outputs of one run.
#[derive(Debug)]
pub struct ResponseBlock {
    room: Room,
    /// For each output of the model, where it is in the room, if its size is known and it is wanted.
    places: Places,
    dynamic: Vec<Dynamic>,
    descriptor_size: u32,
    generation: u32,
}

/// An output in private memory.
#[derive(Debug)]
pub struct ReplyOutput<'a> {
    /// Index in the model's outputs.
    pub index: usize,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: &'a [i64],
    /// The bytes.
    pub bytes: &'a [u8],
}

/// An output in private memory, taken out of it.
#[derive(Clone, Debug)]
pub struct OwnedOutput {
    /// Index in the model's outputs.
    pub index: usize,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Shape,
    /// The bytes.
    pub bytes: Bytes,
}

/// For each output of the model, offset and bytes in the room, if it is wanted and known.
type Places = SmallVec<[Option<(usize, usize)>; 4]>;

/// Where the known outputs go in a room of at most `byte_size_max` bytes, and its bytes. Sizes come from shapes
/// that a client chose, so the sum is checked.
fn plan(request: &Request, start: u64, byte_size_max: u64) -> Result<(Places, u64), Rejection> {
    let is_on_device = |index| {
        (request.device.as_ref()).is_some_and(|device| device.output_extent(index).is_some())
    };
    let known = |(index, output): (usize, &ResolvedOutput)| {
        let (_, byte_size) = output.known.as_ref().filter(|_| output.wanted)?;
        (!is_on_device(index)).then_some(*byte_size)
    };
    let next = |end: u64, bytes: u64| {
        end.saturating_add(bytes)
            .checked_next_multiple_of(ALIGNMENT)
            .unwrap_or(u64::MAX)
    };
    let outputs = || request.outputs.iter().enumerate();
    let needed = outputs().filter_map(known).fold(start, next);
    if needed > byte_size_max {
        return Err(Rejection::new(
            Status::ResponseRegionFull,
            [needed, byte_size_max],
        ));
    }
    // From here on everything lies below `needed`, which is bytes of memory.
    let mut end = start;
    let mut places = Places::new();
    for output in outputs() {
        let Some(byte_size) = known(output) else {
            places.push(None);
            continue;
        };
        let (Ok(at), Ok(size)) = (usize::try_from(end), usize::try_from(byte_size)) else {
            return Err(Status::Internal.into());
        };
        places.push(Some((at, size)));
        end = next(end, byte_size);
    }
    Ok((places, end))
}

impl ResponseBlock {
    /// A block in a response region.
    ///
    /// # Errors
    /// `ResponseRegionFull` with the bytes needed and the region's.
    pub fn in_arena(arena: &Arena, request: &Request) -> Result<Self, Rejection> {
        let specs = &request.version.signature().metadata().outputs;
        let wanted = specs
            .iter()
            .zip(&request.outputs)
            .filter(|(_, output)| output.wanted);
        let descriptor =
            response_descriptor_bytes(wanted.map(|(spec, _)| (spec.name.as_str(), RANK_MAX)));
        let (places, end) = plan(request, descriptor, arena.capacity())?;
        let full = || Rejection::new(Status::ResponseRegionFull, [end, arena.capacity()]);
        let range = arena.allocate(end).ok_or_else(full)?;
        let room = Room::Region {
            arena: arena.clone(),
            range,
        };
        Ok(Self {
            room,
            places,
            dynamic: Vec::new(),
            descriptor_size: 0,
            generation: 0,
        })
    }

    /// A block in private memory of at most `byte_size_max` bytes.
    ///
    /// # Errors
    /// `ResponseRegionFull` with the bytes needed and the most allowed.
    pub fn private(request: &Request, byte_size_max: u64) -> Result<Self, Rejection> {
        let (places, end) = plan(request, 0, byte_size_max)?;
        let room = Room::Private(AlignedBytes::zeroed(usize::try_from(end).unwrap_or(0)));
        Ok(Self {
            room,
            places,
            dynamic: Vec::new(),
            descriptor_size: 0,
            generation: 0,
        })
    }

    /// Offset in the response region; 0 for private memory.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match &self.room {
            Room::Region { range, .. } => range.offset(),
            Room::Private(_) => 0,
        }
    }

    /// What the client must show to release it.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Whether its descriptor is written and still true.
    #[must_use]
    pub fn is_described(&self) -> bool {
        self.descriptor_size > 0
    }

    /// Whether an output was copied in after the run.
    #[must_use]
    pub fn has_dynamic(&self) -> bool {
        !self.dynamic.is_empty()
    }

    /// Forgets the outputs of an earlier run whose sizes may differ this time.
    pub fn reset_dynamic(&mut self) {
        if !self.dynamic.is_empty() {
            self.dynamic.clear();
            self.descriptor_size = 0;
        }
    }

    /// The outputs for the engine, in the model's order.
    pub fn bind<'a>(&'a mut self, request: &'a Request, bound: &mut SmallVec<[Output<'a>; 4]>) {
        let mut rest = Some(match &mut self.room {
            Room::Region { range, .. } => range.payload_mut(),
            Room::Private(room) => room.payload_mut(),
        });
        let mut passed = 0;
        for (index, (output, place)) in request.outputs.iter().zip(&self.places).enumerate() {
            let on_device = request.device.as_ref();
            let on_device = on_device.and_then(|device| device.output(index));
            let next = match (&output.known, place, on_device) {
                _ if !output.wanted => Output::Skipped,
                (Some((shape, _)), None, Some(payload)) => Output::Bound {
                    dtype: output.dtype,
                    shape,
                    payload,
                },
                (Some((shape, _)), Some((at, byte_size)), _) => {
                    let room = rest.take().expect("put back at the end of each turn");
                    let (_, room) = room.split_at(at - passed);
                    let (payload, room) = room.split_at(*byte_size);
                    passed = at + byte_size;
                    rest = Some(room);
                    Output::Bound {
                        dtype: output.dtype,
                        shape,
                        payload,
                    }
                }
                _ => Output::Unbound,
            };
            bound.push(next);
        }
    }

    /// Room for one known output, to copy rows of a batch into.
    pub fn output_mut(&mut self, index: usize) -> Option<PayloadMut<'_>> {
        let (at, byte_size) = (*self.places.get(index)?)?;
        let all = match &mut self.room {
            Room::Region { range, .. } => range.payload_mut(),
            Room::Private(room) => room.payload_mut(),
        };
        Some(all.split_at(at).1.split_at(byte_size).0)
    }

    /// Where outputs of unknown size find room.
    #[must_use]
    pub fn dynamic_target(&self) -> DynamicTarget {
        match &self.room {
            Room::Region { arena, .. } => DynamicTarget::Region(arena.clone()),
            Room::Private(_) => DynamicTarget::Private,
        }
    }

    /// Adds an output whose size the run has shown.
    pub fn attach(&mut self, output: Dynamic) {
        self.dynamic.push(output);
    }

    /// Writes the descriptor into the block, unless it is there; its bytes.
    ///
    /// # Errors
    /// If it does not fit, which is a fault of the reservation.
    pub fn describe(&mut self, request: &Request) -> Result<u32, Rejection> {
        let Room::Region { range, .. } = &mut self.room else {
            return Ok(0);
        };
        if self.descriptor_size > 0 {
            return Ok(self.descriptor_size);
        }
        let specs = &request.version.signature().metadata().outputs;
        let base = range.offset();
        let device = request.device.as_ref();
        let on_device = |index| device.and_then(|device| device.output_extent(index));
        let mut outputs: SmallVec<[TensorDescriptor<'_>; 4]> = SmallVec::new();
        for (index, output) in request
            .outputs
            .iter()
            .enumerate()
            .filter(|(_, output)| output.wanted)
        {
            let name = specs[index].name.as_str();
            if let (Some((at, byte_size)), Some((shape, _))) = (self.places[index], &output.known) {
                let (offset, byte_size) = (base + at as u64, byte_size as u64);
                outputs.push(TensorDescriptor {
                    name,
                    dtype: output.dtype,
                    shape: shape.clone(),
                    region: 0,
                    offset,
                    byte_size,
                });
            } else if let (Some((region, offset, byte_size)), Some((shape, _))) =
                (on_device(index), &output.known)
            {
                outputs.push(TensorDescriptor {
                    name,
                    dtype: output.dtype,
                    shape: shape.clone(),
                    region,
                    offset,
                    byte_size,
                });
            } else if let Some(found) = self.dynamic.iter().find(|dynamic| dynamic.index == index) {
                let DynamicRoom::Region(range) = &found.room else {
                    continue;
                };
                let (offset, byte_size) = (range.offset(), range.byte_size());
                outputs.push(TensorDescriptor {
                    name,
                    dtype: found.dtype,
                    shape: found.shape.clone(),
                    region: 0,
                    offset,
                    byte_size,
                });
            }
        }
        let mut writer = DescriptorWriter::new();
        let response = ResponseDescriptor {
            model_version: request.version.version(),
            outputs,
        };
        let bytes = writer.response(&response)?;
        if bytes.len() as u64 > range.byte_size() {
            return Err(Status::Internal.into());
        }
        range.write(bytes);
        self.descriptor_size =
            u32::try_from(bytes.len()).map_err(|_| Rejection::from(Status::Internal))?;
        Ok(self.descriptor_size)
    }

    /// The outputs of a private block, in the model's order.
    #[must_use]
    pub fn into_outputs(self, request: &Request) -> Vec<OwnedOutput> {
        let Room::Private(room) = self.room else {
            return Vec::new();
        };
        // Views of one buffer: nothing is copied for those who send it on.
        let bytes = Bytes::from_owner(room);
        let mut dynamic = self.dynamic;
        let mut outputs = Vec::new();
        for (index, output) in request.outputs.iter().enumerate() {
            if let (Some((at, byte_size)), Some((shape, _))) = (self.places[index], &output.known) {
                outputs.push(OwnedOutput {
                    index,
                    dtype: output.dtype,
                    shape: shape.clone(),
                    bytes: bytes.slice(at..at + byte_size),
                });
            } else if let Some(at) = dynamic.iter().position(|found| found.index == index) {
                let found = dynamic.swap_remove(at);
                let DynamicRoom::Private(room) = found.room else {
                    continue;
                };
                outputs.push(OwnedOutput {
                    index,
                    dtype: found.dtype,
                    shape: found.shape,
                    bytes: Bytes::from_owner(room),
                });
            }
        }
        outputs
    }

    /// An output of a private block; `None` if it is not wanted or was not made.
    #[must_use]
    pub fn private_output<'a>(
        &'a self,
        request: &'a Request,
        index: usize,
    ) -> Option<ReplyOutput<'a>> {
        let Room::Private(room) = &self.room else {
            return None;
        };
        let output = request.outputs.get(index).filter(|output| output.wanted)?;
        if let (Some((at, byte_size)), Some((shape, _))) = (self.places[index], &output.known) {
            return Some(ReplyOutput {
                index,
                dtype: output.dtype,
                shape,
                bytes: &room.bytes()[at..at + byte_size],
            });
        }
        let found = self.dynamic.iter().find(|dynamic| dynamic.index == index)?;
        let DynamicRoom::Private(room) = &found.room else {
            return None;
        };
        Some(ReplyOutput {
            index,
            dtype: found.dtype,
            shape: &found.shape,
            bytes: room.bytes(),
        })
    }

    /// Bytes of private memory that it holds.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        let Room::Private(room) = &self.room else {
            return 0;
        };
        let dynamic = self.dynamic.iter().map(Dynamic::byte_size);
        room.bytes().len() as u64 + dynamic.sum::<u64>()
    }
}
