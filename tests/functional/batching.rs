//! Requests of several sessions in one batch.

use adjoin_client::{Client, Request, Response};
use adjoin_tests::server::{Setup, TestServer};

fn slow(client: &Client, rows: i64) -> Request {
    client
        .model("slow")
        .unwrap()
        .request()
        .input("x", &[rows, 64])
        .unwrap()
        .build()
        .unwrap()
}

/// Integers, so that the model's answer is exact whatever batch it runs in.
fn fill(request: &mut Request, seed: usize) {
    for (index, value) in request
        .input_mut::<f32>("x")
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        *value = ((index * 7 + seed * 31) % 201) as f32 - 100.0;
    }
}

fn answer(response: &Response) -> Vec<f32> {
    response.get::<f32>("y").unwrap().to_vec()
}

/// What the model gives for a seed when it runs alone.
fn alone(server: &TestServer, seed: usize, rows: i64) -> Vec<f32> {
    let mut request = slow(&server.client(), rows);
    fill(&mut request, seed);
    answer(&request.submit().unwrap().wait().unwrap())
}

#[test]
fn requests_of_several_sessions_meet_in_one_batch_and_get_their_own_rows() {
    let server = Setup::new(&["slow"])
        .config("max_batch_size = 16\nmax_queue_delay_us = 20000")
        .start();
    let expected: Vec<Vec<f32>> = (0..6)
        .map(|seed| alone(&server, seed, 1 + (seed as i64 % 3)))
        .collect();
    let before = server.control().statistics("slow");

    let clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    let pending: Vec<_> = (clients.iter().enumerate())
        .map(|(seed, client)| {
            let mut request = slow(client, 1 + (seed as i64 % 3));
            fill(&mut request, seed);
            request.submit().unwrap()
        })
        .collect();
    for (seed, pending) in pending.into_iter().enumerate() {
        let response = pending.wait().unwrap();
        assert_eq!(
            answer(&response),
            expected[seed],
            "rows of another request came back"
        );
    }

    let after = server.control().statistics("slow");
    let executions = after.execution_count - before.execution_count;
    assert!(
        executions < 6,
        "{executions} executions for 6 requests: no batch was formed"
    );
    assert!(after.max_batch_rows > 3, "{after:?}");
    // The model reads its input in a loop, so that it is copied first; that copy is the gather as well.
    assert!(after.copied_first_bytes > 0 && after.scattered_bytes > 0);
}

fn digits(client: &Client) -> Request {
    client
        .model("digits")
        .unwrap()
        .request()
        .input("image", &[1, 1, 8, 8])
        .unwrap()
        .build()
        .unwrap()
}

fn draw(request: &mut Request, seed: usize) {
    for (index, value) in request
        .input_mut::<f32>("image")
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        *value = ((index * 5 + seed * 11) % 17) as f32;
    }
}

/// Runs one request of each seed at once, in the given sessions by turns; scores by seed.
fn scores_of(clients: &[Client], count: usize) -> Vec<Vec<f32>> {
    let pending: Vec<_> = (0..count)
        .map(|seed| {
            let mut request = digits(&clients[seed % clients.len()]);
            draw(&mut request, seed);
            request.submit().unwrap()
        })
        .collect();
    pending
        .into_iter()
        .map(|pending| {
            pending
                .wait()
                .unwrap()
                .get::<f32>("scores")
                .unwrap()
                .to_vec()
        })
        .collect()
}

fn assert_close(got: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert!((got - expected).abs() < 1e-4, "{got} instead of {expected}");
    }
}

#[test]
fn inputs_side_by_side_in_one_region_are_not_gathered_and_those_of_two_regions_are() {
    let server = Setup::new(&["digits"])
        .config("max_batch_size = 8\nmax_queue_delay_us = 100000")
        .start();
    // The server knows how many requests a session has out that it met before, and waits for no more.
    let (one, other, first) = (server.client(), server.client(), server.client());
    let alone: Vec<Vec<f32>> = (0..8)
        .map(|seed| {
            let mut request = digits(&first);
            draw(&mut request, seed);
            request
                .infer()
                .unwrap()
                .get::<f32>("scores")
                .unwrap()
                .to_vec()
        })
        .collect();
    assert_close(&scores_of(std::slice::from_ref(&one), 8), &alone);
    let statistics = server.control().statistics("digits");
    assert_eq!(statistics.max_batch_rows, 8, "{statistics:?}");
    assert_eq!(statistics.gathered_bytes, 0, "{statistics:?}");
    assert_eq!(statistics.scattered_bytes, 8 * 40);

    assert_close(&scores_of(&[one, other], 8), &alone);
    // A session that was met before is not waited for when it is late, so a request may have run alone.
    let statistics = server.control().statistics("digits");
    let gathered_rows = statistics.gathered_bytes / 256;
    assert!((2..=8).contains(&gathered_rows), "{statistics:?}");
    assert_eq!(statistics.gathered_bytes % 256, 0);
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_nothing_that_it_took() {
    let server = Setup::new(&["slow"])
        .config("max_batch_size = 1\nqueue_limit = 3")
        .start();
    let client = server.client();
    let pending: Vec<_> = (0..12)
        .map(|seed| {
            let mut request = slow(&client, 1);
            fill(&mut request, seed);
            request.submit().unwrap()
        })
        .collect();
    let outcomes: Vec<_> = pending
        .into_iter()
        .map(|pending| pending.wait().map_err(|failed| failed.error))
        .collect();
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .collect();
    assert!(
        !refused.is_empty() && refused.len() <= 12 - 3,
        "{} refused",
        refused.len()
    );
    for error in refused {
        assert_eq!(error.status(), Some(adjoin_client::Status::QueueFull));
        assert!(
            error.to_string().contains("3 requests") && error.is_retryable(),
            "{error}"
        );
    }
}

#[test]
fn two_instances_run_two_batches_at_once() {
    let server = Setup::new(&["slow"])
        .config("max_batch_size = 1\ninstances = 2")
        .start();
    let expected: Vec<_> = (0..8).map(|seed| alone(&server, seed, 1)).collect();
    let client = server.client();
    let pending: Vec<_> = (0..8)
        .map(|seed| {
            let mut request = slow(&client, 1);
            fill(&mut request, seed);
            request.submit().unwrap()
        })
        .collect();
    for (seed, pending) in pending.into_iter().enumerate() {
        assert_eq!(answer(&pending.wait().unwrap()), expected[seed]);
    }
    assert_eq!(server.control().models()[0].instances, 2);
}

#[test]
fn urgent_requests_pass_waiting_ones_and_only_where_the_operator_allows_levels() {
    let finished_first = |levels: &str| {
        let server = Setup::new(&["slow"])
            .config(&format!("max_batch_size = 1\n{levels}"))
            .start();
        let client = server.client();
        let submit = |priority| {
            let options = adjoin_client::SubmitOptions::new().priority(priority);
            slow(&client, 1).submit_with(&options).unwrap()
        };
        // Eight wait before the urgent one comes; one of them runs by then.
        let waiting: Vec<_> = (0..8).map(|_| submit(2)).collect();
        let urgent = submit(1).wait().unwrap();
        let last = waiting
            .into_iter()
            .map(|pending| pending.wait().unwrap().stats().queue)
            .max()
            .unwrap();
        urgent.stats().queue < last
    };
    assert!(finished_first("priority_levels = 2"));
    assert!(!finished_first(""), "without levels nobody passes");
}
