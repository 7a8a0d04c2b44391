//! Error objects: made by a caller, filled by calls that fail.

use std::ffi::{CString, c_char};

use crate::call::{ask, free};
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::status::AdjoinStatus;

/// What went wrong in the last failed call that was given this object: status, text, advice.
///
/// One for each thread is enough, for its whole life. A call that fails fills it; a call that
/// succeeds leaves it as it is. One thread at a time.
#[derive(Debug)]
pub struct AdjoinError {
    _opaque: [u8; 0],
}

/// What an error object holds.
#[derive(Debug)]
pub(crate) struct Report {
    status: AdjoinStatus,
    message: CString,
    is_retryable: bool,
    may_have_run: bool,
}

impl Handle for AdjoinError {
    type Value = Report;
    const NAME: &'static str = "error";
    const TAG: [u8; 8] = *b"error   ";
}

/// Fills an error object.
///
/// # Safety
/// `error` is NULL or an error object that no other thread uses meanwhile.
pub(crate) unsafe fn report(error: *mut AdjoinError, failure: Failure) {
    // SAFETY: the caller's word.
    if let Ok(report) = unsafe { handle::exclusive(error) } {
        *report = Report {
            status: failure.status,
            message: c_text(&failure.message),
            is_retryable: failure.is_retryable,
            may_have_run: failure.may_have_run,
        };
    }
}

/// Text for C, which has no NUL in it.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).expect("what could stand in the way was replaced")
}

/// A new error object. Free it with adjoin_error_free.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_error_new() -> *mut AdjoinError {
    handle::give(Report {
        status: AdjoinStatus::Ok,
        message: CString::default(),
        is_retryable: false,
        may_have_run: false,
    })
}

/// Frees an error object and its message. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_error_free(error: *mut AdjoinError) {
    // SAFETY: the caller gives the object up.
    unsafe { free(error) };
}

/// The status of the last failed call; ADJOIN_STATUS_OK if none failed yet, or of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_error_status(error: *const AdjoinError) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { ask(error, AdjoinStatus::Ok, |report| report.status) }
}

/// One sentence on what was wrong, with the value that was, and what to do; in UTF-8, never NULL.
/// It is there until a call with this object fails again, or the object is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_error_message(error: *const AdjoinError) -> *const c_char {
    // SAFETY: passed on.
    unsafe { ask(error, c"".as_ptr(), |report| report.message.as_ptr()) }
}

/// Whether the request was not executed and nothing but time or load stands in its way, so that it
/// may succeed when it is submitted again as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_error_is_retryable(error: *const AdjoinError) -> bool {
    // SAFETY: passed on.
    unsafe { ask(error, false, |report| report.is_retryable) }
}

/// Whether the request may have run although there is no result, as when the server died.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_error_may_have_run(error: *const AdjoinError) -> bool {
    // SAFETY: passed on.
    unsafe { ask(error, false, |report| report.may_have_run) }
}
