//! Rings of fixed-size entries between two processes: one produces, the other consumes.
//!
//! The producer owns the tail and the entries, the consumer the head; each writes only its own
//! region. An index read from the other side is checked against the private one before it is used,
//! and the private one is the truth: [`Producer`] and [`Consumer`] never take a position from shared
//! memory. This module is pure logic over atomics, so that loom can run it.

use adjoin_schema::layout::ENTRY_WORDS;
use thiserror::Error;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// One ring entry in shared memory, 64 bytes.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Entry {
    words: [AtomicU64; ENTRY_WORDS],
}

impl Entry {
    /// An entry of zeros, for rings in private memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn store(&self, words: [u64; ENTRY_WORDS]) {
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    #[inline]
    fn load(&self) -> [u64; ENTRY_WORDS] {
        std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed))
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self::new()
    }
}

/// The shared parts of a ring. The number of entries is a power of two.
#[derive(Clone, Copy, Debug)]
pub struct RingView<'a> {
    /// Written by the producer: how many entries it has published.
    pub tail: &'a AtomicU32,
    /// Written by the consumer: how many it has taken.
    pub head: &'a AtomicU32,
    /// Written by the producer.
    pub entries: &'a [Entry],
}

impl RingView<'_> {
    #[inline]
    fn capacity(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("rings have at most 2^14 entries")
    }

    #[inline]
    fn entry(&self, index: u32) -> &Entry {
        // A power of two divides 2^32, so the place stays right when the index wraps.
        &self.entries[index as usize & (self.entries.len() - 1)]
    }
}

/// What a peer did to a ring, or that there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RingError {
    /// All places hold entries that the consumer has not taken.
    #[error("the ring is full ({capacity} entries)")]
    Full {
        /// Entries of the ring.
        capacity: u32,
    },
    /// The peer's index is impossible.
    #[error("ring index {index} is impossible; it may move from {least} by at most {room}")]
    IndexInvalid {
        /// What was read.
        index: u32,
        /// The least it could be.
        least: u32,
        /// How far beyond it could be.
        room: u32,
    },
}

/// The producing side's private state.
#[derive(Debug, Default)]
pub struct Producer {
    next: u32,
    seen_head: u32,
}

impl Producer {
    /// The state for a fresh ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that were published and not yet seen to be taken.
    ///
    /// # Errors
    /// `IndexInvalid` if the peer's head is impossible.
    #[inline]
    pub fn outstanding(&mut self, ring: &RingView<'_>) -> Result<u32, RingError> {
        // SYNC: pairs with the Release in `Consumer::advance`: what the consumer did with the entries
        // it took has happened before they are overwritten.
        let head = ring.head.load(Ordering::Acquire);
        let room = self.next.wrapping_sub(self.seen_head);
        if head.wrapping_sub(self.seen_head) > room {
            return Err(RingError::IndexInvalid {
                index: head,
                least: self.seen_head,
                room,
            });
        }
        self.seen_head = head;
        Ok(self.next.wrapping_sub(head))
    }

    /// Writes an entry and publishes it.
    ///
    /// # Errors
    /// `Full`, or `IndexInvalid` if the peer's head is impossible.
    #[inline]
    pub fn push(
        &mut self,
        ring: &RingView<'_>,
        words: [u64; ENTRY_WORDS],
    ) -> Result<(), RingError> {
        let capacity = ring.capacity();
        if self.next.wrapping_sub(self.seen_head) >= capacity && self.outstanding(ring)? >= capacity
        {
            return Err(RingError::Full { capacity });
        }
        ring.entry(self.next).store(words);
        self.next = self.next.wrapping_add(1);
        // SYNC: pairs with the Acquire in `Consumer::available`.
        ring.tail.store(self.next, Ordering::Release);
        Ok(())
    }
}

/// The consuming side's private state.
#[derive(Debug, Default)]
pub struct Consumer {
    next: u32,
}

impl Consumer {
    /// The state for a fresh ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that are ready to be read.
    ///
    /// # Errors
    /// `IndexInvalid` if the peer's tail is impossible.
    #[inline]
    pub fn available(&self, ring: &RingView<'_>) -> Result<u32, RingError> {
        // SYNC: pairs with the Release in `Producer::push`.
        let tail = ring.tail.load(Ordering::Acquire);
        let count = tail.wrapping_sub(self.next);
        let capacity = ring.capacity();
        if count > capacity {
            return Err(RingError::IndexInvalid {
                index: tail,
                least: self.next,
                room: capacity,
            });
        }
        Ok(count)
    }

    /// A private copy of the `index`-th entry that is ready. Each word is read once.
    #[inline]
    #[must_use]
    pub fn peek(&self, ring: &RingView<'_>, index: u32) -> [u64; ENTRY_WORDS] {
        ring.entry(self.next.wrapping_add(index)).load()
    }

    /// Takes `count` entries: their places may be written again.
    #[inline]
    pub fn advance(&mut self, ring: &RingView<'_>, count: u32) {
        self.next = self.next.wrapping_add(count);
        // SYNC: pairs with the Acquire in `Producer::outstanding`.
        ring.head.store(self.next, Ordering::Release);
    }

    /// The index up to which entries were taken.
    #[inline]
    #[must_use]
    pub fn position(&self) -> u32 {
        self.next
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Parts {
        tail: AtomicU32,
        head: AtomicU32,
        entries: Vec<Entry>,
    }

    impl Parts {
        fn new(capacity: usize) -> Self {
            let entries = (0..capacity).map(|_| Entry::new()).collect();
            Self {
                tail: AtomicU32::new(0),
                head: AtomicU32::new(0),
                entries,
            }
        }

        fn view(&self) -> RingView<'_> {
            RingView {
                tail: &self.tail,
                head: &self.head,
                entries: &self.entries,
            }
        }
    }

    #[test]
    fn entries_come_out_in_order_across_the_wrap_of_places_and_of_indices() {
        let parts = Parts::new(4);
        let start = u32::MAX - 5;
        parts.tail.store(start, Ordering::Relaxed);
        parts.head.store(start, Ordering::Relaxed);
        let mut producer = Producer {
            next: start,
            seen_head: start,
        };
        let mut consumer = Consumer { next: start };
        let mut expected = 0;
        for value in 0..20u64 {
            producer.push(&parts.view(), [value; 8]).unwrap();
            if value % 3 == 2 {
                let count = consumer.available(&parts.view()).unwrap();
                for index in 0..count {
                    assert_eq!(consumer.peek(&parts.view(), index), [expected; 8]);
                    expected += 1;
                }
                consumer.advance(&parts.view(), count);
            }
        }
        assert_eq!(expected, 18);
    }

    #[test]
    fn full_ring_refuses_and_takes_again() {
        let parts = Parts::new(2);
        let (mut producer, mut consumer) = (Producer::new(), Consumer::new());
        producer.push(&parts.view(), [1; 8]).unwrap();
        producer.push(&parts.view(), [2; 8]).unwrap();
        assert_eq!(
            producer.push(&parts.view(), [3; 8]),
            Err(RingError::Full { capacity: 2 })
        );
        consumer.advance(&parts.view(), 1);
        producer.push(&parts.view(), [3; 8]).unwrap();
        assert_eq!(consumer.peek(&parts.view(), 0), [2; 8]);
        assert_eq!(consumer.available(&parts.view()), Ok(2));
    }

    #[test]
    fn impossible_indices_are_found() {
        let parts = Parts::new(4);
        let consumer = Consumer::new();
        for tail in [5, u32::MAX, 1 << 31] {
            parts.tail.store(tail, Ordering::Relaxed);
            let error = RingError::IndexInvalid {
                index: tail,
                least: 0,
                room: 4,
            };
            assert_eq!(consumer.available(&parts.view()), Err(error));
        }
        let mut producer = Producer::new();
        for _ in 0..4 {
            producer.push(&parts.view(), [0; 8]).unwrap();
        }
        // The head cannot pass what was published, nor go back.
        parts.head.store(5, Ordering::Relaxed);
        assert!(matches!(
            producer.push(&parts.view(), [0; 8]),
            Err(RingError::IndexInvalid { index: 5, .. })
        ));
        parts.head.store(3, Ordering::Relaxed);
        producer.push(&parts.view(), [0; 8]).unwrap();
        parts.head.store(2, Ordering::Relaxed);
        assert!(matches!(
            producer.outstanding(&parts.view()),
            Err(RingError::IndexInvalid { index: 2, .. })
        ));
    }
}
