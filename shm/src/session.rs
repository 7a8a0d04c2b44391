//! The two regions of a session, as the server creates them and as the client maps them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use adjoin_schema::layout::{
    CPU_OFFSET, HEAD_OFFSET, RegionKind, STATE_OFFSET, SessionLayout, TAIL_OFFSET, WAIT_OFFSET,
};

use rustix::io::Errno;

use crate::arena::Arena;
use crate::mapping::{Access, Mapping};
use crate::memfd::{self, MemfdError};
use crate::region::Region;
use crate::ring::RingView;
use crate::sync::{AtomicU32, Ordering};
use crate::writable::WritablePart;

/// Both regions and where their parts lie.
#[derive(Clone, Debug)]
struct Parts {
    layout: SessionLayout,
    request: Region,
    response: Region,
}

impl Parts {
    #[inline]
    fn submission_ring(&self) -> RingView<'_> {
        RingView {
            tail: self.request.word(TAIL_OFFSET),
            head: self.response.word(HEAD_OFFSET),
            entries: self.request.entries(
                self.layout.ring_offset(),
                self.layout.ring_entries(RegionKind::Request),
            ),
        }
    }

    #[inline]
    fn completion_ring(&self) -> RingView<'_> {
        RingView {
            tail: self.response.word(TAIL_OFFSET),
            head: self.request.word(HEAD_OFFSET),
            entries: self.response.entries(
                self.layout.ring_offset(),
                self.layout.ring_entries(RegionKind::Response),
            ),
        }
    }
}

macro_rules! parts_accessors {
    () => {
        /// Sizes and offsets.
        #[must_use]
        pub fn layout(&self) -> SessionLayout {
            self.parts.layout
        }

        /// The region that the client writes.
        #[must_use]
        pub fn request(&self) -> &Region {
            &self.parts.request
        }

        /// The region that the server writes.
        #[must_use]
        pub fn response(&self) -> &Region {
            &self.parts.response
        }

        /// The ring from client to server.
        #[must_use]
        pub fn submission_ring(&self) -> RingView<'_> {
            self.parts.submission_ring()
        }

        /// The ring from server to client.
        #[must_use]
        pub fn completion_ring(&self) -> RingView<'_> {
            self.parts.completion_ring()
        }

        /// Where the client says that it sleeps.
        #[must_use]
        pub fn client_wait(&self) -> &AtomicU32 {
            self.parts.request.word(WAIT_OFFSET)
        }

        /// Where the server says that it sleeps.
        #[must_use]
        pub fn server_wait(&self) -> &AtomicU32 {
            self.parts.response.word(WAIT_OFFSET)
        }

        /// Where the client says on which CPU it waits.
        #[must_use]
        pub fn client_cpu(&self) -> &AtomicU32 {
            self.parts.request.word(CPU_OFFSET)
        }

        /// Where the server says on which CPU it spins.
        #[must_use]
        pub fn server_cpu(&self) -> &AtomicU32 {
            self.parts.response.word(CPU_OFFSET)
        }

        /// The server's state word.
        #[must_use]
        pub fn server_state(&self) -> &AtomicU32 {
            self.parts.response.word(STATE_OFFSET)
        }
    };
}

/// The server's side: creates the regions, and gives their pages back when the session is over, even
/// while the client still maps them.
#[derive(Debug)]
pub struct SessionMemory {
    parts: Parts,
    request_fd: OwnedFd,
    response_fd: OwnedFd,
    response_read_only: OwnedFd,
    leave_pages: AtomicBool,
}

impl SessionMemory {
    /// Creates, seals, maps and populates both regions.
    ///
    /// # Errors
    /// If the system has no memory or descriptors for them.
    pub fn create(layout: SessionLayout, session_id: u64) -> Result<Self, MemfdError> {
        let request_bytes = layout.region_bytes(RegionKind::Request);
        let response_bytes = layout.region_bytes(RegionKind::Response);
        let request_fd = memfd::create_sealed("adjoin-request", request_bytes)?;
        let response_fd = memfd::create_sealed("adjoin-response", response_bytes)?;
        let response_read_only = memfd::reopen_read_only(&response_fd, response_bytes)?;
        let map = |fd: &OwnedFd, kind, byte_size| {
            let mapping = Mapping::shared(fd, byte_size, Access::ReadWrite)?;
            mapping.populate()?;
            let region = Region::new(mapping);
            region.write_header(layout.header(kind, session_id));
            Ok(region)
        };
        let request = map(&request_fd, RegionKind::Request, request_bytes)?;
        let response = map(&response_fd, RegionKind::Response, response_bytes)?;
        let parts = Parts {
            layout,
            request,
            response,
        };
        Ok(Self {
            parts,
            request_fd,
            response_fd,
            response_read_only,
            leave_pages: AtomicBool::new(false),
        })
    }

    parts_accessors!();

    /// Descriptors for the client: the request region, and the response region read-only.
    #[must_use]
    pub fn client_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.request_fd.as_fd(), self.response_read_only.as_fd()]
    }

    /// The payload space of the response region.
    #[must_use]
    pub fn response_arena(&self) -> Arena {
        Arena::new(
            self.parts.response.clone(),
            self.parts.layout.payload(RegionKind::Response),
        )
    }

    /// Bytes that this session is charged for.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.parts.request.byte_size() + self.parts.response.byte_size()
    }

    /// Bytes of them that have no page now, and are charged to whoever touches them next: those that could not be populated
    /// in advance, and those that the client has punched out of its region.
    #[must_use]
    pub fn untouched_bytes(&self) -> u64 {
        [
            (&self.request_fd, &self.parts.request),
            (&self.response_fd, &self.parts.response),
        ]
        .into_iter()
        // What cannot be counted may be all.
        .map(|(fd, region)| {
            memfd::hole_bytes(fd, region.byte_size()).unwrap_or_else(|_| region.byte_size())
        })
        .sum()
    }
}

impl SessionMemory {
    /// Leaves the pages to the client when the memory is dropped. For a server that ends in order: the
    /// client may still read outputs, and moves its inputs to the next server; the pages
    /// then stay charged to our control group until the client unmaps them.
    pub fn leave_pages(&self) {
        self.leave_pages.store(true, Ordering::Relaxed);
    }
}

impl Drop for SessionMemory {
    fn drop(&mut self) {
        if self.leave_pages.load(Ordering::Relaxed) {
            return;
        }
        for (fd, region) in [
            (&self.request_fd, &self.parts.request),
            (&self.response_fd, &self.parts.response),
        ] {
            // Nothing else can be done about an error; the pages then go when the last mapping does.
            let _ = memfd::punch_all(fd, region.byte_size());
        }
    }
}

/// The client's side: maps what the server sent.
#[derive(Debug)]
pub struct ClientMemory {
    parts: Parts,
    response_fd: OwnedFd,
}

impl ClientMemory {
    /// Checks, maps and populates both regions. The response region is mapped read-only. Forked
    /// children inherit neither, and find zeros of their own at the same addresses.
    ///
    /// # Errors
    /// If a descriptor is not sealed memory of the agreed size, or cannot be mapped.
    pub fn map(
        layout: SessionLayout,
        request_fd: &OwnedFd,
        response_fd: &OwnedFd,
    ) -> Result<Self, MemfdError> {
        let map = |fd: &OwnedFd, kind, access| {
            let byte_size = layout.region_bytes(kind);
            memfd::check_received(fd, byte_size)?;
            let mut mapping = Mapping::shared(fd, byte_size, access)?;
            mapping.populate()?;
            mapping.blank_in_children()?;
            Ok(Region::new(mapping))
        };
        let request = map(request_fd, RegionKind::Request, Access::ReadWrite)?;
        let response = map(response_fd, RegionKind::Response, Access::ReadOnly)?;
        let response_fd = response_fd
            .try_clone()
            .map_err(|error| MemfdError::new("keeping a descriptor", 0, errno_of(&error)))?;
        Ok(Self {
            parts: Parts {
                layout,
                request,
                response,
            },
            response_fd,
        })
    }

    parts_accessors!();

    /// A part of the response region that this process may write without anybody else seeing it.
    ///
    /// # Errors
    /// If the range is not in the region, or the system has no addresses left.
    pub fn writable_response(
        &self,
        offset: u64,
        byte_size: u64,
    ) -> Result<WritablePart, MemfdError> {
        WritablePart::new(&self.response_fd, &self.parts.response, offset, byte_size)
    }

    /// The payload space of the request region.
    #[must_use]
    pub fn request_arena(&self) -> Arena {
        Arena::new(
            self.parts.request.clone(),
            self.parts.layout.payload(RegionKind::Request),
        )
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Consumer, Producer};
    use adjoin_schema::layout::MAGIC;

    fn layout() -> SessionLayout {
        SessionLayout::new(1 << 18, 1 << 17, 64).unwrap()
    }

    fn clone_fd(fd: BorrowedFd<'_>) -> OwnedFd {
        fd.try_clone_to_owned().unwrap()
    }

    #[test]
    fn both_sides_see_one_memory() {
        let server = SessionMemory::create(layout(), 7).unwrap();
        let [request, response] = server.client_fds().map(clone_fd);
        let client = ClientMemory::map(layout(), &request, &response).unwrap();
        assert_eq!(client.request().header().magic, MAGIC);
        assert_eq!(client.response().header().session_id, 7);

        let mut range = client.request_arena().allocate(5).unwrap();
        range.write(b"hello");
        assert_eq!(
            server
                .request()
                .payload(range.offset(), 5)
                .unwrap()
                .to_vec(),
            b"hello"
        );

        Producer::new()
            .push(&client.submission_ring(), [3; 8])
            .unwrap();
        let consumer = Consumer::new();
        assert_eq!(consumer.available(&server.submission_ring()), Ok(1));
        assert_eq!(consumer.peek(&server.submission_ring(), 0), [3; 8]);
    }

    #[test]
    fn client_can_neither_resize_nor_write_the_response() {
        let server = SessionMemory::create(layout(), 1).unwrap();
        let [request, response] = server.client_fds().map(clone_fd);
        for fd in [&request, &response] {
            assert!(rustix::fs::ftruncate(fd, 0).is_err());
            assert!(rustix::fs::ftruncate(fd, 1 << 30).is_err());
        }
        let seal = rustix::fs::SealFlags::FUTURE_WRITE;
        assert_eq!(
            rustix::fs::fcntl_add_seals(&request, seal).unwrap_err(),
            Errno::PERM
        );
        let error = Mapping::shared(&response, 1 << 17, Access::ReadWrite).unwrap_err();
        assert_eq!(error.errno(), Errno::ACCESS);
    }

    #[test]
    fn what_the_client_punched_out_counts_as_untouched() {
        let server = SessionMemory::create(layout(), 1).unwrap();
        let before = server.untouched_bytes();
        assert!(before < server.byte_size(), "nothing was populated");
        let [request, _] = server.client_fds().map(clone_fd);
        memfd::punch_all(&request, 1 << 18).unwrap();
        assert_eq!(server.untouched_bytes(), before + (1 << 18));
        server
            .request()
            .write_header(server.layout().header(RegionKind::Request, 1));
        assert!(server.untouched_bytes() < before + (1 << 18));
    }

    #[test]
    fn pages_go_back_though_the_client_keeps_its_mapping() {
        let server = SessionMemory::create(layout(), 1).unwrap();
        let [request, response] = server.client_fds().map(clone_fd);
        let client = ClientMemory::map(layout(), &request, &response).unwrap();
        let blocks = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_blocks;
        assert!(blocks(&request) > 0 && blocks(&response) > 0);
        drop(server);
        assert_eq!((blocks(&request), blocks(&response)), (0, 0));
        assert_eq!(client.response().header().magic, 0);
    }

    #[test]
    fn writable_part_shows_the_region_and_keeps_writes_to_itself() {
        let server = SessionMemory::create(layout(), 1).unwrap();
        let [request, response] = server.client_fds().map(clone_fd);
        let client = ClientMemory::map(layout(), &request, &response).unwrap();
        let arena = server.response_arena();
        let mut range = arena.allocate(5000).unwrap();
        range.write(&[5; 5000]);
        let part = client.writable_response(range.offset(), 5000).unwrap();
        // SAFETY: 5000 bytes are mapped there, and only this thread knows the part.
        let bytes = unsafe { std::slice::from_raw_parts_mut(part.start().as_ptr(), 5000) };
        assert_eq!(bytes, [5; 5000]);
        bytes[0] = 9;
        assert_eq!(range.payload().to_vec(), [5; 5000]);
        assert!(client.writable_response(1 << 17, 1).is_err());
    }

    #[test]
    fn memory_of_another_size_or_without_seals_is_refused() {
        let server = SessionMemory::create(layout(), 1).unwrap();
        let [request, response] = server.client_fds().map(clone_fd);
        let other = SessionLayout::new(1 << 19, 1 << 17, 64).unwrap();
        assert!(ClientMemory::map(other, &request, &response).is_err());
        let plain = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&plain, 1 << 18).unwrap();
        assert!(ClientMemory::map(layout(), &plain, &response).is_err());
    }
}
