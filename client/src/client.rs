//! A client: where its server is, and the session that is open with it now.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adjoin_schema::status::Status;
use adjoin_shm::ForkGuard;
use parking_lot::{Mutex, MutexGuard};

use crate::limit::Limit;
use crate::session::{Session, Standing};
use crate::{ClientOptions, ConnectError, Explanation, InferError, Model, connect};

/// First pause between two attempts to connect; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// With less time between them no attempt is made any more.
const NAP_MIN: Duration = Duration::from_millis(1);
/// How long a client leaves a draining server's directory alone after it found no other server there.
const DRAINING_PAUSE: Duration = Duration::from_millis(50);

/// A handle on a session with a server; clones share it, on any thread. The session is closed when the
/// last of them, and of the models and requests made from them, is dropped.
///
/// When the server is gone, the next operation that needs one opens a new session.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    socket_dir: PathBuf,
    options: ClientOptions,
    fork: Arc<ForkGuard>,
    /// Held for moments only.
    session: Mutex<Arc<Session>>,
    /// Held by the thread that opens the next session. Others wait for it as long as their own limits allow.
    connecting: Mutex<Connecting>,
    reconnects: AtomicU64,
}

#[derive(Default)]
struct Connecting {
    /// No look for a successor of a draining server before this.
    leave_alone_until: Option<Instant>,
}

impl Client {
    /// Opens a session with the default sizes.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(socket_dir: impl AsRef<Path>) -> Result<Self, ConnectError> {
        ClientOptions::default().connect(socket_dir)
    }

    /// Options, to be changed and then connected with.
    #[must_use]
    pub fn builder() -> ClientOptions {
        ClientOptions::default()
    }

    pub(crate) fn open(socket_dir: &Path, options: ClientOptions) -> Result<Self, ConnectError> {
        let fork = ForkGuard::new().map_err(|error| ConnectError::System {
            what: "marking this process",
            source: error.errno().into(),
        })?;
        let fork = Arc::new(fork);
        let session = Arc::new(connect::open(
            socket_dir,
            &options,
            &options.limit(None),
            Arc::clone(&fork),
        )?);
        // A token is used up now, and what was settled with it holds for later sessions.
        let layout = session.facts.layout;
        let sizes = |kind| (layout.region_bytes(kind), layout.ring_entries(kind));
        let (request_bytes, _) = sizes(adjoin_schema::layout::RegionKind::Request);
        let (response_bytes, ring_entries) = sizes(adjoin_schema::layout::RegionKind::Response);
        let options = ClientOptions {
            token: None,
            request_bytes,
            response_bytes,
            ring_entries,
            ..options
        };
        Ok(Self {
            inner: Arc::new(Inner {
                socket_dir: socket_dir.to_owned(),
                options,
                fork,
                session: Mutex::new(session),
                connecting: Mutex::default(),
                reconnects: AtomicU64::new(0),
            }),
        })
    }

    /// Asks the server for a model: its newest ready version.
    ///
    /// # Errors
    /// `ModelNotFound`, `ModelNotReady`, or what stands in the way of asking; see [`InferError`].
    pub fn model(&self, name: &str) -> Result<Model, InferError> {
        Model::ask(self.clone(), name, 0, "")
    }

    /// The directory that the client was connected by.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.inner.socket_dir
    }

    /// Number of the current session, unique in the life of the server; 0 in a forked child.
    #[must_use]
    pub fn session_id(&self) -> u64 {
        self.current_facts(|session| session.facts.session_id)
    }

    /// Release of the server that the current session is with; empty in a forked child.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.current_facts(|session| session.facts.server_version.clone())
    }

    /// Most requests in flight at once; 0 in a forked child.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.current_facts(|session| session.inflight.capacity())
    }

    /// How often a new session took the place of one that was over.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.inner.reconnects.load(Ordering::Relaxed)
    }

    fn current_facts<T: Default>(&self, fact: impl FnOnce(&Session) -> T) -> T {
        if self.inner.fork.is_same_process() {
            fact(&self.inner.session.lock())
        } else {
            T::default()
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.inner.fork.is_same_process()
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// A session that takes requests: the current one, or a new one in its place. `until` is the caller's limit, past
    /// which nothing is waited for.
    pub(crate) fn live_session(&self, until: Option<Instant>) -> Result<Arc<Session>, InferError> {
        if !self.is_ours() {
            return Err(InferError::Forked);
        }
        let inner = &*self.inner;
        let current = inner.current();
        if current.standing_by_socket() == Standing::Serving {
            return Ok(current);
        }
        drop(current);
        let began = Instant::now();
        let limit = inner.options.limit(until);
        let mut connecting = inner.wait_to_connect(&limit, began)?;
        // Another thread may have connected meanwhile.
        let current = inner.current();
        match current.standing_by_socket() {
            Standing::Serving => Ok(current),
            Standing::Ended => {
                let session = inner.replace(&limit, began)?;
                connecting.leave_alone_until = None;
                Ok(session)
            }
            Standing::Draining => inner.look_for_successor(&mut connecting, &limit),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("socket_dir", &self.inner.socket_dir)
            .field("reconnects", &self.reconnects())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn current(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock())
    }

    /// The right to open a session.
    fn wait_to_connect(
        &self,
        limit: &Limit<'_>,
        began: Instant,
    ) -> Result<MutexGuard<'_, Connecting>, ConnectError> {
        loop {
            let step = limit.step(Duration::MAX)?;
            if let Some(connecting) = self.connecting.try_lock_for(step) {
                return Ok(connecting);
            }
            if limit.rest() == Some(Duration::ZERO) {
                return Err(ConnectError::Timeout {
                    path: connect::attach_path(&self.socket_dir),
                    waited: began.elapsed(),
                });
            }
        }
    }

    fn replace(&self, limit: &Limit<'_>, began: Instant) -> Result<Arc<Session>, ConnectError> {
        let at_most = self.options.reconnect_timeout;
        let mut pause = PAUSE_MIN;
        loop {
            let error = match self.open(limit) {
                Ok(session) => {
                    self.install(&session);
                    return Ok(session);
                }
                Err(error) => error,
            };
            // The last attempts before the caller's limit come closer to each other.
            let nap = limit.rest().map_or(pause, |rest| pause.min(rest / 2));
            let goes_on = nap >= NAP_MIN && began.elapsed() + nap < at_most;
            if !error.may_pass() || !goes_on {
                return Err(error);
            }
            limit.sleep(nap)?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// While one server drains, another one may have taken over its directory.
    fn look_for_successor(
        &self,
        connecting: &mut Connecting,
        limit: &Limit<'_>,
    ) -> Result<Arc<Session>, InferError> {
        let not_yet = || InferError::NotExecuted(Explanation::from(Status::NotExecuted));
        let now = Instant::now();
        if connecting
            .leave_alone_until
            .is_some_and(|until| now < until)
        {
            return Err(not_yet());
        }
        match self.open(limit) {
            Ok(session) if session.standing() == Standing::Serving => {
                self.install(&session);
                connecting.leave_alone_until = None;
                Ok(session)
            }
            Err(ConnectError::Interrupted) => Err(ConnectError::Interrupted.into()),
            _ => {
                connecting.leave_alone_until = Some(now + DRAINING_PAUSE);
                Err(not_yet())
            }
        }
    }

    fn open(&self, limit: &Limit<'_>) -> Result<Arc<Session>, ConnectError> {
        let fork = Arc::clone(&self.fork);
        connect::open(&self.socket_dir, &self.options, limit, fork).map(Arc::new)
    }

    fn install(&self, session: &Arc<Session>) {
        let reconnects = self.reconnects.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(
            session = session.facts.session_id,
            server_version = %session.facts.server_version,
            reconnects,
            "opened a new session in place of one that is over"
        );
        let former = std::mem::replace(&mut *self.session.lock(), Arc::clone(session));
        drop(former);
    }
}
