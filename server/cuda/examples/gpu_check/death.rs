//! A client that is killed while the device reads its memory: the batch ends, the region is given back once nothing reads it,
//! and other sessions go on.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adjoin_cuda::{BatchSlot, SlotSpec};
use adjoin_shm::{ClientMemory, SessionMemory};
use serde_json::{Value, json};

use crate::Failure;
use crate::setup::{COPIES, input, layout, register, session, transfers};

/// The word that makes this program the client.
pub(crate) const CLIENT: &str = "client";

const INPUT_BYTES: usize = 8 << 20;
/// Long enough for a process to begin writing, if it can.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let deaths: u32 = if is_quick { 2 } else { 20 };
    let transfers = transfers(Some(COPIES), 0)?;
    let registry = transfers.registry();
    let neighbour = [session(INPUT_BYTES as u64)?];
    register(&transfers, &neighbour)?;
    let spec = SlotSpec {
        inputs: vec![2 * INPUT_BYTES],
        outputs: Vec::new(),
        pieces_max: 2,
        ..SlotSpec::default()
    };
    let mut slot = BatchSlot::new(&transfers, spec)?;
    let (mut batches, mut after_death) = (0_u32, 0_u32);
    for _ in 0..deaths {
        let memory = session(INPUT_BYTES as u64)?;
        let key = registry.register(memory.request());
        registry.settle();
        let mut client = start_client(&memory)?;
        let mut gather = || -> Result<(), Failure> {
            let pieces = [
                input(&memory, INPUT_BYTES)?,
                input(&neighbour[0], INPUT_BYTES)?,
            ];
            let mut run = slot.begin()?;
            run.gather(0, &pieces)?;
            Ok(run.finish()?)
        };
        let begin = Instant::now();
        // The client shows by its first byte that it writes.
        while input(&memory, 1)?.to_vec() == [0] {
            if begin.elapsed() > PATIENCE {
                client.kill()?;
                client.wait()?;
                return Err("the client did not begin to write".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for turn in 0..6 {
            if turn == 2 {
                client.kill()?;
            }
            gather()?;
            batches += 1;
            after_death += u32::from(turn >= 2);
        }
        client.wait()?;
        registry.retire(key, memory);
        registry.settle();
    }
    let left = registry.stats();
    if left.retired > 0 || left.registered != 2 {
        return Err(format!("memory of dead clients is still registered: {left:?}").into());
    }
    Ok(json!({ "deaths": deaths, "batches": batches, "batches_after_a_death": after_death }))
}

fn start_client(memory: &SessionMemory) -> Result<std::process::Child, Failure> {
    // Our descriptors, as another process reaches them.
    let path = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
    let [request, response] = memory.client_fds();
    let child = Command::new(std::env::current_exe()?)
        .args([
            CLIENT.to_owned(),
            path(request.as_raw_fd()),
            path(response.as_raw_fd()),
        ])
        .stdin(Stdio::null())
        .spawn()?;
    Ok(child)
}

/// Maps a session by the paths of its descriptors, and writes its input until it is killed.
pub(crate) fn client(request: &str, response: &str) -> Result<Value, Failure> {
    let request: OwnedFd = File::options().read(true).write(true).open(request)?.into();
    let response: OwnedFd = File::open(response)?.into();
    let memory = ClientMemory::map(layout(INPUT_BYTES as u64)?, &request, &response)?;
    let mut range = memory
        .request_arena()
        .allocate(INPUT_BYTES as u64)
        .ok_or("no room for the input")?;
    let bytes = range.as_mut_slice::<u8>()?;
    for turn in (1..=u8::MAX).cycle() {
        bytes.fill(turn);
    }
    Ok(Value::Null)
}
