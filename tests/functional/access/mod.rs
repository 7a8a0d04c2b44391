//! Who may do what: every method and every route without its right, tokens, TLS, mutual TLS.

mod calls;
mod certificates;
mod table;
mod tls;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adjoin_tests::binary;
use adjoin_tests::server::{Setup, TestServer};
use tonic::Code;

use calls::{Channels, http};
use table::{Table, methods};

/// A token that has all rights, and for each right one that has all others.
struct Tokens {
    directory: tempfile::TempDir,
}

const ALL: &str = "token-with-all-the-rights";

impl Tokens {
    fn new(table: &Table) -> Self {
        let rights: Vec<_> = table.rights().collect();
        let mut text = format!("# tokens\n{ALL} {}\n", rights.join(","));
        for without in &rights {
            let others = rights.iter().filter(|&right| right != without);
            let others: Vec<_> = others.copied().collect();
            text += &format!("{} {}\n", Self::without(without), others.join(","));
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tokens"), text).unwrap();
        let tokens = Self { directory };
        tokens.set_mode(0o600);
        tokens
    }

    fn without(right: &str) -> String {
        format!("token-with-all-rights-but-{right}")
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    fn set_mode(&self, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(), permissions).unwrap();
    }

    fn config(&self) -> String {
        format!("[access]\ntoken_file = {:?}", self.path())
    }
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A server with all TCP listeners, and their addresses.
struct Remote {
    server: TestServer,
    grpc: String,
    http: String,
    metrics: String,
}

fn remote(config: &str) -> Remote {
    let [grpc, http, metrics] = std::array::from_fn(|_| free_address());
    let flags = [
        "--grpc-addr",
        &grpc,
        "--http-addr",
        &http,
        "--metrics-addr",
        &metrics,
    ];
    let server = Setup::new(&["add"]).config(config).flags(&flags).start();
    Remote {
        server,
        grpc,
        http,
        metrics,
    }
}

#[test]
fn every_method_is_refused_without_its_right() {
    let table = Table::read();
    let tokens = Tokens::new(&table);
    let remote = remote(&tokens.config());
    let channels = Channels::tcp(&remote.grpc);
    let methods = methods();
    assert!(methods.len() >= 30, "{methods:?}");
    for path in methods {
        let right = table.right_of_method(&path);
        let right = right.unwrap_or_else(|| panic!("{path} has no right in the table"));
        let without = channels.call(&path, None);
        let wrong = channels.call(&path, Some("token-that-nobody-gave-out"));
        let denied = channels.call(&path, Some(&Tokens::without(right)));
        let allowed = channels.call(&path, Some(ALL));
        let refusals = [Code::Unauthenticated, Code::PermissionDenied];
        assert!(!refusals.contains(&allowed.code()), "{path}: {allowed:?}");
        if right == "health" {
            for open in [without, wrong, denied] {
                assert!(!refusals.contains(&open.code()), "{path}: {open:?}");
            }
            continue;
        }
        for (refused, code) in [
            (without, Code::Unauthenticated),
            (wrong, Code::Unauthenticated),
            (denied, Code::PermissionDenied),
        ] {
            assert_eq!(refused.code(), code, "{path}: {refused:?}");
            let text = refused.message();
            assert!(text.contains(&format!("\"{right}\"")), "{path}: {text}");
            assert!(!text.contains("token-"), "{path}: {text}");
        }
    }
    // What no service has, and what is written a little differently, goes to nobody.
    for path in [
        "/inference.GRPCInferenceService/Other",
        "/inference.GRPCInferenceService/modelInfer",
        "/other.Service/ModelInfer",
    ] {
        let refused = channels.call(path, Some(ALL));
        assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused:?}");
    }
}

#[test]
fn every_route_is_refused_without_its_right() {
    let table = Table::read();
    let tokens = Tokens::new(&table);
    let remote = remote(&tokens.config());
    let mut served = Vec::new();
    for (right, route) in table.routes() {
        for (address, method) in [
            (&remote.http, "GET"),
            (&remote.http, "POST"),
            (&remote.metrics, "GET"),
        ] {
            let call = |token: Option<&str>| http(address, method, &route, token).unwrap();
            let what = format!("{method} {route} on {address}");
            let allowed = call(Some(ALL));
            assert!(![401, 403].contains(&allowed.status), "{what}: {allowed:?}");
            if allowed.text.contains("no such method or route") {
                // The other listener has it. Without a right it is not there either.
                assert_eq!((call(None).status, allowed.status), (404, 404), "{what}");
                continue;
            }
            served.push(route.clone());
            let without = call(None);
            let denied = call(Some(&Tokens::without(&right)));
            if right == "health" {
                for open in [without, denied] {
                    assert!(![401, 403].contains(&open.status), "{what}: {open:?}");
                }
                continue;
            }
            assert_eq!((without.status, denied.status), (401, 403), "{what}");
            assert!(
                without.head.contains("www-authenticate: Bearer"),
                "{without:?}"
            );
            for refused in [without, denied] {
                let answer: serde_json::Value = serde_json::from_str(&refused.text).unwrap();
                let text = answer["error"].as_str().unwrap();
                assert!(text.contains(&format!("\"{right}\"")), "{what}: {text}");
                assert!(!text.contains("token-"), "{what}: {text}");
            }
        }
    }
    for route in [
        "/metrics",
        "/healthz",
        "/v2/health/live",
        "/v2/health/ready",
    ] {
        assert!(
            served.iter().any(|served| served == route),
            "{route}: {served:?}"
        );
    }
    assert_eq!(
        http(&remote.http, "GET", "/v2/other", Some(ALL))
            .unwrap()
            .status,
        404
    );
}

#[test]
fn remote_callers_infer_and_inspect_and_nothing_more_where_nothing_is_configured() {
    let table = Table::read();
    let remote = remote("");
    let channels = Channels::tcp(&remote.grpc);
    for path in methods() {
        let right = table.right_of_method(&path).unwrap();
        let is_open = ["infer", "inspect", "health"].contains(&right);
        let answer = channels.call(&path, None);
        let is_denied = answer.code() == Code::PermissionDenied;
        assert_eq!(is_denied, !is_open, "{path}: {answer:?}");
    }
    for (address, path) in [
        (&remote.metrics, "/metrics"),
        (&remote.http, "/v2/health/ready"),
    ] {
        assert_eq!(http(address, "GET", path, None).unwrap().status, 200);
    }
}

#[test]
fn users_of_the_control_socket_have_the_rights_of_the_lists() {
    let table = Table::read();
    // Nobody runs the tests as this user; the one who does also runs the server.
    let server = Setup::new(&["add"])
        .config("[server]\nallow_uids = [4294967294]")
        .start();
    let channels = Channels::unix(&server.socket_dir().join("control.sock"));
    for path in methods() {
        let right = table.right_of_method(&path).unwrap();
        let answer = channels.call(&path, None);
        let is_denied = answer.code() == Code::PermissionDenied;
        let is_for_users = ["infer", "regions"].contains(&right);
        assert_eq!(is_denied, is_for_users, "{path}: {answer:?}");
    }
}

/// What a server says that does not start.
fn start_error(setup: &Setup) -> String {
    let directory = setup.lay_out();
    let path = |name: &str| directory.path().join(name);
    let output = Command::new(binary("adjoin"))
        .arg("serve")
        .arg("--model-repository")
        .arg(path("models"))
        .arg("--socket-dir")
        .arg(path("run"))
        .arg("--config")
        .arg(path("adjoin.toml"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn files_that_cannot_be_used_end_the_start_with_their_name() {
    let tokens = Tokens::new(&Table::read());
    let setup = |config: &str| Setup::new(&["add"]).config(config);
    for mode in [0o644, 0o640, 0o602] {
        tokens.set_mode(mode);
        let text = start_error(&setup(&tokens.config()));
        let expected = format!("mode {mode:03o}");
        assert!(
            text.contains(&expected) && text.contains("tokens"),
            "{text}"
        );
    }
    tokens.set_mode(0o600);
    std::fs::write(tokens.path(), "short infer\n").unwrap();
    let text = start_error(&setup(&tokens.config()));
    assert!(
        text.contains("line 1: the token has 5 characters"),
        "{text}"
    );
    assert!(!text.contains("short"), "{text}");
    let missing = Path::new("/no/such/certificate.pem");
    let text = start_error(&setup(&format!(
        "[access]\ntls_certificate = {missing:?}\ntls_key = {missing:?}"
    )));
    assert!(text.contains("access.tls_certificate: /no/such"), "{text}");
}

#[test]
fn tokens_over_an_open_network_are_warned_of() {
    let tokens = Tokens::new(&Table::read());
    let start = |address: &str| {
        Setup::new(&["add"])
            .config(&tokens.config())
            .flags(&["--http-addr", address])
            .start()
            .log()
    };
    let port = free_address().rsplit(':').next().unwrap().to_owned();
    let log = start(&format!("0.0.0.0:{port}"));
    assert!(
        log.contains("tokens come over the network unencrypted"),
        "{log}"
    );
    let log = start(&format!("127.0.0.1:{port}"));
    assert!(!log.contains("unencrypted"), "{log}");
}
