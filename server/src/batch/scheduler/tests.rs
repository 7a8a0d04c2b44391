use super::*;
use crate::batch::queue_policy::{LevelPolicy, TimeoutAction};

const MS: u64 = 1_000_000;
/// From a completion to the same client's next request.
const THINK_NS: u64 = 20_000;

type Sim = Scheduler<(), u32>;

fn policy(delay_ns: u64) -> BatchPolicy {
    BatchPolicy {
        max_batch_size: 16,
        preferred_batch_sizes: SmallVec::new(),
        max_queue_delay_ns: delay_ns,
    }
}

fn ticket(flow: u64, now_ns: u64, deadline_ns: u64) -> Ticket {
    Ticket {
        flow,
        request_id: 0,
        priority: 1,
        rows: 1,
        compatibility: 0,
        enqueued_ns: now_ns,
        deadline_ns,
        timeout_ns: u64::MAX,
        timeout_action: TimeoutAction::Reject,
    }
}

/// A batch of any size takes 10 ms.
fn timing() -> Timing {
    let timing = Timing::default();
    for rows in [1, 2, 4, 8, 16] {
        timing.observe(rows, 10 * MS);
        (0..100).for_each(|_| timing.observe(rows, 10 * MS));
    }
    timing
}

fn send(sim: &mut Sim, flow: u64, now_ns: u64) {
    let ticket = ticket(flow, now_ns, u64::MAX);
    sim.enqueue(ticket, (), now_ns, &timing()).unwrap();
}

fn run(next: Next<(), u32>) -> Batch<(), u32> {
    match next {
        Next::Run(batch) => batch,
        other => panic!("{other:?} in place of a batch"),
    }
}

fn next(sim: &mut Sim, now_ns: u64) -> Next<(), u32> {
    sim.next(now_ns, &timing(), &mut Vec::new())
}

fn finish(sim: &mut Sim, batch: Batch<(), u32>, now_ns: u64) {
    let flows: Vec<u64> = batch.jobs.iter().map(|(ticket, ())| ticket.flow).collect();
    sim.finish(batch.instance, batch.until_ns, &flows, now_ns);
}

#[test]
fn clients_in_closed_loop_fill_their_batch_and_do_not_wait_for_the_delay() {
    let mut sim = Sim::new(policy(5 * MS), 100, vec![0]);
    let mut now_ns = MS;
    for turn in 0..10 {
        for flow in 1..=4 {
            now_ns += THINK_NS;
            if flow > 1 {
                assert!(matches!(next(&mut sim, now_ns), Next::WaitUntil(at) if at > now_ns));
            }
            send(&mut sim, flow, now_ns);
        }
        // At first nothing is known of them, and the delay is waited for.
        let start_ns = if turn < 3 { now_ns + 5 * MS } else { now_ns };
        let batch = run(next(&mut sim, start_ns));
        assert_eq!(batch.rows, 4, "turn {turn}");
        now_ns += 10 * MS;
        finish(&mut sim, batch, now_ns);
    }
}

#[test]
fn one_that_stopped_delays_the_others_no_longer_than_it_is_expected() {
    let mut sim = Sim::new(policy(5 * MS), 100, vec![0]);
    let mut now_ns = MS;
    for _ in 0..10 {
        (1..=2).for_each(|flow| send(&mut sim, flow, now_ns));
        let batch = run(next(&mut sim, now_ns + 5 * MS));
        now_ns += 15 * MS;
        finish(&mut sim, batch, now_ns);
        now_ns += THINK_NS;
    }
    send(&mut sim, 1, now_ns);
    let Next::WaitUntil(at_ns) = next(&mut sim, now_ns) else {
        panic!("it is still expected");
    };
    assert!(at_ns - now_ns < MS, "{}", at_ns - now_ns);
    assert_eq!(run(next(&mut sim, at_ns)).rows, 1);
}

#[test]
fn a_request_that_cannot_make_it_is_refused_before_it_waits() {
    let mut sim = Sim::new(policy(0), 100, vec![0]);
    let now_ns = 100 * MS;
    let timing = timing();
    let send = |sim: &mut Sim, deadline_ns| {
        sim.enqueue(ticket(1, now_ns, deadline_ns), (), now_ns, &timing)
    };
    // Nothing before it: tried, whatever was measured.
    assert_eq!(send(&mut sim, now_ns + 1), Ok(()));
    let running = run(sim.next(now_ns, &timing, &mut Vec::new()));
    let refused = send(&mut sim, now_ns + 15 * MS).unwrap_err().1;
    let Refusal::DeadlineUnreachable { end_ns } = refused else {
        panic!("{refused:?}");
    };
    assert!((120 * MS..122 * MS).contains(&end_ns), "{end_ns}");
    for _ in 0..16 {
        assert_eq!(send(&mut sim, now_ns + 25 * MS), Ok(()));
    }
    // A seventeenth does not fit that batch.
    assert!(send(&mut sim, now_ns + 25 * MS).is_err());
    finish(&mut sim, running, now_ns + 10 * MS);
    let batch = run(sim.next(now_ns + 10 * MS, &timing, &mut Vec::new()));
    assert_eq!(batch.rows, 16);
}

#[test]
fn what_cannot_be_in_time_any_more_leaves_its_place_to_others() {
    let mut sim = Sim::new(policy(0), 100, vec![0]);
    let unknown = Timing::default();
    let send = |sim: &mut Sim, flow, deadline_ns| {
        let ticket = ticket(flow, MS, deadline_ns);
        sim.enqueue(ticket, (), MS, &unknown).unwrap();
    };
    send(&mut sim, 1, 8 * MS);
    send(&mut sim, 2, 50 * MS);
    let mut expired = Vec::new();
    let batch = run(sim.next(2 * MS, &timing(), &mut expired));
    assert_eq!((expired.len(), batch.rows), (1, 1));
    assert_eq!(batch.jobs[0].0.flow, 2);
}

#[test]
fn a_batch_is_kept_short_for_the_deadline_of_its_first() {
    let timing = Timing::default();
    for (rows, ms) in [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)] {
        (0..50).for_each(|_| timing.observe(rows, ms * MS));
    }
    let mut sim = Sim::new(policy(0), 100, vec![0]);
    for flow in 1..=8 {
        let deadline_ns = if flow == 1 { 5 * MS } else { 90 * MS };
        sim.enqueue(ticket(flow, 0, deadline_ns), (), 0, &timing)
            .unwrap();
    }
    assert_eq!(run(sim.next(0, &timing, &mut Vec::new())).rows, 4);
}

#[test]
fn a_full_queue_says_its_limit() {
    let mut sim = Sim::new(policy(0), 1, vec![0]);
    send(&mut sim, 1, 0);
    let refused = sim.enqueue(ticket(1, 0, u64::MAX), (), 0, &timing());
    assert_eq!(refused.unwrap_err().1, Refusal::QueueFull { count_max: 1 });
}

#[test]
fn a_backlog_is_worked_off_in_full_batches_whatever_the_first_would_need() {
    let timing = Timing::default();
    for (rows, ms) in [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)] {
        (0..50).for_each(|_| timing.observe(rows, ms * MS));
    }
    let mut sim = Sim::new(policy(0), 100, vec![0]);
    for flow in 1..=17 {
        let deadline_ns = if flow == 1 { 5 * MS } else { 200 * MS };
        let ticket = ticket(flow, 0, deadline_ns);
        sim.enqueue(ticket, (), 0, &timing).unwrap();
    }
    assert_eq!(run(sim.next(0, &timing, &mut Vec::new())).rows, 16);
}

#[test]
fn a_level_has_a_limit_of_its_own() {
    let own = LevelPolicy {
        count_max: 1,
        ..LevelPolicy::default()
    };
    let policies = QueuePolicies {
        levels: [(2, own)].into(),
        ..QueuePolicies::default()
    };
    let mut sim = Sim::new(policy(0), 100, Vec::new()).with_policies(policies);
    let at = |priority| Ticket {
        priority,
        ..ticket(1, 0, u64::MAX)
    };
    sim.enqueue(at(2), (), 0, &timing()).unwrap();
    for _ in 0..3 {
        sim.enqueue(at(1), (), 0, &timing()).unwrap();
    }
    let ((), refusal) = sim.enqueue(at(2), (), 0, &timing()).unwrap_err();
    assert_eq!(refusal, Refusal::QueueFull { count_max: 1 });
}

#[test]
fn in_order_one_batch_runs_at_a_time() {
    let policies = QueuePolicies {
        is_in_order: true,
        ..QueuePolicies::default()
    };
    let mut sim = Sim::new(policy(0), 100, vec![1, 2]).with_policies(policies);
    send(&mut sim, 1, 0);
    let batch = run(sim.next(0, &timing(), &mut Vec::new()));
    send(&mut sim, 2, 0);
    let next = sim.next(0, &timing(), &mut Vec::new());
    assert!(matches!(next, Next::WaitUntil(u64::MAX)), "{next:?}");
    sim.finish(batch.instance, batch.until_ns, &[1], MS);
    run(sim.next(MS, &timing(), &mut Vec::new()));
}

#[test]
fn requests_are_joined_as_far_as_that_pays_and_now_and_then_to_see() {
    // In a batch, a row takes three times as long as alone.
    let copies = Timing::default();
    copies.observe(1, MS);
    for rows in [2, 4, 8, 16] {
        copies.observe(rows, u64::from(rows) * 3 * MS);
    }
    let mut rows = Vec::new();
    let mut sim = Sim::new(policy(0), 100, vec![0]);
    for turn in 0..2 * u64::from(PROBE_INTERVAL) {
        for flow in 0..4 {
            let full = sim.enqueue(ticket(flow, turn, u64::MAX), (), turn, &copies);
            full.unwrap();
        }
        while sim.waiting() > 0 {
            let batch = run(sim.next(turn, &copies, &mut Vec::new()));
            rows.push(batch.rows);
            finish(&mut sim, batch, turn);
        }
    }
    let probes = rows.iter().filter(|&&rows| rows > 1).count();
    // The last of four waits alone, and is no batch that could have been larger.
    let decided = rows.len() * 3 / 4;
    let expected = decided / PROBE_INTERVAL as usize;
    assert!(
        (expected - 1..=expected + 1).contains(&probes),
        "{probes} of {decided} batches were larger, not about {expected}"
    );
    // Whoever wants batches gets them.
    for policy in [
        policy(MS),
        BatchPolicy {
            preferred_batch_sizes: [4].as_slice().into(),
            ..policy(0)
        },
    ] {
        let mut sim = Sim::new(policy, 100, vec![0]);
        for flow in 0..4 {
            sim.enqueue(ticket(flow, 0, u64::MAX), (), 0, &copies)
                .unwrap();
        }
        let batch = run(sim.next(2 * MS, &copies, &mut Vec::new()));
        assert_eq!(batch.rows, 4);
    }
}

/// Two slots on a device that computes one batch at a time.
fn overlapping() -> Sim {
    Sim::new(policy(0), 64, vec![1, 2]).computing(1)
}

#[test]
fn a_batch_that_would_wait_behind_another_is_joined_until_it_is_its_turn() {
    let mut sim = overlapping();
    send(&mut sim, 1, 0);
    let first = run(next(&mut sim, 0));
    send(&mut sim, 2, MS);
    // Ten ms each: made ready half of that before the first one's end.
    assert!(matches!(next(&mut sim, MS), Next::WaitUntil(at) if at == 5 * MS));
    assert_eq!(sim.due_ns(MS, &timing()), 5 * MS);
    send(&mut sim, 3, 4 * MS);
    let second = run(next(&mut sim, 5 * MS));
    assert_eq!((second.rows, second.instance != first.instance), (2, true));
    // The end of the first one is the turn of the next, whenever that comes.
    send(&mut sim, 4, 6 * MS);
    finish(&mut sim, first, 10 * MS);
    finish(&mut sim, second, 11 * MS);
    assert_eq!(run(next(&mut sim, 11 * MS)).rows, 1);
}

#[test]
fn what_ends_early_does_not_hold_the_next_batch() {
    let mut sim = overlapping();
    send(&mut sim, 1, 0);
    let first = run(next(&mut sim, 0));
    send(&mut sim, 2, MS);
    assert!(matches!(next(&mut sim, MS), Next::WaitUntil(_)));
    finish(&mut sim, first, 2 * MS);
    assert_eq!(run(next(&mut sim, 2 * MS)).rows, 1);
}

#[test]
fn a_full_batch_is_not_held_and_deadlines_know_of_the_turn() {
    let mut sim = overlapping();
    send(&mut sim, 0, 0);
    run(next(&mut sim, 0));
    (1..17).for_each(|flow| send(&mut sim, flow, MS));
    assert_eq!(run(next(&mut sim, MS)).rows, 16);

    let mut sim = overlapping();
    send(&mut sim, 0, 0);
    run(next(&mut sim, 0));
    // Ten behind ten, of which each may take a little longer: that leaves no time for others to join.
    let tight = ticket(1, MS, 22 * MS);
    sim.enqueue(tight, (), MS, &timing()).unwrap();
    assert!(matches!(next(&mut sim, MS), Next::WaitUntil(at) if at == 5 * MS));
    let tight = ticket(2, MS, 22 * MS);
    assert!(sim.enqueue(tight, (), 2 * MS, &timing()).is_ok());
    assert_eq!(run(next(&mut sim, 5 * MS)).rows, 2);
    // Two compute one after the other, whatever places there are.
    let late = ticket(3, MS, 24 * MS);
    assert!(sim.enqueue(late, (), 6 * MS, &timing()).is_err());
}

#[test]
fn batches_that_are_computed_side_by_side_do_not_wait_for_each_other() {
    for at_once in [2, usize::MAX] {
        let mut sim = Sim::new(policy(0), 64, vec![1, 2]).computing(at_once);
        send(&mut sim, 1, 0);
        run(next(&mut sim, 0));
        send(&mut sim, 2, MS);
        assert_eq!(run(next(&mut sim, MS)).rows, 1);
    }
}

#[test]
fn who_has_said_when_to_send_batches_off_gets_that() {
    let preferred = BatchPolicy {
        preferred_batch_sizes: SmallVec::from_slice(&[1]),
        ..policy(0)
    };
    let mut sim = Sim::new(preferred, 64, vec![1, 2]).computing(1);
    send(&mut sim, 1, 0);
    run(next(&mut sim, 0));
    send(&mut sim, 2, MS);
    assert_eq!(run(next(&mut sim, MS)).rows, 1);
}

/// Clients that come back in a while find the batches as full as they can be: without the wait, each would take along
/// whoever is back first.
#[test]
fn clients_in_a_loop_fill_both_batches() {
    let batches = |mut sim: Sim| {
        (0..32).for_each(|flow| send(&mut sim, flow, 0));
        let mut running = vec![run(next(&mut sim, 0)), run(next(&mut sim, 0))];
        let mut now_ns = 0;
        let mut rows = Vec::new();
        for _ in 0..20 {
            // The device computes the older one; its clients come back one by one.
            let done = running.remove(0);
            now_ns += 10 * MS;
            rows.push(done.rows);
            let flows: Vec<u64> = done.jobs.iter().map(|(ticket, ())| ticket.flow).collect();
            finish(&mut sim, done, now_ns);
            for (index, flow) in flows.into_iter().enumerate() {
                let at_ns = now_ns + (index as u64 + 1) * MS / 10;
                send(&mut sim, flow, at_ns);
                if running.len() < 2
                    && let Next::Run(batch) = next(&mut sim, at_ns)
                {
                    running.push(batch);
                }
            }
            if running.len() < 2 {
                running.push(run(next(&mut sim, now_ns + 9 * MS)));
            }
        }
        rows[4..].iter().sum::<u32>() / 16
    };
    let sim = || Sim::new(policy(0), 64, vec![1, 2]);
    assert_eq!(batches(sim().computing(1)), 16);
    assert!(batches(sim()) < 14, "{}", batches(sim()));
}

#[test]
fn the_time_of_a_batch_begins_with_its_turn() {
    let ended = |sim: &mut Sim, batch: Batch<(), u32>, now_ns| {
        sim.finish(batch.instance, batch.until_ns, &[], now_ns)
    };
    let mut sim = overlapping();
    send(&mut sim, 1, 0);
    let first = run(next(&mut sim, 0));
    send(&mut sim, 2, 6 * MS);
    let second = run(next(&mut sim, 6 * MS));
    assert_eq!(second.until_ns, 20 * MS, "ten behind ten");
    assert_eq!(ended(&mut sim, first, 12 * MS), 0);
    assert_eq!(ended(&mut sim, second, 21 * MS), 12 * MS);

    // Side by side, the end of one is nothing to the other.
    let mut sim = Sim::new(policy(0), 64, vec![1, 2, 3, 4]).computing(2);
    send(&mut sim, 1, MS);
    let first = run(next(&mut sim, MS));
    send(&mut sim, 2, 2 * MS);
    let second = run(next(&mut sim, 2 * MS));
    assert_eq!(ended(&mut sim, first, 10 * MS), MS);
    assert_eq!(ended(&mut sim, second, 11 * MS), 2 * MS);
}

#[test]
fn nothing_is_held_beyond_its_timeout() {
    let mut sim = overlapping();
    send(&mut sim, 1, 0);
    run(next(&mut sim, 0));
    let impatient = Ticket {
        timeout_ns: 2 * MS,
        ..ticket(2, MS, u64::MAX)
    };
    sim.enqueue(impatient, (), MS, &timing()).unwrap();
    assert_eq!(run(next(&mut sim, MS)).rows, 1);
}
