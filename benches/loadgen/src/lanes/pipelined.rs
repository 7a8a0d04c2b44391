//! Several requests of adjoin's client under way on one thread, which waits for the oldest.

use std::collections::VecDeque;
use std::path::Path;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::contents::Contents;
use adjoin_client::{Pending, Request};
use adjoin_shm::clock::now_ns;

use super::Answer;
use super::adjoin::{answers, call_error, options, requests, write};
use crate::arrivals::Arrivals;
use crate::caller::Caller;
use crate::job::{Job, Phase};
use crate::meter::Meter;

/// A pipeline of prepared requests.
#[derive(Debug)]
pub(super) struct Pipelined {
    idle: Vec<Request>,
    contents: Contents,
    is_rewritten: bool,
    deadline_ns: Option<u64>,
}

impl Pipelined {
    pub(super) fn new(job: &Job, socket_dir: &Path) -> Result<Self, Failure> {
        let mut idle = requests(job, socket_dir)?;
        let contents = Contents::new(&job.inputs)?;
        for request in &mut idle {
            write(request, &contents.all()[0])?;
        }
        Ok(Self {
            idle,
            contents,
            is_rewritten: job.is_rewritten,
            deadline_ns: job.deadline_us.map(|us| us * 1000),
        })
    }
}

impl Caller for Pipelined {
    fn ask(&mut self, contents: &[Vec<u8>]) -> Result<Vec<Answer>, Failure> {
        let request = self.idle.first_mut().ok_or("a client has a request")?;
        write(request, contents)?;
        Ok(answers(request.infer()?)?)
    }

    fn closed(&mut self, mut meter: Meter) -> Result<Phase, Failure> {
        let mut waiting: VecDeque<(Pending, u64)> = VecDeque::with_capacity(self.idle.len());
        let mut goes_on = true;
        loop {
            while goes_on && let Some(mut request) = self.idle.pop() {
                if self.is_rewritten {
                    write(&mut request, self.contents.turn())?;
                }
                let began_ns = now_ns();
                let until_ns = self.deadline_ns.map(|deadline_ns| began_ns + deadline_ns);
                waiting.push_back((request.submit_with(&options(until_ns))?, began_ns));
            }
            let Some((pending, began_ns)) = waiting.pop_front() else {
                return Ok(meter.closed_phase(0));
            };
            let (request, outcome) = match pending.wait() {
                Ok(response) => (Some(response.into_request()), Ok(())),
                Err(failed) => (failed.request, Err(call_error(&failed.error))),
            };
            goes_on &= meter.closed(began_ns, now_ns(), &outcome)?;
            self.idle.extend(request);
        }
    }

    fn open(&mut self, _: Arrivals, _: Meter) -> Result<Phase, Failure> {
        Err("a pipeline is for a closed loop".into())
    }
}
