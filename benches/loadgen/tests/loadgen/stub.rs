//! A server of HTTP whose models answer with their input, in each of the protocols.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Listens until the tests end.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    requests: AtomicU32,
    regions: Mutex<HashMap<String, File>>,
}

struct Asked {
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    closes: bool,
}

impl Stub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
        };
        let state = Arc::clone(&stub.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&state, stream.unwrap()));
            }
        });
        stub
    }

    /// The regions that are registered.
    pub(crate) fn regions(&self) -> usize {
        self.state.regions.lock().unwrap().len()
    }
}

fn serve(state: &State, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(asked) = read(&mut reader) {
        let answer = answer(state, &asked);
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n",
            answer.status,
            answer.body.len(),
            answer.headers
        );
        let bytes = [head.into_bytes(), answer.body].concat();
        if writer.write_all(&bytes).is_err() || answer.closes {
            return;
        }
    }
}

/// `None` when the client has gone.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        path,
        headers,
        body,
    })
}

fn answer(state: &State, asked: &Asked) -> Answer {
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let good = |body| Answer {
        status: "200 OK",
        headers: String::new(),
        body,
        closes: false,
    };
    let same = || good(asked.body.clone());
    match asked.path.as_str() {
        "/msgpack" => same(),
        "/form" => good(field(&asked.body)),
        "/wrong" => {
            let mut wrong = same();
            *wrong.body.last_mut().unwrap() ^= 0x40;
            wrong
        }
        "/busy" if number % 2 == 1 => Answer {
            status: "503 Service Unavailable",
            ..good(b"queue is full".to_vec())
        },
        "/busy" => same(),
        "/closing" => Answer {
            closes: true,
            ..same()
        },
        "/v2/models/fixed/infer" => infer(state, asked),
        path => match region(path) {
            Some((name, "register")) => {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                let path = format!("/dev/shm{}", body["key"].as_str().unwrap());
                let file = File::options().read(true).write(true).open(path).unwrap();
                state.regions.lock().unwrap().insert(name.into(), file);
                good(Vec::new())
            }
            Some((name, "unregister")) => {
                assert!(state.regions.lock().unwrap().remove(name).is_some());
                good(Vec::new())
            }
            _ => Answer {
                status: "404 Not Found",
                ..good(b"no such path".to_vec())
            },
        },
    }
}

fn region(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/v2/systemsharedmemory/region/")?
        .split_once('/')
}

/// The content of the form field `data`.
fn field(body: &[u8]) -> Vec<u8> {
    let find = |bytes: &[u8], what: &[u8]| {
        let found = bytes.windows(what.len()).position(|window| window == what);
        found.unwrap()
    };
    let boundary = find(body, b"\r\n");
    let heading = find(body, b"\r\n\r\n");
    let text = String::from_utf8_lossy(&body[..heading]);
    assert!(text.contains("name=\"data\""), "{text}");
    let tail = [b"\r\n", &body[..boundary], b"--\r\n"].concat();
    let content = &body[heading + 4..];
    content.strip_suffix(&tail[..]).unwrap().to_vec()
}

/// The model `fixed` of the Open Inference Protocol.
fn infer(state: &State, asked: &Asked) -> Answer {
    let length: usize = asked.headers["inference-header-content-length"]
        .parse()
        .unwrap();
    let (header, tensors) = asked.body.split_at(length);
    let header: Value = serde_json::from_slice(header).unwrap();
    let input = &header["inputs"][0];
    let mut output = json!({
        "name": "y", "datatype": input["datatype"], "shape": input["shape"],
    });
    let parameters = &input["parameters"];
    if let Some(size) = parameters["binary_data_size"].as_u64() {
        assert_eq!(size, tensors.len() as u64);
        assert_eq!(header["parameters"]["binary_data_output"], json!(true));
        output["parameters"] = json!({"binary_data_size": size});
    } else {
        copy(state, parameters, &header["outputs"][0]["parameters"]);
    }
    let header = serde_json::to_vec(&json!({"model_name": "fixed", "outputs": [output]})).unwrap();
    let headers = if tensors.is_empty() {
        String::new()
    } else {
        format!("Inference-Header-Content-Length: {}\r\n", header.len())
    };
    Answer {
        status: "200 OK",
        headers,
        body: [&header, tensors].concat(),
        closes: false,
    }
}

/// Copies from one place of a region to another one.
fn copy(state: &State, from: &Value, to: &Value) {
    let regions = state.regions.lock().unwrap();
    let place = |parameters: &Value| {
        let number = |key: &str| parameters[key].as_u64().unwrap();
        let file = &regions[parameters["shared_memory_region"].as_str().unwrap()];
        (
            file,
            number("shared_memory_offset"),
            number("shared_memory_byte_size"),
        )
    };
    let (file, offset, byte_size) = place(from);
    let mut bytes = vec![0; usize::try_from(byte_size).unwrap()];
    file.read_exact_at(&mut bytes, offset).unwrap();
    let (file, offset, byte_size) = place(to);
    assert_eq!(byte_size, bytes.len() as u64);
    file.write_all_at(&bytes, offset).unwrap();
}
