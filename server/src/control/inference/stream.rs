//! Streams of requests: several are under way at once, and their answers come in the order of the requests. An error
//! answers its request; the stream goes on.

use std::pin::Pin;
use std::sync::Arc;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::infer_parameter::ParameterChoice;
use adjoin_oip::{Fault, Kind, grpc};
use futures_util::StreamExt;
use prost::Message;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::control::message_budget::Charge;
use crate::oip::{Arrival, Caller, Oip};
use crate::trace::Transport;

/// Requests of one stream that are under way at once; the next is read when the first of them is answered.
const UNDER_WAY_MAX: usize = 64;

pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<api::ModelStreamInferResponse, Status>> + Send>>;

/// The answers to a stream of requests. A message that cannot be read ends it.
///
/// `traceparent` is the header of the stream: all of its requests belong to that trace. Nor have they a deadline each: the
/// stream's, if it has one, ends it as a whole.
pub(super) fn answers(
    oip: Oip,
    caller: Caller,
    traceparent: Option<String>,
    charge: Arc<Charge>,
    requests: Streaming<api::ModelInferRequest>,
) -> Answers {
    let shared = Arc::new((oip, caller, traceparent, charge));
    let answered = requests.map(move |message| {
        let shared = Arc::clone(&shared);
        async move {
            let (oip, caller, traceparent, charge) = &*shared;
            let arrival = Arrival {
                transport: Transport::Grpc,
                deadline_ns: 0,
                traceparent: traceparent.as_deref(),
            };
            let message = message?;
            // It was charged for as a part of the stream, and has a charge of its own until it is answered. What there
            // is of the next one already counts again with its next part.
            charge.release();
            let charge = charge.sibling();
            let room = charge.set(message.encoded_len() as u64);
            let room = room.map_err(|full| Fault::new(Kind::ResourceExhausted, full.message()));
            Ok(answer(oip, caller, arrival, message, room).await)
        }
    });
    Box::pin(answered.buffered(UNDER_WAY_MAX))
}

async fn answer(
    oip: &Oip,
    caller: &Caller,
    arrival: Arrival<'_>,
    message: api::ModelInferRequest,
    room: Result<(), Fault>,
) -> api::ModelStreamInferResponse {
    let id = message.id.clone();
    let ran = match room {
        Ok(()) => run(oip, caller, arrival, message).await,
        Err(full) => Err(full),
    };
    let (error_message, response) = match ran {
        Ok(response) => (String::new(), response),
        // The id says which request it was.
        Err(fault) => (
            fault.into_text(),
            api::ModelInferResponse {
                id,
                ..api::ModelInferResponse::default()
            },
        ),
    };
    api::ModelStreamInferResponse {
        error_message,
        infer_response: Some(response),
    }
}

async fn run(
    oip: &Oip,
    caller: &Caller,
    arrival: Arrival<'_>,
    message: api::ModelInferRequest,
) -> Result<api::ModelInferResponse, Fault> {
    let call = grpc::call(message)?;
    let marks_final = call.parameters.marks_final;
    let mut response = grpc::reply(oip.infer(caller, call, arrival).await?);
    if marks_final {
        // Every request has one answer here, which is its last.
        let choice = Some(ParameterChoice::BoolParam(true));
        let parameter = api::InferParameter {
            parameter_choice: choice,
        };
        response
            .parameters
            .insert("triton_final_response".into(), parameter);
    }
    Ok(response)
}
