//! Right answers through shared memory, and how many bytes were copied for them.

use adjoin_client::{Client, Request};
use adjoin_tests::server::{Setup, TestServer};

/// A request of the model `add`.
fn add(client: &Client, rows: i64) -> Request {
    let model = client.model("add").unwrap();
    adjoin_tests::add_request(&model, rows)
}

fn fill(request: &mut Request, base: f32) {
    for (index, value) in request
        .input_mut::<f32>("a")
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        *value = base + index as f32;
    }
    request.input_mut::<f32>("b").unwrap().fill(0.5);
}

fn check(sums: &[f32], base: f32) {
    for (index, sum) in sums.iter().enumerate() {
        assert_eq!(*sum, base + index as f32 + 0.5, "element {index}");
    }
}

fn copied_bytes(server: &TestServer, model: &str) -> u64 {
    let s = server.control().statistics(model);
    s.gathered_bytes
        + s.scattered_bytes
        + s.engine_copied_bytes
        + s.copied_first_bytes
        + s.dynamic_output_bytes
}

#[test]
fn a_prepared_request_runs_in_place_again_and_again() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let mut request = add(&client, 3);
    for turn in 0..200u8 {
        fill(&mut request, f32::from(turn));
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.shape("sum").unwrap(), [3, 4]);
        check(outputs.get::<f32>("sum").unwrap(), f32::from(turn));
        assert_eq!(outputs.stats().batch_size, 3);
    }
    assert!(request.is_prepared());
    let statistics = server.control().statistics("add");
    assert_eq!(
        (
            statistics.request_count,
            statistics.in_place_count,
            statistics.inference_count
        ),
        (200, 200, 600)
    );
    assert_eq!(copied_bytes(&server, "add"), 0, "{statistics:?}");
}

#[test]
fn one_shot_requests_run_in_place_too_and_release_what_they_got() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let model = client.model("add").unwrap();
    // The response region holds far less than all these responses together.
    for turn in 0..2000u16 {
        let builder = model
            .request()
            .prepare(false)
            .input("a", &[32, 4])
            .unwrap()
            .input("b", &[32, 4])
            .unwrap();
        let mut request = builder.build().unwrap();
        fill(&mut request, f32::from(turn));
        let response = request.submit().unwrap().wait().unwrap();
        check(response.get::<f32>("sum").unwrap(), f32::from(turn));
    }
    assert_eq!(copied_bytes(&server, "add"), 0);
}

#[test]
fn many_requests_in_flight_come_back_each_with_its_own_answer() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let mut requests: Vec<Request> = (0..50).map(|_| add(&client, 1)).collect();
    for round in 0..20u8 {
        let pending: Vec<_> = requests
            .drain(..)
            .enumerate()
            .map(|(index, mut request)| {
                fill(&mut request, f32::from(round) * 100.0 + index as f32);
                request.submit().unwrap()
            })
            .collect();
        for (index, pending) in pending.into_iter().enumerate().rev() {
            let response = pending.wait().unwrap();
            check(
                response.get::<f32>("sum").unwrap(),
                f32::from(round) * 100.0 + index as f32,
            );
            requests.push(response.into_request());
        }
        requests.reverse();
    }
}

#[test]
fn only_the_wanted_outputs_come() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let model = client.model("add").unwrap();
    let builder = model
        .request()
        .input("a", &[1, 4])
        .unwrap()
        .input("b", &[1, 4])
        .unwrap()
        .outputs(&["sum"]);
    let mut request = builder.build().unwrap();
    fill(&mut request, 1.0);
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.iter().count(), 1);
    check(outputs.get::<f32>("sum").unwrap(), 1.0);
}

#[test]
fn indices_are_copied_before_they_are_used() {
    let server = Setup::new(&["gather"]).start();
    let client = server.client();
    let model = client.model("gather").unwrap();
    let mut request = model
        .request()
        .input("table", &[8, 4])
        .unwrap()
        .input("index", &[3])
        .unwrap()
        .build()
        .unwrap();
    for (index, value) in request
        .input_mut::<f32>("table")
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        *value = index as f32;
    }
    request
        .input_mut::<i64>("index")
        .unwrap()
        .copy_from_slice(&[7, 0, 3]);
    for _ in 0..3 {
        let outputs = request.infer().unwrap();
        let expected = [
            28.0, 29.0, 30.0, 31.0, 0.0, 1.0, 2.0, 3.0, 12.0, 13.0, 14.0, 15.0,
        ];
        assert_eq!(outputs.get::<f32>("rows").unwrap(), expected);
    }
    let statistics = server.control().statistics("gather");
    // Three indices of eight bytes a run, and nothing else.
    assert_eq!(
        (
            statistics.copied_first_bytes,
            copied_bytes(&server, "gather")
        ),
        (72, 72)
    );
    assert_eq!(statistics.in_place_count, 0);
}

#[test]
fn outputs_of_unknown_size_are_copied_once_and_may_differ_from_run_to_run() {
    let server = Setup::new(&["nonzero"]).start();
    let client = server.client();
    let model = client.model("nonzero").unwrap();
    let mut request = model.request().input("x", &[100]).unwrap().build().unwrap();
    for count in [0usize, 1, 100, 7, 100, 0] {
        let values = request.input_mut::<f32>("x").unwrap();
        values.fill(0.0);
        values[..count].fill(1.0);
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.shape("indices").unwrap(), [1, count as i64]);
        let expected: Vec<i64> = (0..count as i64).collect();
        assert_eq!(outputs.get::<i64>("indices").unwrap(), expected);
    }
    let statistics = server.control().statistics("nonzero");
    assert_eq!(statistics.dynamic_output_bytes, 8 * 208);
    assert_eq!(
        statistics.copied_first_bytes,
        6 * 400,
        "what decides a size is copied before it is looked at"
    );
}

#[test]
fn outputs_that_turn_out_too_large_say_how_many_bytes_they_need() {
    let server = Setup::new(&["nonzero", "add"]).start();
    let client = server.client();
    let model = client.model("nonzero").unwrap();
    // 200,000 floats fit the request region of 1 MiB; their indices are 1.6 MB and do not fit the response region.
    let mut request = model
        .request()
        .input("x", &[200_000])
        .unwrap()
        .build()
        .unwrap();
    request.input_mut::<f32>("x").unwrap().fill(1.0);
    let error = request.infer().unwrap_err();
    assert_eq!(error.status(), Some(adjoin_client::Status::OutputTooLarge));
    assert!(error.to_string().contains("1600000"), "{error}");
    // The session goes on, and the request too with less to give.
    request.input_mut::<f32>("x").unwrap()[10..].fill(0.0);
    assert_eq!(request.infer().unwrap().shape("indices").unwrap(), [1, 10]);
    let mut other = add(&client, 1);
    fill(&mut other, 2.0);
    check(other.infer().unwrap().get::<f32>("sum").unwrap(), 2.0);
}

#[test]
fn half_bytes_and_integers_keep_their_types() {
    let server = Setup::new(&["half", "scale_u8", "ints", "fixed"]).start();
    let client = server.client();

    let mut half = client
        .model("half")
        .unwrap()
        .request()
        .input("x", &[2, 8])
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(half.input_bytes_mut("x").unwrap().len(), 32);
    half.input_bytes_mut("x")
        .unwrap()
        .copy_from_slice(&[0x00, 0x3c].repeat(16)); // 1.0
    assert_eq!(
        half.infer().unwrap().bytes_at(0).unwrap(),
        [0x00, 0x40].repeat(16)
    ); // 2.0

    let mut scale = client
        .model("scale_u8")
        .unwrap()
        .request()
        .input("x", &[1, 16])
        .unwrap()
        .build()
        .unwrap();
    scale
        .input_mut::<u8>("x")
        .unwrap()
        .copy_from_slice(&std::array::from_fn::<u8, 16, _>(|i| i as u8 * 2));
    let expected: Vec<f32> = (0..16).map(|i| i as f32).collect();
    assert_eq!(scale.infer().unwrap().get::<f32>("y").unwrap(), expected);

    let model = client.model("ints").unwrap();
    let mut ints = adjoin_tests::add_request(&model, 1);
    ints.input_mut::<i32>("a")
        .unwrap()
        .copy_from_slice(&[1, -2, i32::MAX, 0]);
    ints.input_mut::<i64>("b")
        .unwrap()
        .copy_from_slice(&[1 << 40, 2, 1, -7]);
    let expected = [(1 << 40) + 1, 0, i64::from(i32::MAX) + 1, -7];
    assert_eq!(ints.infer().unwrap().get::<i64>("sum").unwrap(), expected);

    let mut fixed = client
        .model("fixed")
        .unwrap()
        .request()
        .input("x", &[2, 3])
        .unwrap()
        .build()
        .unwrap();
    fixed
        .input_mut::<f32>("x")
        .unwrap()
        .copy_from_slice(&[-1.0, 1.0, -2.0, 2.0, -3.0, 3.0]);
    assert_eq!(
        fixed.infer().unwrap().get::<f32>("y").unwrap(),
        [0.0, 1.0, 0.0, 2.0, 0.0, 3.0]
    );
}

#[test]
fn threads_share_a_session() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let client = client.clone();
            scope.spawn(move || {
                let mut request = add(&client, 2);
                for turn in 0..200u8 {
                    let base = f32::from(thread) * 1000.0 + f32::from(turn);
                    fill(&mut request, base);
                    check(request.infer().unwrap().get::<f32>("sum").unwrap(), base);
                }
            });
        }
    });
    assert_eq!(server.control().statistics("add").request_count, 800);
}
