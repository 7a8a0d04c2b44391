//! Regions on a device: what the client asks of servers that know them, and of those that do not.

use std::os::fd::OwnedFd;
use std::time::Duration;

use adjoin_client::{ExportedMemory, InferError, RequestError, Status, TensorError};
use adjoin_schema::attach::{AttachMessage, DeviceAttached, Refusal, features};
use adjoin_schema::descriptor::parse_request;
use adjoin_schema::layout::RegionKind;

use crate::fake::{Fake, Peer};
use crate::ground::{Ground, options};

const BYTES: u64 = 1 << 20;

fn memory() -> ExportedMemory {
    let descriptor: OwnedFd = tempfile::tempfile().unwrap().into();
    ExportedMemory {
        descriptor,
        byte_size: BYTES,
        device_uuid: [5; 16],
    }
}

/// Serves a session whose server knows device regions. Each that is attached gets the next number, or what `answer` says.
fn serve(
    fake: Fake,
    answer: impl Fn(u64, u32) -> AttachMessage + Send + 'static,
) -> std::thread::JoinHandle<Peer> {
    std::thread::spawn(move || {
        let (socket, hello) = fake.greet();
        let mut peer = Peer::welcome_with(socket, &hello, features::ALL);
        peer.attach = Some(Box::new(answer));
        // It has no device, so it runs nothing.
        peer.run(&mut |_, _| {});
        peer
    })
}

fn number(query_id: u64, region: u32) -> AttachMessage {
    AttachMessage::DeviceAttached(DeviceAttached { query_id, region })
}

#[test]
fn a_server_that_knows_no_device_regions_is_asked_for_none() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let error = client.attach_device(memory()).unwrap_err();
    assert!(matches!(error, InferError::Device(_)), "{error}");
    assert!(error.to_string().contains("of a release"), "{error}");
    // An unknown message would have ended the session.
    client.model("double").unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_request_names_the_numbers_that_its_session_gave() {
    let ground = Ground::new();
    let server = serve(ground.fake(), number);
    let client = ground.client();
    let [first, second] = [(), ()].map(|()| client.attach_device(memory()).unwrap());
    let model = client.model("double").unwrap();
    let builder = model.request().input_on_device("x", &[2, 4], &second, 64);
    let builder = builder.unwrap();
    let builder = builder.output_on_device("y", &first, 128, 512).unwrap();
    let twice = builder.clone().output_on_device("y", &second, 0, 32);
    assert!(matches!(twice, Err(RequestError::OutputRepeated { .. })));
    let unknown = builder.clone().output_on_device("z", &second, 0, 32);
    assert!(matches!(unknown, Err(RequestError::OutputUnknown { .. })));
    let mut request = builder.outputs(&[]).build().unwrap();
    let info = request.input_at(0).unwrap();
    assert!(info.is_on_device && info.byte_size == 32);
    let refused = request.input_mut::<f32>("x").unwrap_err();
    assert!(matches!(refused, TensorError::OnDevice { .. }), "{refused}");
    let pending = request.submit().unwrap();
    drop((first, second, pending, model, client));
    let mut peer = server.join().unwrap();
    let entry = peer.log[0];
    let mut copy = Vec::new();
    let region = peer.memory.request();
    region
        .copy_out(entry.offset, u64::from(entry.size), &mut copy)
        .unwrap();
    let regions = Known(peer.memory.layout().payload(RegionKind::Request));
    let seen = parse_request(&copy, &regions).unwrap();
    let input = &seen.inputs[0];
    assert_eq!((input.region, input.offset, input.byte_size), (2, 64, 32));
    let room = seen.rooms[0];
    assert_eq!((room.region, room.offset, room.byte_size), (1, 128, 512));
    // When nothing named them any more.
    peer.detached.sort_unstable();
    assert_eq!(peer.detached, [1, 2]);
}

struct Known(std::ops::Range<u64>);

impl adjoin_schema::descriptor::Regions for Known {
    fn payload(&self, region: u32) -> Option<std::ops::Range<u64>> {
        match region {
            0 => Some(self.0.clone()),
            1 | 2 => Some(0..BYTES),
            _ => None,
        }
    }
}

#[test]
fn a_refusal_is_told_and_the_session_goes_on() {
    let ground = Ground::new();
    let server = serve(ground.fake(), |query_id, _| {
        AttachMessage::Refusal(Refusal {
            query_id,
            status: Status::DeviceQuotaExceeded as u16,
            detail: [BYTES, 5],
        })
    });
    let client = ground.client();
    let error = client.attach_device(memory()).unwrap_err();
    assert_eq!(error.status(), Some(Status::DeviceQuotaExceeded));
    assert!(error.to_string().contains("5 are left"), "{error}");
    client.model("double").unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_region_that_comes_when_nobody_waits_any_more_is_given_back() {
    let ground = Ground::new();
    // The answer to the first question comes with that to the second.
    let late = std::sync::Mutex::new(None);
    let server = serve(ground.fake(), move |query_id, region| {
        let mut late = late.lock().unwrap();
        let answer = late.take().unwrap_or_else(|| number(99, 99));
        *late = Some(number(query_id, region));
        answer
    });
    let client = ground.connect(options().answer_timeout(Duration::from_millis(300)));
    let timed_out = client.attach_device(memory()).unwrap_err();
    assert!(
        matches!(timed_out, InferError::Timeout { .. }),
        "{timed_out}"
    );
    let timed_out = client.attach_device(memory()).unwrap_err();
    assert!(
        matches!(timed_out, InferError::Timeout { .. }),
        "{timed_out}"
    );
    client.model("double").unwrap();
    drop(client);
    let peer = server.join().unwrap();
    // One that was never asked for, and the first.
    assert_eq!(peer.detached, [99, 1]);
}
