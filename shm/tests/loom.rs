//! Every interleaving of ring and doorbell, by loom: `RUSTFLAGS="--cfg loom" cargo test -p adjoin-shm --test loom --release`.

#![cfg(loom)]

use std::sync::Arc;

use adjoin_shm::doorbell;
use adjoin_shm::ring::{Consumer, Entry, Producer, RingError, RingView};
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

const ASLEEP: u32 = 1;

struct Shared {
    tail: AtomicU32,
    head: AtomicU32,
    entries: Vec<Entry>,
    wait: AtomicU32,
    woken: AtomicBool,
}

impl Shared {
    fn new(entries: usize) -> Arc<Self> {
        Arc::new(Self {
            tail: AtomicU32::new(0),
            head: AtomicU32::new(0),
            entries: (0..entries).map(|_| Entry::new()).collect(),
            wait: AtomicU32::new(0),
            woken: AtomicBool::new(false),
        })
    }

    fn ring(&self) -> RingView<'_> {
        RingView {
            tail: &self.tail,
            head: &self.head,
            entries: &self.entries,
        }
    }
}

/// Takes what is there and checks that entries are whole and in order.
fn take(shared: &Shared, consumer: &mut Consumer, next: &mut u64) -> u32 {
    let count = consumer.available(&shared.ring()).unwrap();
    for index in 0..count {
        let words = consumer.peek(&shared.ring(), index);
        assert_eq!(words, [*next; 8], "torn, lost or repeated entry");
        *next += 1;
    }
    consumer.advance(&shared.ring(), count);
    count
}

#[test]
fn entries_are_whole_and_in_order_across_the_wrap() {
    loom::model(|| {
        let shared = Shared::new(2);
        let producing = Arc::clone(&shared);
        let producer = thread::spawn(move || {
            let mut producer = Producer::new();
            let mut sent = 0;
            // Three entries through two places: the third needs one that was taken.
            for _ in 0..3 {
                match producer.push(&producing.ring(), [sent; 8]) {
                    Ok(()) => sent += 1,
                    Err(RingError::Full { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            sent
        });
        let (mut consumer, mut next) = (Consumer::new(), 0);
        take(&shared, &mut consumer, &mut next);
        take(&shared, &mut consumer, &mut next);
        let sent = producer.join().unwrap();
        take(&shared, &mut consumer, &mut next);
        assert_eq!(next, sent);
    });
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let shared = Shared::new(2);
        let producing = Arc::clone(&shared);
        let producer = thread::spawn(move || {
            Producer::new().push(&producing.ring(), [0; 8]).unwrap();
            if doorbell::wanted(&producing.wait) & ASLEEP != 0 {
                producing.woken.store(true, Ordering::Relaxed);
            }
        });
        let (mut consumer, mut next) = (Consumer::new(), 0);
        let mut slept = false;
        if take(&shared, &mut consumer, &mut next) == 0 {
            doorbell::announce(&shared.wait, ASLEEP);
            slept = take(&shared, &mut consumer, &mut next) == 0;
        }
        producer.join().unwrap();
        // Whoever went to sleep is woken by the one that published.
        assert!(
            !slept || shared.woken.load(Ordering::Relaxed),
            "slept through an entry"
        );
    });
}

#[test]
fn a_withdrawn_sleeper_finds_the_entry_itself() {
    loom::model(|| {
        let shared = Shared::new(2);
        let producing = Arc::clone(&shared);
        let producer = thread::spawn(move || {
            let mut producer = Producer::new();
            for value in 0..2 {
                producer.push(&producing.ring(), [value; 8]).unwrap();
                let _ = doorbell::wanted(&producing.wait);
            }
        });
        let (mut consumer, mut next) = (Consumer::new(), 0);
        doorbell::announce(&shared.wait, ASLEEP);
        if take(&shared, &mut consumer, &mut next) > 0 {
            doorbell::withdraw(&shared.wait);
        }
        producer.join().unwrap();
        take(&shared, &mut consumer, &mut next);
        assert_eq!(next, 2);
    });
}
