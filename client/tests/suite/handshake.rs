//! What a connection meets instead of a server.

use std::time::Duration;

use adjoin_client::{Client, ConnectError, Status};
use adjoin_schema::attach::{AttachMessage, Refusal, Welcome};
use adjoin_shm::socket::AttachSocket;

use crate::{Ground, options};

/// What the client says when the server does this after the hello.
fn connect_to(answer: impl FnOnce(AttachSocket) + Send + 'static) -> ConnectError {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || answer(fake.greet().0));
    let error = options().connect(ground.dir.path()).unwrap_err();
    server.join().unwrap();
    error
}

fn refuse(status: Status, detail: [u64; 2]) -> ConnectError {
    connect_to(move |socket| {
        let refusal = AttachMessage::Refusal(Refusal {
            query_id: 0,
            status: status as u16,
            detail,
        });
        socket.send(&refusal.encode(), &[]).unwrap();
    })
}

#[test]
fn session_is_opened_and_known() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    assert_eq!(client.server_version(), "fake");
    assert!(client.session_id() > 0);
    assert_eq!(client.in_flight_max(), 8);
    assert_eq!(client.socket_dir(), ground.dir.path());
    drop(client);
    server.join().unwrap();
}

#[test]
fn no_server_says_where_and_what_to_do() {
    let ground = Ground::new();
    let error = Client::connect(ground.dir.path()).unwrap_err();
    assert!(matches!(error, ConnectError::NoServer { .. }), "{error:?}");
    let text = error.to_string();
    let path = ground.dir.path().join("attach.sock");
    assert!(
        text.contains(&path.display().to_string()) && text.contains("adjoin serve"),
        "{text}"
    );

    drop(ground.fake());
    let text = Client::connect(ground.dir.path()).unwrap_err().to_string();
    assert!(text.contains("nobody listens"), "{text}");

    let file = ground.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Client::connect(file).unwrap_err();
    assert!(matches!(error, ConnectError::NoServer { .. }), "{error:?}");
    let error = Client::connect("/x".repeat(100)).unwrap_err();
    assert!(matches!(error, ConnectError::NoServer { .. }), "{error:?}");
}

#[test]
fn refusals_are_explained() {
    let error = refuse(Status::MemoryQuotaExceeded, [1000, 10]);
    assert_eq!(error.status(), Some(Status::MemoryQuotaExceeded));
    assert!(
        error
            .to_string()
            .contains("wants 1000 bytes and 10 are left"),
        "{error}"
    );

    let error = refuse(Status::ProtocolMismatch, [1, 7]);
    let ConnectError::ProtocolMismatch { client, server } = error else {
        panic!("{error:?}");
    };
    assert_eq!((client, server), (1, 7));
}

#[test]
fn impossible_sizes_are_refused_without_a_server() {
    let ground = Ground::new();
    for options in [options().ring_entries(9), options().request_bytes(1)] {
        let error = options.connect(ground.dir.path()).unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
    }
}

#[test]
fn what_is_no_server_is_called_so() {
    let error = connect_to(drop);
    assert!(matches!(error, ConnectError::Closed { .. }), "{error:?}");
    let garbage = connect_to(|socket| socket.send(b"HTTP/1.1 400", &[]).unwrap());
    let other = connect_to(|socket| {
        let hello = AttachMessage::Hello(Default::default());
        socket.send(&hello.encode(), &[]).unwrap();
    });
    let welcome = |welcome: Welcome| {
        let packet = AttachMessage::Welcome(welcome).encode();
        connect_to(move |socket| socket.send(&packet, &[]).unwrap())
    };
    let sizes = Welcome {
        protocol: 1,
        request_bytes: 256 << 10,
        response_bytes: 256 << 10,
        ring_entries: 8,
        ..Welcome::default()
    };
    let without_fds = welcome(sizes.clone());
    let too_large = welcome(Welcome {
        request_bytes: 1 << 40,
        ..sizes.clone()
    });
    let impossible = welcome(Welcome {
        ring_entries: 7,
        ..sizes
    });
    for error in [garbage, other, without_fds, too_large, impossible] {
        assert!(
            matches!(error, ConnectError::NotAServer { .. }),
            "{error:?}"
        );
    }

    let ground = Ground::new();
    let path = ground.dir.path().join("attach.sock");
    let _stream = std::os::unix::net::UnixListener::bind(path).unwrap();
    let error = Client::connect(ground.dir.path()).unwrap_err();
    assert!(
        matches!(error, ConnectError::NotAServer { .. }),
        "{error:?}"
    );
}

#[test]
fn memory_that_could_shrink_is_refused() {
    let error = connect_to(|socket| {
        let plain = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&plain, 256 << 10).unwrap();
        let welcome = AttachMessage::Welcome(Welcome {
            protocol: 1,
            request_bytes: 256 << 10,
            response_bytes: 256 << 10,
            ring_entries: 8,
            ..Welcome::default()
        });
        let fd = std::os::fd::AsFd::as_fd(&plain);
        socket.send(&welcome.encode(), &[fd, fd, fd]).unwrap();
    });
    assert!(matches!(error, ConnectError::System { .. }), "{error:?}");
}

#[test]
fn silent_server_times_out() {
    let ground = Ground::new();
    let _fake = ground.fake();
    let error = options()
        .answer_timeout(Duration::from_millis(30))
        .connect(ground.dir.path())
        .unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
}

#[test]
fn server_that_drops_connections_unread_is_named() {
    let ground = Ground::new();
    let path = ground.dir.path().join("attach.sock");
    let listener = adjoin_shm::socket::AttachListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        // Accepted and closed before the hello is read: the client sees a reset.
        let accepted = loop {
            if let Ok(socket) = listener.accept() {
                break socket;
            }
            std::thread::yield_now();
        };
        accepted.wait_readable(Duration::from_secs(20)).unwrap();
        drop(accepted);
    });
    let error = options().connect(ground.dir.path()).unwrap_err();
    assert!(matches!(error, ConnectError::Closed { .. }), "{error:?}");
    server.join().unwrap();
}
