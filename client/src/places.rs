//! Tensors as places in memory, for language bindings: their arrays outlive any borrow, so what they
//! point to is kept by a handle instead.
//!
//! A handle makes an address valid for as long as it lives. What is read and written there, and when, is
//! the obligation of whoever dereferences it: an input is not written while the server has it, an
//! output never.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use adjoin_shm::{ElementError, OwnedRange, WritablePart};

use crate::TensorError;
use crate::session::Session;

/// The bytes of an input. No other request gets them while a clone of this lives, also after its own
/// request was dropped or has moved.
#[derive(Clone)]
pub struct InputPlace {
    range: Arc<OwnedRange>,
    session: Arc<Session>,
}

impl InputPlace {
    pub(crate) fn new(range: &Arc<OwnedRange>, session: &Arc<Session>) -> Self {
        Self {
            range: Arc::clone(range),
            session: Arc::clone(session),
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn range(&self) -> &OwnedRange {
        &self.range
    }

    /// Address of the first byte in this process; a multiple of 64.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.range.start()
    }

    /// Size in bytes.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.range.byte_size()
    }
}

impl fmt::Debug for InputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputPlace")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Drop for InputPlace {
    fn drop(&mut self) {
        // In a forked child the lock of the arena may be held by a thread that only the parent has, so the
        // range must not be given back there.
        if !self.session.is_ours() {
            std::mem::forget(Arc::clone(&self.range));
        }
    }
}

/// The bytes of an output, mapped read-only for as long as this lives. They are what the server wrote
/// until the response is released; see [`Lease`](crate::Lease).
#[derive(Clone)]
pub struct OutputPlace {
    session: Arc<Session>,
    offset: u64,
    byte_size: u64,
}

impl OutputPlace {
    pub(crate) fn new(
        session: &Arc<Session>,
        offset: u64,
        byte_size: u64,
    ) -> Result<Self, TensorError> {
        session.check_outputs()?;
        let region = session.memory.response();
        region
            .payload(offset, byte_size)
            .map_err(ElementError::from)?;
        Ok(Self {
            session: Arc::clone(session),
            offset,
            byte_size,
        })
    }

    /// Address of the first byte in this process; a multiple of 64.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        let region = self.session.memory.response();
        let payload = region.payload(self.offset, self.byte_size);
        payload.expect("checked when the place was made").as_ptr()
    }

    /// Size in bytes.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// The same pages for someone who cannot be told that they must not be written: what is written there
    /// stays private, and changes neither the output nor anything of the server's.
    ///
    /// # Errors
    /// `Lost`, `Forked`, or `System` if no addresses are left.
    pub fn writable(&self) -> Result<WritablePart, TensorError> {
        self.session.check_outputs()?;
        let memory = &self.session.memory;
        memory
            .writable_response(self.offset, self.byte_size)
            .map_err(|error| TensorError::System(error.errno().into()))
    }
}

impl fmt::Debug for OutputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputPlace")
            .field("offset", &self.offset)
            .field("byte_size", &self.byte_size)
            .finish_non_exhaustive()
    }
}
