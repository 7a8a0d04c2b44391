//! What a forked child finds at the addresses of its parent's session.
#![cfg(not(loom))]
#![allow(unsafe_code, reason = "there is no safe way to fork")]

use std::os::fd::OwnedFd;

use adjoin_schema::layout::SessionLayout;
use adjoin_shm::{ClientMemory, SessionMemory};

/// Runs `child` in a forked process; whether it ended well.
fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs the closure and leaves by `_exit`. It allocates, which glibc allows there.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made; `status` is an integer of this frame.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status == 0
}

fn client_memory(server: &SessionMemory, layout: SessionLayout) -> ClientMemory {
    let [request, response]: [OwnedFd; 2] = server
        .client_fds()
        .map(|fd| fd.try_clone_to_owned().expect("a descriptor is free"));
    ClientMemory::map(layout, &request, &response).expect("sealed memory of that size")
}

#[test]
fn child_reads_and_writes_zeros_of_its_own() {
    let layout = SessionLayout::new(1 << 18, 1 << 17, 64).unwrap();
    let server = SessionMemory::create(layout, 7).unwrap();
    // One that is gone again leaves a place in the list that the next one takes.
    drop(client_memory(&server, layout));
    let client = client_memory(&server, layout);
    let mut range = client.request_arena().allocate(8).unwrap();
    range.write(&[3; 8]);
    let offset = range.offset();

    assert!(in_child(|| {
        assert_eq!(range.payload().to_vec(), [0; 8]);
        range.write(&[9; 8]);
        assert_eq!(range.payload().to_vec(), [9; 8]);
        assert_eq!(client.response().header().session_id, 0);
        // A child of the child has no other memory either.
        assert!(in_child(|| assert_eq!(client.response().header().magic, 0)));
        drop((range, client));
    }));
    let seen = server.request().payload(offset, 8).unwrap().to_vec();
    assert_eq!(seen, [3; 8]);
}
