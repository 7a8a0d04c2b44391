//! The parsed form of a response descriptor, kept from one run of a request to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::parse_response;
use adjoin_schema::layout::{CompletionEntry, completion_flags};
use adjoin_schema::limits::DESCRIPTOR_BYTES_MAX;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::ClientMemory;

use crate::device::AnswerRegions;

static LAST_LAYOUT_ID: AtomicU64 = AtomicU64::new(0);

/// An output of a response.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
    /// Whether it lies in a region on a device.
    pub(crate) is_on_device: bool,
}

/// What the last response descriptor says.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    offset: u64,
    /// The descriptor; empty before the first.
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    /// Another number for every descriptor that was parsed; 0 before the first.
    pub(crate) layout_id: u64,
    pub(crate) model_version: u64,
    pub(crate) outputs: Vec<Output>,
}

impl Answer {
    /// Reads the response of a completion, if it is another one than the last; `regions` are where its outputs may lie.
    pub(crate) fn read<'r>(
        &mut self,
        memory: &ClientMemory,
        completion: &CompletionEntry,
        regions: impl FnOnce() -> AnswerRegions<'r>,
    ) -> Result<(), String> {
        let (offset, byte_size) = (completion.response_offset, completion.response_size);
        let is_same = completion.flags & completion_flags::SAME_RESPONSE != 0
            && !self.bytes.is_empty()
            && self.offset == offset
            && self.bytes.len() == byte_size as usize;
        if is_same {
            return Ok(());
        }
        if byte_size > DESCRIPTOR_BYTES_MAX {
            return Err(format!("a response descriptor of {byte_size} bytes"));
        }
        memory
            .response()
            .copy_out(offset, u64::from(byte_size), &mut self.scratch)
            .map_err(|error| format!("a response descriptor outside its region: {error}"))?;
        self.offset = offset;
        if self.scratch == self.bytes && !self.bytes.is_empty() {
            return Ok(());
        }
        // Nothing is kept of the last one, should this one be no good.
        self.bytes.clear();
        self.outputs.clear();
        self.parse(&regions())?;
        std::mem::swap(&mut self.bytes, &mut self.scratch);
        self.layout_id = LAST_LAYOUT_ID.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(())
    }

    fn parse(&mut self, regions: &AnswerRegions<'_>) -> Result<(), String> {
        let response = parse_response(&self.scratch, regions)
            .map_err(|rejection| format!("a response descriptor that is not valid: {rejection}"))?;
        self.model_version = response.model_version;
        self.outputs
            .extend(response.outputs.into_iter().map(|tensor| Output {
                name: tensor.name.to_owned(),
                dtype: tensor.dtype,
                shape: tensor.shape,
                offset: tensor.offset,
                byte_size: tensor.byte_size,
                is_on_device: tensor.region != 0,
            }));
        Ok(())
    }
}
