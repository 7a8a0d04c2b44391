//! TCP under TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use adjoin_tests::wait_for;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use tonic::Code;
use tonic::transport::{Endpoint, Uri};

use super::calls::{Answer, Channels, answer, http, request, runtime};
use super::certificates::Certificates;
use super::table::{Table, methods};
use super::{ALL, Tokens, remote};

const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";

/// A channel under TLS, or why there is none.
fn grpc(address: &str, config: Arc<ClientConfig>) -> Result<Channels, tonic::transport::Error> {
    let runtime = runtime();
    let to = address.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let (to, connector) = (to.clone(), TlsConnector::from(Arc::clone(&config)));
        async move {
            let stream = tokio::net::TcpStream::connect(to).await?;
            let name = "localhost".try_into().map_err(std::io::Error::other)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = runtime.block_on(endpoint.connect_with_connector(connect))?;
    Ok(Channels::over(runtime, channel))
}

/// One request under TLS, or why there was no answer.
fn https(
    address: &str,
    config: Arc<ClientConfig>,
    path: &str,
    token: Option<&str>,
) -> std::io::Result<Answer> {
    let session = ClientConnection::new(config, "localhost".try_into().unwrap());
    let session = session.map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect(address)?);
    stream.write_all(request("GET", path, token).as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    answer(&String::from_utf8(text).unwrap())
}

#[test]
fn all_tcp_listeners_speak_tls_and_plain_clients_get_nothing() {
    let certificates = Certificates::new();
    let tokens = Tokens::new(&Table::read());
    let access = format!("token_file = {:?}", tokens.path());
    let remote = remote(&(certificates.config(false) + &access));
    assert!(!remote.server.log().contains("unencrypted"));

    let channels = grpc(&remote.grpc, certificates.client(None, "h2")).unwrap();
    assert_eq!(channels.call(LIVE, None).code(), Code::Ok);
    assert_eq!(channels.call(INFER, None).code(), Code::Unauthenticated);
    assert_eq!(channels.call(INFER, Some(ALL)).code(), Code::NotFound);
    for (address, path, status) in [
        (&remote.http, "/v2/health/live", 200),
        (&remote.metrics, "/metrics", 401),
    ] {
        let config = certificates.client(None, "http/1.1");
        assert_eq!(https(address, config, path, None).unwrap().status, status);
    }
    let config = certificates.client(None, "http/1.1");
    let metrics = https(&remote.metrics, config, "/metrics", Some(ALL)).unwrap();
    assert_eq!(metrics.status, 200);

    for address in [&remote.grpc, &remote.http, &remote.metrics] {
        let mut stream = TcpStream::connect(address).unwrap();
        let text = request("GET", "/v2/health/live", None);
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    }
}

#[test]
fn under_mutual_tls_a_certificate_is_needed_and_has_its_rights() {
    let table = Table::read();
    let certificates = Certificates::new();
    let config = certificates.config(true) + "tls_client_rights = [\"infer\", \"control\"]\n";
    let remote = remote(&config);
    let channels = grpc(&remote.grpc, certificates.client(Some("client"), "h2")).unwrap();
    for path in methods() {
        let right = table.right_of_method(&path).unwrap();
        let answer = channels.call(&path, None);
        let has_it = ["infer", "control", "health"].contains(&right);
        let is_denied = answer.code() == Code::PermissionDenied;
        assert_eq!(is_denied, !has_it, "{path}: {answer:?}");
    }
    for own in [None, Some("stranger")] {
        // A client may think that it is connected before the server has looked at what it shows.
        if let Ok(channels) = grpc(&remote.grpc, certificates.client(own, "h2")) {
            let answer = channels.call(LIVE, None);
            assert_ne!(answer.code(), Code::Ok, "{own:?}");
        }
        let config = certificates.client(own, "http/1.1");
        let answer = https(&remote.http, config, "/v2/health/live", None);
        assert!(answer.is_err(), "{own:?}: {answer:?}");
    }
    let config = certificates.client(Some("client"), "http/1.1");
    let answer = https(&remote.http, config, "/v2/health/live", None).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_certificate_controls_nothing_where_no_rights_are_named() {
    let certificates = Certificates::new();
    let remote = remote(&certificates.config(true));
    let channels = grpc(&remote.grpc, certificates.client(Some("client"), "h2")).unwrap();
    assert_eq!(channels.call(INFER, None).code(), Code::NotFound);
    assert_eq!(channels.call(LOAD, None).code(), Code::PermissionDenied);
}

#[test]
fn clients_that_say_nothing_keep_nobody_waiting_and_their_number_is_limited() {
    let certificates = Certificates::new();
    for is_tls in [false, true] {
        let access = if is_tls {
            certificates.config(false)
        } else {
            String::new()
        };
        let remote = remote(&format!("{access}\n[limits]\nconnections = 8"));
        let silent = |count: usize| -> Vec<_> {
            let connect = |_| TcpStream::connect(&remote.http).unwrap();
            (0..count).map(connect).collect()
        };
        let live = || {
            let answer = if is_tls {
                let config = certificates.client(None, "http/1.1");
                https(&remote.http, config, "/v2/health/live", None)
            } else {
                http(&remote.http, "GET", "/v2/health/live", None)
            };
            answer.map(|answer| answer.status)
        };
        let seven = silent(7);
        assert_eq!(live().unwrap(), 200);
        // The place of the connection before is free when the server has noticed its end.
        let mut more = Vec::new();
        wait_for("the listener is full", || {
            more.extend(silent(1));
            live().is_err().then_some(())
        });
        // Other listeners have places of their own.
        let channels = if is_tls {
            grpc(&remote.grpc, certificates.client(None, "h2")).unwrap()
        } else {
            Channels::tcp(&remote.grpc)
        };
        assert_eq!(channels.call(LIVE, None).code(), Code::Ok);
        drop(more);
        let status = wait_for("a place is free", || live().ok());
        assert_eq!(status, 200);
        drop(seven);
    }
}
