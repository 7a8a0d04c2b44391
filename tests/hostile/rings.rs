//! Ring indices and entries that cannot be.

use adjoin_schema::layout::{SubmissionEntry, SubmissionKind, submit_flags};
use adjoin_schema::limits::PREPARED_MAX;
use adjoin_schema::status::Status;
use adjoin_tests::raw::RawClient;
use adjoin_tests::server::Setup;
use bytemuck::Zeroable;
use std::sync::atomic::Ordering;

use crate::neighbour::Neighbour;

#[test]
fn entries_that_mean_nothing_end_the_session_that_sent_them() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let cases: Vec<(&str, Box<dyn Fn(&mut SubmissionEntry)>, Status)> = vec![
        ("kind 0", Box::new(|e| e.kind = 0), Status::EntryInvalid),
        ("kind 9", Box::new(|e| e.kind = 9), Status::EntryInvalid),
        (
            "unknown flag",
            Box::new(|e| e.flags = 0x80),
            Status::EntryInvalid,
        ),
        (
            "both flags",
            Box::new(|e| e.flags = submit_flags::ALL),
            Status::EntryInvalid,
        ),
        (
            "reserved word",
            Box::new(|e| e.reserved[1] = 1),
            Status::EntryInvalid,
        ),
        (
            "reserved half word",
            Box::new(|e| e.reserved0 = 1),
            Status::EntryInvalid,
        ),
        (
            "region 1",
            Box::new(|e| e.region_id = 1),
            Status::EntryInvalid,
        ),
        (
            "release of nothing",
            Box::new(|e| e.kind = SubmissionKind::Release as u8),
            Status::ReleaseInvalid,
        ),
    ];
    for (name, damage, expected) in cases {
        let mut session = RawClient::attach(&server.socket_dir());
        let mut entry = session.submission(8192, 64);
        damage(&mut entry);
        session.push(entry);
        assert_eq!(session.ended(), expected, "{name}");
    }
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn indices_that_jump_end_the_session() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    for tail in [65u32, 1 << 20, u32::MAX, 1 << 31] {
        let session = RawClient::attach(&server.socket_dir());
        session
            .memory
            .submission_ring()
            .tail
            .store(tail, Ordering::Release);
        session.event.notify();
        assert_eq!(session.ended(), Status::RingIndexInvalid, "tail {tail}");
    }
    // A completion head that passes what was published shows when the server wants to publish.
    for head in [17u32, 1 << 31, u32::MAX] {
        let mut session = RawClient::attach(&server.socket_dir());
        session
            .memory
            .completion_ring()
            .head
            .store(head, Ordering::Release);
        // The server looks at the head when its places seem to be used up.
        for _ in 0..17 {
            let entry = session.submission(8192, 16);
            session.push_silently(entry);
            session.event.notify();
            if !session.is_alive() {
                break;
            }
            adjoin_tests::wait_for("taken or ended", || {
                let taken = session
                    .memory
                    .submission_ring()
                    .head
                    .load(Ordering::Acquire);
                let tail = session
                    .memory
                    .submission_ring()
                    .tail
                    .load(Ordering::Acquire);
                (taken == tail || !session.is_alive()).then_some(())
            });
        }
        assert_eq!(session.ended(), Status::RingIndexInvalid, "head {head}");
    }
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn more_requests_than_the_completion_ring_has_places_end_the_session() {
    let mut server = Setup::new(&["add", "slow"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    // Completions are never taken: the ring has 16 places.
    for _ in 0..18 {
        let entry = session.submission(8192, 16);
        session.push_silently(entry);
    }
    session.event.notify();
    assert_eq!(session.ended(), Status::TooManyInFlight);
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn prepared_numbers_that_are_not_prepared_are_refused_or_end_the_session() {
    let mut server = Setup::new(&["add"]).start();
    let mut session = RawClient::attach(&server.socket_dir());
    for number in [0, 5, PREPARED_MAX, u32::MAX] {
        let mut entry = session.submission(0, 0);
        (entry.flags, entry.prepared_id) = (submit_flags::PREPARED, number);
        session.push(entry);
        let completion = session.completion();
        assert_eq!(
            (completion.status, completion.detail[0]),
            (Status::PreparedUnknown as u16, u64::from(number))
        );
    }
    for number in [0, u32::MAX] {
        let entry = SubmissionEntry {
            kind: SubmissionKind::Forget as u8,
            prepared_id: number,
            ..SubmissionEntry::zeroed()
        };
        session.push(entry);
        let entry = SubmissionEntry {
            kind: SubmissionKind::Cancel as u8,
            request_id: 12345,
            ..SubmissionEntry::zeroed()
        };
        session.push(entry);
    }
    assert!(session.is_alive() && server.is_alive());
}

#[test]
fn a_response_is_released_once_and_by_its_own_generation() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    for (generation_off, times) in [(1, 1), (0, 2)] {
        let mut session = RawClient::attach(&server.socket_dir());
        let completion = session.submit_add();
        assert_eq!(completion.status, Status::Ok as u16);
        for _ in 0..times {
            let entry = SubmissionEntry {
                kind: SubmissionKind::Release as u8,
                offset: completion.response_offset,
                generation: completion.generation + generation_off,
                ..SubmissionEntry::zeroed()
            };
            session.push(entry);
        }
        assert_eq!(
            session.ended(),
            Status::ReleaseInvalid,
            "generation off by {generation_off}, {times} times"
        );
    }
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn deadlines_at_the_ends_of_the_clock_are_taken_as_they_are() {
    let server = Setup::new(&["add"]).start();
    let mut session = RawClient::attach(&server.socket_dir());
    for (deadline_ns, expected) in [
        (u64::MAX, Status::Ok),
        (1, Status::DeadlineExceeded),
        (0, Status::Ok),
    ] {
        session.deadline_ns = deadline_ns;
        assert_eq!(
            session.submit_add().status,
            expected as u16,
            "deadline {deadline_ns}"
        );
    }
}
