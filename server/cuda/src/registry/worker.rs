//! The thread that registers and unregisters.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use super::{Refusal, RegionKey, RegionState, Registered, Shared};
use crate::driver::{Owner, Registration};

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Register(RegionKey),
    /// The last lease has ended.
    Release(Registration),
    /// What takes long to drop.
    Drop(Owner),
    Settle(SyncSender<()>),
    Stop,
}

#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    queue: Receiver<Command>,
    commands: Sender<Command>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Receiver<Command>,
        commands: Sender<Command>,
    ) -> Self {
        Self {
            shared,
            queue,
            commands,
        }
    }

    pub(super) fn run(self) {
        while let Ok(command) = self.queue.recv() {
            match command {
                Command::Register(key) => self.register(key),
                Command::Release(registration) => self.release(registration),
                Command::Drop(owner) => drop(owner),
                Command::Settle(done) => {
                    let _ = done.send(());
                }
                Command::Stop => break,
            }
        }
        // Leases that are still out keep theirs; the rest ends here, and what comes back now finds no thread.
        drop(self.shared.table.swap(Arc::default()));
        while let Ok(command) = self.queue.try_recv() {
            if let Command::Release(registration) = command {
                drop(registration);
            }
        }
    }

    fn register(&self, key: RegionKey) {
        let (region, outcome) = {
            let mut book = self.shared.book.lock();
            let Some(entry) = book.entries.get(&key) else {
                return; // retired meanwhile
            };
            if entry.state == RegionState::Registered {
                return;
            }
            let region = entry.region.clone();
            let wanted = region.byte_size();
            let limit = self.shared.budget_bytes;
            let left = limit.saturating_sub(book.registered_bytes);
            let facts = self.shared.device.facts();
            let is_supported =
                facts.registration && (region.is_writable() || facts.read_only_registration);
            let outcome = if !is_supported {
                Err(Refusal::Unsupported)
            } else if wanted > left {
                Err(Refusal::Budget {
                    wanted,
                    left,
                    limit,
                })
            } else {
                book.registered_bytes += wanted;
                Ok(())
            };
            (region, outcome)
        };
        // Without the lock: this is what takes long.
        let outcome = outcome.and_then(|()| {
            Registration::new(&self.shared.device, &region).map_err(|error| {
                self.give_back(region.byte_size());
                Refusal::Driver(error)
            })
        });
        match outcome {
            Ok(registration) => self.enter(key, registration),
            Err(refusal) => self.refuse(key, refusal),
        }
    }

    fn enter(&self, key: RegionKey, registration: Registration) {
        let registered = Arc::new(Registered {
            key,
            registration: Some(registration),
            commands: self.commands.clone(),
        });
        let mut book = self.shared.book.lock();
        let Some(entry) = book.entries.get_mut(&key) else {
            book.retired += 1;
            drop(book);
            return; // retired while it was registered: dropping it queues its release
        };
        entry.state = RegionState::Registered;
        let mut table = Vec::clone(&self.shared.table.load());
        let at = table.partition_point(|other| other.start() <= registered.start());
        table.insert(at, registered);
        self.shared.table.store(Arc::new(table));
    }

    fn refuse(&self, key: RegionKey, refusal: Refusal) {
        let mut book = self.shared.book.lock();
        if let Some(entry) = book.entries.get_mut(&key) {
            entry.state = RegionState::Refused(refusal);
        }
    }

    fn release(&self, registration: Registration) {
        let byte_size = registration.byte_size() as u64;
        drop(registration);
        self.give_back(byte_size);
        let mut waiting: Vec<RegionKey> = {
            let mut book = self.shared.book.lock();
            book.retired = book.retired.saturating_sub(1);
            let for_room =
                |state: &RegionState| matches!(state, RegionState::Refused(Refusal::Budget { .. }));
            let entries = book.entries.iter();
            let refused = entries.filter(|(_, entry)| for_room(&entry.state));
            refused.map(|(&key, _)| key).collect()
        };
        // Who came first gets the room first.
        waiting.sort_unstable();
        for key in waiting {
            self.register(key);
        }
    }

    fn give_back(&self, byte_size: u64) {
        let mut book = self.shared.book.lock();
        book.registered_bytes = book.registered_bytes.saturating_sub(byte_size);
    }
}
