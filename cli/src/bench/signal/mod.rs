//! The portable doorbell: tensors and rings in shared memory, wake-ups by messages on a gRPC stream.
//!
//! For clients that can neither use an event descriptor nor sleep on shared memory. The client library
//! has no such mode, so this is one in small: as many prepared requests as the pipeline has, each with a
//! fixed place. As with the other doorbells, no message is sent to a server that looks by itself.

mod session;

use std::time::Instant;

use adjoin_schema::descriptor::{DescriptorWriter, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::{ENTRY_WORDS, SubmissionEntry, SubmissionKind, submit_flags};
use adjoin_shm::{Arena, OwnedRange};
use tokio::runtime::Runtime;

use super::client::Caller;
use super::contents::Contents;
use super::job::Job;
use super::meter::Meter;
use crate::Failure;
use session::Session;

/// A session, and a stream that wakes either side of it.
pub(super) struct SignalCaller {
    runtime: Runtime,
    session: Session,
    slots: Vec<Slot>,
    contents: Contents,
    is_rewritten: bool,
}

/// A request at a fixed place.
struct Slot {
    inputs: Vec<OwnedRange>,
    descriptor: OwnedRange,
    is_prepared: bool,
    began: Instant,
}

impl SignalCaller {
    pub(super) fn new(job: &Job) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let session = runtime.block_on(Session::open(job))?;
        let mut contents = Contents::new(&job.inputs)?;
        let arena = session.arena();
        let mut slots = Vec::new();
        for _ in 0..job.pipeline {
            let mut slot = Slot::new(job, &arena)?;
            slot.write(&mut contents);
            slots.push(slot);
        }
        Ok(Self {
            runtime,
            session,
            slots,
            contents,
            is_rewritten: job.is_rewritten,
        })
    }
}

impl Caller for SignalCaller {
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        let Self {
            runtime,
            session,
            slots,
            contents,
            is_rewritten,
        } = self;
        runtime.block_on(async {
            let mut ready: Vec<usize> = (0..slots.len()).collect();
            let mut waiting = 0;
            let mut goes_on = true;
            loop {
                while goes_on && let Some(number) = ready.pop() {
                    let slot = &mut slots[number];
                    if *is_rewritten {
                        slot.write(contents);
                    }
                    slot.began = Instant::now();
                    session.submit(slot.entry(number)?).await?;
                    waiting += 1;
                }
                if waiting == 0 {
                    return Ok(());
                }
                for completion in session.completions().await? {
                    let ended = Instant::now();
                    let number = usize::try_from(completion.request_id)?;
                    let slot = slots.get_mut(number).ok_or("a completion of no request")?;
                    slot.is_prepared = session.settle(&completion)?;
                    goes_on &= meter.record(slots[number].began, ended);
                    ready.push(number);
                    waiting -= 1;
                }
            }
        })
    }
}

impl Slot {
    fn new(job: &Job, arena: &Arena) -> Result<Self, Failure> {
        let full = || Failure::from("the request region is full");
        let mut inputs = Vec::new();
        for input in &job.inputs {
            inputs.push(
                arena
                    .allocate(input.byte_size.unwrap_or(0))
                    .ok_or_else(full)?,
            );
        }
        let mut request = RequestDescriptor {
            model: &job.model,
            version: job.version,
            label: "",
            inputs: Default::default(),
            outputs: Default::default(),
            rooms: Default::default(),
        };
        for (input, range) in job.inputs.iter().zip(&inputs) {
            request.inputs.push(TensorDescriptor {
                name: &input.name,
                dtype: input.dtype()?,
                shape: input.shape.as_slice().into(),
                region: 0,
                offset: range.offset(),
                byte_size: range.byte_size(),
            });
        }
        let mut writer = DescriptorWriter::new();
        let bytes = writer.request(&request)?;
        let mut descriptor = arena.allocate(bytes.len() as u64).ok_or_else(full)?;
        descriptor.write(bytes);
        Ok(Self {
            inputs,
            descriptor,
            is_prepared: false,
            began: Instant::now(),
        })
    }

    fn write(&mut self, contents: &mut Contents) {
        for (input, bytes) in self.inputs.iter_mut().zip(contents.turn()) {
            input.write(bytes);
        }
    }

    /// The entry that submits this request.
    fn entry(&self, number: usize) -> Result<SubmissionEntry, Failure> {
        let number = u32::try_from(number)?;
        let mut entry = SubmissionEntry::from_words([0; ENTRY_WORDS]);
        entry.kind = SubmissionKind::Submit as u8;
        entry.prepared_id = number;
        entry.request_id = u64::from(number);
        if self.is_prepared {
            entry.flags = submit_flags::PREPARED;
        } else {
            entry.flags = submit_flags::PREPARE;
            entry.offset = self.descriptor.offset();
            entry.size = u32::try_from(self.descriptor.byte_size())?;
        }
        Ok(entry)
    }
}
