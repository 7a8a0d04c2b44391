//! A response that is kept while its request goes on.

use std::fmt;
use std::sync::Arc;

use adjoin_schema::layout::CompletionEntry;

use crate::answer::Answer;
use crate::exchange::{Exchange, Stage, initial};
use crate::reclaim::Preparation;
use crate::response::Outputs;
use crate::session::Session;

/// The outputs of one run, apart from the request that ran. Released when dropped.
///
/// The server keeps a prepared request together with room for one response. A lease takes both from the
/// request, which is prepared anew with the next run; [`Request::take_back`](crate::Request::take_back)
/// returns them, so two leases that take turns cost no preparation.
pub struct Lease {
    session: Arc<Session>,
    place_id: u64,
    preparation: Preparation,
    completion: CompletionEntry,
    answer: Answer,
    is_taken_back: bool,
}

impl Lease {
    /// Of an exchange that was answered.
    pub(crate) fn of(exchange: &mut Exchange) -> Self {
        let completion = *exchange
            .completion()
            .expect("a response is only made of an exchange that was answered");
        exchange.stage = Stage::Idle;
        let next = match exchange.preparation {
            Preparation::Done(_) => initial(exchange.may_prepare),
            other => other,
        };
        Self {
            session: Arc::clone(&exchange.session),
            place_id: exchange.place_id,
            preparation: std::mem::replace(&mut exchange.preparation, next),
            completion,
            answer: std::mem::take(&mut exchange.answer),
            is_taken_back: false,
        }
    }

    /// The outputs.
    #[must_use]
    pub fn outputs(&self) -> Outputs<'_> {
        Outputs {
            session: &self.session,
            answer: &self.answer,
            completion: &self.completion,
        }
    }

    /// Gives preparation and response room to the request that they are of. Where the request has moved
    /// or holds a preparation, the lease just ends.
    pub(crate) fn return_to(mut self, exchange: &mut Exchange) {
        let is_wanted = exchange.place_id == self.place_id
            && exchange.preparation == Preparation::Wanted
            && matches!(self.preparation, Preparation::Done(_))
            && exchange.session.is_ours();
        if is_wanted {
            exchange.preparation = self.preparation;
            exchange.answer = std::mem::take(&mut self.answer);
            self.is_taken_back = true;
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("preparation", &self.preparation)
            .field("completion", &self.completion)
            .finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_taken_back && self.session.is_ours() {
            self.session
                .retire(self.preparation, Some(&self.completion));
        }
    }
}
