//! Descriptors: FlatBuffers that say what a request or a response holds.
//!
//! The reader copies the bytes out of shared memory first and gives the copy to [`parse_request`] or
//! [`parse_response`]. The FlatBuffers verifier only proves that the buffer can be walked; that
//! extents lie in their region (`extents`), that sizes follow from shapes, that nothing overlaps, is
//! checked here, in one place, for every request that comes through shared memory.

mod extents;

use std::fmt;

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, VerifierOptions, WIPOffset};
use smallvec::SmallVec;

pub use self::extents::{Extent, Regions};
use crate::generated::adjoin::wire;
use crate::limits::{
    ALIGNMENT, DESCRIPTOR_BYTES_MAX, LABEL_BYTES_MAX, MODEL_NAME_BYTES_MAX, RANK_MAX,
    TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};
use crate::status::Status;
use crate::{DataType, Shape};

/// A refusal as it travels: a status and the values that its documentation lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What was wrong.
    pub status: Status,
    /// The values; see the status.
    pub detail: [u64; 2],
}

impl Rejection {
    /// A refusal with details.
    pub const fn new(status: Status, detail: [u64; 2]) -> Self {
        Self { status, detail }
    }
}

impl From<Status> for Rejection {
    fn from(status: Status) -> Self {
        Self {
            status,
            detail: [0; 2],
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::text::explain(*self, None, None))
    }
}

impl std::error::Error for Rejection {}

/// A tensor in a region. Names borrow from the private copy of the descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDescriptor<'a> {
    /// Name of the model's input or output.
    pub name: &'a str,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions, none below zero.
    pub shape: Shape,
    /// 0: the session's own region. Otherwise the number of a device region of the session.
    pub region: u32,
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes of the payload.
    pub byte_size: u64,
}

/// Where an output goes that is not to lie in the response region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRoom<'a> {
    /// Name of the model's output.
    pub name: &'a str,
    /// Number of a device region of the session.
    pub region: u32,
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes of the room; the output may be smaller.
    pub byte_size: u64,
}

/// What a submission asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestDescriptor<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Version; 0 for the newest ready one, or the one that `label` stands for.
    pub version: u64,
    /// Version label; empty for none.
    pub label: &'a str,
    /// Inputs, each within the region, none overlapping another.
    pub inputs: SmallVec<[TensorDescriptor<'a>; 4]>,
    /// Wanted outputs; empty for all.
    pub outputs: SmallVec<[&'a str; 4]>,
    /// Rooms in device regions, which share no byte with an input or each other.
    pub rooms: SmallVec<[OutputRoom<'a>; 2]>,
}

/// What a completion gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseDescriptor<'a> {
    /// The version that ran.
    pub model_version: u64,
    /// Outputs in the response region.
    pub outputs: SmallVec<[TensorDescriptor<'a>; 4]>,
}

fn options() -> VerifierOptions {
    VerifierOptions {
        max_depth: 4,
        max_tables: 2 * TENSORS_MAX + 2,
        // A vector of offsets may name one table many times; this bounds what a walk can touch.
        max_apparent_size: 4 * DESCRIPTOR_BYTES_MAX as usize,
        ignore_missing_null_terminator: false,
    }
}

/// Reads a request from a private copy of its descriptor. `regions` says where tensors may lie.
///
/// # Errors
/// The first thing that is wrong, with its values. Rooms count as tensors behind the inputs.
pub fn parse_request<'a>(
    copy: &'a [u8],
    regions: &impl Regions,
) -> Result<RequestDescriptor<'a>, Rejection> {
    let root = flatbuffers::root_with_opts::<wire::InferRequest<'_>>(&options(), copy)
        .map_err(|_| Rejection::from(Status::DescriptorInvalid))?;
    let label = root.label().unwrap_or("");
    let wanted = root.outputs();
    let output_count = wanted.map_or(0, |names| names.len());
    if !crate::text::is_model_name(root.model())
        || label.len() > LABEL_BYTES_MAX
        || output_count > TENSORS_MAX
    {
        return Err(Status::DescriptorInvalid.into());
    }
    let outputs: SmallVec<[&str; 4]> = wanted.into_iter().flatten().collect();
    if outputs
        .iter()
        .any(|name| name.len() > TENSOR_NAME_BYTES_MAX)
    {
        return Err(Status::DescriptorInvalid.into());
    }
    let inputs = parse_tensors(root.inputs(), regions)?;
    let rooms = match root.rooms() {
        Some(rooms) => parse_rooms(rooms, inputs.len(), regions)?,
        None => SmallVec::new(),
    };
    extents::check_overlap(
        inputs
            .iter()
            .map(TensorDescriptor::extent)
            .chain(rooms.iter().map(OutputRoom::extent)),
    )?;
    Ok(RequestDescriptor {
        model: root.model(),
        version: root.version(),
        label,
        inputs,
        outputs,
        rooms,
    })
}

/// Reads a response from a private copy of its descriptor.
///
/// # Errors
/// As [`parse_request`].
pub fn parse_response<'a>(
    copy: &'a [u8],
    regions: &impl Regions,
) -> Result<ResponseDescriptor<'a>, Rejection> {
    let root = flatbuffers::root_with_opts::<wire::InferResponse<'_>>(&options(), copy)
        .map_err(|_| Rejection::from(Status::DescriptorInvalid))?;
    let outputs = parse_tensors(root.outputs(), regions)?;
    extents::check_overlap(outputs.iter().map(TensorDescriptor::extent))?;
    Ok(ResponseDescriptor {
        model_version: root.model_version(),
        outputs,
    })
}

type Tensors<'a> = Vector<'a, ForwardsUOffset<wire::Tensor<'a>>>;

fn parse_tensors<'a>(
    tensors: Tensors<'a>,
    regions: &impl Regions,
) -> Result<SmallVec<[TensorDescriptor<'a>; 4]>, Rejection> {
    if tensors.len() > TENSORS_MAX {
        return Err(Status::DescriptorInvalid.into());
    }
    let mut parsed: SmallVec<[TensorDescriptor<'a>; 4]> = SmallVec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        parsed.push(parse_tensor(index as u64, tensor, regions)?);
    }
    Ok(parsed)
}

fn parse_tensor<'a>(
    index: u64,
    tensor: wire::Tensor<'a>,
    regions: &impl Regions,
) -> Result<TensorDescriptor<'a>, Rejection> {
    let reject = |status, second| Err(Rejection::new(status, [index, second]));
    let Some(dtype) = DataType::from_wire(tensor.dtype().0) else {
        return reject(Status::DataTypeUnknown, 0);
    };
    if tensor.name().len() > TENSOR_NAME_BYTES_MAX || tensor.shape().len() > RANK_MAX {
        return reject(Status::DescriptorInvalid, 0);
    }
    let parsed = TensorDescriptor {
        name: tensor.name(),
        dtype,
        shape: tensor.shape().iter().collect(),
        region: tensor.region(),
        offset: tensor.offset(),
        byte_size: tensor.byte_size(),
    };
    match dtype.byte_size(&parsed.shape) {
        Ok(Some(expected)) if expected != parsed.byte_size => {
            return reject(Status::ByteSizeMismatch, expected);
        }
        Ok(_) => {}
        Err(_) => return reject(Status::ShapeMismatch, 0),
    }
    parsed.extent().check(index, regions)?;
    Ok(parsed)
}

type Rooms<'a> = Vector<'a, ForwardsUOffset<wire::OutputRoom<'a>>>;

/// Rooms of a request with so many inputs.
fn parse_rooms<'a>(
    rooms: Rooms<'a>,
    inputs: usize,
    regions: &impl Regions,
) -> Result<SmallVec<[OutputRoom<'a>; 2]>, Rejection> {
    if rooms.len() > TENSORS_MAX {
        return Err(Status::DescriptorInvalid.into());
    }
    let mut parsed: SmallVec<[OutputRoom<'a>; 2]> = SmallVec::with_capacity(rooms.len());
    for (index, room) in rooms.iter().enumerate() {
        let room = OutputRoom {
            name: room.name(),
            region: room.region(),
            offset: room.offset(),
            byte_size: room.byte_size(),
        };
        // The session's own region is not the client's to give: what the server writes lies elsewhere.
        if room.name.len() > TENSOR_NAME_BYTES_MAX || room.region == 0 {
            return Err(Status::DescriptorInvalid.into());
        }
        room.extent().check((inputs + index) as u64, regions)?;
        parsed.push(room);
    }
    Ok(parsed)
}

impl TensorDescriptor<'_> {
    fn extent(&self) -> Extent {
        Extent {
            region: self.region,
            offset: self.offset,
            byte_size: self.byte_size,
        }
    }
}

impl OutputRoom<'_> {
    fn extent(&self) -> Extent {
        Extent {
            region: self.region,
            offset: self.offset,
            byte_size: self.byte_size,
        }
    }
}

/// Writes descriptors. Keeps its buffer, so that a session allocates it once.
#[derive(Default)]
pub struct DescriptorWriter {
    builder: FlatBufferBuilder<'static>,
}

impl fmt::Debug for DescriptorWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DescriptorWriter").finish_non_exhaustive()
    }
}

impl DescriptorWriter {
    /// A writer with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of a request descriptor, valid until the writer is used again.
    ///
    /// # Errors
    /// `DescriptorTooLarge` with the size and the limit.
    pub fn request(&mut self, request: &RequestDescriptor<'_>) -> Result<&[u8], Rejection> {
        self.builder.reset();
        let fbb = &mut self.builder;
        let inputs = write_tensors(fbb, &request.inputs);
        let names: SmallVec<[WIPOffset<&str>; 4]> = request
            .outputs
            .iter()
            .map(|name| fbb.create_string(name))
            .collect();
        let outputs = if names.is_empty() {
            None
        } else {
            Some(fbb.create_vector(&names))
        };
        let label = if request.label.is_empty() {
            None
        } else {
            Some(fbb.create_string(request.label))
        };
        let rooms = write_rooms(fbb, &request.rooms);
        let model = Some(fbb.create_string(request.model));
        let args = wire::InferRequestArgs {
            model,
            version: request.version,
            label,
            inputs: Some(inputs),
            outputs,
            rooms,
        };
        let root = wire::InferRequest::create(fbb, &args);
        fbb.finish(root, None);
        self.finished()
    }

    /// The bytes of a response descriptor, valid until the writer is used again.
    ///
    /// # Errors
    /// As [`DescriptorWriter::request`].
    pub fn response(&mut self, response: &ResponseDescriptor<'_>) -> Result<&[u8], Rejection> {
        self.builder.reset();
        let fbb = &mut self.builder;
        let outputs = Some(write_tensors(fbb, &response.outputs));
        let args = wire::InferResponseArgs {
            model_version: response.model_version,
            outputs,
        };
        let root = wire::InferResponse::create(fbb, &args);
        fbb.finish(root, None);
        self.finished()
    }

    fn finished(&self) -> Result<&[u8], Rejection> {
        let bytes = self.builder.finished_data();
        if bytes.len() > DESCRIPTOR_BYTES_MAX as usize {
            let detail = [bytes.len() as u64, u64::from(DESCRIPTOR_BYTES_MAX)];
            return Err(Rejection::new(Status::DescriptorTooLarge, detail));
        }
        Ok(bytes)
    }
}

type TensorsOffset<'b> = WIPOffset<Vector<'b, ForwardsUOffset<wire::Tensor<'b>>>>;

fn write_tensors<'b>(
    fbb: &mut FlatBufferBuilder<'b>,
    tensors: &[TensorDescriptor<'_>],
) -> TensorsOffset<'b> {
    let offsets: SmallVec<[WIPOffset<wire::Tensor<'b>>; 4]> = tensors
        .iter()
        .map(|tensor| {
            let name = Some(fbb.create_string(tensor.name));
            let shape = Some(fbb.create_vector(&tensor.shape));
            let args = wire::TensorArgs {
                name,
                dtype: tensor.dtype.to_flatbuffer(),
                shape,
                offset: tensor.offset,
                byte_size: tensor.byte_size,
                region: tensor.region,
            };
            wire::Tensor::create(fbb, &args)
        })
        .collect();
    fbb.create_vector(&offsets)
}

type RoomsOffset<'b> = WIPOffset<Vector<'b, ForwardsUOffset<wire::OutputRoom<'b>>>>;

/// `None` for none: a server that knows no rooms reads the same bytes as ever.
fn write_rooms<'b>(
    fbb: &mut FlatBufferBuilder<'b>,
    rooms: &[OutputRoom<'_>],
) -> Option<RoomsOffset<'b>> {
    if rooms.is_empty() {
        return None;
    }
    let offsets: SmallVec<[WIPOffset<wire::OutputRoom<'b>>; 2]> = rooms
        .iter()
        .map(|room| {
            let args = wire::OutputRoomArgs {
                name: Some(fbb.create_string(room.name)),
                region: room.region,
                offset: room.offset,
                byte_size: room.byte_size,
            };
            wire::OutputRoom::create(fbb, &args)
        })
        .collect();
    Some(fbb.create_vector(&offsets))
}

/// Bytes that a response descriptor for outputs with these names and ranks takes at most: what a
/// server reserves before it knows the offsets.
pub fn response_descriptor_bytes<'n>(outputs: impl Iterator<Item = (&'n str, usize)>) -> u64 {
    // Table, vtable, vector headers and padding of a tensor stay below 64 bytes.
    let tensors: u64 = outputs
        .map(|(name, rank)| 64 + name.len() as u64 + 8 * rank as u64 + 8)
        .sum();
    (64 + tensors).next_multiple_of(ALIGNMENT)
}

const _: () = assert!(MODEL_NAME_BYTES_MAX + LABEL_BYTES_MAX < DESCRIPTOR_BYTES_MAX as usize);

#[cfg(test)]
mod tests;
