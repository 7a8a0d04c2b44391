//! What a request leaves behind: memory that the server may still read, a number under which it is
//! prepared, a response that is still out. Here it is decided what goes back when.

use std::sync::Arc;

use adjoin_schema::layout::{CompletionEntry, completion_flags};
use adjoin_schema::status::Status;
use adjoin_shm::OwnedRange;
use smallvec::SmallVec;

use crate::session::Session;

/// The extents of one request in the request region.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    /// Inputs in the request's order, each perhaps shared with an [`InputPlace`](crate::InputPlace).
    pub(crate) inputs: SmallVec<[Arc<OwnedRange>; 2]>,
    /// Number of the region of each input, 0 for those of the session, and then of each room; none before they are known.
    pub(crate) regions: SmallVec<[u32; 2]>,
    /// The descriptor, as long as it is written there.
    pub(crate) descriptor: Option<OwnedRange>,
}

impl Extents {
    /// Never gives the memory back: in a forked child it is not mapped, and the lock of its arena may
    /// be held by a thread that only the parent has.
    pub(crate) fn forget(self) {
        self.inputs.into_iter().for_each(std::mem::forget);
        std::mem::forget(self.descriptor);
    }
}

/// Under which number a request is known to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// The caller does not want it, or the server did not do it.
    Off,
    /// The next submission asks for it.
    #[default]
    Wanted,
    /// The submission that is out asks for it.
    Asked(u32),
    /// The server keeps the request under this number, and room for its response.
    Done(u32),
}

impl Preparation {
    /// What it is after a completion.
    pub(crate) fn after(self, completion: &CompletionEntry) -> Self {
        let is_kept = completion.flags & completion_flags::PREPARED != 0;
        match self {
            Self::Asked(id) if is_kept => Self::Done(id),
            // The server has forgotten it meanwhile, as it does when a region on the device is detached that it names:
            // the response is one to be released.
            Self::Done(id) if answered(completion) && !is_kept => Self::Asked(id),
            other => other,
        }
    }
}

/// A request that was dropped while the server had it. Its memory stays where it is until the
/// completion comes.
#[derive(Debug)]
pub(crate) struct Orphan {
    #[expect(dead_code, reason = "held for its memory, which goes back on drop")]
    pub(crate) extents: Extents,
    pub(crate) preparation: Preparation,
}

impl Session {
    /// Cleans up behind a dropped request after its completion came.
    pub(crate) fn bury(&self, orphan: &Orphan, completion: &CompletionEntry) {
        let preparation = orphan.preparation.after(completion);
        self.retire(preparation, answered(completion).then_some(completion));
    }

    /// Gives back what the server keeps for a request: its number, and its last response.
    pub(crate) fn retire(&self, preparation: Preparation, response: Option<&CompletionEntry>) {
        match (preparation, response) {
            // Forgetting includes the room of the response.
            (Preparation::Done(id), _) => self.forget(id),
            (Preparation::Asked(id), response) => {
                self.give_back_prepared_id(id);
                response.into_iter().for_each(|last| self.release(last));
            }
            (_, Some(last)) => self.release(last),
            (_, None) => {}
        }
    }
}

/// Whether a completion brings a response.
pub(crate) fn answered(completion: &CompletionEntry) -> bool {
    completion.status == Status::Ok as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_forgot_is_released_and_its_number_given_back() {
        let completion = |status: Status, flags| CompletionEntry {
            flags,
            ..CompletionEntry::failure(1, status, [0; 2])
        };
        let kept = completion(Status::Ok, completion_flags::PREPARED);
        let forgotten = completion(Status::Ok, 0);
        let refused = completion(Status::QueueFull, 0);
        let after = |preparation: Preparation, completion| preparation.after(&completion);
        assert_eq!(after(Preparation::Asked(3), kept), Preparation::Done(3));
        assert_eq!(after(Preparation::Done(3), kept), Preparation::Done(3));
        assert_eq!(
            after(Preparation::Done(3), forgotten),
            Preparation::Asked(3)
        );
        // A refusal says nothing of what the server keeps.
        assert_eq!(after(Preparation::Done(3), refused), Preparation::Done(3));
        assert_eq!(after(Preparation::Off, kept), Preparation::Off);
    }
}
