//! A client process: sets up its way to the server, then runs phases as it is told.

use std::process::ExitCode;
use std::time::Duration;

use super::Transport;
use super::body::BodyCaller;
use super::in_process::InProcessCaller;
use super::job::{Command, Job, Phase, Ready};
use super::meter::Meter;
use super::ring::RingCaller;
use super::signal::SignalCaller;
use crate::{Failure, process};

/// Something that calls the model again and again.
pub(super) trait Caller {
    /// Calls until the meter says that the phase is over; nothing is under way afterwards.
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure>;
}

struct Client {
    server: Box<dyn Caller>,
    in_process: Option<InProcessCaller>,
}

impl Client {
    fn new(job: &Job) -> Result<Self, Failure> {
        let server: Box<dyn Caller> = match job.transport {
            Transport::Ring => Box::new(RingCaller::new(job)?),
            Transport::GrpcSignal => Box::new(SignalCaller::new(job)?),
            Transport::GrpcBody => Box::new(BodyCaller::new(job)?),
        };
        let in_process = job
            .in_process
            .as_ref()
            .map(|how| InProcessCaller::new(job, how));
        Ok(Self {
            server,
            in_process: in_process.transpose()?,
        })
    }

    fn obey(&mut self, command: Command) -> Result<Phase, Failure> {
        let (caller, phase_ms): (&mut dyn Caller, _) = match (command, &mut self.in_process) {
            (Command::Serve { phase_ms }, _) => (&mut *self.server, phase_ms),
            (Command::InProcess { phase_ms }, Some(caller)) => (caller, phase_ms),
            (Command::InProcess { .. }, None) => return Err("this client has no engine".into()),
        };
        let mut meter = Meter::new(Duration::from_millis(phase_ms));
        caller.call(&mut meter)?;
        Ok(meter.phase())
    }
}

/// Answers until there are no more commands.
pub(super) fn run() -> Result<ExitCode, Failure> {
    let Some(job) = process::next_command::<Job>()? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut client = match Client::new(&job) {
        Ok(client) => client,
        Err(error) => {
            process::reply::<Ready>(Err(error))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let engine_version = client
        .in_process
        .as_ref()
        .map(|caller| caller.engine_version().to_owned());
    process::reply(Ok(Ready { engine_version }))?;
    while let Some(command) = process::next_command()? {
        if !process::reply(client.obey(command))? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
