//! What goes wrong is said in one line, and ends the command with a failure.

use crate::harness::{INPUT, Iceoryx2Server, adjoin, error, free_address, model, run};
use crate::stub::Stub;

#[test]
fn servers_that_are_not_there() {
    let address = free_address();
    let directory = tempfile::tempdir().unwrap();
    let socket_dir = directory.path().display();
    let nothing = |target: &str| {
        error(&format!(
            "run --target {target} --model fixed --input {INPUT}"
        ))
    };
    let text = nothing(&format!("adjoin:{socket_dir}"));
    assert!(text.contains("adjoin serve"), "{text}");
    for kind in ["grpc", "grpc-shm", "http-v2", "http-v2-shm"] {
        let text = nothing(&format!("{kind}:{address}"));
        assert!(
            text.contains("refused") && text.contains(&address),
            "{text}"
        );
    }
    for kind in ["http-msgpack", "http-multipart"] {
        let text = nothing(&format!("{kind}:http://{address}/"));
        assert!(
            text.contains("refused") && text.contains(&address),
            "{text}"
        );
    }
    let text = nothing("in-process:/no/model.onnx");
    assert!(text.contains("/no/model.onnx"), "{text}");
    let text = nothing("iceoryx2:adjoin-test-nobody");
    assert!(text.contains("serve-iceoryx2 --service"), "{text}");
}

#[test]
fn wrong_models_shapes_and_answers() {
    let (server, address) = adjoin(&["fixed"], "");
    let socket_dir = server.socket_dir();
    for target in [
        format!("adjoin:{}", socket_dir.display()),
        format!("grpc:{address}"),
    ] {
        let text = error(&format!(
            "run --target {target} --model other --input {INPUT}"
        ));
        assert!(text.contains("other"), "{text}");
        let text = error(&format!(
            "run --target {target} --model fixed --input x:FP32:2,4"
        ));
        assert!(text.contains('4') && text.contains('x'), "{text}");
        let text = error(&format!(
            "run --target {target} --model fixed --input {INPUT} --outputs z"
        ));
        assert!(text.contains('z'), "{text}");
    }
    let file = model("fixed");
    let text = error(&format!(
        "run --target in-process:{file} --input x:FP32:2,4"
    ));
    assert!(text.contains("[2, 3]"), "{text}");
    let text = error(&format!(
        "run --target in-process:{file} --input z:FP32:2,3"
    ));
    assert!(text.contains("inputs are x"), "{text}");

    let stub = Stub::start();
    let url = format!("http-msgpack:http://{}", stub.address);
    let text = error(&format!(
        "run --target {url}/wrong --input {INPUT} --verify {file}"
    ));
    assert!(text.contains("wrong answer"), "{text}");
    let text = error(&format!("run --target {url}/nowhere --input {INPUT}"));
    assert!(
        text.contains("404") && text.contains("no such path"),
        "{text}"
    );
    let text = error(&format!(
        "run --target adjoin:{} --model fixed --input {INPUT} --verify /no/model.onnx",
        socket_dir.display()
    ));
    assert!(text.contains("--verify /no/model.onnx"), "{text}");
}

#[test]
fn a_service_name_serves_once() {
    let arguments = format!("--identity --input {INPUT} --wait event");
    let server = Iceoryx2Server::start("once", &arguments);
    let text = error(&format!(
        "serve-iceoryx2 --service {} {arguments}",
        server.service
    ));
    assert!(text.contains("served already"), "{text}");
    let text = error(&format!(
        "run --target iceoryx2:{} --input x:FP32:3,3",
        server.service
    ));
    assert!(text.contains("another size"), "{text}");
    // The first one still serves.
    assert!(server.end());
}

#[test]
fn a_server_that_cannot_share_memory_says_so() {
    let (_server, address) = adjoin(&["fixed"], "");
    let text = error(&format!(
        "run --target grpc-shm:{address} --model fixed --input {INPUT}"
    ));
    assert!(text.contains("the right \"regions\""), "{text}");
    let (_server, address) = adjoin(
        &["fixed"],
        "[access]\ntcp_rights = [\"infer\", \"inspect\", \"regions\"]",
    );
    let text = error(&format!(
        "run --target grpc-shm:{address} --model fixed --input {INPUT}"
    ));
    assert!(text.contains("no system shared memory"), "{text}");
}

#[test]
fn wrong_usage() {
    for arguments in [
        "",
        "run",
        "run --target adjoin:/run",
        "run --target nothing --input x:FP32:1",
        "run --target adjoin:/run --input x:FP32",
        "run --target adjoin:/run --mode poisson --input x:FP32:1 --model m",
        "run --target adjoin:/run --clients 0",
        "run --target adjoin:/run --cpus 1-0",
        "mixed --target adjoin:/run --group speed=1",
        "compare --rounds 3",
        "serve-iceoryx2 --service x --input x:FP32:1",
    ] {
        let code = run(arguments).status.code();
        // Whether a target has what it needs is seen when all options are known.
        let expected = if arguments == "run --target adjoin:/run" {
            1
        } else {
            2
        };
        assert_eq!(code, Some(expected), "{arguments:?}");
    }
    assert!(run("--help").status.success());
}
