//! The loops: closed and open, over any kind of lane.

use std::cell::RefCell;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::contents::Contents;
use adjoin_shm::clock::now_ns;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Runtime;

use super::{Answer, CallError, Lane};
use crate::alarm::Alarm;
use crate::arguments::Target;
use crate::arrivals::Arrivals;
use crate::caller::Caller;
use crate::client;
use crate::job::{Job, Phase};
use crate::meter::Meter;

/// Lanes of one client, all on one thread.
#[derive(Debug)]
pub(super) struct Lanes<L> {
    // Dropped before the runtime that their connections run on.
    lanes: Vec<L>,
    runtime: Runtime,
    contents: RefCell<Contents>,
    is_rewritten: bool,
    deadline_ns: Option<u64>,
}

impl<L: Lane> Lanes<L> {
    /// Connects, and writes the inputs for the first time.
    pub(super) fn new(
        job: &Job,
        connect: impl Future<Output = Result<Vec<L>, Failure>>,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut lanes = runtime.block_on(connect)?;
        let contents = Contents::new(&job.inputs)?;
        for lane in &mut lanes {
            lane.write(&contents.all()[0])?;
        }
        Ok(Self {
            lanes,
            runtime,
            contents: RefCell::new(contents),
            // A sample of iceoryx2 is sent once.
            is_rewritten: job.is_rewritten || matches!(job.target, Target::Iceoryx2 { .. }),
            deadline_ns: job.deadline_us.map(|us| us * 1000),
        })
    }

    fn reconnects(&self) -> u64 {
        self.lanes.iter().map(Lane::reconnects).sum()
    }
}

impl<L: Lane> Caller for Lanes<L> {
    fn ask(&mut self, contents: &[Vec<u8>]) -> Result<Vec<Answer>, Failure> {
        let lane = self.lanes.first_mut().ok_or("a client has a lane")?;
        lane.write(contents)?;
        Ok(self.runtime.block_on(lane.ask())?)
    }

    fn closed(&mut self, meter: Meter) -> Result<Phase, Failure> {
        let before = self.reconnects();
        let meter = RefCell::new(meter);
        let Self {
            lanes,
            runtime,
            contents,
            ..
        } = self;
        let (is_rewritten, deadline_ns) = (self.is_rewritten, self.deadline_ns);
        let again_and_again = async |lane: &mut L| -> Result<(), Failure> {
            loop {
                if is_rewritten {
                    lane.write(contents.borrow_mut().turn())?;
                }
                let began_ns = now_ns();
                let until_ns = deadline_ns.map(|deadline_ns| began_ns + deadline_ns);
                let outcome = lane.call(until_ns).await;
                if !meter.borrow_mut().closed(began_ns, now_ns(), &outcome)? {
                    return Ok(());
                }
            }
        };
        runtime.block_on(all(lanes.iter_mut().map(again_and_again)))?;
        Ok(meter.into_inner().closed_phase(self.reconnects() - before))
    }

    fn open(&mut self, mut arrivals: Arrivals, mut meter: Meter) -> Result<Phase, Failure> {
        let before = self.reconnects();
        let Self {
            lanes,
            runtime,
            contents,
            ..
        } = self;
        let (is_rewritten, deadline_ns) = (self.is_rewritten, self.deadline_ns);
        if is_rewritten {
            for lane in &mut *lanes {
                lane.write(contents.borrow_mut().turn())?;
            }
        }
        runtime.block_on(async {
            let alarm = Alarm::new()?;
            let mut next_ns = arrivals.next();
            let mut running = FuturesUnordered::new();
            loop {
                let ended = if let Some(intended_ns) = next_ns
                    && let Some(lane) = lanes.pop()
                {
                    tokio::select! {
                        biased;
                        Some(ended) = running.next(), if !running.is_empty() => {
                            lanes.push(lane);
                            ended
                        }
                        is_time = alarm.wait_until(intended_ns) => {
                            is_time?;
                            running.push(call(lane, intended_ns, deadline_ns));
                            next_ns = arrivals.next().filter(|_| !client::is_told_to_end());
                            continue;
                        }
                    }
                } else {
                    match running.next().await {
                        Some(ended) => ended,
                        None => return Ok::<(), Failure>(()),
                    }
                };
                let Ended {
                    mut lane,
                    intended_ns,
                    started_ns,
                    ended_ns,
                    outcome,
                } = ended;
                meter.open(intended_ns, started_ns, ended_ns, &outcome)?;
                if is_rewritten {
                    lane.write(contents.borrow_mut().turn())?;
                }
                // The last one that was used is the next one, so that no more are used than are needed.
                lanes.push(lane);
            }
        })?;
        Ok(meter.open_phase(self.reconnects() - before))
    }

    fn close(&mut self) -> Result<(), Failure> {
        let Self { lanes, runtime, .. } = self;
        runtime.block_on(all(lanes.iter_mut().map(Lane::close)))
    }
}

/// A request of an open loop that was answered.
struct Ended<L> {
    lane: L,
    intended_ns: u64,
    started_ns: u64,
    ended_ns: u64,
    outcome: Result<(), CallError>,
}

async fn call<L: Lane>(mut lane: L, intended_ns: u64, deadline_ns: Option<u64>) -> Ended<L> {
    let started_ns = now_ns();
    let until_ns = deadline_ns.map(|deadline_ns| intended_ns + deadline_ns);
    let outcome = lane.call(until_ns).await;
    Ended {
        lane,
        intended_ns,
        started_ns,
        ended_ns: now_ns(),
        outcome,
    }
}

/// Runs loops until all have ended or one has failed.
async fn all(
    loops: impl Iterator<Item = impl Future<Output = Result<(), Failure>>>,
) -> Result<(), Failure> {
    let mut loops: FuturesUnordered<_> = loops.collect();
    while let Some(ended) = loops.next().await {
        ended?;
    }
    Ok(())
}
