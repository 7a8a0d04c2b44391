//! `adjoin-loadgen serve-iceoryx2`: the other side of iceoryx2, with the same engine behind it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use adjoin_backend::{BindingKey, Execution, Input, Instance, Output, OutputSink, SinkError};
use adjoin_cli_kit::in_process::InProcess;
use adjoin_cli_kit::interrupt::{self, Interrupted};
use adjoin_cli_kit::tensor::Tensor;
use adjoin_cli_kit::{Failure, output};
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use clap::Args;
use iceoryx2::active_request::ActiveRequest;
use iceoryx2::node::Node;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{AttributeSpecifier, ipc};
use iceoryx2::service::builder::request_response::RequestResponseCreateError;

use super::{OUTPUT, WAIT, Wait, answers_event, event, failure, layout, requests_event, service};
use crate::arguments::parse_input;
use crate::lanes::in_process::{check_order, load};

/// How long a server sleeps before it looks whether it is to end.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Serves a model, or the identity, over iceoryx2 request-response.
///
/// The model runs on the inputs where the client wrote them and writes its outputs where the client reads them,
/// on the engine that `in-process:` and adjoin have. The identity copies its input. It writes `ready` to standard
/// output when it serves, and ends with SIGINT or SIGTERM.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeIceoryx2Arguments {
    /// Name of the service
    #[arg(long, value_name = "NAME")]
    service: String,

    /// The model's file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "identity",
        required_unless_present = "identity"
    )]
    model: Option<PathBuf>,

    /// Answers with the inputs
    #[arg(long)]
    identity: bool,

    /// An input: its name, its data type as the Open Inference Protocol writes it, all its dimensions;
    /// repeatable
    #[arg(long = "input", value_name = "NAME:DTYPE:1,128", required = true, value_parser = parse_input)]
    inputs: Vec<Tensor>,

    /// Most clients at once; memory for answers is reserved for each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients_max: u16,

    /// Threads of the engine for one operator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// How it waits for requests, and its clients for answers
    #[arg(long, value_name = "WAY", default_value = "busy")]
    wait: Wait,

    /// ONNX Runtime's library [default: next to the command, then the system's library directories]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

pub(crate) fn run(arguments: &ServeIceoryx2Arguments) -> Result<(), Failure> {
    let is_to_end = AtomicBool::new(false);
    let (ended, has_ended) = mpsc::channel();
    std::thread::scope(|scope| {
        // The server has the thread for itself: what it uses stays on it.
        let server = scope.spawn(|| {
            let outcome = serve(arguments, &is_to_end);
            // Whoever waits for the signal is told; nobody does after one.
            let _ = ended.send(());
            outcome
        });
        let signal = interrupt::block_on(async {
            while has_ended.try_recv().is_err() {
                tokio::time::sleep(SLEEP_MAX).await;
            }
            Ok(())
        });
        is_to_end.store(true, Ordering::Relaxed);
        let served = server.join().map_err(|_| "the server panicked")?;
        match signal {
            // This is how it is meant to end.
            Err(error) if error.is::<Interrupted>() => served,
            other => served.and(other),
        }
    })
}

type Request = ActiveRequest<ipc::Service, [u8], (), [u8], ()>;

/// What answers requests.
enum Work {
    /// With their own bytes.
    Identity,
    Model(Box<Model>),
}

/// A model that runs on samples.
struct Model {
    instance: Box<dyn Instance>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// Samples come again, and with them what the engine made of their addresses.
    keys: HashMap<(usize, usize), u64>,
}

fn serve(arguments: &ServeIceoryx2Arguments, is_to_end: &AtomicBool) -> Result<(), Failure> {
    let (mut work, outputs) = work(arguments)?;
    let node = super::node()?;
    let attributes = attributes(&outputs, arguments.wait)?;
    let (_, input_bytes) = layout(&arguments.inputs);
    let (_, output_bytes) = layout(&outputs);
    let clients_max = usize::from(arguments.clients_max);
    let made = service(&node, &arguments.service)?
        .max_servers(1)
        .max_clients(clients_max)
        .max_nodes(clients_max + 1)
        .max_active_requests_per_client(1)
        .max_loaned_requests(1)
        .max_response_buffer_size(1)
        .max_borrowed_responses_per_pending_response(1)
        .create_with_attributes(&attributes);
    let factory = made.map_err(|error| match error {
        RequestResponseCreateError::AlreadyExists => Failure::from(format!(
            "the service {:?} is served already; end that server, or choose another --service",
            arguments.service
        )),
        other => failure("no service", other),
    })?;
    let server = factory
        .server_builder()
        .max_loaned_responses_per_request(1)
        .initial_max_slice_len(output_bytes)
        .create()
        .map_err(|error| failure("no server", error))?;
    let mut doorbells = match arguments.wait {
        Wait::Busy => None,
        Wait::Event => Some(Doorbells::new(&node, arguments)?),
    };
    output::print("ready\n")?;
    while !is_to_end.load(Ordering::Relaxed) {
        let taken = server.receive();
        let Some(request) = taken.map_err(|error| failure("no request", error))? else {
            match &doorbells {
                Some(doorbells) => doorbells.sleep()?,
                None => std::hint::spin_loop(),
            }
            continue;
        };
        if request.payload().len() == input_bytes {
            work.answer(&request, output_bytes)?;
        } else {
            refuse(&request)?;
        }
        if let Some(doorbells) = &mut doorbells {
            doorbells.ring(&node, request.origin().value())?;
        }
    }
    Ok(())
}

fn work(arguments: &ServeIceoryx2Arguments) -> Result<(Work, Vec<Tensor>), Failure> {
    let Some(path) = &arguments.model else {
        // Without names: a model of the same answers may have others.
        let unnamed = arguments.inputs.iter().map(|input| Tensor {
            name: String::new(),
            ..input.clone()
        });
        return Ok((Work::Identity, unnamed.collect()));
    };
    let loaded = load(arguments.onnxruntime.as_deref(), path, arguments.threads)?;
    check_order(&*loaded, &arguments.inputs)?;
    let first = loaded.instance()?;
    let (_, outputs) = InProcess::with_shown_outputs(first, loaded.metadata(), &arguments.inputs)?;
    let model = Model {
        instance: loaded.instance()?,
        inputs: arguments.inputs.clone(),
        outputs: outputs.clone(),
        keys: HashMap::new(),
    };
    Ok((Work::Model(Box::new(model)), outputs))
}

/// What the outputs are and how to wait, for clients.
fn attributes(outputs: &[Tensor], wait: Wait) -> Result<AttributeSpecifier, Failure> {
    let define = |attributes: AttributeSpecifier, key: &str, text: String| {
        let key = key.try_into().map_err(|error| failure("no key", error))?;
        let value = text.as_str().try_into();
        let value = value.map_err(|error| failure("an output has a long description", error))?;
        let defined = attributes.define(&key, &value);
        defined.map_err(|error| failure("too many outputs", error))
    };
    let mut attributes = AttributeSpecifier::new();
    attributes = define(attributes, WAIT, serde_json::to_string(&wait)?)?;
    for output in outputs {
        attributes = define(attributes, OUTPUT, serde_json::to_string(output)?)?;
    }
    Ok(attributes)
}

/// An answer without bytes, to a request of another size than the inputs have.
fn refuse(request: &Request) -> Result<(), Failure> {
    let empty = request.loan_slice_uninit(0);
    let empty = empty.map_err(|error| failure("no memory for an answer", error))?;
    // A client that is gone gets no answer.
    let _ = empty.write_from_slice(&[]).send();
    Ok(())
}

impl Work {
    fn answer(&mut self, request: &Request, output_bytes: usize) -> Result<(), Failure> {
        let loan_error = |error| failure("no memory for an answer", error);
        let response = match self {
            Self::Identity => request
                .loan_slice_uninit(output_bytes)
                .map_err(loan_error)?
                .write_from_slice(request.payload()),
            Self::Model(model) => {
                let mut response = request.loan_slice(output_bytes).map_err(loan_error)?;
                model.run(request.payload(), response.payload_mut())?;
                response
            }
        };
        // A client that is gone gets no answer.
        let _ = response.send();
        Ok(())
    }
}

impl Model {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Failure> {
        let next = self.keys.len() as u64 + 1;
        let addresses = (input.as_ptr().addr(), output.as_ptr().addr());
        let key = *self.keys.entry(addresses).or_insert(next);
        let (places, _) = layout(&self.inputs);
        let mut inputs = Vec::with_capacity(places.len());
        for (tensor, place) in self.inputs.iter().zip(places) {
            let payload = Payload::from_slice(&input[place]);
            inputs.push(Input::whole(tensor.dtype()?, &tensor.shape, payload));
        }
        let (places, _) = layout(&self.outputs);
        let mut outputs = Vec::with_capacity(places.len());
        let (mut rest, mut at) = (output, 0);
        for (tensor, place) in self.outputs.iter().zip(places) {
            let (_, from_here) = rest.split_at_mut(place.start - at);
            let (own, after) = from_here.split_at_mut(place.len());
            (rest, at) = (after, place.end);
            outputs.push(Output::Bound {
                dtype: tensor.dtype()?,
                shape: &tensor.shape,
                payload: PayloadMut::from_slice(own),
            });
        }
        let execution = Execution {
            key: Some(BindingKey(key)),
            inputs: &inputs,
            outputs: &mut outputs,
        };
        self.instance.run(execution, &mut Nowhere)?;
        Ok(())
    }
}

/// All outputs have their places.
struct Nowhere;

impl OutputSink for Nowhere {
    fn accept(
        &mut self,
        _: usize,
        _: DataType,
        _: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        Err(SinkError {
            byte_size: payload.byte_size() as u64,
        })
    }
}

/// Sleeping and waking.
struct Doorbells {
    own: Listener<ipc::Service>,
    service: String,
    clients: HashMap<u128, Notifier<ipc::Service>>,
}

impl Doorbells {
    fn new(node: &Node<ipc::Service>, arguments: &ServeIceoryx2Arguments) -> Result<Self, Failure> {
        let name = requests_event(&arguments.service);
        let processes_max = usize::from(arguments.clients_max) + 1;
        let event = event(node, &name, processes_max)?;
        let own = event.listener_builder().create();
        Ok(Self {
            own: own.map_err(|error| failure("no listener", error))?,
            service: arguments.service.clone(),
            clients: HashMap::new(),
        })
    }

    fn sleep(&self) -> Result<(), Failure> {
        let woken = self.own.timed_wait(|_| (), SLEEP_MAX);
        woken.map_err(|error| failure("cannot sleep", error))?;
        Ok(())
    }

    fn ring(&mut self, node: &Node<ipc::Service>, client: u128) -> Result<(), Failure> {
        let notifier = match self.clients.entry(client) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let event = event(node, &answers_event(&self.service, client), 2)?;
                let notifier = event.notifier_builder().create();
                place.insert(notifier.map_err(|error| failure("no notifier", error))?)
            }
        };
        // A client that is gone is not woken.
        let _ = notifier.notify();
        Ok(())
    }
}
