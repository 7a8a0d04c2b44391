//! The waiting requests of one model version: by priority, fair between flows within a priority.
//!
//! Fairness is start-time fair queueing: a request of `r` rows gets a tag, the later one of the
//! queue's virtual time and the end of its flow's last request, and ends `r` later. Requests run in the
//! order of their tags. So a flow (a session) that floods the queue waits behind itself, and one that
//! sends now and then goes first. Like the policy this is pure.
//!
//! Requests lie in order in one ring buffer: most come last and leave first, which costs no allocation and
//! touches no other request.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::policy::QueueFacts;
use super::queue_policy::TimeoutAction;

/// What the queue must know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Who sent it; requests of one flow are served in order.
    pub flow: u64,
    /// The sender's number for it.
    pub request_id: u64,
    /// 1 is the most urgent.
    pub priority: u16,
    /// Rows, at least 1.
    pub rows: u32,
    /// Only requests of equal compatibility can be joined.
    pub compatibility: u64,
    /// When it came.
    pub enqueued_ns: u64,
    /// When it is of no use any more.
    pub deadline_ns: u64,
    /// When it has waited for too long; `u64::MAX`: never.
    pub timeout_ns: u64,
    /// What happens then.
    pub timeout_action: TimeoutAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Behind all others: it has waited for too long.
    is_delayed: bool,
    priority: u16,
    tag: u64,
    sequence: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    place: Place,
    ticket: Ticket,
    item: T,
}

/// Waiting requests with a payload of the caller's.
#[derive(Debug)]
pub struct BatchQueue<T> {
    /// Ascending by place.
    waiting: VecDeque<Waiting<T>>,
    flow_ends: FxHashMap<u64, u64>,
    virtual_time: u64,
    sequence: u64,
    /// No waiting request has an earlier deadline.
    deadline_ns: u64,
    /// No waiting request has an earlier timeout.
    timeout_ns: u64,
    count_max: usize,
    /// Whether requests run strictly in the order in which they came.
    is_in_order: bool,
}

/// How far a look for joinable requests goes past requests that cannot be joined.
const LOOK_AHEAD: usize = 256;

impl<T> BatchQueue<T> {
    /// An empty queue that takes `count_max` requests.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            flow_ends: FxHashMap::default(),
            virtual_time: 0,
            sequence: 0,
            deadline_ns: u64::MAX,
            timeout_ns: u64::MAX,
            count_max,
            is_in_order: false,
        }
    }

    /// From now on requests run strictly in the order in which they come, in place of fairly.
    pub fn keep_order(&mut self) {
        self.is_in_order = true;
    }

    /// Number of waiting requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The most requests it takes.
    #[must_use]
    pub fn count_max(&self) -> usize {
        self.count_max
    }

    /// Whether it takes no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.count_max
    }

    /// Takes a request in; gives it back if the queue is full.
    ///
    /// # Errors
    /// The request itself, when the queue is full.
    pub fn push(&mut self, ticket: Ticket, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        if self.waiting.is_empty() {
            // Nobody waits, so nobody can be treated unfairly: forget who was served when.
            self.flow_ends.clear();
            self.virtual_time = 0;
        }
        self.insert(ticket, item, false);
        Ok(())
    }

    fn insert(&mut self, ticket: Ticket, item: T, is_delayed: bool) {
        let tag = self.tag(ticket.flow);
        self.flow_ends
            .insert(ticket.flow, tag + u64::from(ticket.rows));
        self.deadline_ns = self.deadline_ns.min(ticket.deadline_ns);
        self.timeout_ns = self.timeout_ns.min(ticket.timeout_ns);
        self.sequence += 1;
        let place = Place {
            is_delayed,
            priority: ticket.priority,
            tag,
            sequence: self.sequence,
        };
        let waiting = Waiting {
            place,
            ticket,
            item,
        };
        match self.waiting.back() {
            Some(last) if last.place > place => {
                let index = self.waiting.partition_point(|other| other.place < place);
                self.waiting.insert(index, waiting);
            }
            _ => self.waiting.push_back(waiting),
        }
    }

    /// Number of waiting requests of a level.
    #[must_use]
    pub fn waiting_at(&self, priority: u16) -> usize {
        // The requests of a level lie side by side, those that are delayed apart from the others.
        let before = |is_delayed, priority| {
            let key = (is_delayed, priority);
            let is_before = |other: &Waiting<T>| {
                (other.place.is_delayed, u32::from(other.place.priority)) < key
            };
            self.waiting.partition_point(is_before)
        };
        let level = u32::from(priority);
        let of = |is_delayed| before(is_delayed, level + 1) - before(is_delayed, level);
        of(false) + of(true)
    }

    fn tag(&self, flow: u64) -> u64 {
        if self.is_in_order {
            return 0;
        }
        let end = self.flow_ends.get(&flow).copied().unwrap_or(0);
        self.virtual_time.max(end)
    }

    /// The waiting requests in their order, and how many of them would run before a request with this ticket.
    pub fn order_with(&self, ticket: &Ticket) -> (impl Iterator<Item = &Ticket>, usize) {
        let place = Place {
            is_delayed: false,
            priority: ticket.priority,
            tag: self.tag(ticket.flow),
            sequence: u64::MAX,
        };
        let before = self.waiting.partition_point(|other| other.place < place);
        (self.waiting.iter().map(|waiting| &waiting.ticket), before)
    }

    /// What the policy needs to know, looking no further than `rows_max` rows.
    #[must_use]
    pub fn facts(&self, rows_max: u32) -> QueueFacts {
        let mut facts = QueueFacts::EMPTY;
        let Some(head) = self.waiting.front() else {
            return facts;
        };
        for Waiting { ticket, .. } in self.waiting.iter().take(LOOK_AHEAD) {
            if ticket.compatibility == head.ticket.compatibility {
                facts.rows = facts.rows.saturating_add(ticket.rows);
                facts.oldest_ns = facts.oldest_ns.min(ticket.enqueued_ns);
                facts.deadline_ns = facts.deadline_ns.min(ticket.deadline_ns);
                if facts.rows >= rows_max {
                    break;
                }
            }
        }
        facts
    }

    /// Takes requests that can be joined out of the queue, the head first, at most `rows_max` rows; the head
    /// alone may have more. `fits` tells whether a batch of so many rows would meet a deadline: a request that would
    /// make the batch too long for one that is in it, or that comes too late itself, waits for a later batch.
    pub fn take(
        &mut self,
        rows_max: u32,
        fits: impl Fn(u32, u64) -> bool,
        taken: &mut Vec<(Ticket, T)>,
    ) {
        let Some(Waiting {
            place,
            ticket: head,
            item,
        }) = self.waiting.pop_front()
        else {
            return;
        };
        self.virtual_time = self.virtual_time.max(place.tag);
        let mut rows = head.rows;
        let mut deadline_ns = head.deadline_ns;
        taken.push((head, item));
        let mut places: SmallVec<[usize; 32]> = SmallVec::new();
        for (index, Waiting { ticket, .. }) in self.waiting.iter().take(LOOK_AHEAD).enumerate() {
            if rows >= rows_max {
                break;
            }
            let joined = rows + ticket.rows;
            let earliest_ns = deadline_ns.min(ticket.deadline_ns);
            if ticket.compatibility == head.compatibility
                && joined <= rows_max
                && (earliest_ns == u64::MAX || fits(joined, earliest_ns))
            {
                (rows, deadline_ns) = (joined, earliest_ns);
                places.push(index);
            } else if self.is_in_order {
                break;
            }
        }
        if places.last().is_some_and(|&last| last + 1 == places.len()) {
            // The usual case: those next in order.
            let joined = self.waiting.drain(..places.len());
            taken.extend(joined.map(|waiting| (waiting.ticket, waiting.item)));
            return;
        }
        let first = taken.len();
        for index in places.iter().rev() {
            if let Some(waiting) = self.waiting.remove(*index) {
                taken.push((waiting.ticket, waiting.item));
            }
        }
        taken[first..].reverse();
    }

    /// Takes out what is of no use if it runs from `start_ns` on, and what has waited for too long at `now_ns`; what is
    /// only to be delayed then goes behind all others.
    pub fn expire(&mut self, now_ns: u64, start_ns: u64, expired: &mut Vec<(Ticket, T)>) {
        if start_ns >= self.deadline_ns {
            self.extract(|ticket| ticket.deadline_ns <= start_ns, expired);
            self.deadline_ns = self.earliest(|ticket| ticket.deadline_ns);
        }
        if now_ns >= self.timeout_ns {
            let mut late = Vec::new();
            self.extract(|ticket| ticket.timeout_ns <= now_ns, &mut late);
            self.timeout_ns = self.earliest(|ticket| ticket.timeout_ns);
            for (mut ticket, item) in late {
                match ticket.timeout_action {
                    TimeoutAction::Reject => expired.push((ticket, item)),
                    TimeoutAction::Delay => {
                        ticket.timeout_ns = u64::MAX;
                        self.insert(ticket, item, true);
                    }
                }
            }
        }
    }

    fn earliest(&self, time_ns: impl Fn(&Ticket) -> u64) -> u64 {
        let times = self.waiting.iter().map(|waiting| time_ns(&waiting.ticket));
        times.min().unwrap_or(u64::MAX)
    }

    /// The earliest deadline or timeout that may be waiting; never later than the true one.
    #[must_use]
    pub fn next_deadline_ns(&self) -> u64 {
        if self.waiting.is_empty() {
            u64::MAX
        } else {
            self.deadline_ns.min(self.timeout_ns)
        }
    }

    /// Takes one request out.
    pub fn cancel(&mut self, flow: u64, request_id: u64) -> Option<(Ticket, T)> {
        let is_it = |Waiting { ticket, .. }: &Waiting<T>| {
            ticket.flow == flow && ticket.request_id == request_id
        };
        let index = self.waiting.iter().position(is_it)?;
        let waiting = self.waiting.remove(index)?;
        Some((waiting.ticket, waiting.item))
    }

    /// Takes everything of a flow out.
    pub fn remove_flow(&mut self, flow: u64, removed: &mut Vec<(Ticket, T)>) {
        self.extract(|ticket| ticket.flow == flow, removed);
        self.flow_ends.remove(&flow);
    }

    /// Takes everything out.
    pub fn take_all(&mut self, taken: &mut Vec<(Ticket, T)>) {
        self.extract(|_| true, taken);
    }

    fn extract(&mut self, leaves: impl Fn(&Ticket) -> bool, out: &mut Vec<(Ticket, T)>) {
        // Once round: who stays comes to the end again, so the order is the same.
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            if leaves(&waiting.ticket) {
                out.push((waiting.ticket, waiting.item));
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests;
