//! Whether a request can meet its deadline behind what waits already: it is refused before it waits if not,
//! so that its sender learns it at once, and nobody's time goes into an answer that comes too late. Pure.

use smallvec::SmallVec;

use super::queue::Ticket;
use crate::model::Estimate;

/// From the end of a batch to its completions in the rings, and from an intake to the start of a batch: a
/// wake-up of a thread each, rather much.
const HAND_OVER_NS: u64 = 300_000;
/// And this part of a batch: in overload each request is let in just before its last moment, so that what the machine
/// does beside would make all of them late.
const HAND_OVER_PART: u64 = 8;

/// What stands before a new request: the batches that will be formed of what waits.
#[derive(Debug)]
pub struct Backlog<E> {
    /// When each instance is free, in ns; at least one.
    pub free_ns: SmallVec<[u64; 4]>,
    /// Most rows of a batch.
    pub rows_max: u32,
    /// The time of a batch of so many rows.
    pub estimate: E,
}

/// The batch that a walk over the queue is filling.
#[derive(Clone, Copy, Debug)]
struct Filling {
    rows: u32,
    /// Batches before it.
    batches: u64,
    has_newcomer: bool,
    /// Earliest deadline of those in it that the newcomer goes before.
    deadline_ns: u64,
}

impl<E: Fn(u32) -> Estimate> Backlog<E> {
    /// Walks through `waiting`, with the newcomer in its place after the first `before`.
    ///
    /// # Errors
    /// The end that is predicted for the newcomer, in ns, if that is after its deadline, or if letting it in
    /// would make one behind it late that was in time.
    pub fn admit<'a>(
        mut self,
        newcomer: &Ticket,
        mut waiting: impl Iterator<Item = &'a Ticket>,
        before: usize,
    ) -> Result<(), u64> {
        let mut batch = Filling {
            rows: 0,
            batches: 0,
            has_newcomer: false,
            deadline_ns: u64::MAX,
        };
        for ticket in waiting.by_ref().take(before) {
            self.join(&mut batch, ticket.rows, newcomer)?;
        }
        self.join(&mut batch, newcomer.rows, newcomer)?;
        batch.has_newcomer = true;
        for ticket in waiting {
            self.join(&mut batch, ticket.rows, newcomer)?;
            batch.deadline_ns = batch.deadline_ns.min(ticket.deadline_ns);
        }
        self.run(&batch, newcomer)
    }

    fn join(&mut self, batch: &mut Filling, rows: u32, newcomer: &Ticket) -> Result<(), u64> {
        if batch.rows > 0 && batch.rows.saturating_add(rows) > self.rows_max {
            self.run(batch, newcomer)?;
            *batch = Filling {
                rows: 0,
                batches: batch.batches + 1,
                has_newcomer: false,
                deadline_ns: u64::MAX,
            };
        }
        batch.rows = batch.rows.saturating_add(rows);
        Ok(())
    }

    /// Gives a batch to the instance that is free first.
    fn run(&mut self, batch: &Filling, newcomer: &Ticket) -> Result<(), u64> {
        let Some(free_ns) = self.free_ns.iter_mut().min() else {
            return Ok(());
        };
        let estimate = (self.estimate)(batch.rows);
        *free_ns = free_ns.saturating_add(estimate.mean_ns);
        let end_ns = *free_ns;
        let margin_ns = estimate.margin_ns(batch.batches + 1);
        let hand_over_ns = HAND_OVER_NS + estimate.mean_ns / HAND_OVER_PART;
        let bound_ns = end_ns.saturating_add(margin_ns.saturating_add(hand_over_ns));
        let is_newcomer_late = batch.has_newcomer && bound_ns > newcomer.deadline_ns;
        // One that would be late without the newcomer too is no reason against it.
        let full_ns = (self.estimate)(self.rows_max).mean_ns;
        let deadline_ns = batch.deadline_ns;
        let is_other_late = end_ns > deadline_ns && end_ns.saturating_sub(full_ns) <= deadline_ns;
        if is_newcomer_late || is_other_late {
            return Err(bound_ns);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::queue_policy::TimeoutAction;

    const MS: u64 = 1_000_000;

    fn ticket(rows: u32, deadline_ns: u64) -> Ticket {
        Ticket {
            flow: 1,
            request_id: 0,
            priority: 1,
            rows,
            compatibility: 0,
            enqueued_ns: 0,
            deadline_ns,
            timeout_ns: u64::MAX,
            timeout_action: TimeoutAction::Reject,
        }
    }

    /// 10 ms a batch of at most 4 rows, whatever its rows.
    fn backlog(free_ns: &[u64]) -> Backlog<impl Fn(u32) -> Estimate> {
        Backlog {
            free_ns: free_ns.into(),
            rows_max: 4,
            estimate: |_| Estimate {
                mean_ns: 10 * MS,
                deviation_ns: 0,
            },
        }
    }

    fn admit(free_ns: &[u64], waiting: &[Ticket], deadline_ns: u64) -> Result<(), u64> {
        let newcomer = ticket(1, deadline_ns);
        backlog(free_ns).admit(&newcomer, waiting.iter(), waiting.len())
    }

    #[test]
    fn one_that_comes_too_late_behind_full_batches_is_refused_with_its_predicted_end() {
        let waiting = [ticket(1, u64::MAX); 8];
        let hand_over_ns = HAND_OVER_NS + 10 * MS / HAND_OVER_PART;
        let end_ns = 5 * MS + 30 * MS + hand_over_ns;
        assert_eq!(admit(&[5 * MS], &waiting, end_ns), Ok(()));
        assert_eq!(admit(&[5 * MS], &waiting, end_ns - 1), Err(end_ns));
        // It fills up the batch that is not full.
        assert_eq!(admit(&[5 * MS], &waiting[..7], end_ns - 10 * MS), Ok(()));
        // A second instance takes every other batch.
        assert_eq!(
            admit(&[5 * MS, 0], &waiting, 20 * MS + hand_over_ns),
            Ok(())
        );
        assert!(admit(&[5 * MS, 0], &waiting, 15 * MS).is_err());
    }

    #[test]
    fn requests_that_were_let_in_are_not_pushed_past_their_deadlines() {
        let waiting = [ticket(4, u64::MAX), ticket(4, 20 * MS)];
        let push = |before| backlog(&[0]).admit(&ticket(1, u64::MAX - 1), waiting.iter(), before);
        assert_eq!(push(2), Ok(()));
        assert!(push(1).is_err());
        // Late anyway, by more than the newcomer costs.
        let waiting = [ticket(4, u64::MAX), ticket(4, 5 * MS)];
        let late = backlog(&[0]).admit(&ticket(1, u64::MAX - 1), waiting.iter(), 0);
        assert_eq!(late, Ok(()));
    }

    #[test]
    fn uncertain_times_need_more_room() {
        let uncertain = |deadline_ns| {
            let backlog = Backlog {
                free_ns: [0].into_iter().collect(),
                rows_max: 4,
                estimate: |_| Estimate {
                    mean_ns: 10 * MS,
                    deviation_ns: MS,
                },
            };
            backlog.admit(&ticket(1, deadline_ns), std::iter::empty(), 0)
        };
        assert!(uncertain(12 * MS).is_err());
        assert_eq!(uncertain(15 * MS), Ok(()));
    }
}
