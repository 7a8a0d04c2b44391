//! HTTP as a test speaks it: one request for each connection, whole answers as text.

use std::io::{Read, Write};
use std::net::TcpStream;

/// An address that was free a moment ago.
#[must_use]
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The answer to a GET, with its status line and headers.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn get(address: &str, path: &str) -> String {
    exchange(address, &format!("GET {path}"), "")
}

/// The answer to a POST of JSON.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn post(address: &str, path: &str, json: &str) -> String {
    exchange(address, &format!("POST {path}"), json)
}

fn exchange(address: &str, what: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The value of a metric in the text of `/metrics`, by its name with all labels; `None` if it is not there.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}
