//! The client's side of the submission ring: what is pushed, in which order, and who is woken.

use std::collections::VecDeque;

use adjoin_schema::layout::{CompletionEntry, SubmissionEntry, SubmissionKind, submit_flags};
use adjoin_schema::limits::PREPARED_MAX;
use adjoin_shm::doorbell;
use adjoin_shm::ring::{Producer, RingError, RingView};

use crate::InferError;
use crate::inflight::Ticket;
use crate::session::Session;

/// State of the producing side.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    producer: Producer,
    /// Releases and forgets that found the ring full. They go before anything else.
    backlog: VecDeque<SubmissionEntry>,
    prepared: PreparedIds,
}

/// Numbers for prepared requests.
#[derive(Debug, Default)]
struct PreparedIds {
    free: Vec<u32>,
    next: u32,
}

impl PreparedIds {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let id = self.next;
            (id < PREPARED_MAX).then(|| {
                self.next += 1;
                id
            })
        })
    }
}

/// How a request is named in its submission.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// By its descriptor.
    Described { offset: u64, size: u32 },
    /// By its descriptor, to be prepared under a number.
    Prepare { offset: u64, size: u32, id: u32 },
    /// By the number under which it is prepared.
    Prepared { id: u32 },
}

impl Form {
    fn entry(self) -> SubmissionEntry {
        let (flags, prepared_id, offset, size) = match self {
            Self::Described { offset, size } => (0, 0, offset, size),
            Self::Prepare { offset, size, id } => (submit_flags::PREPARE, id, offset, size),
            Self::Prepared { id } => (submit_flags::PREPARED, id, 0, 0),
        };
        SubmissionEntry {
            flags,
            prepared_id,
            offset,
            size,
            ..empty(SubmissionKind::Submit)
        }
    }
}

fn empty(kind: SubmissionKind) -> SubmissionEntry {
    SubmissionEntry {
        kind: kind as u8,
        ..SubmissionEntry::from_words([0; 8])
    }
}

impl Submissions {
    fn push(&mut self, ring: &RingView<'_>, entry: SubmissionEntry) -> Result<(), RingError> {
        while let Some(first) = self.backlog.front() {
            self.producer.push(ring, first.to_words())?;
            self.backlog.pop_front();
        }
        self.producer.push(ring, entry.to_words())
    }

    /// Pushes an entry that must not get lost; whether it had to be put aside.
    fn push_or_keep(
        &mut self,
        ring: &RingView<'_>,
        entry: SubmissionEntry,
    ) -> Result<bool, RingError> {
        match self.push(ring, entry) {
            Err(RingError::Full { .. }) => {
                self.backlog.push_back(entry);
                Ok(true)
            }
            other => other.map(|()| false),
        }
    }
}

impl Session {
    /// Submits a request that has a slot, and wakes the server if it sleeps.
    pub(crate) fn submit(
        &self,
        ticket: Ticket,
        form: Form,
        deadline_ns: u64,
        priority: u16,
    ) -> Result<(), InferError> {
        let entry = SubmissionEntry {
            request_id: ticket.request_id(),
            deadline_ns,
            priority,
            ..form.entry()
        };
        let ring = self.memory.submission_ring();
        let outcome = self.submissions.lock().push(&ring, entry);
        match outcome {
            Ok(()) => {
                self.notify_server();
                Ok(())
            }
            Err(RingError::Full { capacity }) => {
                self.event.notify();
                Err(InferError::SubmissionRingFull { entries: capacity })
            }
            Err(error) => {
                self.fail(error.to_string());
                Err(self.end().map_or(
                    InferError::ServerGone {
                        may_have_run: false,
                    },
                    |end| end.in_flight_error(),
                ))
            }
        }
    }

    /// Whether the server sleeps, so that a submission has to wake it.
    pub(crate) fn server_sleeps(&self) -> bool {
        let word = self.memory.server_wait();
        word.load(std::sync::atomic::Ordering::Relaxed) != 0
    }

    fn notify_server(&self) {
        if doorbell::wanted(self.memory.server_wait()) != 0 {
            self.event.notify();
        }
    }

    /// Asks the server to drop a request that has not begun to run.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let entry = SubmissionEntry {
            request_id: ticket.request_id(),
            ..empty(SubmissionKind::Cancel)
        };
        let ring = self.memory.submission_ring();
        // Best effort: where the ring is full the server has stopped, and there is nothing to cancel.
        let _ = self.submissions.lock().push(&ring, entry);
        self.notify_server();
    }

    /// Gives a response back.
    pub(crate) fn release(&self, response: &CompletionEntry) {
        self.push_aside(SubmissionEntry {
            offset: response.response_offset,
            generation: response.generation,
            ..empty(SubmissionKind::Release)
        });
    }

    /// Has the server forget a prepared request; its number can be used for another one.
    pub(crate) fn forget(&self, id: u32) {
        self.push_aside(SubmissionEntry {
            prepared_id: id,
            ..empty(SubmissionKind::Forget)
        });
        self.give_back_prepared_id(id);
    }

    /// The server is not woken for these: it finds them before the next submission, and until then
    /// nobody needs what they give back.
    fn push_aside(&self, entry: SubmissionEntry) {
        if self.end().is_some() {
            return;
        }
        let ring = self.memory.submission_ring();
        let outcome = self.submissions.lock().push_or_keep(&ring, entry);
        match outcome {
            Ok(false) => {}
            Ok(true) => self.event.notify(),
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// A free number for a prepared request; `None` if the server keeps as many as it can.
    pub(crate) fn take_prepared_id(&self) -> Option<u32> {
        self.submissions.lock().prepared.take()
    }

    /// Gives back a number under which the server keeps nothing.
    pub(crate) fn give_back_prepared_id(&self, id: u32) {
        self.submissions.lock().prepared.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_numbers_are_limited_and_come_back() {
        let mut ids = PreparedIds::default();
        let taken: Vec<u32> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(taken, (0..PREPARED_MAX).collect::<Vec<u32>>());
        ids.free.push(7);
        assert_eq!((ids.take(), ids.take()), (Some(7), None));
    }
}
