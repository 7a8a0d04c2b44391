//! HTTP/1.1 on connections that are ready: who says nothing for too long, before a request or within one, loses the
//! connection.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming as Received;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_stream::StreamExt;
use tower::ServiceExt;
use tower_http::timeout::TimeoutBody;

use super::listen::Incoming;

/// How long the next request may take until its header is there, and each part of a body. Longer than what those wait who
/// ask once a minute.
pub(super) const PATIENCE: Duration = Duration::from_secs(75);

/// Serves until `ending`, and then until the requests that are being worked on are answered.
///
/// # Errors
/// If no more connections come.
pub(super) async fn serve(
    mut incoming: Incoming,
    router: Router,
    patience: Duration,
    ending: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let open = GracefulShutdown::new();
    let mut ending = pin!(ending);
    loop {
        let connection = tokio::select! {
            () = &mut ending => break,
            connection = incoming.next() => connection,
        };
        let Some(connection) = connection.transpose()? else {
            return Err(io::Error::other("the listener has ended"));
        };
        let caller = connection.caller().clone();
        let service = router
            .clone()
            .map_request(move |mut request: Request<Received>| {
                let info = ConnectInfo(caller.clone());
                request.extensions_mut().insert(info);
                request.map(|body| Body::new(TimeoutBody::new(patience, body)))
            });
        let service = TowerToHyperService::new(service);
        let served = open.watch(http.serve_connection(TokioIo::new(connection), service));
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        });
    }
    drop(incoming);
    open.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::to_bytes;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::control::listen::{Limits, ListenerKind, Socket, incoming};

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);

    /// A server that answers with the length of the body, or with what is wrong with it; and what ends it.
    fn serving(patience: Duration) -> (SocketAddr, oneshot::Sender<()>) {
        let router = Router::new().route(
            "/",
            post(async |body: Body| match to_bytes(body, 1 << 20).await {
                Ok(bytes) => format!("<{}>", bytes.len()),
                Err(error) => format!("<{error}>"),
            }),
        );
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            connections: 8,
            handshake: LONG,
            unread: LONG,
            ended: mpsc::unbounded_channel().0,
        };
        let socket = Socket::tcp(listener).unwrap();
        let incoming = incoming(socket, ListenerKind::Http, None, limits);
        let (end, ending) = oneshot::channel();
        tokio::spawn(serve(incoming, router, patience, async {
            let _ = ending.await;
        }));
        (address, end)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
    }

    /// Everything that comes until the server closes the connection.
    async fn all_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        // A reset is as good as an end.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[test]
    fn connections_that_stop_in_a_header_in_a_body_or_before_are_closed() {
        run(async {
            let (address, _end) = serving(SHORT);
            let header = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n";
            let mut connections = Vec::new();
            for sent in [
                &header[..20],
                header,
                &format!("{header}\r\nab"),
                &format!("{header}\r\nabcd"),
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(sent.as_bytes()).await.unwrap();
                connections.push(stream);
            }
            let mut answers = Vec::new();
            for stream in &mut connections {
                answers.push(all_of(stream).await);
            }
            assert_eq!((&*answers[0], &*answers[1]), ("", ""));
            assert!(answers[2].contains("timeout"), "{}", answers[2]);
            // What was whole is answered, and then nothing follows.
            assert!(answers[3].ends_with("<4>"), "{}", answers[3]);
        });
    }

    #[test]
    fn the_end_waits_for_a_request_that_is_under_way() {
        run(async {
            let (address, end) = serving(LONG);
            let mut stream = TcpStream::connect(address).await.unwrap();
            let half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab";
            stream.write_all(half).await.unwrap();
            // The server has read as far once it answers another connection.
            let mut other = TcpStream::connect(address).await.unwrap();
            let whole =
                b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\na";
            other.write_all(whole).await.unwrap();
            assert!(all_of(&mut other).await.ends_with("<1>"));
            end.send(()).unwrap();
            stream.write_all(b"cd").await.unwrap();
            assert!(all_of(&mut stream).await.ends_with("<4>"));
        });
    }
}
