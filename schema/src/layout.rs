//! Where things lie in a region, and the fixed-size records of the rings.
//!
//! A session has two regions. Each side writes only its own: the client the *request region*, the
//! server the *response region*. Both begin with a control page of index words, each on cache lines
//! of its own, followed by the ring that this side produces, followed by payload:
//!
//! ```text
//! request region (client writes)          response region (server writes)
//! 0x0000  header                          0x0000  header
//! 0x0080  submission tail      u32        0x0080  completion tail      u32  (futex word)
//! 0x0100  completion head      u32        0x0100  submission head      u32
//! 0x0180  client's wait word   u32        0x0180  server's wait word   u32
//! 0x0184  client's CPU         u32        0x0184  server's CPU         u32
//!                                         0x0200  server's state       u32
//! 0x1000  submission ring                 0x1000  completion ring
//! ......  payload                         ......  payload
//! ```
//!
//! Indices run freely (they wrap at 2^32); a ring of `n` entries keeps entry `i` at place `i % n`.

use bytemuck::{Pod, Zeroable};

use crate::limits::{
    ALIGNMENT, REGION_BYTES_MAX, REGION_BYTES_MIN, RING_ENTRIES_MAX, RING_ENTRIES_MIN,
    SUBMISSIONS_PER_COMPLETION,
};
use crate::status::Status;

/// Bytes of one ring entry.
pub const ENTRY_BYTES: u64 = 64;
/// 64-bit words of one ring entry.
pub const ENTRY_WORDS: usize = 8;
/// Bytes of the control page.
pub const CONTROL_BYTES: u64 = 4096;

/// Offset of the index that this region's owner produces to.
pub const TAIL_OFFSET: u64 = 0x080;
/// Offset of the index up to which this region's owner has consumed the other side's ring.
pub const HEAD_OFFSET: u64 = 0x100;
/// Offset of the word in which this region's owner says that it sleeps, and how to wake it.
pub const WAIT_OFFSET: u64 = 0x180;
/// Offset of the word in which this region's owner says on which CPU it was when it last looked for the other side: the
/// number plus 1, 0 if unknown. Two that spin for one another on one CPU only keep each other from working: the client
/// then sleeps at once, and the server moves away.
pub const CPU_OFFSET: u64 = 0x184;
/// Offset of the server's state word (response region only).
pub const STATE_OFFSET: u64 = 0x200;

/// First eight bytes of a region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"adjoin\0\x01");

/// Bits of a wait word: how the one that sleeps wants to be woken. Zero means that it is awake and looks by itself.
pub mod wait {
    /// The client sleeps in `FUTEX_WAIT` on the completion tail; in the server's word: it wants the event descriptor.
    pub const ASLEEP: u32 = 1;
    /// The client polls its attach socket and wants a message there.
    pub const SOCKET: u32 = 2;
    /// The client listens on the portable doorbell (a gRPC stream).
    pub const STREAM: u32 = 4;
}

/// Values of the server's state word.
pub mod server_state {
    /// The server takes requests.
    pub const SERVING: u32 = 0;
    /// The server answers new requests with [`Status::NotExecuted`](crate::status::Status::NotExecuted).
    pub const DRAINING: u32 = 1;
}

/// What lies at offset 0 of both regions: for people with a debugger and for version checks. Nobody
/// takes a size or an offset from here; those come from the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RegionHeader {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// 1: request region; 2: response region.
    pub kind: u32,
    /// Bytes of the whole region.
    pub region_bytes: u64,
    /// The session that it belongs to.
    pub session_id: u64,
    /// Entries of the ring in this region.
    pub ring_entries: u32,
    /// Zero.
    pub reserved0: u32,
    /// Offset of the first byte of payload.
    pub payload_offset: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// What a submission entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SubmissionKind {
    /// Run the request that the descriptor at `offset` describes, or the prepared one.
    Submit = 1,
    /// Drop the request `request_id` if it has not begun to run.
    Cancel = 2,
    /// The client is done with the response at `offset`.
    Release = 3,
    /// Forget the prepared request `prepared_id` and what is reserved for it.
    Forget = 4,
}

impl SubmissionKind {
    /// The kind with that number, or `None`.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Submit),
            2 => Some(Self::Cancel),
            3 => Some(Self::Release),
            4 => Some(Self::Forget),
            _ => None,
        }
    }
}

/// Bits of [`SubmissionEntry::flags`].
pub mod submit_flags {
    /// Keep the checked request as number `prepared_id`; the room for its response stays reserved until it is forgotten.
    pub const PREPARE: u8 = 1;
    /// Run the prepared request `prepared_id`; there is no descriptor.
    pub const PREPARED: u8 = 2;
    /// All bits that mean something.
    pub const ALL: u8 = PREPARE | PREPARED;
}

/// An entry of the submission ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SubmissionEntry {
    /// A [`SubmissionKind`].
    pub kind: u8,
    /// Bits of [`submit_flags`].
    pub flags: u8,
    /// Priority level, 1 is the most urgent; 0: the model's default.
    pub priority: u16,
    /// Number of a prepared request, chosen by the client, below [`crate::limits::PREPARED_MAX`].
    pub prepared_id: u32,
    /// Chosen by the client; comes back in the completion. For `Cancel`: the request that is meant.
    pub request_id: u64,
    /// Offset of the descriptor in the request region; for `Release`: of the response in the response region.
    pub offset: u64,
    /// Bytes of the descriptor.
    pub size: u32,
    /// Number of the session's region; 0 in this version.
    pub region_id: u32,
    /// When the request is of no use any more, in ns on CLOCK_MONOTONIC; 0: never.
    pub deadline_ns: u64,
    /// For `Release`: the generation that came with the response.
    pub generation: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 2],
}

/// Bits of [`CompletionEntry::flags`].
pub mod completion_flags {
    /// The request is now prepared under the number it asked for.
    pub const PREPARED: u16 = 1;
    /// The response is the same block, with the same descriptor, as the last time this prepared request ran.
    pub const SAME_RESPONSE: u16 = 2;
    /// The outputs were copied once by the server, because their size was not known before.
    pub const OUTPUT_COPIED: u16 = 4;
}

/// An entry of the completion ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CompletionEntry {
    /// A [`Status`].
    pub status: u16,
    /// Bits of [`completion_flags`].
    pub flags: u16,
    /// Rows of the batch that the request ran in; 0 if it did not run.
    pub batch_size: u32,
    /// As in the submission entry.
    pub request_id: u64,
    /// Offset of the response descriptor in the response region; 0 if there is none.
    pub response_offset: u64,
    /// Bytes of the response descriptor.
    pub response_size: u32,
    /// To be shown with the release of this response.
    pub generation: u32,
    /// From intake to the start of the batch, in ns.
    pub queue_ns: u64,
    /// Time of the batch in the engine, in ns.
    pub execute_ns: u64,
    /// Details of a status other than `Ok`; otherwise the model version that ran, and 0.
    pub detail: [u64; 2],
}

const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<RegionHeader>() as u64 <= TAIL_OFFSET);
    assert!(
        size_of::<SubmissionEntry>() as u64 == ENTRY_BYTES && align_of::<SubmissionEntry>() == 8
    );
    assert!(
        size_of::<CompletionEntry>() as u64 == ENTRY_BYTES && align_of::<CompletionEntry>() == 8
    );
    assert!(ENTRY_WORDS as u64 * 8 == ENTRY_BYTES);
    assert!(
        offset_of!(SubmissionEntry, prepared_id) == 4
            && offset_of!(SubmissionEntry, request_id) == 8
    );
    assert!(offset_of!(SubmissionEntry, offset) == 16 && offset_of!(SubmissionEntry, size) == 24);
    assert!(
        offset_of!(SubmissionEntry, deadline_ns) == 32
            && offset_of!(SubmissionEntry, generation) == 40
    );
    assert!(
        offset_of!(CompletionEntry, request_id) == 8
            && offset_of!(CompletionEntry, response_offset) == 16
    );
    assert!(
        offset_of!(CompletionEntry, queue_ns) == 32 && offset_of!(CompletionEntry, detail) == 48
    );
    assert!(
        offset_of!(RegionHeader, session_id) == 24
            && offset_of!(RegionHeader, payload_offset) == 40
    );
    assert!(STATE_OFFSET + 128 <= CONTROL_BYTES);
    assert!(CPU_OFFSET == WAIT_OFFSET + 4);
};

impl SubmissionEntry {
    /// The words that go into the ring.
    pub fn to_words(self) -> [u64; ENTRY_WORDS] {
        bytemuck::cast(self)
    }

    /// The entry that these words hold; every pattern of bits is one.
    pub fn from_words(words: [u64; ENTRY_WORDS]) -> Self {
        bytemuck::cast(words)
    }
}

impl CompletionEntry {
    /// The words that go into the ring.
    pub fn to_words(self) -> [u64; ENTRY_WORDS] {
        bytemuck::cast(self)
    }

    /// The entry that these words hold; every pattern of bits is one.
    pub fn from_words(words: [u64; ENTRY_WORDS]) -> Self {
        bytemuck::cast(words)
    }

    /// An entry that says that the request did not produce outputs.
    pub fn failure(request_id: u64, status: Status, detail: [u64; 2]) -> Self {
        Self {
            status: status as u16,
            request_id,
            detail,
            ..Self::zeroed()
        }
    }
}

/// Which of a session's two regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Written by the client.
    Request,
    /// Written by the server.
    Response,
}

/// Sizes of a session, settled in the handshake. Both sides compute every offset from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLayout {
    request_bytes: u64,
    response_bytes: u64,
    ring_entries: u32,
}

impl SessionLayout {
    /// Checks sizes that a peer or a user wants. Region sizes are rounded up to whole pages.
    ///
    /// # Errors
    /// `RegionSizeInvalid` or `RingSizeInvalid` with the value that was wrong and the limits.
    pub fn new(
        request_bytes: u64,
        response_bytes: u64,
        ring_entries: u32,
    ) -> Result<Self, crate::descriptor::Rejection> {
        if !ring_entries.is_power_of_two()
            || !(RING_ENTRIES_MIN..=RING_ENTRIES_MAX).contains(&ring_entries)
        {
            let detail = [u64::from(ring_entries), u64::from(RING_ENTRIES_MAX)];
            return Err(crate::descriptor::Rejection::new(
                Status::RingSizeInvalid,
                detail,
            ));
        }
        let rings = CONTROL_BYTES
            + u64::from(ring_entries) * u64::from(SUBMISSIONS_PER_COMPLETION) * ENTRY_BYTES;
        for bytes in [request_bytes, response_bytes] {
            // At least a page of payload behind the rings.
            if bytes < REGION_BYTES_MIN.max(rings + CONTROL_BYTES) || bytes > REGION_BYTES_MAX {
                let detail = [bytes, REGION_BYTES_MAX];
                return Err(crate::descriptor::Rejection::new(
                    Status::RegionSizeInvalid,
                    detail,
                ));
            }
        }
        let page = |bytes: u64| bytes.next_multiple_of(CONTROL_BYTES);
        Ok(Self {
            request_bytes: page(request_bytes),
            response_bytes: page(response_bytes),
            ring_entries,
        })
    }

    /// Bytes of a region.
    pub const fn region_bytes(&self, kind: RegionKind) -> u64 {
        match kind {
            RegionKind::Request => self.request_bytes,
            RegionKind::Response => self.response_bytes,
        }
    }

    /// Entries of the ring in a region.
    pub const fn ring_entries(&self, kind: RegionKind) -> u32 {
        match kind {
            RegionKind::Request => self.ring_entries * SUBMISSIONS_PER_COMPLETION,
            RegionKind::Response => self.ring_entries,
        }
    }

    /// Offset of the ring in a region.
    pub const fn ring_offset(&self) -> u64 {
        CONTROL_BYTES
    }

    /// Offsets of a region's payload.
    pub const fn payload(&self, kind: RegionKind) -> std::ops::Range<u64> {
        let ring_bytes = self.ring_entries(kind) as u64 * ENTRY_BYTES;
        let start = (CONTROL_BYTES + ring_bytes).next_multiple_of(ALIGNMENT);
        start..self.region_bytes(kind)
    }

    /// The header of a region.
    pub fn header(&self, kind: RegionKind, session_id: u64) -> RegionHeader {
        RegionHeader {
            magic: MAGIC,
            protocol: crate::PROTOCOL_VERSION,
            kind: match kind {
                RegionKind::Request => 1,
                RegionKind::Response => 2,
            },
            region_bytes: self.region_bytes(kind),
            session_id,
            ring_entries: self.ring_entries(kind),
            reserved0: 0,
            payload_offset: self.payload(kind).start,
            reserved: [0; 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_leaves_payload_behind_both_rings() {
        let layout = SessionLayout::new(1 << 20, 1 << 16, 8).unwrap();
        assert_eq!(layout.payload(RegionKind::Request), 4096 + 32 * 64..1 << 20);
        assert_eq!(layout.payload(RegionKind::Response), 4096 + 8 * 64..1 << 16);
    }

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        let status = |r, s, n| SessionLayout::new(r, s, n).unwrap_err().status;
        assert_eq!(status(1 << 20, 1 << 20, 0), Status::RingSizeInvalid);
        assert_eq!(status(1 << 20, 1 << 20, 100), Status::RingSizeInvalid);
        assert_eq!(status(1 << 20, 1 << 20, 1 << 13), Status::RingSizeInvalid);
        assert_eq!(status(4096, 1 << 20, 8), Status::RegionSizeInvalid);
        assert_eq!(status(1 << 20, u64::MAX, 8), Status::RegionSizeInvalid);
        // 4096 completions make a submission ring of 1 MiB: that leaves no payload here.
        assert_eq!(status(1 << 20, 1 << 20, 4096), Status::RegionSizeInvalid);
    }

    #[test]
    fn entries_survive_the_way_through_words() {
        let mut entry = SubmissionEntry::zeroed();
        entry.kind = SubmissionKind::Release as u8;
        entry.request_id = u64::MAX - 3;
        entry.generation = 77;
        assert_eq!(SubmissionEntry::from_words(entry.to_words()), entry);
        let failure = CompletionEntry::failure(5, Status::QueueFull, [1, 2]);
        assert_eq!(CompletionEntry::from_words(failure.to_words()), failure);
    }
}
