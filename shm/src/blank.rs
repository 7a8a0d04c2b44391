//! What a forked child finds at the addresses of its parent's sessions: zeros of its own.

use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// A range of addresses that forked children get filled with private zeros.
///
/// The kernel leaves a session's memory out of children. What still points there, such as arrays of a
/// language that cannot be told, would then be an access to nothing, so a child puts pages of its own
/// in place before `fork` returns in it.
#[derive(Debug)]
pub(crate) struct Blank {
    node: &'static Node,
}

/// An entry of the list that a child walks. Entries are used again and never freed: between `fork` and the
/// end of its handlers a child may neither allocate nor wait for a lock that another thread held.
#[derive(Debug)]
struct Node {
    is_taken: AtomicBool,
    /// Null while there is nothing to fill.
    start: AtomicPtr<u8>,
    byte_size: AtomicUsize,
    is_writable: AtomicBool,
    next: *const Self,
}

// SAFETY: `next` points to another leaked node, or is null, and never changes; the rest are atomics.
unsafe impl Send for Node {}
// SAFETY: as for Send.
unsafe impl Sync for Node {}

static FIRST: AtomicPtr<Node> = AtomicPtr::new(std::ptr::null_mut());

impl Blank {
    /// Has children fill that range, which the kernel leaves out of them.
    pub(crate) fn new(start: NonNull<u8>, byte_size: usize, is_writable: bool) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler does nothing but walk a list of atomics and map memory. Without room for it, which
            // is the one failure, children keep the gap that the kernel leaves.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(fill_in_child)) };
        });
        let node = nodes().find(|node| !node.is_taken.swap(true, Ordering::Acquire));
        let node = node.unwrap_or_else(add_node);
        node.byte_size.store(byte_size, Ordering::Relaxed);
        node.is_writable.store(is_writable, Ordering::Relaxed);
        // SYNC: pairs with the Acquire in `fill_in_child`, should a fork come in between.
        node.start.store(start.as_ptr(), Ordering::Release);
        Self { node }
    }

    /// Whether something is mapped at the range: not so in a child that could not fill it.
    pub(crate) fn is_mapped(&self) -> bool {
        !self.node.start.load(Ordering::Relaxed).is_null()
    }
}

impl Drop for Blank {
    fn drop(&mut self) {
        self.node
            .start
            .store(std::ptr::null_mut(), Ordering::Release);
        self.node.is_taken.store(false, Ordering::Release);
    }
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut next = FIRST.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: a node in the list is never freed, and its fields are atomics or constant.
        let node = unsafe { next.as_ref() }?;
        next = node.next;
        Some(node)
    })
}

fn add_node() -> &'static Node {
    let mut node = Box::new(Node {
        is_taken: AtomicBool::new(true),
        start: AtomicPtr::new(std::ptr::null_mut()),
        byte_size: AtomicUsize::new(0),
        is_writable: AtomicBool::new(false),
        next: std::ptr::null(),
    });
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        node.next = first;
        let raw = Box::into_raw(node);
        match FIRST.compare_exchange_weak(first, raw, Ordering::Release, Ordering::Relaxed) {
            // SAFETY: it was a box just now, and from here on it is never freed.
            Ok(_) => return unsafe { &*raw },
            Err(now) => first = now,
        }
        // SAFETY: the exchange failed, so nobody else has seen the address.
        node = unsafe { Box::from_raw(raw) };
    }
}

extern "C" fn fill_in_child() {
    for node in nodes() {
        let start = node.start.load(Ordering::Acquire);
        if start.is_null() {
            continue;
        }
        let protection = if node.is_writable.load(Ordering::Relaxed) {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // What may have been put there since the fork is not overwritten.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let byte_size = node.byte_size.load(Ordering::Relaxed);
        // SAFETY: the range was mapped by this library in the parent and left out of this child; the flags
        // refuse it if anything is there now.
        let filled =
            unsafe { rustix::mm::mmap_anonymous(start.cast(), byte_size, protection, flags) };
        if filled.ok() != Some(start.cast()) {
            node.start.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
