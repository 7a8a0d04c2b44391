//! What comes over the attach socket of an open session: answers to questions, doorbell packets, and
//! the end. Whoever reads a packet that is meant for another thread leaves it here.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use adjoin_schema::attach::{AttachMessage, ModelInfo, ModelQuery, Refusal, WAKE};
use adjoin_schema::descriptor::{Rejection, RequestDescriptor};
use adjoin_schema::limits::ATTACH_MESSAGE_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_shm::socket::AttachSocket;
use rustix::io::Errno;

use crate::limit::Limit;
use crate::session::{Session, SessionEnd};
use crate::{Explanation, InferError};

/// Longest sleep of a thread that waits for an answer: another thread may have read it.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What the server answers to a question.
#[derive(Debug)]
pub(crate) enum Reply {
    Model(Box<ModelInfo>),
    /// With the number of the region.
    DeviceAttached(u32),
    DeviceDetached,
}

#[derive(Debug)]
enum Answer {
    Awaited,
    Came(Result<Reply, Rejection>),
}

/// Packets that were read and not yet fetched.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    last_query_id: u64,
    answers: Vec<(u64, Answer)>,
    /// Device regions that were attached when nobody waited for that any more.
    unwanted: Vec<u32>,
    /// Room for one packet; empty before the first.
    buffer: Vec<u8>,
}

/// What a round of reading brought, beside answers.
#[derive(Debug, Default)]
struct News {
    woken: bool,
    end: Option<SessionEnd>,
}

impl Inbox {
    /// A number for a question.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_query_id += 1;
        self.last_query_id
    }

    fn ask(&mut self) -> u64 {
        self.number();
        self.answers.push((self.last_query_id, Answer::Awaited));
        self.last_query_id
    }

    fn put(&mut self, query_id: u64, answer: Result<Reply, Rejection>) {
        // An answer that nobody waits for any more is dropped.
        if let Some(place) = self.answers.iter_mut().find(|(id, _)| *id == query_id) {
            place.1 = Answer::Came(answer);
        }
    }

    fn is_awaited(&self, query_id: u64) -> bool {
        self.answers.iter().any(|(id, _)| *id == query_id)
    }

    fn fetch(&mut self, query_id: u64) -> Option<Result<Reply, Rejection>> {
        let came =
            |(id, answer): &(u64, Answer)| *id == query_id && matches!(answer, Answer::Came(_));
        let index = self.answers.iter().position(came)?;
        match self.answers.swap_remove(index).1 {
            Answer::Came(answer) => Some(answer),
            Answer::Awaited => None,
        }
    }

    fn give_up(&mut self, query_id: u64) {
        self.answers.retain(|(id, _)| *id != query_id);
    }

    /// Reads all packets that are there.
    fn read(&mut self, socket: &AttachSocket) -> News {
        let mut news = News::default();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(ATTACH_MESSAGE_BYTES_MAX, 0);
        while news.end.is_none() {
            match socket.receive_into(&mut buffer) {
                Ok((0, _)) => news.end = Some(SessionEnd::Gone),
                Ok((byte_size, _)) if buffer[..byte_size] == *WAKE => news.woken = true,
                Ok((byte_size, _)) => news.end = self.sort(&buffer[..byte_size]),
                Err(Errno::AGAIN) => break,
                // A server that closed before it read everything resets the connection; this is told once, and
                // what it sent before can still be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::MSGSIZE) => {
                    let what = "a packet longer than the protocol allows";
                    news.end = Some(SessionEnd::Violation(what.into()));
                }
                Err(_) => news.end = Some(SessionEnd::Gone),
            }
        }
        self.buffer = buffer;
        news
    }

    fn sort(&mut self, packet: &[u8]) -> Option<SessionEnd> {
        match AttachMessage::parse(packet) {
            Ok(AttachMessage::ModelInfo(info)) => {
                self.put(info.query_id, Ok(Reply::Model(Box::new(info))));
                None
            }
            Ok(AttachMessage::DeviceAttached(attached)) => {
                let region = attached.region;
                if self.is_awaited(attached.query_id) {
                    self.put(attached.query_id, Ok(Reply::DeviceAttached(region)));
                } else {
                    self.unwanted.push(region);
                }
                None
            }
            Ok(AttachMessage::DeviceDetached(detached)) => {
                self.put(detached.query_id, Ok(Reply::DeviceDetached));
                None
            }
            Ok(AttachMessage::Refusal(refusal)) => {
                let reason = rejection(&refusal);
                if refusal.query_id == 0 {
                    return Some(SessionEnd::Refused(reason));
                }
                self.put(refusal.query_id, Err(reason));
                None
            }
            Ok(other) => Some(SessionEnd::Violation(
                format!("an unexpected {}", message_name(&other)).into(),
            )),
            Err(error) => Some(SessionEnd::Violation(error.to_string().into())),
        }
    }
}

/// The refusal of a message; a status that this build does not know reads as `Internal`.
pub(crate) fn rejection(refusal: &Refusal) -> Rejection {
    let status = Status::from_wire(refusal.status).unwrap_or(Status::Internal);
    Rejection::new(status, refusal.detail)
}

pub(crate) fn message_name(message: &AttachMessage) -> &'static str {
    match message {
        AttachMessage::Hello(_) => "hello",
        AttachMessage::Welcome(_) => "welcome",
        AttachMessage::Refusal(_) => "refusal",
        AttachMessage::ModelQuery(_) => "model query",
        AttachMessage::ModelInfo(_) => "model description",
        AttachMessage::DeviceAttach(_) => "device region",
        AttachMessage::DeviceAttached(_) => "number of a device region",
        AttachMessage::DeviceDetach(_) => "end of a device region",
        AttachMessage::DeviceDetached(_) => "answer to the end of a device region",
    }
}

impl Session {
    /// Reads what is in the socket, and does what it asks for.
    pub(crate) fn read_socket(&self) {
        if self.end().is_some() {
            return;
        }
        let (news, unwanted) = {
            let mut inbox = self.inbox.lock();
            let news = inbox.read(&self.socket);
            (news, std::mem::take(&mut inbox.unwanted))
        };
        for region in unwanted {
            self.detach_device(region);
        }
        if let Some(end) = news.end {
            // What the server completed before it went is still delivered.
            self.harvest_last();
            self.finish(end);
        } else if news.woken {
            self.harvest();
        }
    }

    /// Asks the server about a model; for an answer it waits at most so long, and within the limits of the operation.
    pub(crate) fn ask(
        &self,
        model: &str,
        version: u64,
        label: &str,
        at_most: Duration,
        limit: &Limit<'_>,
    ) -> Result<ModelInfo, InferError> {
        let query = |query_id| {
            AttachMessage::ModelQuery(ModelQuery {
                query_id,
                model: model.to_owned(),
                version,
                label: label.to_owned(),
            })
        };
        let reply = self.ask_for(query, &[], at_most, limit)?;
        let reply = reply.map_err(|rejection| {
            let request = RequestDescriptor {
                model,
                version,
                label,
                inputs: Default::default(),
                outputs: Default::default(),
                rooms: Default::default(),
            };
            InferError::from_explanation(Explanation::new(rejection, Some(&request), None))
        })?;
        match reply {
            Reply::Model(info) => Ok(*info),
            _ => Err(InferError::protocol("another answer than was asked for")),
        }
    }

    /// Sends a question with the number that it is given, and waits for the answer.
    pub(crate) fn ask_for(
        &self,
        question: impl FnOnce(u64) -> AttachMessage,
        descriptors: &[BorrowedFd<'_>],
        at_most: Duration,
        limit: &Limit<'_>,
    ) -> Result<Result<Reply, Rejection>, InferError> {
        let query_id = self.inbox.lock().ask();
        let packet = question(query_id).encode();
        let answer = self.exchange(query_id, (&packet, descriptors), at_most, limit);
        self.inbox.lock().give_up(query_id);
        answer
    }

    fn exchange(
        &self,
        query_id: u64,
        (packet, descriptors): (&[u8], &[BorrowedFd<'_>]),
        at_most: Duration,
        limit: &Limit<'_>,
    ) -> Result<Result<Reply, Rejection>, InferError> {
        let gone = || match self.end() {
            Some(SessionEnd::Gone) | None => InferError::ServerGone {
                may_have_run: false,
            },
            Some(other) => other.in_flight_error(),
        };
        let began = Instant::now();
        let mut is_sent = false;
        loop {
            if !is_sent {
                is_sent = match self.socket.send(packet, descriptors) {
                    Ok(()) => true,
                    Err(Errno::AGAIN | Errno::INTR) => false,
                    Err(_) => {
                        self.read_socket();
                        self.finish(SessionEnd::Gone);
                        return Err(gone());
                    }
                };
            }
            self.read_socket();
            if let Some(answer) = self.inbox.lock().fetch(query_id) {
                return Ok(answer);
            }
            if self.end().is_some() {
                return Err(gone());
            }
            let waited = began.elapsed();
            if waited >= at_most {
                return Err(InferError::Timeout { waited: at_most });
            }
            let step = limit.step(LOOK_INTERVAL.min(at_most - waited))?;
            // Whatever the outcome, the next round looks.
            let _ = self.socket.wait_readable(step);
        }
    }
}
