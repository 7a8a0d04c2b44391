//! Requests of the Open Inference Protocol: tensors in the messages of gRPC calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adjoin_control_api::inference::ModelInferRequest;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use bytes::Bytes;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::client::Caller;
use super::contents::Contents;
use super::job::{Job, Tensor};
use super::meter::Meter;
use crate::control::{ControlError, inference_client};
use crate::{Failure, lanes};

/// Calls over one connection.
pub(super) struct BodyCaller {
    runtime: Runtime,
    messages: Rc<Messages>,
    pipeline: u32,
}

struct Messages {
    client: GrpcInferenceServiceClient<Channel>,
    /// Without payload.
    frame: ModelInferRequest,
    contents: RefCell<Contents>,
    /// Payload for requests that are not written anew.
    untouched: Option<Vec<Bytes>>,
}

impl BodyCaller {
    pub(super) fn new(job: &Job) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(inference_client(&job.socket_dir))?;
        let input = |tensor: &Tensor| InferInputTensor {
            name: tensor.name.clone(),
            datatype: tensor.data_type.clone(),
            shape: tensor.shape.clone(),
            ..InferInputTensor::default()
        };
        let frame = ModelInferRequest {
            model_name: job.model.clone(),
            model_version: job.version.to_string(),
            inputs: job.inputs.iter().map(input).collect(),
            ..ModelInferRequest::default()
        };
        let mut contents = Contents::new(&job.inputs)?;
        let untouched = (!job.is_rewritten).then(|| payload(&mut contents));
        let contents = RefCell::new(contents);
        let messages = Rc::new(Messages {
            client,
            frame,
            contents,
            untouched,
        });
        Ok(Self {
            runtime,
            messages,
            pipeline: job.pipeline,
        })
    }
}

impl Messages {
    fn next(&self) -> ModelInferRequest {
        let mut message = self.frame.clone();
        message.raw_input_contents = match &self.untouched {
            Some(payload) => payload.clone(),
            None => payload(&mut self.contents.borrow_mut()),
        };
        message
    }

    /// One call after the other.
    async fn call_in_turn(self: Rc<Self>, meter: Rc<RefCell<Meter>>) -> Result<(), Failure> {
        let mut client = self.client.clone();
        loop {
            let message = self.next();
            let began = Instant::now();
            client
                .model_infer(message)
                .await
                .map_err(ControlError::from)?;
            if !meter.borrow_mut().record(began, Instant::now()) {
                return Ok(());
            }
        }
    }
}

/// A message's payload: written anew, as a producer without shared memory does.
fn payload(contents: &mut Contents) -> Vec<Bytes> {
    contents
        .turn()
        .iter()
        .map(|bytes| Bytes::copy_from_slice(bytes))
        .collect()
}

impl Caller for BodyCaller {
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        // Lanes share the meter while they run.
        let shared = Rc::new(RefCell::new(std::mem::replace(
            meter,
            Meter::new(Duration::ZERO),
        )));
        let lane = || Rc::clone(&self.messages).call_in_turn(Rc::clone(&shared));
        let outcome = lanes::run(&self.runtime, self.pipeline, lane);
        std::mem::swap(meter, &mut shared.borrow_mut());
        outcome
    }
}
