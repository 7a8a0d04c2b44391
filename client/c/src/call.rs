//! The edge of every call: arguments are checked on the way in, and neither an error nor a panic
//! leaves but as a status.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::ADJOIN_FOREVER;
use crate::error::{AdjoinError, report};
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::status::AdjoinStatus;

/// Runs the body of a call that can fail.
///
/// # Safety
/// `error` is NULL or an error object that no other thread uses meanwhile.
pub(crate) unsafe fn call(
    error: *mut AdjoinError,
    body: impl FnOnce() -> Result<(), Failure>,
) -> AdjoinStatus {
    let outcome =
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    match outcome {
        Ok(()) => AdjoinStatus::Ok,
        Err(failure) => {
            let status = failure.status;
            // SAFETY: the caller's word.
            unsafe { report(error, failure) };
            status
        }
    }
}

/// A fact about what is behind a handle; `otherwise` if it is no handle.
///
/// # Safety
/// As [`handle::shared`].
pub(crate) unsafe fn ask<H: Handle, T>(
    handle: *const H,
    otherwise: T,
    fact: impl FnOnce(&H::Value) -> T,
) -> T {
    // SAFETY: the caller's word.
    let body = || unsafe { handle::shared(handle) }.map(fact);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(answer)) => answer,
        _ => otherwise,
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no more is known");
    Failure::new(
        AdjoinStatus::ClientInternal,
        format!("the client library panicked, which is a bug of it: {text}"),
    )
}

/// Ends a handle in a call that returns nothing. A panic stays here.
///
/// # Safety
/// As [`handle::free`].
pub(crate) unsafe fn free<H: Handle>(handle: *mut H) {
    // SAFETY: the caller's word.
    let body = || unsafe { handle::free(handle) };
    let _ = catch_unwind(AssertUnwindSafe(body));
}

/// A place for a result. It gets a harmless value at once, so that it is never left as it was.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `place` is NULL or valid for writing a `T`, until the call ends.
    pub(crate) unsafe fn new(place: *mut T, what: &str, nothing: T) -> Result<Self, Failure> {
        if place.is_null() {
            return Err(Failure::null(what));
        }
        if !place.is_aligned() {
            return Err(Failure::argument(format!(
                "{what} at {place:p} is not aligned"
            )));
        }
        // SAFETY: not NULL, aligned, and valid by the caller's word.
        unsafe { place.write(nothing) };
        Ok(Self(place))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: checked in `new`, and its caller's word holds until the call ends.
        unsafe { self.0.write(value) };
    }
}

/// Text that C passed.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and stays as it is for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's word.
    let text = unsafe { CStr::from_ptr(text) };
    let not_utf8 = |_| Failure::argument(format!("{what} {text:?} is not UTF-8"));
    text.to_str().map_err(not_utf8)
}

/// An array that C passed; it may be NULL where it is empty.
///
/// # Safety
/// `first` is NULL or the first of `count` values that stay as they are for `'a`.
pub(crate) unsafe fn array<'a, T>(
    first: *const T,
    count: usize,
    what: &str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(Failure::null(what));
    }
    if !first.is_aligned()
        || count
            .checked_mul(size_of::<T>())
            .is_none_or(|size| size > isize::MAX as usize)
    {
        let message = format!("{what} at {first:p} cannot have {count} elements");
        return Err(Failure::argument(message));
    }
    // SAFETY: not NULL, aligned, of a possible size, and valid by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A length of time; `None` for no limit.
pub(crate) fn duration(ns: u64) -> Option<Duration> {
    (ns != ADJOIN_FOREVER).then(|| Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{
        adjoin_error_free, adjoin_error_message, adjoin_error_new, adjoin_error_status,
    };

    #[test]
    fn panics_become_a_status_with_their_text() {
        let panics: [fn() -> Result<(), Failure>; 2] =
            [|| panic!("of a bug"), || panic!("of a {}", "bug")];
        for panic in panics {
            let error = adjoin_error_new();
            // SAFETY: the error object was just made and is this thread's.
            let status = unsafe { call(error, panic) };
            assert_eq!(status, AdjoinStatus::ClientInternal);
            // SAFETY: as above.
            let text = unsafe { adjoin_error_message(error) };
            // SAFETY: a message is NUL-terminated, and this one is not replaced before it was looked at.
            let text = unsafe { CStr::from_ptr(text) };
            assert!(text.to_string_lossy().ends_with("of a bug"), "{text:?}");
            // SAFETY: as above.
            assert_eq!(unsafe { adjoin_error_status(error) }, status);
            // SAFETY: as above, and used no more.
            unsafe { adjoin_error_free(error) };
        }
        let error = adjoin_error_new();
        // SAFETY: as above.
        assert_eq!(unsafe { ask(error, 7, |_| panic!("of a bug")) }, 7);
        // SAFETY: as above.
        unsafe { adjoin_error_free(error) };
    }

    #[test]
    fn forever_is_no_limit() {
        assert_eq!(duration(ADJOIN_FOREVER), None);
        assert_eq!(duration(0), Some(Duration::ZERO));
    }
}
