//! Connections, and the loops that drive them.
//!
//! A [`Lane`] has one request under way at a time. What it speaks is its own business; how requests follow
//! each other is decided here, the same for all: each lane again as soon as it has its answer (closed loop),
//! or when the next request is meant to start and a lane is free (open loop).

mod adjoin;
mod drive;
mod grpc;
mod http;
pub(crate) mod in_process;
mod iox;
mod msgpack;
mod pipelined;
pub(crate) mod segment;
mod shared;
mod v2;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use thiserror::Error;

use crate::arguments::Target;
use crate::caller::Caller;
use crate::job::Job;
use drive::Lanes;

/// One request at a time.
pub(crate) trait Lane {
    /// Writes the inputs of the next request.
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure>;

    /// Makes a request and waits until its outputs can be read. `until_ns` is its deadline, on the clock of
    /// the node.
    async fn call(&mut self, until_ns: Option<u64>) -> Result<(), CallError>;

    /// As [`Lane::call`], with the outputs.
    async fn ask(&mut self) -> Result<Vec<Answer>, CallError>;

    /// Gives back what the server holds for this lane.
    async fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Connections that were opened again.
    fn reconnects(&self) -> u64 {
        0
    }
}

/// An output as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Without a name where the protocol gives none.
    pub(crate) tensor: Tensor,
    pub(crate) bytes: Vec<u8>,
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// The server would not run it: too much to do, or too late.
    #[error("refused: {0}")]
    Refused(String),
    /// The server let it in and did not run it in time.
    #[error("expired: {0}")]
    Expired(String),
    #[error("{0}")]
    Failed(String),
}

impl CallError {
    pub(crate) fn failed(reason: impl ToString) -> Self {
        Self::Failed(reason.to_string())
    }
}

/// Connects a client.
pub(crate) fn connect(job: &Job) -> Result<Box<dyn Caller>, Failure> {
    match &job.target {
        Target::Adjoin { socket_dir } if job.is_open_loop => {
            Ok(Box::new(Lanes::new(job, adjoin::tasks(job, socket_dir))?))
        }
        Target::Adjoin { socket_dir } if job.lanes > 1 => {
            Ok(Box::new(pipelined::Pipelined::new(job, socket_dir)?))
        }
        Target::Adjoin { socket_dir } => {
            Ok(Box::new(Lanes::new(job, adjoin::thread(job, socket_dir))?))
        }
        Target::Grpc { address, is_shared } => Ok(Box::new(Lanes::new(
            job,
            grpc::lanes(job, address, *is_shared),
        )?)),
        Target::InProcess { model } => Ok(Box::new(Lanes::new(job, in_process::lane(job, model))?)),
        Target::HttpMsgpack { url, is_form } => Ok(Box::new(Lanes::new(
            job,
            msgpack::lanes(job, url, *is_form),
        )?)),
        Target::HttpV2 { url, is_shared } => {
            Ok(Box::new(Lanes::new(job, v2::lanes(job, url, *is_shared))?))
        }
        Target::Iceoryx2 { service } => Ok(Box::new(Lanes::new(job, iox::lane(job, service))?)),
    }
}
