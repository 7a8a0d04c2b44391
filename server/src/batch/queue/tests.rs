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
        timeout_ns: u64::MAX,
        timeout_action: TimeoutAction::Reject,
    }
}

fn order(queue: &mut BatchQueue<()>, rows_max: u32) -> Vec<u64> {
    let mut taken = Vec::new();
    queue.take(rows_max, |_, _| true, &mut taken);
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
    queue.expire(49, 49, &mut out);
    assert!(out.is_empty() && queue.next_deadline_ns() == 50);
    queue.expire(50, 50, &mut out);
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
    assert_eq!(queue.facts(16).rows, 0);
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
        queue.facts(16),
        QueueFacts {
            rows: 5,
            oldest_ns: 4,
            ..QueueFacts::EMPTY
        }
    );
}

#[test]
fn places_stay_in_order_and_a_newcomer_knows_its_own() {
    let mut queue = BatchQueue::new(100);
    for id in 0..6 {
        queue.push(ticket(1, id), ()).unwrap();
    }
    let before = |queue: &BatchQueue<()>, ticket| queue.order_with(&ticket).1;
    assert_eq!(before(&queue, ticket(1, 9)), 6);
    assert_eq!(before(&queue, ticket(2, 9)), 1);
    let urgent = Ticket {
        priority: 1,
        ..ticket(1, 9)
    };
    assert_eq!(before(&queue, urgent), 0);
    queue.push(ticket(2, 20), ()).unwrap();
    assert_eq!(order(&mut queue, 16), [0, 20, 1, 2, 3, 4, 5]);
}

#[test]
fn a_request_that_would_make_the_batch_too_long_waits() {
    let mut queue = BatchQueue::new(100);
    for id in 0..4 {
        let deadline_ns = if id == 1 { 10 } else { u64::MAX };
        queue
            .push(
                Ticket {
                    deadline_ns,
                    ..ticket(id, id)
                },
                (),
            )
            .unwrap();
    }
    let mut taken = Vec::new();
    queue.take(
        16,
        |rows, deadline_ns| rows <= 2 || deadline_ns > 10,
        &mut taken,
    );
    let ids: Vec<u64> = taken.iter().map(|(ticket, ())| ticket.request_id).collect();
    assert_eq!(ids, [0, 1]);
    assert_eq!(order(&mut queue, 16), [2, 3]);
}

#[test]
fn requests_that_waited_for_too_long_leave_or_go_behind_all_others() {
    let mut queue = BatchQueue::new(100);
    let waits = |id, timeout_ns, timeout_action| Ticket {
        timeout_ns,
        timeout_action,
        ..ticket(id, id)
    };
    for ticket in [
        waits(1, 50, TimeoutAction::Delay),
        waits(2, 60, TimeoutAction::Reject),
        waits(3, u64::MAX, TimeoutAction::Reject),
        Ticket {
            priority: 9,
            ..ticket(4, 4)
        },
    ] {
        queue.push(ticket, ()).unwrap();
    }
    assert_eq!((queue.waiting_at(2), queue.waiting_at(9)), (3, 1));
    let mut out = Vec::new();
    // A start that is far away is no reason: only the wait counts.
    queue.expire(49, 1000, &mut out);
    assert_eq!((out.len(), queue.next_deadline_ns()), (0, 50));
    queue.expire(50, 50, &mut out);
    assert_eq!((out.len(), queue.next_deadline_ns()), (0, 60));
    queue.expire(60, 60, &mut out);
    let refused: Vec<u64> = out.iter().map(|(ticket, ())| ticket.request_id).collect();
    assert_eq!((refused, queue.next_deadline_ns()), (vec![2], u64::MAX));
    // Delayed ones belong to their level, and run behind the least urgent.
    assert_eq!((queue.waiting_at(2), queue.waiting_at(9)), (2, 1));
    assert_eq!(order(&mut queue, 16), [3, 4, 1]);
}

#[test]
fn in_order_nobody_passes_and_nothing_is_joined_across_another() {
    let mut queue = BatchQueue::new(100);
    queue.keep_order();
    for (flow, id, compatibility) in [(1, 0, 0), (1, 1, 0), (1, 2, 7), (2, 3, 0)] {
        let ticket = Ticket {
            compatibility,
            ..ticket(flow, id)
        };
        queue.push(ticket, ()).unwrap();
    }
    let batches: Vec<_> = (0..3).map(|_| order(&mut queue, 16)).collect();
    assert_eq!(batches, [vec![0, 1], vec![2], vec![3]]);
}
