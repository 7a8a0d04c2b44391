//! A client process: connects its clients, a thread each, then runs phases as it is told.
//!
//! It ends when its standard input does, also in the middle of a phase: then what is under way is finished,
//! and what the client holds elsewhere is given back. If that takes too long it ends all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::output::one_line;
use adjoin_cli_kit::process::{next_command, reply};
use adjoin_cli_kit::tensor::Tensor;
use rustix::process::{Signal, getpid, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::arrivals::Arrivals;
use crate::caller::Caller;
use crate::job::{Command, Done, Job, Phase, PhasePlan, ProcessPhase, Ready};
use crate::meter::Meter;
use crate::processes::Usage;
use crate::{answers, cpus, lanes};
use adjoin_cli_kit::contents::Contents;

/// How long the end may take after standard input has ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

static IS_TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Whether nobody wants this phase any more.
pub(crate) fn is_told_to_end() -> bool {
    IS_TOLD_TO_END.load(Ordering::Relaxed)
}

/// Answers until there are no more commands.
pub(crate) fn run() -> Result<(), Failure> {
    let Some(job) = next_command::<Job>()? else {
        return Ok(());
    };
    let commands = commands();
    let crew = match Crew::start(&job) {
        Ok(crew) => crew,
        Err(error) => {
            reply::<Ready>(Err(error))?;
            return Ok(());
        }
    };
    let outputs = crew.outputs.clone();
    reply(Ok(Ready { outputs }))?;
    while let Ok(command) = commands.recv() {
        if !reply(crew.obey(&command?))? {
            break;
        }
    }
    crew.end();
    Ok(())
}

/// Reads commands on a thread of its own, so that the end of them is seen at any time.
fn commands() -> Receiver<Result<Command, Failure>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Some(command) = next_command().transpose() {
            if sender.send(command).is_err() {
                return;
            }
        }
        drop(sender);
        IS_TOLD_TO_END.store(true, Ordering::Relaxed);
        std::thread::sleep(END_TIMEOUT);
        // The process cannot refuse this signal; where even that fails nothing is left to be done.
        let _ = kill_process(getpid(), Signal::KILL);
    });
    receiver
}

/// What a client's thread answers.
enum Answered {
    Connected(Vec<Tensor>),
    Phase(Phase),
    Recorded,
    Checked(f64),
}

struct Member {
    commands: Sender<Command>,
    answers: Receiver<Result<Answered, String>>,
    thread: JoinHandle<()>,
}

/// The clients of this process.
struct Crew {
    members: Vec<Member>,
    outputs: Vec<Tensor>,
}

impl Crew {
    fn start(job: &Job) -> Result<Self, Failure> {
        if let Some(list) = &job.cpus {
            cpus::keep_to(list)?;
        }
        let mut crew = Self {
            members: Vec::new(),
            outputs: Vec::new(),
        };
        // One after the other: a server that is asked for 256 sessions at once may refuse some.
        for number in 0..job.clients {
            let job = Job {
                first_client: job.first_client + number,
                ..job.clone()
            };
            let (commands, of_member) = mpsc::channel();
            let (to_crew, answers) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("client-{}", job.first_client))
                .spawn(move || serve(&job, &of_member, &to_crew))?;
            let member = Member {
                commands,
                answers,
                thread,
            };
            let connected = member.answer();
            crew.members.push(member);
            match connected {
                Ok(Answered::Connected(outputs)) => crew.outputs = outputs,
                Ok(_) => return Err("a client answered before it was asked".into()),
                Err(error) => {
                    crew.end();
                    return Err(error);
                }
            }
        }
        Ok(crew)
    }

    fn obey(&self, command: &Command) -> Result<Done, Failure> {
        let before = cpu_ns();
        let switches = Usage::of_this();
        for member in &self.members {
            // One that has ended says why below.
            let _ = member.commands.send(command.clone());
        }
        let answers: Vec<_> = self.members.iter().map(Member::answer).collect();
        let mut phase = ProcessPhase {
            clients: Vec::new(),
            cpu_ns: cpu_ns().saturating_sub(before),
            context_switches: Usage::of_this().since(&switches).context_switches,
        };
        let mut done = Done::Recorded;
        for answer in answers {
            match answer? {
                Answered::Phase(client) => phase.clients.push(client),
                Answered::Checked(error) => {
                    let so_far = match done {
                        Done::Checked { error_max } => error_max,
                        _ => 0.0,
                    };
                    done = Done::Checked {
                        error_max: error.max(so_far),
                    };
                }
                Answered::Recorded | Answered::Connected(_) => {}
            }
        }
        if phase.clients.is_empty() {
            Ok(done)
        } else {
            Ok(Done::Phase(phase))
        }
    }

    fn end(self) {
        for member in self.members {
            drop(member.commands);
            // A thread that panicked has said so; its connection is gone with it.
            let _ = member.thread.join();
        }
    }
}

impl Member {
    fn answer(&self) -> Result<Answered, Failure> {
        let answer = self.answers.recv();
        Ok(answer.map_err(|_| "a client's thread has ended")??)
    }
}

/// A client's thread.
fn serve(job: &Job, commands: &Receiver<Command>, answers: &Sender<Result<Answered, String>>) {
    let said = |outcome: Result<Answered, Failure>| {
        let is_good = outcome.is_ok();
        let outcome = outcome.map_err(|error| one_line(&error.to_string()));
        answers.send(outcome).is_ok() && is_good
    };
    let mut caller = match connect(job) {
        Ok((caller, outputs)) => {
            if !said(Ok(Answered::Connected(outputs))) {
                return;
            }
            caller
        }
        Err(error) => {
            said(Err(error));
            return;
        }
    };
    while let Ok(command) = commands.recv() {
        if !said(obey(job, &mut *caller, &command)) {
            break;
        }
    }
    // The server may be the one that is gone; then it holds nothing.
    let _ = caller.close();
}

/// Connects; a first client also looks at the outputs.
fn connect(job: &Job) -> Result<(Box<dyn Caller>, Vec<Tensor>), Failure> {
    let mut caller = lanes::connect(job)?;
    if !job.outputs.is_empty() {
        return Ok((caller, job.outputs.clone()));
    }
    let contents = Contents::new(&job.inputs)?;
    let answers = caller.ask(&contents.all()[0])?;
    let outputs = answers.into_iter().map(|answer| answer.tensor).collect();
    Ok((caller, outputs))
}

fn obey(job: &Job, caller: &mut dyn Caller, command: &Command) -> Result<Answered, Failure> {
    match command {
        Command::Phase(plan) => phase(job, caller, plan).map(Answered::Phase),
        Command::Record { path } => {
            answers::record(caller, &job.inputs, path)?;
            Ok(Answered::Recorded)
        }
        Command::Check { path } => answers::check(caller, &job.inputs, path).map(Answered::Checked),
    }
}

fn phase(job: &Job, caller: &mut dyn Caller, plan: &PhasePlan) -> Result<Phase, Failure> {
    let meter = Meter::new(plan.length_ms, job.deadline_us, job.failures_max);
    match plan.rate {
        Some(rate) => {
            // Clients must not all send at the same moments.
            let seed = plan.seed.wrapping_mul(1_000_003) + u64::from(job.first_client);
            let arrivals = Arrivals::new(rate, seed, meter.span_ns());
            caller.open(arrivals, meter)
        }
        None => caller.closed(meter),
    }
}

/// Processor time of this process so far.
fn cpu_ns() -> u64 {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    cpu.tv_sec.unsigned_abs() * 1_000_000_000 + cpu.tv_nsec.unsigned_abs()
}
