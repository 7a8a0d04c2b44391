//! adjoin's own client: prepared requests, whose tensors lie in memory shared with the server.

use std::path::Path;
use std::time::Duration;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::session_size::{region_bytes, ring_entries};
use adjoin_cli_kit::tensor::Tensor;
use adjoin_client::{Client, FailedRequest, InferError, Outputs, Request, Status, SubmitOptions};
use adjoin_shm::clock::now_ns;

use super::{Answer, CallError, Lane};
use crate::job::Job;

/// Sizes of the response region that are tried while the outputs are unknown.
const RESPONSE_BYTES: [u64; 4] = [16 << 20, 64 << 20, 256 << 20, 1 << 30];

/// Opens a session and makes a request for each lane.
pub(super) fn requests(job: &Job, socket_dir: &Path) -> Result<Vec<Request>, Failure> {
    if !job.outputs.is_empty() {
        let response_bytes = region_bytes(&job.outputs, job.lanes);
        return session(job, socket_dir, response_bytes);
    }
    let mut last = None;
    for response_bytes in RESPONSE_BYTES {
        let mut requests = session(job, socket_dir, response_bytes)?;
        match requests
            .iter_mut()
            .try_for_each(|request| request.infer().map(drop))
        {
            Ok(()) => return Ok(requests),
            Err(error @ (InferError::ResponseRegionFull(_) | InferError::OutputTooLarge(_))) => {
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| "no size was tried".into(), Into::into))
}

fn session(job: &Job, socket_dir: &Path, response_bytes: u64) -> Result<Vec<Request>, Failure> {
    let client = Client::builder()
        .name(crate::PROGRAM)
        .spin(Duration::from_micros(job.spin_us))
        .request_bytes(region_bytes(&job.inputs, job.lanes))
        .response_bytes(response_bytes)
        .ring_entries(ring_entries(job.lanes))
        .connect(socket_dir)?;
    let model = client.model(&job.model)?;
    let wanted: Vec<&str> = job.wanted.iter().map(String::as_str).collect();
    let request = || -> Result<Request, Failure> {
        let mut builder = model.request();
        for input in &job.inputs {
            builder = builder.input(&input.name, &input.shape)?;
        }
        if !wanted.is_empty() {
            builder = builder.outputs(&wanted);
        }
        Ok(builder.build()?)
    };
    (0..job.lanes).map(|_| request()).collect()
}

/// Writes inputs in place.
pub(super) fn write(request: &mut Request, contents: &[Vec<u8>]) -> Result<(), Failure> {
    for (index, bytes) in contents.iter().enumerate() {
        request.input_bytes_mut_at(index)?.copy_from_slice(bytes);
    }
    Ok(())
}

/// Options of a submission with that deadline.
pub(super) fn options(until_ns: Option<u64>) -> SubmitOptions {
    let options = SubmitOptions::new();
    match until_ns {
        Some(until_ns) => {
            let rest_ns = until_ns.saturating_sub(now_ns());
            options.deadline_in(Duration::from_nanos(rest_ns))
        }
        None => options,
    }
}

/// Tells refusals from failures.
pub(super) fn call_error(error: &InferError) -> CallError {
    match error.status() {
        Some(Status::QueueFull | Status::DeadlineUnreachable) => {
            CallError::Refused(error.to_string())
        }
        Some(Status::DeadlineExceeded) => CallError::Expired(error.to_string()),
        _ => CallError::failed(error),
    }
}

/// Copies outputs.
pub(super) fn answers(outputs: Outputs<'_>) -> Result<Vec<Answer>, CallError> {
    let answer = |(index, info): (usize, adjoin_client::TensorInfo<'_>)| {
        Ok(Answer {
            tensor: Tensor {
                name: info.name.to_owned(),
                data_type: info.dtype.name().to_owned(),
                shape: info.shape.to_vec(),
                byte_size: Some(info.byte_size),
            },
            bytes: outputs.bytes_at(index).map_err(CallError::failed)?.to_vec(),
        })
    };
    outputs.iter().enumerate().map(answer).collect()
}

/// A request for a thread that waits for its answer, as most programs do.
#[derive(Debug)]
pub(super) struct ThreadLane {
    request: Request,
}

/// The lane of a client that has one request under way.
pub(super) async fn thread(job: &Job, socket_dir: &Path) -> Result<Vec<ThreadLane>, Failure> {
    let requests = requests(job, socket_dir)?.into_iter();
    Ok(requests.map(|request| ThreadLane { request }).collect())
}

impl Lane for ThreadLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        write(&mut self.request, contents)
    }

    async fn call(&mut self, until_ns: Option<u64>) -> Result<(), CallError> {
        let answered = self.request.infer_with(&options(until_ns));
        answered.map(drop).map_err(|error| call_error(&error))
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        let outputs = self.request.infer();
        answers(outputs.map_err(|error| call_error(&error))?)
    }
}

/// A request for a task that awaits its answer, so that any number may be under way on one thread.
#[derive(Debug)]
pub(super) struct TaskLane {
    /// Away while it is with the server.
    request: Option<Request>,
    spin_ns: u64,
}

/// The lanes of a client in open loop.
pub(super) async fn tasks(job: &Job, socket_dir: &Path) -> Result<Vec<TaskLane>, Failure> {
    let requests = requests(job, socket_dir)?.into_iter();
    let lane = |request| TaskLane {
        request: Some(request),
        spin_ns: job.spin_us * 1000,
    };
    Ok(requests.map(lane).collect())
}

impl TaskLane {
    async fn run<T>(
        &mut self,
        options: SubmitOptions,
        read: impl FnOnce(Outputs<'_>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let request = self.request.take().ok_or_else(lost)?;
        let mut pending = match request.submit_with(&options) {
            Ok(pending) => pending,
            Err(failed) => return Err(self.take_back(failed)),
        };
        if self.spin_ns > 0 {
            let until_ns = now_ns() + self.spin_ns;
            while !pending.is_done() && now_ns() < until_ns {
                tokio::task::yield_now().await;
            }
        }
        match pending.await {
            Ok(response) => {
                let read = read(response.outputs());
                self.request = Some(response.into_request());
                read
            }
            Err(failed) => Err(self.take_back(failed)),
        }
    }

    fn take_back(&mut self, failed: FailedRequest) -> CallError {
        self.request = failed.request;
        call_error(&failed.error)
    }
}

fn lost() -> CallError {
    CallError::Failed("a request did not come back".into())
}

impl Lane for TaskLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        write(self.request.as_mut().ok_or_else(lost)?, contents)
    }

    async fn call(&mut self, until_ns: Option<u64>) -> Result<(), CallError> {
        self.run(options(until_ns), |_| Ok(())).await
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        self.run(SubmitOptions::new(), answers).await
    }
}
