//! A client that writes its request while the engine reads it.

use std::sync::atomic::{AtomicBool, Ordering};

use adjoin_schema::layout::SessionLayout;
use adjoin_shm::{AlignedBuffer, ClientMemory, OwnedRange, Payload, SessionMemory};

use super::memory::{Room, Taker};
use super::suite::{Suite, add_case, expect};
use crate::{
    Dimension, Execution, Input, InputAccess, Instance, ModelMetadata, Output, TensorMetadata,
};

/// Far more than it takes: without the copies that [`InputAccess`] asks for, ONNX Runtime 1.32 dies in
/// `gather` of a read outside of its memory.
const RUNS: usize = 2000;

/// Rows of every input.
const ROWS: i64 = 512;

/// Whatever the bytes become meanwhile, a run ends with some answer or an error, writes its output's own
/// bytes only, and the next client's answers are right.
pub(super) fn scribbler(suite: &Suite<'_>) {
    // Names of models, and whether the size of the output is known before the run.
    for (name, is_known) in [
        ("add", true),
        ("scale_u8", true),
        ("ints", true),
        ("gather", true),
        ("nonzero", false),
    ] {
        let Some(model) = suite.model(name) else {
            continue;
        };
        let layout = SessionLayout::new(1 << 20, 1 << 20, 8).unwrap();
        let server = SessionMemory::create(layout, 1).unwrap();
        let [request, response] = server
            .client_fds()
            .map(|fd| fd.try_clone_to_owned().unwrap());
        let client = ClientMemory::map(layout, &request, &response).unwrap();

        let metadata = model.metadata();
        let shapes: Vec<Vec<i64>> = metadata.inputs.iter().map(shape_of).collect();
        let mut ranges = Vec::new();
        for (tensor, shape) in metadata.inputs.iter().zip(&shapes) {
            let byte_size = tensor.dtype.byte_size(shape).unwrap().unwrap();
            ranges.push(client.request_arena().allocate(byte_size).unwrap());
        }
        // The server's view of the same memory.
        let payloads: Vec<_> = ranges
            .iter()
            .map(|range| (range.offset(), range.byte_size()))
            .map(|(offset, byte_size)| server.request().payload(offset, byte_size).unwrap())
            .collect();

        let is_over = AtomicBool::new(false);
        let mut instance = model.instance().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(ranges, &is_over));
            // Ends the other thread if a run panics, too.
            let _end = SetOnDrop(&is_over);
            for _ in 0..RUNS {
                run(&mut *instance, metadata, is_known, &shapes, &payloads);
            }
        });
        let (inputs, sum) = add_case(3, 1);
        expect(&mut *suite.add(), &inputs, &sum);
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn shape_of(tensor: &TensorMetadata) -> Vec<i64> {
    let sizes = tensor.dimensions.iter().map(Dimension::or_open);
    sizes
        .map(|size| if size < 0 { ROWS } else { size })
        .collect()
}

/// Zeros, small and large numbers, all bits set, in turns.
fn scribble(mut ranges: Vec<OwnedRange>, is_over: &AtomicBool) {
    let mut byte = 0_u8;
    while !is_over.load(Ordering::Relaxed) {
        byte = byte.wrapping_mul(5).wrapping_add(1);
        for range in &mut ranges {
            let byte_size = usize::try_from(range.byte_size()).unwrap();
            for fill in [byte, 0, 0xff] {
                range.write(&vec![fill; byte_size]);
            }
        }
    }
}

/// One run as the server would do it: what is to be copied first is.
fn run(
    instance: &mut dyn Instance,
    metadata: &ModelMetadata,
    is_known: bool,
    shapes: &[Vec<i64>],
    payloads: &[Payload<'_>],
) {
    let mut copies = Vec::new();
    for (tensor, payload) in metadata.inputs.iter().zip(payloads) {
        let byte_size = payload.byte_size();
        let mut copy = AlignedBuffer::new(byte_size).unwrap();
        if tensor.access == InputAccess::CopyFirst {
            payload.copy_to(&mut copy.payload_mut(byte_size));
        }
        copies.push(copy);
    }
    let mut inputs = Vec::new();
    for (index, tensor) in metadata.inputs.iter().enumerate() {
        let payload = match tensor.access {
            InputAccess::CopyFirst => copies[index].payload(payloads[index].byte_size()),
            InputAccess::InPlace | InputAccess::InPieces => payloads[index],
        };
        inputs.push(Input::whole(tensor.dtype, &shapes[index], payload));
    }
    let output = &metadata.outputs[0];
    let mut room = Room::new(output.dtype, &shape_of(output));
    let mut outputs = [if is_known {
        room.output()
    } else {
        Output::Unbound
    }];
    let execution = Execution {
        key: None,
        inputs: &inputs,
        outputs: &mut outputs,
    };
    // The answer is the client's own affair, and an index out of range is an error.
    let _ = instance.run(execution, &mut Taker::default());
    // Panics if something was written around the output.
    let _ = room.tensor();
}
