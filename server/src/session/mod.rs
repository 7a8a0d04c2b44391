//! One attached client: its memory, its completion ring, its responses.
//!
//! What a session knows is private to the server. Shared memory is written from here (completions,
//! response descriptors) and read in `engine::intake`; nothing here trusts a word that the client can write.

pub mod budget;
pub mod device_regions;
pub mod response;
pub mod table;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use adjoin_schema::attach::Token;
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::{CompletionEntry, completion_flags, wait};
use adjoin_schema::limits::PREPARED_MAX;
use adjoin_schema::status::Status;
use adjoin_shm::doorbell::{self, EventNotifier};
use adjoin_shm::ring::{Producer, RingError};
use adjoin_shm::socket::{AttachSocket, PeerCredentials};
use adjoin_shm::{Arena, SessionMemory};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use self::device_regions::SharedRegions;
use crate::devices::{DeviceRegion, Registered};
use crate::model::request::{Job, Outcome, Request, Sink};
use response::ResponseBlock;
use table::QuotaGrant;

/// What makes a session.
#[derive(Debug)]
pub struct SessionParts {
    /// Unique in the life of the server.
    pub id: u64,
    /// Proves ownership on other channels.
    pub secret: Token,
    /// What the client calls itself.
    pub client_name: String,
    /// The client's user.
    pub peer: PeerCredentials,
    /// The regions.
    pub memory: SessionMemory,
    /// How the client wakes the server.
    pub event: EventNotifier,
    /// The attach connection.
    pub socket: Arc<AttachSocket>,
    /// The memory's share of the quota.
    pub grant: QuotaGrant,
}

/// A request that is kept under a number.
#[derive(Debug)]
struct Prepared {
    request: Arc<Request>,
    /// Away while the request is in flight.
    response: Option<Box<ResponseBlock>>,
    models_generation: u64,
}

#[derive(Debug)]
struct State {
    completions: Producer,
    /// Responses that the client reads, by offset.
    live: FxHashMap<u64, Box<ResponseBlock>>,
    prepared: Vec<Option<Prepared>>,
    /// Regions on the device.
    shared: SharedRegions,
    generation: u32,
}

/// An attached client.
#[derive(Debug)]
pub struct Session {
    // Dropped in this order: ranges of the arena before the memory, the memory before its quota.
    state: Mutex<State>,
    arena: Arena,
    /// Shared with the device, which may have to keep it for a while.
    memory: Arc<SessionMemory>,
    registered: OnceLock<Registered>,
    id: u64,
    secret: Token,
    client_name: String,
    peer: PeerCredentials,
    event: EventNotifier,
    socket: Arc<AttachSocket>,
    opened_ns: u64,
    closed: AtomicBool,
    in_flight: AtomicU32,
    requests: AtomicU64,
    stream: tokio::sync::Notify,
    grant: Arc<QuotaGrant>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(registered) = self.registered.get() {
            registered.retire((Arc::clone(&self.memory), Arc::clone(&self.grant)));
        }
    }
}

/// A prepared request, taken out for a run.
#[derive(Debug)]
pub struct PreparedRun {
    /// The request.
    pub request: Arc<Request>,
    /// Its response block.
    pub response: Box<ResponseBlock>,
}

impl Session {
    /// A session over fresh memory.
    #[must_use]
    pub fn new(parts: SessionParts) -> Self {
        let state = State {
            completions: Producer::new(),
            live: FxHashMap::default(),
            prepared: Vec::new(),
            shared: SharedRegions::default(),
            generation: 0,
        };
        Self {
            state: Mutex::new(state),
            arena: parts.memory.response_arena(),
            memory: Arc::new(parts.memory),
            registered: OnceLock::new(),
            id: parts.id,
            secret: parts.secret,
            client_name: parts.client_name,
            peer: parts.peer,
            event: parts.event,
            socket: parts.socket,
            opened_ns: adjoin_shm::clock::now_ns(),
            closed: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            stream: tokio::sync::Notify::new(),
            grant: Arc::new(parts.grant),
        }
    }

    /// Notes that a device knows the regions, which it has to let go of before they are given back. Only the first call
    /// counts.
    pub fn set_registered(&self, registered: Registered) {
        let _ = self.registered.set(registered);
    }

    /// Number of the session.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Proves ownership on other channels.
    pub fn secret(&self) -> &Token {
        &self.secret
    }

    /// What the client calls itself.
    pub fn client_name(&self) -> &str {
        &self.client_name
    }

    /// The client's user and group.
    pub fn peer(&self) -> PeerCredentials {
        self.peer
    }

    /// The regions.
    pub fn memory(&self) -> &SessionMemory {
        &self.memory
    }

    /// The attach connection.
    pub fn socket(&self) -> &AttachSocket {
        &self.socket
    }

    /// What the engine polls for this client's doorbell.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// When it was opened, in ns.
    pub fn opened_ns(&self) -> u64 {
        self.opened_ns
    }

    /// Requests taken and not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests taken so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the end; false if it was over before.
    pub fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        if first {
            // Prepared requests hold this session; without this neither would ever be dropped.
            let mut state = self.state.lock();
            state.prepared.clear();
            state.live.clear();
            let shared = std::mem::take(&mut state.shared);
            drop(state);
            // Unmapped without the lock, if nothing uses it.
            drop(shared);
            self.stream.notify_waiters();
            self.stream.notify_one();
        }
        first
    }

    /// Counts a request in.
    ///
    /// # Errors
    /// `TooManyInFlight` when the completion ring has no place for its completion: a fault of the session.
    pub fn admit(&self) -> Result<(), Rejection> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let places = self.memory.completion_ring().entries.len() as u64;
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        if u64::from(before) >= places {
            return Err(Rejection::new(Status::TooManyInFlight, [places, 0]));
        }
        Ok(())
    }

    /// Reserves room for the outputs of a request.
    ///
    /// # Errors
    /// `ResponseRegionFull` with the bytes needed and those of the region.
    pub fn reserve(&self, request: &Request) -> Result<Box<ResponseBlock>, Rejection> {
        ResponseBlock::in_arena(&self.arena, request).map(Box::new)
    }

    /// Room for an output whose size the run has shown.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Keeps a checked request under a number; an earlier one of that number is forgotten. `None` in place
    /// of the block: the request is in flight and brings it back.
    ///
    /// # Errors
    /// `EntryInvalid` for a number above the limit: a fault of the session.
    pub fn keep(
        &self,
        number: u32,
        request: Arc<Request>,
        models_generation: u64,
    ) -> Result<(), Rejection> {
        if number >= PREPARED_MAX {
            return Err(Status::EntryInvalid.into());
        }
        let mut state = self.state.lock();
        if self.is_closed() {
            return Err(Status::NotExecuted.into());
        }
        // A region that it names was detached just now: it runs, and is not kept.
        if let Some(device) = &request.device
            && !state.shared.has_all(device)
        {
            return Ok(());
        }
        let index = number as usize;
        if state.prepared.len() <= index {
            state.prepared.resize_with(index + 1, || None);
        }
        state.prepared[index] = Some(Prepared {
            request,
            response: None,
            models_generation,
        });
        Ok(())
    }

    /// Adds a region on the device; its number. `None` if the session is over.
    pub fn share(&self, region: DeviceRegion) -> Option<u32> {
        let mut state = self.state.lock();
        if self.is_closed() {
            return None;
        }
        state.shared.add(region)
    }

    /// The region on the device of that number.
    pub fn device_region(&self, number: u32) -> Option<Arc<DeviceRegion>> {
        self.state.lock().shared.get(number).cloned()
    }

    /// Takes a region on the device out, and forgets the prepared requests that name it; false if there is none of that
    /// number. Requests that were taken before keep it mapped until they are over.
    pub fn unshare(&self, number: u32) -> bool {
        let mut state = self.state.lock();
        let removed = state.shared.remove(number);
        let names = |kept: &Prepared| {
            let device = kept.request.device.as_ref();
            device.is_some_and(|device| device.names(number))
        };
        let mut forgotten = Vec::new();
        for slot in &mut state.prepared {
            if slot.as_ref().is_some_and(names) {
                forgotten.extend(slot.take());
            }
        }
        drop(state);
        // Unmapped without the lock, if nothing uses it.
        drop(forgotten);
        removed.is_some()
    }

    /// Takes a prepared request out for a run. What its last response held is released by that.
    ///
    /// # Errors
    /// `PreparedUnknown` or `PreparedBusy` with the number. A request that was prepared before models
    /// changed is forgotten, and so unknown.
    pub fn take_prepared(
        &self,
        number: u32,
        models_generation: u64,
    ) -> Result<PreparedRun, Rejection> {
        let reject = |status| Err(Rejection::new(status, [u64::from(number), 0]));
        let mut state = self.state.lock();
        let Some(slot) = state.prepared.get_mut(number as usize) else {
            return reject(Status::PreparedUnknown);
        };
        let Some(prepared) = slot else {
            return reject(Status::PreparedUnknown);
        };
        let Some(response) = prepared.response.take() else {
            return reject(Status::PreparedBusy);
        };
        if prepared.models_generation != models_generation {
            *slot = None;
            return reject(Status::PreparedUnknown);
        }
        Ok(PreparedRun {
            request: Arc::clone(&prepared.request),
            response,
        })
    }

    /// Forgets a prepared request; one in flight ends like any other.
    pub fn forget(&self, number: u32) {
        if let Some(slot) = self.state.lock().prepared.get_mut(number as usize) {
            *slot = None;
        }
    }

    /// The client is done with a response.
    ///
    /// # Errors
    /// `ReleaseInvalid` if it is not out: a fault of the session.
    pub fn release(&self, offset: u64, generation: u32) -> Result<(), Rejection> {
        let mut state = self.state.lock();
        match state.live.get(&offset) {
            Some(block) if block.generation() == generation => {
                state.live.remove(&offset);
                Ok(())
            }
            _ => Err(Status::ReleaseInvalid.into()),
        }
    }

    /// Publishes a completion without outputs for a request that was admitted.
    ///
    /// # Errors
    /// What the client did to the completion ring: a fault of the session.
    pub fn refuse(&self, request_id: u64, rejection: Rejection) -> Result<(), RingError> {
        let entry = CompletionEntry::failure(request_id, rejection.status, rejection.detail);
        self.publish(&mut self.state.lock(), entry)
    }

    /// Publishes the outcome of a job of this session and keeps its response until it is released.
    ///
    /// # Errors
    /// As [`Session::refuse`].
    pub fn complete(&self, job: Job, outcome: &Outcome) -> Result<(), RingError> {
        let Job {
            request,
            request_id,
            sink,
            mut response,
        } = job;
        let Sink::Session { prepared } = sink else {
            return Ok(());
        };
        let mut entry = CompletionEntry::failure(request_id, outcome.status, outcome.detail);
        entry.batch_size = outcome.batch_size;
        entry.queue_ns = outcome.queue_ns;
        entry.execute_ns = outcome.execute_ns;
        let mut state = self.state.lock();
        if outcome.status == Status::Ok {
            let was_described = response.is_described();
            match response.describe(&request) {
                Ok(size) => entry.response_size = size,
                Err(rejection) => {
                    tracing::error!(session = self.id, reason = %rejection.status, "cannot describe a response");
                    (entry.status, entry.detail) = (rejection.status as u16, rejection.detail);
                }
            }
            state.generation = state.generation.wrapping_add(1);
            response.set_generation(state.generation);
            entry.response_offset = response.offset();
            entry.generation = state.generation;
            if was_described {
                entry.flags |= completion_flags::SAME_RESPONSE;
            }
            if response.has_dynamic() {
                entry.flags |= completion_flags::OUTPUT_COPIED;
            }
        }
        let kept = prepared.and_then(|number| state.prepared.get_mut(number as usize)?.as_mut());
        match kept.filter(|kept| Arc::ptr_eq(&kept.request, &request)) {
            Some(kept) => {
                kept.response = Some(response);
                entry.flags |= completion_flags::PREPARED;
            }
            None if entry.status == Status::Ok as u16 => {
                drop(state.live.insert(entry.response_offset, response))
            }
            None => {}
        }
        self.publish(&mut state, entry)
    }

    fn publish(&self, state: &mut State, entry: CompletionEntry) -> Result<(), RingError> {
        // Before the client can see the completion and send its next request in this one's place.
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        if self.is_closed() {
            return Ok(());
        }
        state
            .completions
            .push(&self.memory.completion_ring(), entry.to_words())
    }

    /// Wakes the client if it sleeps; true if it did.
    pub fn ring(&self) -> bool {
        let how = doorbell::wanted(self.memory.client_wait());
        if how & wait::ASLEEP != 0 {
            doorbell::futex_wake_all(self.memory.completion_ring().tail);
        }
        if how & wait::SOCKET != 0 {
            self.socket.wake();
        }
        if how & wait::STREAM != 0 {
            self.stream.notify_one();
        }
        how != 0
    }

    /// How many completions were published, for the portable doorbell.
    pub fn completion_tail(&self) -> u32 {
        self.memory.completion_ring().tail.load(Ordering::Relaxed)
    }

    /// Resolves when completions were published for a client on the portable doorbell, or the session ended.
    pub async fn stream_signal(&self) {
        self.stream.notified().await;
    }
}
