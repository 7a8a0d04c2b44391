//! Options of a client.

use std::ffi::c_char;
use std::time::Duration;

use adjoin_client::ClientOptions;

use crate::call::{call, free, text};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::status::AdjoinStatus;

/// Sizes and habits of a client, to connect with. Sizes are fixed for the life of a client. One
/// thread at a time.
#[derive(Debug)]
pub struct AdjoinOptions {
    _opaque: [u8; 0],
}

impl Handle for AdjoinOptions {
    type Value = ClientOptions;
    const NAME: &'static str = "options";
    const TAG: [u8; 8] = *b"options ";
}

/// New options, with the defaults. Free them with adjoin_options_free.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_options_new() -> *mut AdjoinOptions {
    handle::give(ClientOptions::new())
}

/// Frees options. Clients that were connected with them stay as they are. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_free(options: *mut AdjoinOptions) {
    // SAFETY: the caller gives the options up.
    unsafe { free(options) };
}

/// Replaces options by what `change` makes of them.
///
/// # Safety
/// As the header says of handles and error objects.
unsafe fn change(
    options: *mut AdjoinOptions,
    error: *mut AdjoinError,
    change: impl FnOnce(ClientOptions) -> Result<ClientOptions, Failure>,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: options of the caller's, used by this thread alone.
        let options = unsafe { handle::exclusive(options) }?;
        *options = change(options.clone())?;
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Bytes of the request region, in which inputs lie: all requests that exist at one time must fit.
/// Default 16 MiB; rounded up to whole pages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_request_bytes(
    options: *mut AdjoinOptions,
    byte_size: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe {
        change(options, error, |options| {
            Ok(options.request_bytes(byte_size))
        })
    }
}

/// Bytes of the response region, in which outputs lie until they are released. Default 16 MiB;
/// rounded up to whole pages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_response_bytes(
    options: *mut AdjoinOptions,
    byte_size: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe {
        change(options, error, |options| {
            Ok(options.response_bytes(byte_size))
        })
    }
}

/// Most requests in flight at once: a power of two from 8 to 4096. Default 256.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_ring_entries(
    options: *mut AdjoinOptions,
    count: u32,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { change(options, error, |options| Ok(options.ring_entries(count))) }
}

/// What the client calls itself in `adjoin sessions`; cut after 64 bytes. Default: nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_name(
    options: *mut AdjoinOptions,
    name: *const c_char,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: text of the caller's.
    let named = |options: ClientOptions| Ok(options.name(unsafe { text(name, "name") }?));
    // SAFETY: passed on.
    unsafe { change(options, error, named) }
}

/// How long a blocking call looks at the ring before it sleeps, in ns. Default 100 us, at most 20
/// ms; 0 sleeps at once. Spinning saves the 4 to 50 us of a wake-up and costs a core meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_spin(
    options: *mut AdjoinOptions,
    at_most_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let at_most = Duration::from_nanos(at_most_ns);
    // SAFETY: passed on.
    unsafe { change(options, error, |options| Ok(options.spin(at_most))) }
}

/// How long the server may take for the handshake, and for a question about a model, in ns. Default
/// 5 s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_answer_timeout(
    options: *mut AdjoinOptions,
    timeout_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let timeout = Duration::from_nanos(timeout_ns);
    // SAFETY: passed on.
    unsafe {
        change(
            options,
            error,
            |options| Ok(options.answer_timeout(timeout)),
        )
    }
}

/// How long a call that finds its session dead tries to open another one, in ns. Default 0: one
/// attempt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_options_set_reconnect_timeout(
    options: *mut AdjoinOptions,
    timeout_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let timeout = Duration::from_nanos(timeout_ns);
    // SAFETY: passed on.
    unsafe {
        change(options, error, |options| {
            Ok(options.reconnect_timeout(timeout))
        })
    }
}
