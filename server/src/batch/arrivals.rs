//! Whether waiting for more requests can pay: closed-loop dispatch.
//!
//! The server sees every session's ring, so it knows what no remote server can: who has a request waiting
//! or running, and who is about to send the next one. For each flow (session) this keeps how many requests
//! it usually has out and how soon it usually sends after its last event (a completion or a request). A flow
//! with fewer requests out than usual is *expected*, until it is overdue. When all expected flows together
//! will probably send less than one request before the delay is over, a batch will not grow, and goes off
//! at once: clients that call in a loop have all sent, and one that sends now and then is not worth waiting
//! for (many of them are). Pure: time comes in as an argument.

use rustc_hash::FxHashMap;

/// A flow that is later than this many of its usual gaps is not waited for.
const OVERDUE_GAPS: u64 = 4;
/// Least time, in ns, before a flow is overdue: a wake-up of its thread lies between.
const PATIENCE_NS: u64 = 200_000;
/// Requests after which the usual number out is taken anew.
const WINDOW: u32 = 8;
/// Answers that a flow got before anything is concluded from its habits.
const ACQUAINTANCE: u32 = 3;
/// A new gap counts for one part in so many.
const GAP_WEIGHT: u64 = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    outstanding: u32,
    /// How many it has out when it has all out.
    usual: u32,
    /// The most of this window, and the requests in it.
    peak: u32,
    arrivals: u32,
    /// Requests that are over, up to [`ACQUAINTANCE`].
    over: u32,
    /// From its last event to its next request, in ns; 0 before the first.
    gap_ns: u64,
    event_ns: u64,
}

impl Flow {
    fn is_short(&self) -> bool {
        self.outstanding < self.usual
    }

    /// Whether it has requests out, and its habits are not known.
    fn is_stranger(&self) -> bool {
        self.outstanding > 0 && self.over < ACQUAINTANCE
    }

    /// How many thousandths of a request it will probably send from now to `due_ns`, and until when it is
    /// expected to; `None` if it has all out, or is overdue.
    fn expected(&self, now_ns: u64, due_ns: u64) -> Option<(u64, u64)> {
        if !self.is_short() {
            return None;
        }
        let patience_ns = (self.gap_ns * OVERDUE_GAPS).max(PATIENCE_NS);
        let until_ns = self.event_ns.saturating_add(patience_ns);
        let rest_ns = due_ns.saturating_sub(now_ns);
        let thousandths = if self.event_ns.saturating_add(self.gap_ns) <= due_ns {
            1000
        } else {
            (rest_ns.saturating_mul(1000) / self.gap_ns.max(1)).min(999)
        };
        (now_ns < until_ns).then_some((thousandths, until_ns))
    }
}

/// Who has how many requests out, for one model version.
#[derive(Debug, Default)]
pub struct Arrivals {
    flows: FxHashMap<u64, Flow>,
    /// Flows with fewer requests out than usual.
    short: usize,
    /// Flows of unknown habits that have requests out.
    strangers: usize,
}

impl Arrivals {
    /// A flow sent a request.
    pub fn arrived(&mut self, flow: u64, now_ns: u64) {
        self.change(flow, |flow| {
            if flow.event_ns > 0 {
                let gap_ns = now_ns.saturating_sub(flow.event_ns);
                flow.gap_ns = if flow.gap_ns == 0 {
                    gap_ns
                } else {
                    flow.gap_ns - flow.gap_ns / GAP_WEIGHT + gap_ns / GAP_WEIGHT
                }
                .max(1);
            }
            flow.event_ns = now_ns;
            flow.outstanding += 1;
            flow.peak = flow.peak.max(flow.outstanding);
            flow.usual = flow.usual.max(flow.outstanding);
            flow.arrivals += 1;
            if flow.arrivals == WINDOW {
                flow.usual = flow.peak;
                flow.peak = flow.outstanding;
                flow.arrivals = 0;
            }
        });
    }

    /// A request of a flow is done, refused or cancelled.
    pub fn left(&mut self, flow: u64, now_ns: u64) {
        // One that is over may still have had a request running.
        if self.flows.contains_key(&flow) {
            self.change(flow, |flow| {
                flow.event_ns = now_ns;
                flow.outstanding = flow.outstanding.saturating_sub(1);
                flow.over = (flow.over + 1).min(ACQUAINTANCE);
            });
        }
    }

    /// A flow is over.
    pub fn remove(&mut self, flow: u64) {
        if let Some(flow) = self.flows.remove(&flow) {
            self.short -= usize::from(flow.is_short());
            self.strangers -= usize::from(flow.is_stranger());
        }
    }

    /// Until when a request is expected that comes before `due_ns`; 0 if none will probably come, `u64::MAX` if too
    /// little is known to say so.
    #[must_use]
    pub fn grows_until_ns(&self, now_ns: u64, due_ns: u64) -> u64 {
        if self.strangers > 0 {
            return u64::MAX;
        }
        if self.short == 0 {
            return 0;
        }
        let flows = self.flows.values();
        let expected = flows.filter_map(|flow| flow.expected(now_ns, due_ns));
        let (mut all_thousandths, mut all_until_ns) = (0, 0);
        for (thousandths, until_ns) in expected {
            all_thousandths += thousandths;
            all_until_ns = until_ns.max(all_until_ns);
            if all_thousandths >= 1000 {
                return all_until_ns;
            }
        }
        0
    }

    fn change(&mut self, flow: u64, change: impl FnOnce(&mut Flow)) {
        let flow = self.flows.entry(flow).or_default();
        self.short -= usize::from(flow.is_short());
        self.strangers -= usize::from(flow.is_stranger());
        change(flow);
        self.short += usize::from(flow.is_short());
        self.strangers += usize::from(flow.is_stranger());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A client that sends again `gap_ns` after each completion, `turns` times; the time of its last completion.
    fn closed_loop(arrivals: &mut Arrivals, flow: u64, gap_ns: u64, turns: u32) -> u64 {
        let mut now_ns = MS;
        for _ in 0..turns.max(ACQUAINTANCE) {
            arrivals.arrived(flow, now_ns);
            arrivals.left(flow, now_ns + MS);
            now_ns += MS + gap_ns;
        }
        now_ns - gap_ns
    }

    #[test]
    fn one_that_sends_again_at_once_is_waited_for_until_it_has() {
        let mut arrivals = Arrivals::default();
        let now_ns = closed_loop(&mut arrivals, 1, 10_000, 5);
        let due_ns = now_ns + 5 * MS;
        assert_eq!(
            arrivals.grows_until_ns(now_ns, due_ns),
            now_ns + PATIENCE_NS
        );
        assert_eq!(arrivals.grows_until_ns(now_ns + PATIENCE_NS, due_ns), 0);
        arrivals.arrived(1, now_ns + 10_000);
        assert_eq!(arrivals.grows_until_ns(now_ns + 10_000, due_ns), 0);
    }

    #[test]
    fn one_that_sends_seldom_is_not_waited_for_but_many_are() {
        let mut arrivals = Arrivals::default();
        let now_ns = closed_loop(&mut arrivals, 1, 20 * MS, 5);
        assert_eq!(arrivals.grows_until_ns(now_ns, now_ns + 5 * MS), 0);
        for flow in 2..=5 {
            closed_loop(&mut arrivals, flow, 20 * MS, 5);
        }
        assert!(arrivals.grows_until_ns(now_ns, now_ns + 5 * MS) > 0);
    }

    #[test]
    fn one_that_pipelines_is_waited_for_until_all_are_out() {
        let mut arrivals = Arrivals::default();
        let mut now_ns = MS;
        for _ in 0..4 {
            (0..3).for_each(|_| arrivals.arrived(1, now_ns));
            (0..3).for_each(|_| arrivals.left(1, now_ns + MS));
            now_ns += MS + 1000;
        }
        for _ in 0..3 {
            assert!(arrivals.grows_until_ns(now_ns, now_ns + MS) > 0);
            arrivals.arrived(1, now_ns);
        }
        assert_eq!(arrivals.grows_until_ns(now_ns, now_ns + MS), 0);
    }

    #[test]
    fn usual_number_sinks_with_the_load_and_a_dead_flow_is_forgotten() {
        let mut arrivals = Arrivals::default();
        arrivals.arrived(1, MS);
        assert_eq!(arrivals.grows_until_ns(MS, MS), u64::MAX);
        (1..10).for_each(|_| arrivals.arrived(1, MS));
        (0..10).for_each(|_| arrivals.left(1, MS));
        let now_ns = closed_loop(&mut arrivals, 1, 1000, 3 * WINDOW);
        let grows = |arrivals: &Arrivals| arrivals.grows_until_ns(now_ns, now_ns + MS) > 0;
        assert!(grows(&arrivals));
        arrivals.arrived(1, now_ns);
        assert!(!grows(&arrivals));
        arrivals.left(1, now_ns);
        arrivals.remove(1);
        arrivals.left(1, now_ns);
        assert_eq!((grows(&arrivals), arrivals.short), (false, 0));
        assert!(arrivals.flows.is_empty());
    }
}
