//! A client process for tests that kill, stop or restart things: `adjoin-test-client SOCKET_DIR COMMAND ...`.
//!
//! * `slow ROWS`: prints `started`, then runs the model `slow` again and again, a line `ok` for each right answer;
//! * `loop`: runs the model `add` for ever, a line `ok COUNT` every 100 right answers, a line `error TEXT` for
//!   each error, and goes on after errors;
//! * `plan MODEL COLUMNS ROWS TURNS`: opens a session, prints `open`, waits for a line, and runs a model that doubles rows of so
//!   many columns and adds one: a line `ok` for each right answer, `error TEXT` for each error; TURNS 0: for ever;
//! * `fork`: opens a session, starts a process that lives on with a copy of its socket, prints that process's number and
//!   the session's, and waits;
//! * `protocol N`: says hello with that version of the protocol, prints `refused STATUS (DETAILS)` and ends with 1, or
//!   prints `welcome`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::exit,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a test program: its output is its result"
)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use adjoin_client::{Client, Status};
use adjoin_schema::attach::{AttachMessage, Hello};
use adjoin_tests::raw::{self, RawClient};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let options = || {
        Client::builder()
            .request_bytes(1 << 20)
            .response_bytes(1 << 20)
            .name("test-client")
    };
    let client = || options().connect(&arguments[1]).unwrap();
    match arguments[2].as_str() {
        "slow" => slow(&client(), arguments[3].parse().unwrap()),
        "loop" => add_forever(&client()),
        "plan" => {
            let number = |index: usize| arguments[index].parse().unwrap();
            plan(&client(), &arguments[3], [number(4), number(5)], number(6));
        }
        "fork" => fork(&arguments[1]),
        "protocol" => hello(&arguments[1], arguments[3].parse().unwrap()),
        other => panic!("unknown command {other}"),
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn slow(client: &Client, rows: i64) {
    let mut request = client
        .model("slow")
        .unwrap()
        .request()
        .input("x", &[rows, 64])
        .unwrap()
        .build()
        .unwrap();
    say("started");
    loop {
        let values: Vec<f32> = (0..rows * 64).map(|i| (i % 13) as f32).collect();
        request
            .input_mut::<f32>("x")
            .unwrap()
            .copy_from_slice(&values);
        let outputs = request.infer().unwrap();
        let got = outputs.get::<f32>("y").unwrap();
        for (row, got) in values.chunks(64).zip(got.chunks(64)) {
            let mean = row.iter().sum::<f32>() / 64.0;
            assert!(
                row.iter()
                    .zip(got)
                    .all(|(x, y)| (y - (x - 2.0 * mean)).abs() < 1e-3)
            );
        }
        say("ok");
    }
}

fn add_forever(client: &Client) {
    let mut request = None;
    let mut count = 0u32;
    loop {
        let run = || -> Result<(), Box<dyn std::error::Error>> {
            if request.is_none() {
                let model = client.model("add")?;
                request = Some(
                    model
                        .request()
                        .input("a", &[1, 4])?
                        .input("b", &[1, 4])?
                        .build()?,
                );
            }
            let request = request.as_mut().unwrap();
            let base = (count % 1000) as f32;
            request
                .input_mut::<f32>("a")?
                .copy_from_slice(&[base, 1.0, 2.0, 3.0]);
            request
                .input_mut::<f32>("b")?
                .copy_from_slice(&[1.0, base, 0.5, -3.0]);
            let outputs = request.infer()?;
            assert_eq!(
                outputs.get::<f32>("sum")?,
                [base + 1.0, base + 1.0, 2.5, 0.0]
            );
            Ok(())
        };
        let mut run = run;
        match run() {
            Ok(()) => {
                count += 1;
                if count.is_multiple_of(100) {
                    say(&format!("ok {count}"));
                }
            }
            Err(error) => {
                say(&format!("error {error}"));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn plan(client: &Client, model: &str, [columns, rows]: [i64; 2], turns: i64) {
    say("open");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let mut request = None;
    for turn in (0..).take_while(|&turn| turns == 0 || turn < turns) {
        match double(client, model, &mut request, [rows, columns], turn) {
            Ok(()) => say("ok"),
            Err(error) => {
                say(&format!("error {error}"));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    say("done");
}

/// One request, which is kept for the next one.
fn double(
    client: &Client,
    model: &str,
    kept: &mut Option<adjoin_client::Request>,
    shape: [i64; 2],
    turn: i64,
) -> Result<(), Box<dyn std::error::Error>> {
    if kept.is_none() {
        *kept = Some(client.model(model)?.request().input("x", &shape)?.build()?);
    }
    let request = kept.as_mut().unwrap();
    // Another value in each place and turn, and all of them exact.
    let value = |index: usize| ((index as i64 + 31 * turn) % 4096) as f32;
    for (index, x) in request.input_mut::<f32>("x")?.iter_mut().enumerate() {
        *x = value(index);
    }
    let outputs = request.infer()?;
    for (index, y) in outputs.get::<f32>("y")?.iter().enumerate() {
        assert_eq!(*y, 2.0 * value(index) + 1.0, "turn {turn}, element {index}");
    }
    Ok(())
}

/// As a client of another release.
fn hello(socket_dir: &str, protocol: u32) {
    let hello = AttachMessage::Hello(Hello {
        protocol,
        ..raw::hello()
    });
    let (_socket, answer) = raw::exchange(socket_dir.as_ref(), &hello.encode());
    match AttachMessage::parse(&answer.expect("an answer").bytes) {
        Ok(AttachMessage::Welcome(_)) => say("welcome"),
        Ok(AttachMessage::Refusal(refusal)) => {
            let status = Status::from_wire(refusal.status).unwrap();
            say(&format!("refused {status} {:?}", refusal.detail));
            std::process::exit(1);
        }
        other => panic!("{other:?}"),
    }
}

/// A child that holds a copy of the attach socket, as a forked one would: the end of the connection does not
/// come when this process dies.
fn fork(socket_dir: &str) {
    let session = RawClient::attach(socket_dir.as_ref());
    rustix::io::fcntl_setfd(&session.socket, rustix::io::FdFlags::empty()).unwrap();
    let mut child = Command::new("sleep")
        .arg("60")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    say(&format!("{} {}", child.id(), session.welcome.session_id));
    child.wait().unwrap();
}
