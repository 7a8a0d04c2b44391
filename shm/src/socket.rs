//! The attach socket: packets with descriptors, and who is at the other end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use adjoin_schema::attach::WAKE;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Descriptors that one packet may carry. A handshake sends three.
pub const FDS_MAX: usize = 4;

/// A listening attach socket.
#[derive(Debug)]
pub struct AttachListener {
    fd: OwnedFd,
}

/// One end of an attach connection.
#[derive(Debug)]
pub struct AttachSocket {
    fd: OwnedFd,
}

/// A packet that came.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes; none at the end of the connection.
    pub bytes: Vec<u8>,
    /// Descriptors that came with it; closed when dropped.
    pub fds: Vec<OwnedFd>,
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl AttachListener {
    /// Binds and listens; the path must not exist.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&fd, 128)?;
        Ok(Self { fd })
    }

    /// A connection that waits to be taken; never blocks.
    ///
    /// # Errors
    /// `AGAIN` if there is none, or the system's.
    pub fn accept(&self) -> Result<AttachSocket, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(AttachSocket {
            fd: rustix::net::accept_with(&self.fd, flags)?,
        })
    }
}

impl AsFd for AttachListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for AttachListener {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl AttachSocket {
    /// Connects to a server's attach socket. The connection does not block; see [`AttachSocket::wait_readable`].
    ///
    /// # Errors
    /// The system's: `NOENT` and `CONNREFUSED` when no server is there.
    pub fn connect(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self { fd })
    }

    /// Sends one packet with descriptors; never blocks and never raises SIGPIPE.
    ///
    /// # Errors
    /// The system's: `AGAIN` if the peer does not read, `PIPE` if it is gone.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
    }

    /// Tells a client that polls its socket to look at the completion ring. A full socket buffer means
    /// that it has not read an earlier one, so nothing is lost.
    pub fn wake(&self) {
        let _ = rustix::net::send(&self.fd, WAKE, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    /// The next packet of at most `byte_size_max` bytes; never blocks.
    ///
    /// # Errors
    /// `AGAIN` if there is none; `MSGSIZE` for one that is longer or brings more descriptors than a
    /// handshake does (they are closed); or the system's.
    pub fn receive(&self, byte_size_max: usize) -> Result<Packet, Errno> {
        let mut bytes = vec![0; byte_size_max];
        let (byte_size, fds) = self.receive_into(&mut bytes)?;
        bytes.truncate(byte_size);
        Ok(Packet { bytes, fds })
    }

    /// As [`AttachSocket::receive`], to the start of a buffer that is kept; the bytes that came.
    ///
    /// # Errors
    /// As there.
    pub fn receive_into(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = rustix::net::recvmsg(
            &self.fd,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            flags,
        )?;
        let mut fds = Vec::new();
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = ancillary {
                fds.extend(received);
            }
        }
        if message
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(Errno::MSGSIZE);
        }
        Ok((message.bytes, fds))
    }

    /// Sleeps until a packet or the end of the connection is there; false when the time is up.
    ///
    /// # Errors
    /// The system's; `INTR` if a signal came.
    pub fn wait_readable(&self, at_most: Duration) -> Result<bool, Errno> {
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(rustix::event::poll(&mut fds, Some(&timeout))? > 0)
    }

    /// Whether the other end is gone.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut fds, Some(&now)) {
            Ok(0) | Err(Errno::INTR) => false,
            _ => fds[0]
                .revents()
                .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
        }
    }

    /// Ends the connection for both sides, also where descriptors of it were duplicated.
    pub fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// User and group of the peer when it connected. Its pid is of no use: it is 0 across pid namespaces.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_credentials(&self) -> Result<PeerCredentials, Errno> {
        // Not by rustix, whose type has no room for a pid of 0: from another pid namespace nobody could connect.
        let nobody = libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        let credentials = self.option(libc::SO_PEERCRED, nobody)?;
        Ok(PeerCredentials {
            uid: credentials.uid,
            gid: credentials.gid,
        })
    }

    /// A descriptor that becomes readable when the process that connected exits; `None` before Linux
    /// 6.5. The end of the connection alone does not tell while a forked child holds a copy of it.
    #[must_use]
    pub fn peer_process(&self) -> Option<OwnedFd> {
        let fd: libc::c_int = self.option(libc::SO_PEERPIDFD, -1).ok()?;
        if fd < 0 {
            return None;
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Reads an option of this socket; `T` is the C type that the kernel has for it, of plain numbers.
    fn option<T: Copy>(&self, name: libc::c_int, mut value: T) -> Result<T, Errno> {
        let mut byte_size = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
        // SAFETY: the kernel writes at most `byte_size` bytes, the size of `value`, which is of numbers that may have
        // any bytes.
        let outcome = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut byte_size,
            )
        };
        if outcome == 0 {
            Ok(value)
        } else {
            Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
        }
    }
}

impl AsFd for AttachSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for AttachSocket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, AttachSocket, AttachSocket) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attach.sock");
        let listener = AttachListener::bind(&path).unwrap();
        let client = AttachSocket::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        (dir, client, server)
    }

    #[test]
    fn packets_keep_their_bounds_and_carry_descriptors() {
        let (_dir, client, server) = pair();
        client.send(b"one", &[]).unwrap();
        client
            .send(b"two", &[client.as_fd(), client.as_fd()])
            .unwrap();
        assert_eq!(server.receive(16).unwrap().bytes, b"one");
        let packet = server.receive(16).unwrap();
        assert_eq!(
            (packet.bytes.as_slice(), packet.fds.len()),
            (&b"two"[..], 2)
        );
        assert_eq!(server.receive(16).unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn long_packets_are_refused_whole() {
        let (_dir, client, server) = pair();
        client.send(&[1; 100], &[]).unwrap();
        assert_eq!(server.receive(99).unwrap_err(), Errno::MSGSIZE);
        assert_eq!(server.receive(99).unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn end_of_connection_is_seen_and_the_peer_is_known() {
        let (_dir, client, server) = pair();
        assert!(!server.is_hung_up());
        let me = server.peer_credentials().unwrap();
        assert_eq!(me.uid, rustix::process::geteuid().as_raw());
        drop(client);
        assert!(server.is_hung_up());
        assert_eq!(server.receive(16).unwrap().bytes, b"");
    }
}
