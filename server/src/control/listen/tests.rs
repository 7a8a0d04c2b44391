use std::collections::HashSet;

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_stream::StreamExt;

use super::*;
use crate::config::access::TlsFiles;

const LONG: Duration = Duration::from_secs(600);

fn limits(connections: usize, handshake: Duration) -> Limits {
    Limits {
        connections,
        handshake,
        unread: LONG,
        ended: mpsc::unbounded_channel().0,
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

/// A listener on a free port of the loopback device.
fn listening(kind: ListenerKind, tls: Option<&Tls>, limits: Limits) -> (Incoming, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = incoming(Socket::tcp(listener).unwrap(), kind, tls, limits);
    (incoming, address)
}

/// A client that has said something.
async fn client(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream
}

/// Whether the server has closed a connection. A reset is as good as an end.
async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_))
}

#[test]
fn a_full_listener_closes_what_comes_and_takes_some_again_when_one_goes() {
    run(async {
        let (mut incoming, address) = listening(ListenerKind::Grpc, None, limits(2, LONG));
        let mut ids = HashSet::new();
        let _first = client(address).await;
        let one = incoming.next().await.unwrap().unwrap();
        ids.insert(one.caller().connection_id);
        // One that says nothing has a place as well.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut refused = client(address).await;
        assert!(is_closed(&mut refused).await);
        drop(one);
        let _third = client(address).await;
        let two = incoming.next().await.unwrap().unwrap();
        ids.insert(two.caller().connection_id);
        assert_eq!(ids.len(), 2);
        assert!(ids.iter().all(|id| *id >= 1 << 63));
        assert_eq!(two.caller().listener, ListenerKind::Grpc);
        let Peer::Tcp { certificate, .. } = &two.caller().peer else {
            panic!("{:?}", two.caller());
        };
        assert_eq!(*certificate, None);
    });
}

#[test]
fn silent_connections_are_closed_and_hold_nobody_up() {
    run(async {
        let patient = limits(3, Duration::from_millis(50));
        let (mut incoming, address) = listening(ListenerKind::Http, None, patient);
        let mut silent = TcpStream::connect(address).await.unwrap();
        let _speaking = client(address).await;
        let mut connection = incoming.next().await.unwrap().unwrap();
        let mut byte = [0];
        connection.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
        assert!(is_closed(&mut silent).await);
    });
}

#[test]
fn callers_over_unix_sockets_are_who_the_kernel_says() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let socket = Socket::unix(listener).unwrap();
        let mut incoming = incoming(socket, ListenerKind::Control, None, limits(1, LONG));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let connection = incoming.next().await.unwrap().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        assert_eq!(connection.caller().peer, Peer::Unix { uid, gid });
    });
}

/// An authority, a server's certificate and a client's, as PEM in files.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap());
        let authority = authority.unwrap();
        let write = |name: &str, pem: &str| std::fs::write(directory.path().join(name), pem);
        write("ca.pem", &authority.pem()).unwrap();
        for (name, names, usage) in [
            (
                "server",
                vec!["localhost".to_owned()],
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
            (
                "client",
                vec!["camera.example".to_owned()],
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            let uri = "spiffe://example/camera".try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &authority).unwrap();
            write(&format!("{name}.pem"), &certificate.pem()).unwrap();
            write(&format!("{name}.key"), &key.serialize_pem()).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self, is_mutual: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: is_mutual.then(|| self.path("ca.pem")),
        }
    }

    fn connector(&self, shows_certificate: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("ca.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if shows_certificate {
            let own = CertificateDer::from_pem_file(self.path("client.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
            builder.with_client_auth_cert(vec![own], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        TlsConnector::from(Arc::new(config))
    }
}

#[test]
fn tls_carries_bytes_and_a_certificate_names_its_caller() {
    let certificates = Certificates::new();
    run(async {
        for is_mutual in [false, true] {
            let tls = Tls::load(&certificates.files(is_mutual)).unwrap();
            let (mut incoming, address) =
                listening(ListenerKind::Grpc, Some(&tls), limits(8, LONG));
            // Neither silence nor nonsense holds up who comes after.
            let _silent = TcpStream::connect(address).await.unwrap();
            let mut plain = client(address).await;
            plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = certificates.connector(is_mutual);
            let dial = async { connector.connect(name, stream).await.unwrap() };
            let (mut stream, connection) = tokio::join!(dial, incoming.next());
            let mut connection = connection.unwrap().unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut bytes = [0; 5];
            connection.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"hello");
            let Peer::Tcp { certificate, .. } = &connection.caller().peer else {
                panic!("{:?}", connection.caller());
            };
            let names = certificate
                .as_ref()
                .map(|certificate| &certificate.names[..]);
            let expected = [
                "camera.example".to_owned(),
                "spiffe://example/camera".to_owned(),
            ];
            assert_eq!(names, is_mutual.then_some(&expected[..]));
            // What came plain gets an alert, and the end.
            let mut rest = Vec::new();
            let _ = plain.read_to_end(&mut rest).await;
            assert_eq!(connection.caller().listener, ListenerKind::Grpc);
        }
    });
}

#[test]
fn clients_without_a_certificate_do_not_become_connections_under_mutual_tls() {
    let certificates = Certificates::new();
    run(async {
        let tls = Tls::load(&certificates.files(true)).unwrap();
        let (mut incoming, address) = listening(ListenerKind::Grpc, Some(&tls), limits(8, LONG));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        // The client's side of TLS 1.3 is done before the server has looked at the certificate.
        if let Ok(mut stream) = certificates
            .connector(false)
            .connect(name.clone(), stream)
            .await
        {
            let _ = stream.write_all(b"hello").await;
            assert!(stream.read(&mut [0; 8]).await.is_err());
        }
        // The next one that is ready is the one with a certificate.
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = certificates.connector(true);
        let dial = async { connector.connect(name, stream).await.unwrap() };
        let (_stream, connection) = tokio::join!(dial, incoming.next());
        let connection = connection.unwrap().unwrap();
        assert!(matches!(
            &connection.caller().peer,
            Peer::Tcp {
                certificate: Some(_),
                ..
            }
        ));
    });
}

#[test]
fn files_that_tls_cannot_use_are_named() {
    let certificates = Certificates::new();
    let garbage = certificates.path("garbage");
    std::fs::write(&garbage, "no PEM").unwrap();
    let good = certificates.files(true);
    let cases = [
        (
            TlsFiles {
                certificate: garbage.clone(),
                ..good.clone()
            },
            "access.tls_certificate",
        ),
        (
            TlsFiles {
                certificate: certificates.path("missing"),
                ..good.clone()
            },
            "access.tls_certificate",
        ),
        (
            TlsFiles {
                key: garbage.clone(),
                ..good.clone()
            },
            "access.tls_key",
        ),
        (
            TlsFiles {
                key: certificates.path("client.key"),
                ..good.clone()
            },
            "access.tls_key",
        ),
        (
            TlsFiles {
                client_ca: Some(garbage),
                ..good
            },
            "access.tls_client_ca",
        ),
    ];
    for (files, key) in cases {
        let message = Tls::load(&files).unwrap_err().to_string();
        assert!(message.contains(key), "{message:?} should name {key}");
    }
}

#[test]
fn a_client_that_reads_nothing_loses_its_connection() {
    run(async {
        let limits = Limits {
            unread: Duration::from_millis(300),
            ..limits(2, LONG)
        };
        let (mut incoming, address) = listening(ListenerKind::Http, None, limits);
        let _client = client(address).await;
        let mut connection = incoming.next().await.unwrap().unwrap();
        // Until the buffers of both sides are full, and then until the system gives up.
        let error = loop {
            if let Err(error) = connection.write_all(&[0; 1 << 16]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn the_end_of_a_connection_is_told_once() {
    run(async {
        let (ended, mut told) = mpsc::unbounded_channel();
        let limits = Limits {
            ended,
            ..limits(2, LONG)
        };
        let (mut incoming, address) = listening(ListenerKind::Grpc, None, limits);
        let _client = client(address).await;
        let connection = incoming.next().await.unwrap().unwrap();
        let id = connection.caller().connection_id;
        assert!(told.try_recv().is_err());
        drop(connection);
        assert_eq!(told.recv().await, Some(id));
        assert!(told.try_recv().is_err());
    });
}
