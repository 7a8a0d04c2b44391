//! The attach socket and the descriptors that come over it, in the wrong hands.

use std::os::fd::AsFd;

use adjoin_schema::attach::{AttachMessage, Hello, ModelQuery};
use adjoin_schema::layout::wait;
use adjoin_schema::status::Status;
use adjoin_shm::doorbell;
use adjoin_shm::socket::AttachSocket;
use adjoin_tests::raw::{RawClient, exchange, hello, receive, refusal};
use adjoin_tests::server::Setup;
use adjoin_tests::wait_for;
use rustix::fs::OFlags;

use crate::neighbour::Neighbour;

#[test]
fn hellos_of_every_wrong_kind_are_refused_with_their_reason() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let said = |bytes: &[u8]| refusal(exchange(&server.socket_dir(), bytes).1);
    let hello_with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        AttachMessage::Hello(hello).encode()
    };
    assert_eq!(said(b"what?").0, Status::HandshakeInvalid);
    assert_eq!(said(&[0xff; 1000]).0, Status::HandshakeInvalid);
    let query = AttachMessage::ModelQuery(ModelQuery {
        query_id: 1,
        model: "add".into(),
        version: 0,
        label: String::new(),
    });
    assert_eq!(said(&query.encode()).0, Status::HandshakeInvalid);
    assert_eq!(
        said(&hello_with(&|h| h.protocol = 0)),
        (Status::ProtocolMismatch, [0, 1])
    );
    assert_eq!(
        said(&hello_with(&|h| h.request_bytes = 0)).0,
        Status::RegionSizeInvalid
    );
    assert_eq!(
        said(&hello_with(&|h| h.response_bytes = u64::MAX)).0,
        Status::RegionSizeInvalid
    );
    assert_eq!(
        said(&hello_with(&|h| h.request_bytes = 1 << 39)).0,
        Status::MemoryQuotaExceeded
    );
    assert_eq!(
        said(&hello_with(&|h| h.ring_entries = 7)).0,
        Status::RingSizeInvalid
    );
    assert_eq!(
        said(&hello_with(&|h| h.ring_entries = 1 << 30)).0,
        Status::RingSizeInvalid
    );
    assert_eq!(
        said(&hello_with(&|h| h.token = Some([0; 16]))).0,
        Status::TokenInvalid
    );
    assert_eq!(
        said(&hello_with(&|h| h.client_name = "n".repeat(65))).0,
        Status::HandshakeInvalid
    );
    // A good hello has no descriptors to bring.
    let socket = AttachSocket::connect(&server.socket_dir().join("attach.sock")).unwrap();
    socket
        .send(&hello_with(&|_| {}), &[socket.as_fd()])
        .unwrap();
    assert_eq!(refusal(receive(&socket)).0, Status::HandshakeInvalid);
    // A packet longer than any message is dropped with its connection.
    let (_, answer) = exchange(&server.socket_dir(), &vec![1; 100_000]);
    assert!(answer.is_none_or(|packet| packet.bytes.is_empty()));
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn descriptors_sent_by_a_client_are_closed() {
    let mut server = Setup::new(&["add"]).start();
    // The server opens its last descriptors when it begins to answer.
    drop(server.client());
    let control = server.control();
    wait_for("the session is gone", || {
        control.sessions().is_empty().then_some(())
    });
    let before = server.descriptors();
    for _ in 0..200 {
        let socket = AttachSocket::connect(&server.socket_dir().join("attach.sock")).unwrap();
        let fds = [socket.as_fd(); 4];
        socket.send(b"take these", &fds).unwrap();
        let _ = receive(&socket);
    }
    wait_for("descriptors are closed", || {
        (server.descriptors() <= before).then_some(())
    });
    assert!(server.is_alive());
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let mut server = Setup::new(&["add"]).start();
    let silent: Vec<_> = (0..300)
        .filter_map(|_| AttachSocket::connect(&server.socket_dir().join("attach.sock")).ok())
        .collect();
    assert!(silent.len() > 64);
    // Those that wait too long are dropped; meanwhile or afterwards a real client gets in.
    let client = wait_for("a client gets in", || {
        adjoin_client::ClientOptions::new()
            .request_bytes(1 << 20)
            .response_bytes(1 << 20)
            .connect(server.socket_dir())
            .ok()
    });
    assert!(client.model("add").is_ok());
    wait_for("silent connections are dropped", || {
        silent.iter().all(AttachSocket::is_hung_up).then_some(())
    });
    assert!(server.is_alive());
}

#[test]
fn garbage_after_the_handshake_ends_that_session() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let session = RawClient::attach(&server.socket_dir());
    session.socket.send(b"garbage", &[]).unwrap();
    assert_eq!(session.ended(), Status::HandshakeInvalid);
    // Questions without end, answers never read: the questioner's own loss.
    let session = RawClient::attach(&server.socket_dir());
    let query = AttachMessage::ModelQuery(ModelQuery {
        query_id: 1,
        model: "add".into(),
        version: 0,
        label: String::new(),
    })
    .encode();
    let mut sent = 0;
    while sent < 100_000 && session.socket.send(&query, &[]).is_ok() {
        sent += 1;
    }
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn a_full_and_blocking_event_descriptor_hangs_nobody() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    // The mode belongs to the description that the server shares; so does the counter.
    rustix::fs::fcntl_setfl(session.event.as_fd(), OFlags::RDWR).unwrap();
    rustix::io::write(session.event.as_fd(), &(u64::MAX - 2).to_ne_bytes()).unwrap();
    for _ in 0..100 {
        doorbell::announce(
            session.memory.client_wait(),
            wait::ASLEEP | wait::SOCKET | wait::STREAM,
        );
        let entry = session.submission(8192, 16);
        session.push_silently(entry);
        session.event.notify();
        wait_for("taken", || {
            let ring = session.memory.submission_ring();
            let load = |word: &std::sync::atomic::AtomicU32| {
                word.load(std::sync::atomic::Ordering::Acquire)
            };
            (load(ring.head) == load(ring.tail)).then_some(())
        });
        let _ = session.completion();
        // Room for the next notification.
        let mut counter = [0; 8];
        let _ = rustix::io::read(session.event.as_fd(), &mut counter);
    }
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn a_storm_of_doorbells_leaves_the_neighbour_its_answers() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let session = RawClient::attach(&server.socket_dir());
    for _ in 0..200_000 {
        session.event.notify();
    }
    assert!(server.is_alive() && session.is_alive());
    neighbour.finish();
}
