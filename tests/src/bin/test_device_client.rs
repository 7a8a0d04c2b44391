//! A client process whose tensors lie on the device: `adjoin-test-device-client SOCKET_DIR COMMAND ...`.
//!
//! * `run MODEL COLUMNS ROWS TURNS`: attaches memory, prints `open`, waits for a line, and runs a model that doubles rows of
//!   so many columns and adds one, `TURNS` times or, with 0, for good; `ok` or `error ...` after each turn, `done` at the end;
//! * `host MODEL COLUMNS ROWS TURNS`: the same with outputs that come to the response region;
//! * `renew MODEL COLUMNS ROWS TURNS`: the same as `run`, and after an error with memory that is attached anew.
//!
//! What it reads and writes itself goes through the driver, as copies of this process.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a program of tests: a failure is a failed test"
)]

use std::io::Write;
use std::time::Duration;

use adjoin_client::cuda::DeviceMemory;
use adjoin_client::{Client, DeviceRegion, Request};

/// Where outputs begin in the memory.
const OUTPUTS: usize = 1 << 20;

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// What a request is made of.
struct Job {
    model: String,
    shape: [i64; 2],
    turns: i64,
    is_output_on_device: bool,
    renews: bool,
}

/// Memory on the device, with a request in it.
struct Seat {
    memory: DeviceMemory,
    /// Kept by the request too.
    _region: DeviceRegion,
    request: Request,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize| arguments[index].parse::<i64>().unwrap();
    let job = Job {
        model: arguments[3].clone(),
        shape: [number(5), number(4)],
        turns: number(6),
        is_output_on_device: arguments[2] != "host",
        renews: arguments[2] == "renew",
    };
    let client = Client::builder()
        .request_bytes(1 << 20)
        .response_bytes(1 << 20)
        .connect(&arguments[1])
        .unwrap();
    let mut seat = Some(job.seat(&client).unwrap());
    say("open");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for turn in (0..).take_while(|&turn| job.turns == 0 || turn < job.turns) {
        match job.turn(&client, &mut seat, turn) {
            Ok(()) => say("ok"),
            Err(error) => {
                say(&format!("error {error}"));
                if job.renews {
                    seat = None;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    say("done");
}

impl Job {
    fn elements(&self) -> usize {
        usize::try_from(self.shape[0] * self.shape[1]).unwrap()
    }

    fn seat(&self, client: &Client) -> Result<Seat, Box<dyn std::error::Error>> {
        let memory = DeviceMemory::allocate(0, 2 * OUTPUTS)?;
        let region = client.attach_device(memory.export()?)?;
        let mut request =
            client
                .model(&self.model)?
                .request()
                .input_on_device("x", &self.shape, &region, 0)?;
        if self.is_output_on_device {
            let room = 4 * self.elements() as u64;
            request = request.output_on_device("y", &region, OUTPUTS as u64, room)?;
        }
        Ok(Seat {
            memory,
            request: request.build()?,
            _region: region,
        })
    }

    fn turn(
        &self,
        client: &Client,
        seat: &mut Option<Seat>,
        turn: i64,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if seat.is_none() {
            *seat = Some(self.seat(client)?);
        }
        let seat = seat.as_mut().unwrap();
        // Another value in each place and turn, and all of them exact.
        let value = |index: usize| ((index as i64 + 31 * turn) % 4096) as f32;
        let values = (0..self.elements()).map(value);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        seat.memory.write(0, &bytes)?;
        let outputs = seat.request.infer()?;
        let info = outputs.output_at(0).unwrap();
        assert_eq!(info.byte_size, bytes.len() as u64);
        assert_eq!(info.is_on_device, self.is_output_on_device);
        let mut answer = vec![0; bytes.len()];
        if self.is_output_on_device {
            assert!(outputs.get::<f32>("y").is_err(), "no processor reaches it");
            seat.memory.read(OUTPUTS, &mut answer)?;
        } else {
            answer.copy_from_slice(outputs.bytes("y")?);
        }
        for (index, bytes) in answer.as_chunks().0.iter().enumerate() {
            let y = f32::from_le_bytes(*bytes);
            assert_eq!(y, 2.0 * value(index) + 1.0, "turn {turn}, element {index}");
        }
        Ok(())
    }
}
