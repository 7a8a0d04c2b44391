//! Calls of any method and any route, by their paths.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use adjoin_tests::control::ControlPlane;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// A gRPC channel, and the runtime that it lives in.
pub(super) struct Channels {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Channels {
    pub(super) fn tcp(address: &str) -> Self {
        let runtime = runtime();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { runtime, channel }
    }

    pub(super) fn unix(path: &Path) -> Self {
        let plane = ControlPlane::connect(path);
        let channel = plane.channel();
        Self {
            runtime: plane.into_runtime(),
            channel,
        }
    }

    pub(super) fn over(runtime: tokio::runtime::Runtime, channel: Channel) -> Self {
        Self { runtime, channel }
    }

    /// Calls a method with an empty message. Good answers are a status as well.
    pub(super) fn call(&self, path: &str, token: Option<&str>) -> Status {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let mut request = Request::new(());
        request.set_timeout(adjoin_tests::WATCHDOG);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let path: PathAndQuery = path.parse().unwrap();
        self.runtime.block_on(async {
            grpc.ready().await.unwrap();
            let codec = ProstCodec::<(), ()>::default();
            match grpc.server_streaming(request, path, codec).await {
                // The first message or the end tells it; some streams have no end.
                Ok(stream) => match stream.into_inner().message().await {
                    Ok(_) => Status::ok(""),
                    Err(status) => status,
                },
                Err(status) => status,
            }
        })
    }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// What a server answered over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) text: String,
}

/// The text of a request.
pub(super) fn request(method: &str, path: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let token = token.unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// What the text of an answer says; a connection that just ended says nothing.
pub(super) fn answer(text: &str) -> io::Result<Answer> {
    let parts = text.split_once("\r\n\r\n");
    let (head, text) = parts.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Answer {
        status,
        head: head.to_owned(),
        text: text.to_owned(),
    })
}

/// One request over a connection of its own.
pub(super) fn http(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request(method, path, token).as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    answer(&text)
}
