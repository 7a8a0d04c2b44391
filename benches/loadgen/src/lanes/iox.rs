//! A client of iceoryx2 request-response: inputs are written into a sample that the server reads.

use std::time::Duration;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use adjoin_shm::clock::now_ns;
use iceoryx2::node::Node;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{AttributeSet, CallbackProgression, PortFactory, ipc};
use iceoryx2::request_mut::RequestMut;
use iceoryx2::response::Response;
use iceoryx2::service::builder::request_response::RequestResponseOpenError;
use serde::de::DeserializeOwned;

use super::{Answer, CallError, Lane};
use crate::iox::{
    OUTPUT, WAIT, Wait, answers_event, event, failure, layout, node, requests_event, service,
};
use crate::job::Job;

/// How long an answer may take; the service does not say when its server is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Looks between two looks at the clock.
const LOOKS: u32 = 256;
/// How long a client sleeps before it looks at the clock.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// A client, with the sample that it sends next.
pub(super) struct IoxLane {
    // Dropped before what they belong to.
    request: Option<Sample>,
    doorbells: Option<Doorbells>,
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    _node: Node<ipc::Service>,
    outputs: Vec<Tensor>,
    /// All inputs one after the other.
    inputs: Vec<u8>,
    places: Vec<std::ops::Range<usize>>,
    /// `None` for ever.
    spin_ns: Option<u64>,
}

type Sample = RequestMut<ipc::Service, [u8], (), [u8], ()>;

struct Doorbells {
    own: Listener<ipc::Service>,
    server: Notifier<ipc::Service>,
}

/// The lane of a client.
pub(super) async fn lane(job: &Job, name: &str) -> Result<Vec<IoxLane>, Failure> {
    let node = node()?;
    let opened = service(&node, name)?.open();
    let factory = opened.map_err(|error| match error {
        RequestResponseOpenError::DoesNotExist => Failure::from(format!(
            "no iceoryx2 service {name:?}; start `adjoin-loadgen serve-iceoryx2 --service {name}`"
        )),
        other => failure("no service", other),
    })?;
    let outputs = attributes::<Tensor>(factory.attributes(), OUTPUT)?;
    let wait = attributes::<Wait>(factory.attributes(), WAIT)?;
    let is_woken = wait.contains(&Wait::Event);
    let (places, byte_size) = layout(&job.inputs);
    let client = factory.client_builder().initial_max_slice_len(byte_size);
    let client = client.create();
    let client = client.map_err(|error| failure("no client", error))?;
    let doorbells = is_woken.then(|| Doorbells::new(&node, name, client.id().value()));
    let doorbells = doorbells.transpose()?;
    Ok(vec![IoxLane {
        request: None,
        spin_ns: doorbells.is_some().then_some(job.spin_us * 1000),
        doorbells,
        client,
        _node: node,
        outputs,
        inputs: vec![0; byte_size],
        places,
    }])
}

/// The values of an attribute, which are JSON.
fn attributes<T: DeserializeOwned>(of: &AttributeSet, key: &str) -> Result<Vec<T>, Failure> {
    let key = key.try_into().map_err(|error| failure("no key", error))?;
    let mut values = Vec::new();
    of.iter_key_values(&key, |value| {
        values.push(serde_json::from_str(&value.to_string()));
        CallbackProgression::Continue
    });
    Ok(values.into_iter().collect::<Result<_, _>>()?)
}

impl Doorbells {
    fn new(node: &Node<ipc::Service>, service: &str, client: u128) -> Result<Self, Failure> {
        let own = event(node, &answers_event(service, client), 2)?;
        let own = own.listener_builder().create();
        let server = event(node, &requests_event(service), 1)?;
        let server = server.notifier_builder().create();
        Ok(Self {
            own: own.map_err(|error| failure("no listener", error))?,
            server: server.map_err(|error| failure("no notifier", error))?,
        })
    }
}

impl IoxLane {
    fn infer(&mut self) -> Result<Response<ipc::Service, [u8], ()>, CallError> {
        let failed =
            |what: &str, error: &dyn std::fmt::Debug| CallError::failed(failure(what, error));
        let request = self
            .request
            .take()
            .ok_or_else(|| CallError::failed("nothing was written"))?;
        let pending = request.send();
        let pending = pending.map_err(|error| failed("cannot send", &error))?;
        if let Some(doorbells) = &self.doorbells {
            let rung = doorbells.server.notify();
            rung.map_err(|error| failed("cannot wake the server", &error))?;
        }
        let began_ns = now_ns();
        loop {
            for _ in 0..LOOKS {
                let answer = pending.receive();
                if let Some(answer) = answer.map_err(|error| failed("cannot receive", &error))? {
                    return Ok(answer);
                }
                std::hint::spin_loop();
            }
            let waited_ns = now_ns() - began_ns;
            if Duration::from_nanos(waited_ns) > ANSWER_TIMEOUT {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Err(CallError::Failed(format!(
                    "no answer within {seconds} s: the server has ended"
                )));
            }
            if let Some(doorbells) = &self.doorbells
                && self.spin_ns.is_some_and(|spin_ns| waited_ns >= spin_ns)
            {
                let woken = doorbells.own.timed_wait(|_| (), SLEEP_MAX);
                woken.map_err(|error| failed("cannot sleep", &error))?;
            }
        }
    }
}

impl Lane for IoxLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        for (place, content) in self.places.iter().zip(contents) {
            self.inputs[place.clone()].copy_from_slice(content);
        }
        // One that was not sent has the only place.
        self.request = None;
        let loaned = self.client.loan_slice_uninit(self.inputs.len());
        let loaned = loaned.map_err(|error| failure("no memory for a request", error))?;
        self.request = Some(loaned.write_from_slice(&self.inputs));
        Ok(())
    }

    async fn call(&mut self, _: Option<u64>) -> Result<(), CallError> {
        self.infer().map(drop)
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        let response = self.infer()?;
        let bytes = response.payload();
        let (places, byte_size) = layout(&self.outputs);
        if bytes.is_empty() {
            return Err(CallError::failed("the service has inputs of another size"));
        }
        if bytes.len() != byte_size {
            return Err(CallError::Failed(format!(
                "an answer of {} bytes, not {byte_size}",
                bytes.len()
            )));
        }
        let answer = |(tensor, place): (&Tensor, std::ops::Range<usize>)| Answer {
            tensor: tensor.clone(),
            bytes: bytes[place].to_vec(),
        };
        Ok(self.outputs.iter().zip(places).map(answer).collect())
    }
}
