//! iceoryx2 request-response: what both of its sides agree on.
//!
//! A service has the name that the user gave it. All inputs of a request lie in one sample, all outputs in
//! another one, each tensor at a multiple of 64. What the outputs are, and how both sides wait, stands in
//! attributes of the service. A side that sleeps is woken by an event: the server by one of the service, a
//! client by one of its own.

mod serve;

use std::fmt::Debug;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use clap::ValueEnum;
use iceoryx2::node::Node;
use iceoryx2::prelude::{
    Alignment, LogLevel, NodeBuilder, ServiceName, SignalHandlingMode, ipc, set_log_level,
};
use iceoryx2::service::builder::request_response::Builder;
use iceoryx2::service::port_factory::event;
use serde::{Deserialize, Serialize};

pub(crate) use serve::{ServeIceoryx2Arguments, run};

/// Where each tensor of a sample begins.
const ALIGNMENT: usize = 64;

/// Attribute of a service for each output, in their order.
pub(crate) const OUTPUT: &str = "output";
/// Attribute of a service: how both sides wait.
pub(crate) const WAIT: &str = "wait";

/// How both sides wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Wait {
    /// Looks again and again
    Busy,
    /// Sleeps until an event comes
    Event,
}

type ServiceBuilder = Builder<[u8], (), [u8], (), ipc::Service>;

/// This process among those that use iceoryx2. It says nothing but errors, and leaves signals alone.
pub(crate) fn node() -> Result<Node<ipc::Service>, Failure> {
    set_log_level(LogLevel::Fatal);
    NodeBuilder::new()
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<ipc::Service>()
        .map_err(|error| failure("iceoryx2 does not work here", error))
}

/// A service of tensors, to be made or to be opened.
pub(crate) fn service(node: &Node<ipc::Service>, name: &str) -> Result<ServiceBuilder, Failure> {
    let alignment = Alignment::new(ALIGNMENT).ok_or("64 is an alignment")?;
    Ok(node
        .service_builder(&service_name(name)?)
        .request_response::<[u8], [u8]>()
        .request_payload_alignment(alignment)
        .response_payload_alignment(alignment))
}

/// The name of the event that wakes the server.
pub(crate) fn requests_event(service: &str) -> String {
    format!("{service}/requests")
}

/// The name of the event that wakes a client.
pub(crate) fn answers_event(service: &str, client: u128) -> String {
    format!("{service}/answers/{client}")
}

/// Something that wakes, and is woken.
pub(crate) fn event(
    node: &Node<ipc::Service>,
    name: &str,
    processes_max: usize,
) -> Result<event::PortFactory<ipc::Service>, Failure> {
    let builder = node.service_builder(&service_name(name)?).event();
    let sized = builder
        .max_notifiers(processes_max)
        .max_nodes(processes_max);
    let service = sized.open_or_create();
    service.map_err(|error| failure(&format!("no event {name:?}"), error))
}

fn service_name(name: &str) -> Result<ServiceName, Failure> {
    let parsed = name.try_into();
    parsed.map_err(|error| failure(&format!("{name:?} is no name of a service"), error))
}

/// Their errors have names and no sentences.
pub(crate) fn failure(what: &str, error: impl Debug) -> Failure {
    format!("{what}: iceoryx2 says {error:?}").into()
}

/// Where tensors lie in a sample, and the bytes of all.
pub(crate) fn layout(tensors: &[Tensor]) -> (Vec<std::ops::Range<usize>>, usize) {
    let mut end = 0;
    let place = |tensor: &Tensor| {
        let place = end..end + tensor.bytes();
        end = place.end.next_multiple_of(ALIGNMENT);
        place
    };
    let places: Vec<_> = tensors.iter().map(place).collect();
    let byte_size = places.last().map_or(0, |place| place.end);
    (places, byte_size.max(1))
}
