//! Handles: boxes of ours, of which C has the address and nothing else.
//!
//! A handle begins with a tag of its kind, which goes when it is freed. A handle of another kind,
//! and most that were freed, are found out by it; this is a net below callers who break the rules
//! of the header, not a licence to.

use std::ptr;

use crate::failure::Failure;

/// An opaque type of the header, and what is behind it.
pub(crate) trait Handle: Sized {
    /// What the handle stands for.
    type Value;
    /// What it is called in errors.
    const NAME: &'static str;
    /// Eight letters at its beginning.
    const TAG: [u8; 8];
}

#[repr(C)]
struct Boxed<H: Handle> {
    /// First, so that it can be looked for whatever the handle is.
    tag: [u8; 8],
    value: H::Value,
}

/// A handle that C owns from now on.
pub(crate) fn give<H: Handle>(value: H::Value) -> *mut H {
    Box::into_raw(Box::new(Boxed::<H> { tag: H::TAG, value })).cast()
}

fn check<H: Handle>(handle: *const H) -> Result<*mut Boxed<H>, Failure> {
    let boxed = handle.cast::<Boxed<H>>().cast_mut();
    if boxed.is_null() {
        return Err(Failure::null(H::NAME));
    }
    let tag = boxed.cast::<[u8; 8]>();
    // SAFETY: not NULL and aligned; the header obliges callers to pass what the library gave them, and every
    // handle begins with a tag.
    if boxed.is_aligned() && unsafe { tag.read() } == H::TAG {
        return Ok(boxed);
    }
    Err(Failure::argument(format!(
        "{} at {handle:p} is none, or was freed",
        H::NAME
    )))
}

/// What is behind a handle, shared.
///
/// # Safety
/// `handle` is NULL or came from [`give`] and is not freed before `'a` ends.
pub(crate) unsafe fn shared<'a, H: Handle>(handle: *const H) -> Result<&'a H::Value, Failure> {
    let boxed = check(handle)?;
    // SAFETY: a live box of this kind, by the caller's word and the tag.
    Ok(unsafe { &(*boxed).value })
}

/// What is behind a handle, for one thread alone.
///
/// # Safety
/// As [`shared`], and no other thread uses the handle before `'a` ends.
pub(crate) unsafe fn exclusive<'a, H: Handle>(handle: *mut H) -> Result<&'a mut H::Value, Failure> {
    let boxed = check(handle.cast_const())?;
    // SAFETY: as in `shared`, and the caller keeps others away.
    Ok(unsafe { &mut (*boxed).value })
}

/// Ends a handle. NULL, and what is no handle of this kind, stay as they are.
///
/// # Safety
/// As [`exclusive`]; nobody uses the handle any more.
pub(crate) unsafe fn free<H: Handle>(handle: *mut H) {
    let Ok(boxed) = check(handle.cast_const()) else {
        return;
    };
    // SAFETY: a live box, which begins with its tag.
    unsafe { ptr::write_volatile(boxed.cast(), *b"freed...") };
    // SAFETY: made by `Box::into_raw` in `give`, of this very type, and the tag was there until now.
    drop(unsafe { Box::from_raw(boxed) });
}
