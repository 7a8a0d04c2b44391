//! Clients: a session with a server, and the next one when it is over.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use adjoin_client::{Client, ClientOptions};

use crate::call::{Out, ask, call, free};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::options::AdjoinOptions;
use crate::status::AdjoinStatus;

/// Where the server is if nobody says otherwise, in this order.
const SOCKET_DIR_VARIABLE: &str = "ADJOIN_SOCKET_DIR";
const SOCKET_DIR_DEFAULT: &str = "/run/adjoin";

/// A session with a server. When the server is gone, the next call that needs one opens a session
/// with the next server.
///
/// Any number of threads at a time. The session is closed when the client and all models and
/// requests made from it are freed, in any order.
#[derive(Debug)]
pub struct AdjoinClient {
    _opaque: [u8; 0],
}

impl Handle for AdjoinClient {
    type Value = Client;
    const NAME: &'static str = "client";
    const TAG: [u8; 8] = *b"client  ";
}

/// Opens a session with the server whose sockets are in a directory.
///
/// `socket_dir` may be NULL: then it is that of the environment variable ADJOIN_SOCKET_DIR, or
/// /run/adjoin. `options` may be NULL for the defaults. Writes a client to `client`, to be freed
/// with adjoin_client_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_connect(
    socket_dir: *const c_char,
    options: *const AdjoinOptions,
    client: *mut *mut AdjoinClient,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(client, "client", ptr::null_mut()) }?;
        let options = if options.is_null() {
            ClientOptions::new()
        } else {
            // SAFETY: options of the caller's.
            unsafe { handle::shared(options) }?.clone()
        };
        // SAFETY: text of the caller's.
        let socket_dir = unsafe { socket_dir_of(socket_dir) };
        out.set(handle::give(options.connect(socket_dir)?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// # Safety
/// `socket_dir` is NULL or NUL-terminated.
unsafe fn socket_dir_of(socket_dir: *const c_char) -> PathBuf {
    if socket_dir.is_null() {
        let named = std::env::var_os(SOCKET_DIR_VARIABLE).filter(|named| !named.is_empty());
        return named.unwrap_or_else(|| SOCKET_DIR_DEFAULT.into()).into();
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's word.
    let socket_dir = unsafe { CStr::from_ptr(socket_dir) };
    OsStr::from_bytes(socket_dir.to_bytes()).into()
}

/// Frees a client. Models and requests made from it go on. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_free(client: *mut AdjoinClient) {
    // SAFETY: the caller gives the client up.
    unsafe { free(client) };
}

/// Number of the current session, unique in the life of the server; 0 in a forked child, or of
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_session_id(client: *const AdjoinClient) -> u64 {
    // SAFETY: passed on.
    unsafe { ask(client, 0, Client::session_id) }
}

/// How often a new session took the place of one that was over; 0 of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_reconnects(client: *const AdjoinClient) -> u64 {
    // SAFETY: passed on.
    unsafe { ask(client, 0, Client::reconnects) }
}

/// Most requests in flight at once; 0 in a forked child, or of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_in_flight_max(client: *const AdjoinClient) -> usize {
    // SAFETY: passed on.
    unsafe { ask(client, 0, Client::in_flight_max) }
}

/// Writes the release of the server that the current session is with to `buffer`, NUL-terminated,
/// and cut if the `size` bytes there are too few. Empty in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_server_version(
    client: *const AdjoinClient,
    buffer: *mut c_char,
    size: usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        if buffer.is_null() || size == 0 {
            return Err(Failure::argument("there is no buffer"));
        }
        // SAFETY: a client of the caller's.
        let version = unsafe { handle::shared(client) }.map(Client::server_version)?;
        let count = version.len().min(size - 1);
        // SAFETY: `count` bytes of the text, and of the buffer, which has one more by the caller's word.
        unsafe { ptr::copy_nonoverlapping(version.as_ptr(), buffer.cast::<u8>(), count) };
        // SAFETY: `count` is less than the size of the buffer.
        let end = unsafe { buffer.add(count) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}
