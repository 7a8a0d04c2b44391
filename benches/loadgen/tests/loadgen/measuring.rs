//! Each target in each mode gives right answers and sound counts.

use serde_json::Value;

use crate::harness::{INPUT, Iceoryx2Server, adjoin, measure, model};
use crate::stub::Stub;

const SHORT: &str = "--seconds 0.3 --warmup 0.1";

fn number(line: &Value, key: &str) -> f64 {
    let number = line[key].as_f64();
    number.unwrap_or_else(|| panic!("{key} is {} in {line}", line[key]))
}

/// A line of good answers, all of them compared before.
fn check(line: &Value) {
    assert_eq!(line["verified"], true, "{line}");
    assert_eq!(number(line, "verify_error_max"), 0.0);
    assert!(number(line, "requests") > 0.0, "{line}");
    assert_eq!(line["ok_in_time"], line["requests"], "{line}");
    assert!(number(line, "requests_per_s") > 0.0 && number(line, "counted_s") > 0.0);
    let quantiles = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
    let quantiles = quantiles.map(|key| number(line, key));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{line}");
    assert_eq!(line["refusal_p50_us"], Value::Null);
    assert_eq!(
        (&line["input_bytes"], &line["output_bytes"]),
        (&24.into(), &24.into())
    );
}

/// A closed loop and an open one.
fn both_loops(target: &str) {
    let common = format!(
        "run --target {target} --model fixed --input {INPUT} --verify {} {SHORT}",
        model("fixed")
    );
    let closed = measure(&common);
    assert_eq!(closed.len(), 1);
    check(&closed[0]);
    assert_eq!(closed[0]["mode"], "closed");
    assert_eq!(closed[0]["start_lag_p99_us"], Value::Null);

    let open = measure(&format!("{common} --mode poisson --rate 400 --untouched"));
    check(&open[0]);
    assert_eq!(
        (&open[0]["mode"], &open[0]["payload"]),
        (&"poisson".into(), &"untouched".into())
    );
    // Of 400 a second in 0.28 s; the seed gives the same number each time.
    let expected = measure(&format!(
        "run --target in-process:{} --input {INPUT} {SHORT} --mode poisson --rate 400",
        model("fixed")
    ));
    assert_eq!(open[0]["requests"], expected[0]["requests"]);
    assert!((60.0..170.0).contains(&number(&open[0], "requests")));
    assert!(number(&open[0], "start_lag_p99_us") >= 0.0);
}

#[test]
fn adjoin_and_grpc() {
    let (server, address) = adjoin(&["fixed"], "");
    both_loops(&format!("adjoin:{}", server.socket_dir().display()));
    both_loops(&format!("grpc:{address}"));
}

#[test]
fn in_process() {
    both_loops(&format!("in-process:{}", model("fixed")));
}

#[test]
fn msgpack_and_forms() {
    let stub = Stub::start();
    both_loops(&format!("http-msgpack:http://{}/msgpack", stub.address));
    both_loops(&format!("http-multipart:http://{}/form", stub.address));
}

#[test]
fn inference_protocol_over_http_with_and_without_shared_memory() {
    let stub = Stub::start();
    both_loops(&format!("http-v2:{}", stub.address));
    both_loops(&format!("http-v2-shm:{}", stub.address));
    assert_eq!(stub.regions(), 0, "regions that are still registered");
}

#[test]
fn iceoryx2_with_a_model_and_with_the_identity() {
    let server = Iceoryx2Server::start(
        "model",
        &format!("--model {} --input {INPUT} --wait event", model("fixed")),
    );
    both_loops(&format!("iceoryx2:{}", server.service));
    assert!(server.end());
    let server = Iceoryx2Server::start("identity", &format!("--identity --input {INPUT}"));
    both_loops(&format!("iceoryx2:{}", server.service));
}

#[test]
fn several_inputs_integers_and_wanted_outputs() {
    let (server, address) = adjoin(&["add", "ints"], "");
    for target in [
        format!("adjoin:{}", server.socket_dir().display()),
        format!("grpc:{address}"),
    ] {
        let lines = measure(&format!(
            "run --target {target} --model ints --input a:INT32:2,4 --input b:int64:2,4 \
             --outputs sum --verify {} {SHORT}",
            model("ints")
        ));
        assert_eq!(lines[0]["verified"], true);
        assert_eq!(
            (&lines[0]["input_bytes"], &lines[0]["output_bytes"]),
            (&96.into(), &64.into())
        );
    }
    let server = Iceoryx2Server::start(
        "add",
        &format!(
            "--model {} --input a:FP32:3,4 --input b:FP32:3,4 --wait event",
            model("add")
        ),
    );
    let lines = measure(&format!(
        "run --target iceoryx2:{} --input a:FP32:3,4 --input b:FP32:3,4 --verify {} {SHORT}",
        server.service,
        model("add")
    ));
    assert_eq!(lines[0]["verified"], true);
}

#[test]
fn clients_pipelines_and_threads() {
    let (server, address) = adjoin(&["fixed"], "");
    for target in [
        format!("adjoin:{}", server.socket_dir().display()),
        format!("grpc:{address}"),
    ] {
        let lines = measure(&format!(
            "run --target {target} --model fixed --input {INPUT} --clients 5 --threads-per-process 2 \
             --pipeline 4 --cpus 0 --server-pid {} --verify {} --histogram {SHORT}",
            server.pid(),
            model("fixed")
        ));
        let line = &lines[0];
        check(line);
        assert_eq!(
            (&line["clients"], &line["processes"]),
            (&5.into(), &3.into())
        );
        assert!(number(line, "client_cpu_us_per_request") > 0.0);
        assert!(number(line, "server_cpu_us_per_request") > 0.0);
        assert!(number(line, "server_cpu_s") > 0.0);
        assert!(line["server_context_switches_per_request"].is_number());
        let histogram = line["histogram_us"].as_array().unwrap();
        let counts = histogram.iter().map(|step| step[1].as_u64().unwrap());
        assert_eq!(counts.sum::<u64>(), line["requests"].as_u64().unwrap());
        let bounds: Vec<f64> = histogram
            .iter()
            .map(|step| step[0].as_f64().unwrap())
            .collect();
        assert!(bounds.is_sorted() && bounds.last() == line["max_us"].as_f64().as_ref());
    }
}

#[test]
fn what_an_adjoin_server_counts_is_in_the_results() {
    let (server, _) = adjoin(&["fixed"], "");
    let lines = measure(&format!(
        "run --target adjoin:{} --model fixed --input {INPUT} --clients 2 {SHORT}",
        server.socket_dir().display()
    ));
    let line = &lines[0];
    assert_eq!(line["sessions"], 2);
    assert!(number(line, "mean_batch_rows") >= 1.0);
    assert!(number(line, "server_resident_bytes") > 0.0 && number(line, "region_bytes") > 0.0);
    assert!(line["server_wakeups_per_request"].is_number());
    assert!(line["bytes_copied_per_request"].is_number());
}

#[test]
fn groups_are_measured_at_the_same_time_and_each_by_itself() {
    let (server, _) = adjoin(&["fixed"], "");
    let lines = measure(&format!(
        "mixed --target adjoin:{} --model fixed --input {INPUT} --verify {} {SHORT} \
         --group name=steady,clients=2 --group name=flood,pipeline=16 \
         --group name=timed,rate=200,in_flight_max=8",
        server.socket_dir().display(),
        model("fixed")
    ));
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["label"].as_str().unwrap(),
                line["mode"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("steady", "closed"),
            ("flood", "closed"),
            ("timed", "poisson")
        ]
    );
    lines.iter().for_each(check);
    assert_eq!(
        (&lines[0]["clients"], &lines[1]["pipeline"]),
        (&2.into(), &16.into())
    );
}

#[test]
fn targets_are_compared_with_the_first_round_by_round() {
    let (server, address) = adjoin(&["fixed"], "");
    let model = model("fixed");
    let lines = measure(&format!(
        "compare --model fixed --input {INPUT} --verify {model} --rounds 5 --phase-ms 40 --clients 2 \
         -- in-process:{model} --clients 1 --label anchor -- adjoin:{} \
         -- grpc:{address} --label grpc --server-pid {} --rate 500",
        server.socket_dir().display(),
        server.pid()
    ));
    assert_eq!(lines.len(), 3);
    for line in &lines {
        check(line);
        assert_eq!(
            (&line["kind"], &line["rounds"]),
            (&"compare".into(), &5.into())
        );
        assert!(number(&line["round_p50_us"], "median") > 0.0);
    }
    assert_eq!(lines[0]["label"], "anchor");
    let modes: Vec<_> = lines
        .iter()
        .map(|line| line["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["closed", "closed", "poisson"]);
    assert_eq!(
        (&lines[0]["clients"], &lines[1]["clients"]),
        (&1.into(), &2.into())
    );
    assert_eq!(lines[0]["paired_p50_ratio"], Value::Null);
    for line in &lines[1..] {
        let ratio = &line["paired_p50_ratio"];
        assert!(number(ratio, "low") <= number(ratio, "median"));
        assert!(number(ratio, "median") <= number(ratio, "high"));
        assert!(line["paired_p50_difference_us"]["median"].is_number());
    }
}

#[test]
fn requests_beyond_capacity_are_refused_or_late() {
    // A row of it takes some milliseconds, so 2000 a second are far too many.
    let (server, _) = adjoin(&["slow"], "max_batch_size = 0");
    let lines = measure(&format!(
        "run --target adjoin:{} --model slow --input x:FP32:1,64 --mode poisson --rate 2000 \
         --deadline-us 30000 --in-flight-max 256 --seconds 0.4 --warmup 0.1",
        server.socket_dir().display()
    ));
    let line = &lines[0];
    assert!(number(line, "refused") > 0.0, "{line}");
    let outcomes = ["ok_in_time", "ok_late", "refused", "failed"];
    let sum: f64 = outcomes.iter().map(|key| number(line, key)).sum();
    assert_eq!(sum, number(line, "requests"));
    assert!(number(line, "refusal_p50_us") <= number(line, "refusal_max_us"));
    assert!(number(line, "goodput_per_s") <= number(line, "requests_per_s"));
}

#[test]
fn a_busy_http_server_refuses_and_one_that_closes_is_connected_to_again() {
    let stub = Stub::start();
    let url = format!("http-msgpack:http://{}", stub.address);
    // The first request of all is answered, and each second one after it is not.
    let lines = measure(&format!("run --target {url}/busy --input {INPUT} {SHORT}"));
    let (good, refused) = (
        number(&lines[0], "ok_in_time"),
        number(&lines[0], "refused"),
    );
    assert!(good > 0.0 && (good - refused).abs() <= 1.0, "{}", lines[0]);
    let lines = measure(&format!(
        "run --target {url}/closing --input {INPUT} {SHORT}"
    ));
    assert!(number(&lines[0], "reconnects") > 0.0);
    assert_eq!(lines[0]["failed"], 0);
}
