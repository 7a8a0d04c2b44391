//! What a caller may choose: for a client, and for one submission.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adjoin_schema::attach::Token;
use adjoin_schema::limits::RING_ENTRIES_DEFAULT;

use crate::limit::{Interrupt, Limit};
use crate::{Client, ConnectError};

/// Longest spin before a wait goes to sleep. A spinning thread does not look whether the server is
/// alive, and that has to surface within 100 ms.
const SPIN_MAX: Duration = Duration::from_millis(20);

/// Sizes and habits of a client. All sizes are fixed for the life of a session.
///
/// ```no_run
/// # use std::time::Duration;
/// # fn main() -> Result<(), adjoin_client::ConnectError> {
/// let client = adjoin_client::Client::builder()
///     .request_bytes(64 << 20)
///     .name("camera-3")
///     .reconnect_timeout(Duration::from_secs(10))
///     .connect("/run/adjoin")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) ring_entries: u32,
    pub(crate) name: String,
    pub(crate) spin: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) reconnect_timeout: Duration,
    pub(crate) interrupt: Option<Interrupt>,
    pub(crate) token: Option<Token>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            request_bytes: 16 << 20,
            response_bytes: 16 << 20,
            ring_entries: RING_ENTRIES_DEFAULT,
            name: String::new(),
            spin: Duration::from_micros(100),
            answer_timeout: Duration::from_secs(5),
            reconnect_timeout: Duration::ZERO,
            interrupt: None,
            token: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token: whoever has it may open the session.
        f.debug_struct("ClientOptions")
            .field("request_bytes", &self.request_bytes)
            .field("response_bytes", &self.response_bytes)
            .field("ring_entries", &self.ring_entries)
            .field("name", &self.name)
            .field("spin", &self.spin)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the request region, in which inputs lie: all requests that exist at one time must fit.
    /// Default 16 MiB; rounded up to whole pages.
    #[must_use]
    pub fn request_bytes(mut self, byte_size: u64) -> Self {
        self.request_bytes = byte_size;
        self
    }

    /// Bytes of the response region, in which outputs lie until they are released. Default 16 MiB;
    /// rounded up to whole pages.
    #[must_use]
    pub fn response_bytes(mut self, byte_size: u64) -> Self {
        self.response_bytes = byte_size;
        self
    }

    /// Most requests in flight at once: a power of two from 8 to 4096. Default 256.
    #[must_use]
    pub fn ring_entries(mut self, count: u32) -> Self {
        self.ring_entries = count;
        self
    }

    /// What the client calls itself in `adjoin sessions`; cut after 64 bytes. Default: nothing.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a blocking wait looks at the ring before it sleeps. Default 100 us, at most 20 ms; 0
    /// sleeps at once. Spinning saves the 4 to 50 us of a wake-up and costs a core meanwhile.
    #[must_use]
    pub fn spin(mut self, at_most: Duration) -> Self {
        self.spin = at_most.min(SPIN_MAX);
        self
    }

    /// How long the server may take for the handshake, and for a question about a model. Default 5 s.
    #[must_use]
    pub fn answer_timeout(mut self, at_most: Duration) -> Self {
        self.answer_timeout = at_most;
        self
    }

    /// How long an operation that finds its session dead tries to open another one. Default 0: one
    /// attempt. An operation with a deadline gives up at that if it is earlier.
    #[must_use]
    pub fn reconnect_timeout(mut self, at_most: Duration) -> Self {
        self.reconnect_timeout = at_most;
        self
    }

    /// What a thread that waits for a connection, or for the description of a model, asks at least every 50 ms:
    /// `true` ends the wait, with [`ConnectError::Interrupted`]. So a signal can end it. Several threads may ask at
    /// one time; default: nothing is asked.
    #[must_use]
    pub fn interrupt(mut self, is_wanted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.interrupt = Some(Interrupt(Arc::new(is_wanted)));
        self
    }

    /// The single-use token of a session that was opened over the control channel; its sizes were
    /// settled there. Only the first connection shows it.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    pub(crate) fn limit(&self, until: Option<Instant>) -> Limit<'_> {
        let interrupt = self.interrupt.as_ref();
        Limit { until, interrupt }
    }

    /// Opens a session with the server whose sockets are in `socket_dir`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(self, socket_dir: impl AsRef<Path>) -> Result<Client, ConnectError> {
        Client::open(socket_dir.as_ref(), self)
    }
}

/// A moment after which an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deadline {
    Never,
    In(Duration),
    AtNs(u64),
}

/// Choices for one submission.
///
/// ```
/// # use std::time::Duration;
/// let options = adjoin_client::SubmitOptions::new()
///     .deadline_in(Duration::from_millis(20))
///     .priority(1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitOptions {
    deadline: Deadline,
    give_up_at: Option<Instant>,
    pub(crate) priority: u16,
}

impl Default for SubmitOptions {
    fn default() -> Self {
        Self {
            deadline: Deadline::Never,
            give_up_at: None,
            priority: 0,
        }
    }
}

impl SubmitOptions {
    /// No deadline, the model's default priority.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A deadline that far from the submission. The server refuses what has not begun to run by then.
    #[must_use]
    pub fn deadline_in(mut self, after: Duration) -> Self {
        self.deadline = Deadline::In(after);
        self
    }

    /// A deadline at a moment.
    #[must_use]
    pub fn deadline_at(mut self, moment: Instant) -> Self {
        let rest = moment.saturating_duration_since(Instant::now());
        self.deadline = Deadline::AtNs(after_now(rest));
        self
    }

    /// A moment until which the submission may wait for a connection, where its session is over. Without it, until
    /// the deadline, and in any case no longer than [`ClientOptions::reconnect_timeout`]. The server is not
    /// told of it.
    #[must_use]
    pub fn give_up_at(mut self, moment: Instant) -> Self {
        self.give_up_at = Some(moment);
        self
    }

    /// A priority level; 1 is the most urgent, 0 the model's default.
    #[must_use]
    pub fn priority(mut self, level: u16) -> Self {
        self.priority = level;
        self
    }

    /// Until when the submission may wait for a connection, with that deadline.
    pub(crate) fn connect_until(&self, deadline_ns: u64) -> Option<Instant> {
        self.give_up_at.into_iter().chain(moment(deadline_ns)).min()
    }

    /// The deadline as it travels; reads the clock only where there is one.
    pub(crate) fn deadline_ns(&self) -> u64 {
        match self.deadline {
            Deadline::Never => 0,
            Deadline::In(after) => after_now(after),
            Deadline::AtNs(moment) => moment,
        }
    }
}

/// The moment of a deadline as it travels; `None` for none.
fn moment(deadline_ns: u64) -> Option<Instant> {
    let rest = deadline_ns.saturating_sub(adjoin_shm::clock::now_ns());
    let rest = (deadline_ns != 0).then(|| Duration::from_nanos(rest));
    rest.and_then(|rest| Instant::now().checked_add(rest))
}

fn after_now(rest: Duration) -> u64 {
    let rest = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
    adjoin_shm::clock::now_ns().saturating_add(rest).max(1)
}
