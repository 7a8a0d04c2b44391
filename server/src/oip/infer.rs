//! A call through queue and batch: its inputs are found, it is checked against the model as any request, waits and runs
//! with the others, and its outputs become the answer.

use std::sync::Arc;

use adjoin_oip::{
    Call, CallOutput, Content, Fault, Kind, RegionSlice, Reply, ReplyContent, ReplyOutput, Target,
    classify,
};
use adjoin_schema::DataType;
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;
use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::refusal::{of_call, of_outcome};
use super::regions::Region;
use super::{Caller, Oip};
use crate::engine::{Engine, owned_request, ticket};
use crate::model::request::{Job, Outcome, Request, Sink};
use crate::model::version::Claim;
use crate::model::{InputFacts, ModelVersion};
use crate::session::response::{OwnedOutput, ResponseBlock};
use crate::trace::{Pending, Transport};

/// Most bytes of the outputs of one answer: what a message may have.
pub(super) const REPLY_BYTES_MAX: u64 = 256 << 20;

/// How a call came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// By which transport.
    pub transport: Transport,
    /// When its answer is of no use any more, on the clock of deadlines; 0 for never.
    pub deadline_ns: u64,
    /// The trace that it belongs to, as its header says.
    pub traceparent: Option<&'a str>,
}

/// A region for each output of a call that goes to one.
type Targets = SmallVec<[Option<Arc<Region>>; 4]>;

/// A request on its way. Dropped before its outcome is there, it takes the request out of the queue: whoever asked
/// has gone.
struct Underway<'a> {
    engine: &'a Engine,
    flow: u64,
    request_id: u64,
    receiver: oneshot::Receiver<Outcome>,
    is_over: bool,
}

impl Underway<'_> {
    async fn outcome(&mut self) -> Result<Outcome, Rejection> {
        let outcome = (&mut self.receiver).await;
        self.is_over = true;
        // The engine tells every job; only its end drops one.
        outcome.map_err(|_| Status::NotExecuted.into())
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.engine.cancel(self.flow, self.request_id);
        }
    }
}

impl Oip {
    /// Runs a call. Its own timeout is counted from now.
    ///
    /// # Errors
    /// What does not fit the model, or why there is no answer.
    pub async fn infer(
        &self,
        caller: &Caller,
        call: Call,
        arrival: Arrival<'_>,
    ) -> Result<Reply, Fault> {
        let traces = self.engine.traces();
        let mut trace = traces.begin(arrival.transport, arrival.traceparent);
        trace.asks_for(&call.model);
        let answer = self
            .run(caller, call, arrival.deadline_ns, &mut trace)
            .await;
        let error = answer.as_ref().err();
        trace.answered(error.map(|fault| format!("{:?}", fault.kind)));
        answer
    }

    async fn run(
        &self,
        caller: &Caller,
        mut call: Call,
        deadline_ns: u64,
        trace: &mut Pending<'_>,
    ) -> Result<Reply, Fault> {
        let engine = &*self.engine;
        let came_ns = now_ns();
        if engine.is_draining() {
            return Err(of_call(Status::NotExecuted.into(), &call, None));
        }
        self.read_regions(caller, &mut call)?;
        let (number, label) = (call.version.number(), call.version.label());
        let claimed = engine.models().claim(&call.model, number, label);
        let (version, claim) = claimed.map_err(|rejection| of_call(rejection, &call, None))?;
        let explain = |rejection: Rejection, call: &Call| {
            of_call(rejection, call, Some(&self.info(&version)))
        };
        let request =
            check(&version, claim, &call).map_err(|rejection| explain(rejection, &call))?;
        let request = Arc::new(request);
        let targets = self.targets(caller, &call)?;
        let key = self.cache.key(&request);
        if let Some(answer) = key.and_then(|key| self.cache.get(&key)) {
            version
                .metrics()
                .cache_hit(now_ns().saturating_sub(came_ns));
            return reply(&version, call, &targets, answer.iter().cloned()).await;
        }
        let response = ResponseBlock::private(&request, REPLY_BYTES_MAX);
        let response = response.map_err(|rejection| explain(rejection, &call))?;

        let (sender, receiver) = oneshot::channel();
        let request_id = engine.fresh_request_id();
        let job = Job {
            request: Arc::clone(&request),
            request_id,
            sink: Sink::Reply(Some(sender)),
            response: Box::new(response),
        };
        let now_ns = now_ns();
        let mut ticket = ticket(
            &job,
            caller.flow,
            call.parameters.priority,
            deadline_ns,
            now_ns,
        );
        let timeout_ns = call.parameters.timeout_us.saturating_mul(1000);
        let policy = version.settings().queue.of(ticket.priority);
        policy.set_timeout(&mut ticket, timeout_ns);
        engine.submit(ticket, job);
        let mut underway = Underway {
            engine,
            flow: caller.flow,
            request_id,
            receiver,
            is_over: false,
        };
        let outcome = underway
            .outcome()
            .await
            .map_err(|rejection| explain(rejection, &call))?;
        trace.ran(version.version(), now_ns, &outcome);
        if outcome.status != Status::Ok {
            return Err(of_outcome(&outcome, &call, &self.info(&version)));
        }
        let block = outcome
            .response
            .ok_or_else(|| Fault::new(Kind::Internal, "an answer without outputs"))?;
        let outputs = block.into_outputs(&request);
        if let Some(key) = key {
            self.cache.put(key, outputs.as_slice().into());
            version.metrics().cache_miss();
        }
        reply(&version, call, &targets, outputs.into_iter()).await
    }

    /// Copies inputs out of the caller's regions. Whoever can write a region can change it while the model runs, so
    /// what is checked is the copy.
    fn read_regions(&self, caller: &Caller, call: &mut Call) -> Result<(), Fault> {
        let mut reader = self.regions.reader(&caller.owner);
        for input in &mut call.inputs {
            if let Content::Region(slice) = &input.content {
                let bytes = reader.read(slice)?;
                input.check(&bytes)?;
                input.content = Content::Message(bytes);
            }
        }
        Ok(())
    }

    /// The regions that outputs go to, in the order of the call's outputs. From here on they stay, registered or not.
    fn targets(&self, caller: &Caller, call: &Call) -> Result<Targets, Fault> {
        let target = |output: &CallOutput| match &output.target {
            Target::Message { .. } => Ok(None),
            Target::Region(slice) => {
                let region = self.regions.get(&caller.owner, &slice.region)?;
                region.check(slice.offset, slice.byte_size)?;
                Ok(Some(region))
            }
        };
        call.outputs.iter().map(target).collect()
    }
}

/// The call as a checked request.
fn check(version: &Arc<ModelVersion>, claim: Claim, call: &Call) -> Result<Request, Rejection> {
    let mut inputs: SmallVec<[(InputFacts<'_>, Bytes); 4]> = SmallVec::new();
    for input in &call.inputs {
        // What lay in a region is a copy by now.
        let Content::Message(bytes) = &input.content else {
            return Err(Status::Internal.into());
        };
        let facts = InputFacts {
            name: &input.name,
            dtype: input.dtype,
            shape: &input.shape,
            byte_size: bytes.len() as u64,
        };
        inputs.push((facts, bytes.clone()));
    }
    let wanted: SmallVec<[&str; 4]> = call
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    owned_request(Arc::clone(version), claim, &inputs, &wanted)
}

/// The answer to a call, with each output where the call wants it.
async fn reply(
    version: &ModelVersion,
    mut call: Call,
    targets: &Targets,
    outputs: impl Iterator<Item = OwnedOutput>,
) -> Result<Reply, Fault> {
    let mut reply = Reply {
        version: version.version(),
        outputs: Vec::new(),
        id: std::mem::take(&mut call.id),
        model: std::mem::take(&mut call.model),
    };
    for output in outputs {
        reply
            .outputs
            .push(place(version, &call, targets, output).await?);
    }
    Ok(reply)
}

/// An output where the call wants it.
async fn place(
    version: &ModelVersion,
    call: &Call,
    targets: &Targets,
    output: OwnedOutput,
) -> Result<ReplyOutput, Fault> {
    let OwnedOutput {
        index,
        mut dtype,
        mut shape,
        mut bytes,
    } = output;
    let name = version.signature().metadata().outputs[index].name.clone();
    let mut asked = call.outputs.iter().zip(targets);
    let asked = asked.find(|(asked, _)| asked.name == name);
    let classes = asked.map_or(0, |(asked, _)| asked.classes);
    if classes > 0 {
        let is_batched = version.signature().max_batch_size() > 0;
        let labels = version.labels(index);
        (shape, bytes) = classify(dtype, &shape, &bytes, classes, is_batched, labels)
            .map_err(|fault| fault.about("output", &name))?;
        dtype = DataType::Bytes;
    }
    let content = match asked.map(|(asked, region)| (&asked.target, region)) {
        Some((Target::Region(slice), Some(region))) => {
            write(region, slice, &name, bytes).await?;
            ReplyContent::Region
        }
        Some((Target::Message { is_binary }, _)) => ReplyContent::Message {
            bytes,
            is_binary: *is_binary,
        },
        _ => ReplyContent::Message {
            bytes,
            is_binary: call.parameters.binary_data_output,
        },
    };
    Ok(ReplyOutput {
        name,
        dtype,
        shape,
        content,
    })
}

/// Writes an output to its region.
async fn write(
    region: &Arc<Region>,
    slice: &RegionSlice,
    name: &str,
    bytes: Bytes,
) -> Result<(), Fault> {
    let (room, byte_size) = (slice.byte_size, bytes.len() as u64);
    if byte_size > room {
        let text = format!(
            "shared memory size specified with the request for output '{name}' ({room} bytes) should be at least \
             {byte_size} bytes to hold the results"
        );
        return Err(Fault::new(Kind::Internal, text));
    }
    if byte_size > 0 {
        Arc::clone(region).write(slice.offset, bytes).await?;
    }
    Ok(())
}
