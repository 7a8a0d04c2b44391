//! Requests as users of the client library make them: in shared memory, over the rings.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adjoin_cli_kit::session_size::{region_bytes, ring_entries};
use adjoin_client::{Client, Pending, Request};

use super::client::Caller;
use super::contents::Contents;
use super::job::Job;
use super::meter::Meter;
use crate::Failure;

/// Requests that are written, submitted and waited for.
pub(super) struct RingCaller {
    requests: Vec<Request>,
    contents: Contents,
    is_rewritten: bool,
}

impl RingCaller {
    pub(super) fn new(job: &Job) -> Result<Self, Failure> {
        let client = Client::builder()
            .name("adjoin bench")
            .spin(Duration::from_micros(job.spin_us))
            .request_bytes(region_bytes(&job.inputs, job.pipeline))
            .response_bytes(region_bytes(&job.outputs, job.pipeline))
            .ring_entries(ring_entries(job.pipeline))
            .connect(&job.socket_dir)?;
        let model = client.model(&job.model)?.version(job.version)?;
        let mut contents = Contents::new(&job.inputs)?;
        let mut requests = Vec::new();
        for _ in 0..job.pipeline {
            let mut builder = model.request();
            for input in &job.inputs {
                builder = builder.input(&input.name, &input.shape)?;
            }
            let mut request = builder.build()?;
            write(&mut request, &mut contents)?;
            requests.push(request);
        }
        Ok(Self {
            requests,
            contents,
            is_rewritten: job.is_rewritten,
        })
    }

    fn one_by_one(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        let request = &mut self.requests[0];
        loop {
            if self.is_rewritten {
                write(request, &mut self.contents)?;
            }
            let began = Instant::now();
            request.infer()?;
            if !meter.record(began, Instant::now()) {
                return Ok(());
            }
        }
    }

    fn pipelined(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        let mut waiting: VecDeque<(Pending, Instant)> =
            VecDeque::with_capacity(self.requests.len());
        let mut idle = std::mem::take(&mut self.requests);
        let mut goes_on = true;
        loop {
            while goes_on && let Some(mut request) = idle.pop() {
                if self.is_rewritten {
                    write(&mut request, &mut self.contents)?;
                }
                let began = Instant::now();
                waiting.push_back((request.submit()?, began));
            }
            let Some((pending, began)) = waiting.pop_front() else {
                self.requests = idle;
                return Ok(());
            };
            let response = pending.wait()?;
            goes_on &= meter.record(began, Instant::now());
            idle.push(response.into_request());
        }
    }
}

impl Caller for RingCaller {
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        if self.requests.len() == 1 {
            self.one_by_one(meter)
        } else {
            self.pipelined(meter)
        }
    }
}

fn write(request: &mut Request, contents: &mut Contents) -> Result<(), Failure> {
    for (index, bytes) in contents.turn().iter().enumerate() {
        request.input_bytes_mut_at(index)?.copy_from_slice(bytes);
    }
    Ok(())
}
