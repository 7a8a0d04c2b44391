//! The waiting requests of one model version: by priority, fair between flows within a priority.
//!
//! Fairness is start-time fair queueing: a request of `r` rows gets a tag, the later one of the
//! queue's virtual time and the end of its flow's last request, and ends `r` later. Requests run in the
//! order of their tags. So a flow (a session) that floods the queue waits behind itself, and one that
//! sends now and then goes first. Like the policy this is pure.

use std::collections::{BTreeMap, HashMap};

use super::policy::QueueFacts;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    priority: u16,
    tag: u64,
    sequence: u64,
}

/// Waiting requests with a payload of the caller's.
#[derive(Debug)]
pub struct BatchQueue<T> {
    waiting: BTreeMap<Place, (Ticket, T)>,
    flow_ends: HashMap<u64, u64>,
    virtual_time: u64,
    sequence: u64,
    /// No waiting request has an earlier deadline.
    deadline_ns: u64,
    count_max: usize,
}

/// How far a look for joinable requests goes past requests that cannot be joined.
const LOOK_AHEAD: usize = 256;

impl<T> BatchQueue<T> {
    /// An empty queue that takes `count_max` requests.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            flow_ends: HashMap::new(),
            virtual_time: 0,
            sequence: 0,
            deadline_ns: u64::MAX,
            count_max,
        }
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

    /// Takes a request in; gives it back if the queue is full.
    ///
    /// # Errors
    /// The request itself, when the queue is full.
    pub fn push(&mut self, ticket: Ticket, item: T) -> Result<(), T> {
        if self.waiting.len() >= self.count_max {
            return Err(item);
        }
        if self.waiting.is_empty() {
            // Nobody waits, so nobody can be treated unfairly: forget who was served when.
            self.flow_ends.clear();
            self.virtual_time = 0;
        }
        let end = self.flow_ends.entry(ticket.flow).or_insert(0);
        let tag = self.virtual_time.max(*end);
        *end = tag + u64::from(ticket.rows);
        self.deadline_ns = self.deadline_ns.min(ticket.deadline_ns);
        self.sequence += 1;
        let place = Place {
            priority: ticket.priority,
            tag,
            sequence: self.sequence,
        };
        self.waiting.insert(place, (ticket, item));
        Ok(())
    }

    /// What the policy needs to know, looking no further than `rows_max` rows.
    #[must_use]
    pub fn facts(&self, rows_max: u32, can_grow: bool) -> QueueFacts {
        let mut facts = QueueFacts {
            rows: 0,
            oldest_ns: u64::MAX,
            can_grow,
        };
        let Some((_, (head, _))) = self.waiting.first_key_value() else {
            return facts;
        };
        for (ticket, _) in self.waiting.values().take(LOOK_AHEAD) {
            if ticket.compatibility == head.compatibility && facts.rows < rows_max {
                facts.rows = facts.rows.saturating_add(ticket.rows);
                facts.oldest_ns = facts.oldest_ns.min(ticket.enqueued_ns);
            }
        }
        facts
    }

    /// Takes requests that can be joined out of the queue, the head first, at most `rows_max` rows; the head
    /// alone may have more.
    pub fn take(&mut self, rows_max: u32, taken: &mut Vec<(Ticket, T)>) {
        let Some((place, (head, item))) = self.waiting.pop_first() else {
            return;
        };
        self.virtual_time = self.virtual_time.max(place.tag);
        let mut rows = head.rows;
        taken.push((head, item));
        if rows >= rows_max || self.waiting.is_empty() {
            return;
        }
        let mut places: smallvec::SmallVec<[Place; 32]> = smallvec::SmallVec::new();
        for (place, (ticket, _)) in self.waiting.iter().take(LOOK_AHEAD) {
            if ticket.compatibility == head.compatibility && rows + ticket.rows <= rows_max {
                rows += ticket.rows;
                places.push(*place);
                if rows == rows_max {
                    break;
                }
            }
        }
        taken.extend(places.iter().filter_map(|place| self.waiting.remove(place)));
    }

    /// Takes out what is past its deadline at `now_ns`.
    pub fn expire(&mut self, now_ns: u64, expired: &mut Vec<(Ticket, T)>) {
        if now_ns < self.deadline_ns {
            return;
        }
        self.extract(|ticket| ticket.deadline_ns <= now_ns, expired);
        self.deadline_ns = self
            .waiting
            .values()
            .map(|(ticket, _)| ticket.deadline_ns)
            .min()
            .unwrap_or(u64::MAX);
    }

    /// The earliest deadline that may be waiting; never later than the true one.
    #[must_use]
    pub fn next_deadline_ns(&self) -> u64 {
        if self.waiting.is_empty() {
            u64::MAX
        } else {
            self.deadline_ns
        }
    }

    /// Takes one request out.
    pub fn cancel(&mut self, flow: u64, request_id: u64) -> Option<(Ticket, T)> {
        let found = |(_, (ticket, _)): &(&Place, &(Ticket, T))| {
            ticket.flow == flow && ticket.request_id == request_id
        };
        let place = *self.waiting.iter().find(found)?.0;
        self.waiting.remove(&place)
    }

    /// Takes everything of a flow out.
    pub fn remove_flow(&mut self, flow: u64, removed: &mut Vec<(Ticket, T)>) {
        self.extract(|ticket| ticket.flow == flow, removed);
        self.flow_ends.remove(&flow);
    }

    fn extract(&mut self, leaves: impl Fn(&Ticket) -> bool, out: &mut Vec<(Ticket, T)>) {
        let places: Vec<Place> = self
            .waiting
            .iter()
            .filter(|(_, (t, _))| leaves(t))
            .map(|(place, _)| *place)
            .collect();
        out.extend(places.iter().filter_map(|place| self.waiting.remove(place)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(flow: u64, request_id: u64) -> Ticket {
        Ticket {
            flow,
            request_id,
            priority: 2,
            rows: 1,
            compatibility: 0,
            enqueued_ns: request_id,
            deadline_ns: u64::MAX,
        }
    }

    fn order(queue: &mut BatchQueue<()>, rows_max: u32) -> Vec<u64> {
        let mut taken = Vec::new();
        queue.take(rows_max, &mut taken);
        taken.into_iter().map(|(t, ())| t.request_id).collect()
    }

    #[test]
    fn a_flood_waits_behind_itself() {
        let mut queue = BatchQueue::new(100);
        for id in 0..10 {
            queue.push(ticket(1, id), ()).unwrap();
        }
        assert_eq!(order(&mut queue, 2), [0, 1]);
        queue.push(ticket(2, 100), ()).unwrap();
        queue.push(ticket(3, 200), ()).unwrap();
        assert_eq!(order(&mut queue, 4), [100, 200, 2, 3]);
    }

    #[test]
    fn two_flows_share_by_rows_not_by_requests() {
        let mut queue = BatchQueue::new(100);
        for id in 0..4 {
            queue
                .push(
                    Ticket {
                        rows: 4,
                        ..ticket(1, id)
                    },
                    (),
                )
                .unwrap();
        }
        for id in 10..18 {
            queue.push(ticket(2, id), ()).unwrap();
        }
        // Four rows of the second flow for each request of four rows of the first.
        let all: Vec<u64> = (0..12).flat_map(|_| order(&mut queue, 1)).collect();
        assert_eq!(all, [0, 10, 11, 12, 13, 1, 14, 15, 16, 17, 2, 3]);
    }

    #[test]
    fn urgent_requests_pass_and_incompatible_ones_are_not_joined() {
        let mut queue = BatchQueue::new(100);
        queue.push(ticket(1, 0), ()).unwrap();
        queue
            .push(
                Ticket {
                    priority: 1,
                    ..ticket(2, 1)
                },
                (),
            )
            .unwrap();
        queue
            .push(
                Ticket {
                    compatibility: 9,
                    ..ticket(3, 2)
                },
                (),
            )
            .unwrap();
        queue.push(ticket(4, 3), ()).unwrap();
        assert_eq!(order(&mut queue, 8), [1, 0, 3]);
        assert_eq!(order(&mut queue, 8), [2]);
    }

    #[test]
    fn full_queue_gives_the_request_back() {
        let mut queue = BatchQueue::new(2);
        queue.push(ticket(1, 0), "a").unwrap();
        queue.push(ticket(1, 1), "b").unwrap();
        assert_eq!(queue.push(ticket(1, 2), "c"), Err("c"));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn deadlines_cancels_and_dead_flows_leave_the_rest_alone() {
        let mut queue = BatchQueue::new(100);
        queue
            .push(
                Ticket {
                    deadline_ns: 50,
                    ..ticket(1, 0)
                },
                (),
            )
            .unwrap();
        for id in 1..4 {
            queue.push(ticket(id, id), ()).unwrap();
        }
        let mut out = Vec::new();
        queue.expire(49, &mut out);
        assert!(out.is_empty() && queue.next_deadline_ns() == 50);
        queue.expire(50, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(queue.next_deadline_ns(), u64::MAX);
        assert!(queue.cancel(2, 99).is_none());
        assert_eq!(queue.cancel(2, 2).unwrap().0.flow, 2);
        out.clear();
        queue.remove_flow(3, &mut out);
        assert_eq!((out.len(), queue.len()), (1, 1));
        assert_eq!(order(&mut queue, 8), [1]);
    }

    #[test]
    fn facts_count_what_can_be_joined_with_the_head() {
        let mut queue = BatchQueue::new(100);
        assert_eq!(queue.facts(16, true).rows, 0);
        queue
            .push(
                Ticket {
                    rows: 3,
                    ..ticket(1, 5)
                },
                (),
            )
            .unwrap();
        queue
            .push(
                Ticket {
                    compatibility: 1,
                    ..ticket(2, 3)
                },
                (),
            )
            .unwrap();
        queue
            .push(
                Ticket {
                    rows: 2,
                    ..ticket(3, 4)
                },
                (),
            )
            .unwrap();
        assert_eq!(
            queue.facts(16, true),
            QueueFacts {
                rows: 5,
                oldest_ns: 4,
                can_grow: true
            }
        );
    }
}
