//! A client process of the demo: streams all pictures to the server, one way or the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use adjoin_client::{Client, Request};
use adjoin_control_api::inference::ModelInferRequest;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::digits::{Digits, INPUT, MODEL, OUTPUT, Reading, SHAPE};
use crate::control::{ControlError, inference_client};
use crate::histogram::{Latencies, Pairs};
use crate::{Failure, lanes, process};

/// The first line of a client process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) socket_dir: PathBuf,
    /// Requests under way at once.
    pub(super) pipeline: u32,
}

/// One pass over all pictures.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// Through shared memory, pipelined.
    Stream,
    /// Through shared memory, one by one.
    OneByOne,
    /// In gRPC messages, as many at once as are pipelined.
    Messages,
}

/// What came of a pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pass {
    /// Digit and confidence for each picture.
    pub(super) readings: Vec<(u8, f32)>,
    /// Times from submission to answer.
    pub(super) latencies: Pairs,
}

struct Pupil {
    digits: Rc<Digits>,
    idle: Vec<Request>,
    runtime: Runtime,
    messages: GrpcInferenceServiceClient<Channel>,
    pipeline: u32,
}

/// Readings and latencies as they come in.
#[derive(Debug)]
struct Progress {
    readings: Vec<(u8, f32)>,
    latencies: Latencies,
}

impl Progress {
    fn new(count: usize) -> Self {
        Self {
            readings: vec![(0, 0.0); count],
            latencies: Latencies::new(),
        }
    }

    fn note(&mut self, index: usize, began: Instant, scores: &[f32]) {
        self.latencies
            .record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let Reading { digit, confidence } = Reading::of(scores);
        self.readings[index] = (digit, confidence);
    }

    fn pass(self) -> Pass {
        Pass {
            readings: self.readings,
            latencies: self.latencies.pairs(),
        }
    }
}

impl Pupil {
    fn new(job: &Job) -> Result<Self, Failure> {
        let client = Client::builder()
            .name(&job.name)
            .request_bytes(1 << 20)
            .response_bytes(1 << 20)
            .connect(&job.socket_dir)?;
        let model = client.model(MODEL)?;
        let request =
            || -> Result<Request, Failure> { Ok(model.request().input(INPUT, &SHAPE)?.build()?) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            digits: Rc::new(Digits::load()?),
            idle: (0..job.pipeline)
                .map(|_| request())
                .collect::<Result<_, _>>()?,
            messages: runtime.block_on(inference_client(&job.socket_dir))?,
            runtime,
            pipeline: job.pipeline,
        })
    }

    fn obey(&mut self, command: Command) -> Result<Pass, Failure> {
        match command {
            Command::Stream => self.stream(self.idle.len()),
            Command::OneByOne => self.stream(1),
            Command::Messages => self.send_messages(),
        }
    }

    /// Writes pictures where the model will read them, with so many requests under way.
    fn stream(&mut self, at_once: usize) -> Result<Pass, Failure> {
        let mut progress = Progress::new(self.digits.count());
        let mut waiting = VecDeque::new();
        let mut next = 0;
        loop {
            while next < self.digits.count()
                && waiting.len() < at_once
                && let Some(mut request) = self.idle.pop()
            {
                let pixels = request.input_mut::<f32>(INPUT)?;
                for (pixel, &ink) in pixels.iter_mut().zip(self.digits.image(next)) {
                    *pixel = f32::from(ink);
                }
                let began = Instant::now();
                waiting.push_back((next, began, request.submit()?));
                next += 1;
            }
            let Some((index, began, pending)) = waiting.pop_front() else {
                return Ok(progress.pass());
            };
            let response = pending.wait()?;
            progress.note(index, began, response.get::<f32>(OUTPUT)?);
            self.idle.push(response.into_request());
        }
    }

    fn send_messages(&mut self) -> Result<Pass, Failure> {
        let count = self.digits.count();
        let next = Rc::new(Cell::new(0));
        let progress = Rc::new(RefCell::new(Progress::new(count)));
        let lane = || {
            let (digits, next, progress) = (
                Rc::clone(&self.digits),
                Rc::clone(&next),
                Rc::clone(&progress),
            );
            let mut client = self.messages.clone();
            async move {
                while next.get() < count {
                    let index = next.replace(next.get() + 1);
                    let message = message(digits.image(index));
                    let began = Instant::now();
                    let answer = client
                        .model_infer(message)
                        .await
                        .map_err(ControlError::from)?
                        .into_inner();
                    let bytes = answer
                        .raw_output_contents
                        .first()
                        .ok_or("an answer without outputs")?;
                    let numbers = bytes
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    progress
                        .borrow_mut()
                        .note(index, began, &numbers.collect::<Vec<_>>());
                }
                Ok(())
            }
        };
        lanes::run(&self.runtime, self.pipeline, lane)?;
        Ok(progress.replace(Progress::new(0)).pass())
    }
}

/// A request of the Open Inference Protocol with a picture in it.
fn message(image: &[u8]) -> ModelInferRequest {
    let pixels: Vec<u8> = image
        .iter()
        .flat_map(|&ink| f32::from(ink).to_le_bytes())
        .collect();
    ModelInferRequest {
        model_name: MODEL.to_owned(),
        inputs: vec![InferInputTensor {
            name: INPUT.to_owned(),
            datatype: "FP32".to_owned(),
            shape: SHAPE.to_vec(),
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from(pixels)],
        ..ModelInferRequest::default()
    }
}

/// Answers until there are no more commands.
pub(super) fn run() -> Result<ExitCode, Failure> {
    let Some(job) = process::next_command::<Job>()? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut pupil = match Pupil::new(&job) {
        Ok(pupil) => pupil,
        Err(error) => {
            process::reply::<()>(Err(error))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    process::reply(Ok(()))?;
    while let Some(command) = process::next_command()? {
        if !process::reply(pupil.obey(command))? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
