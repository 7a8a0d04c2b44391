//! Models while the server runs: what there is, loading and unloading, labels, splits.
//!
//! One thread loads, one model at a time; callers on the control plane send it what they want and wait for the
//! answer without blocking anybody. Labels and splits change a table alone and need no thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::thread::JoinHandle;
use std::time::Instant;

use adjoin_schema::limits::LABEL_BYTES_MAX;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::change::Changes;
use super::device::DeviceCare;
use super::index::{self, IndexEntry, Notes};
use super::{IndexState, Loader, Repository, RepositoryError, retire};
use crate::config::{ControlMode, ModelControl};
use crate::engine::Engine;
use crate::model::{ModelEntry, Split, SplitError};

/// Most loads and unloads that wait for their turn.
const WAITING_MAX: usize = 64;
/// Most labels that an operator gives to versions of one model.
const LABELS_MAX: usize = 256;

/// Why models were not changed as wanted. No text names a path of the server.
#[derive(Clone, Debug, Error)]
pub enum ManageError {
    /// Callers may not load and unload in this mode.
    #[error("explicit model load / unload is not allowed if polling is enabled")]
    NotExplicit,
    /// The repository has no such model.
    #[error("failed to load '{name}', the repository holds no such model")]
    NotFound {
        /// The model.
        name: String,
    },
    /// The model is not loaded.
    #[error("model '{name}' is not loaded")]
    NotLoaded {
        /// The model.
        name: String,
    },
    /// At least one version could not be loaded.
    #[error("failed to load '{name}', {}", outcome(.failures, .served))]
    Load {
        /// The model.
        name: String,
        /// Reasons by version.
        failures: BTreeMap<u64, String>,
        /// Versions that are served all the same.
        served: Vec<u64>,
    },
    /// The repository cannot be read.
    #[error("the repository cannot be read; the server's log says why")]
    Unreadable,
    /// Too many callers want something.
    #[error("{WAITING_MAX} loads and unloads wait already, which is the most; try again later")]
    Busy,
    /// The server ends.
    #[error("the server ends")]
    Ending,
    /// A label or a split names a version that is not served.
    #[error("model '{name}' serves no version {version}; it serves {}", numbers(.served))]
    VersionNotServed {
        /// The model.
        name: String,
        /// The version.
        version: u64,
        /// Those that are served.
        served: Vec<u64>,
    },
    /// The label is too long, or nothing.
    #[error("a label of {byte_size} bytes; it has 1 to {LABEL_BYTES_MAX}")]
    LabelSize {
        /// Its bytes.
        byte_size: usize,
    },
    /// The model has too many labels.
    #[error("model '{name}' has {LABELS_MAX} labels already, which is the most")]
    TooManyLabels {
        /// The model.
        name: String,
    },
    /// The weights make no split.
    #[error(transparent)]
    Split(#[from] SplitError),
}

fn outcome(failures: &BTreeMap<u64, String>, served: &[u64]) -> String {
    let mut parts: Vec<String> = failures
        .iter()
        .map(|(version, reason)| format!("version {version}: {reason}"))
        .collect();
    if failures.is_empty() {
        parts.push("it has no version to serve".to_owned());
    }
    if !served.is_empty() {
        parts.push(format!("served as before: {}", numbers(served)));
    }
    parts.join("; ")
}

fn numbers(versions: &[u64]) -> String {
    let numbers: Vec<String> = versions.iter().map(u64::to_string).collect();
    match numbers.as_slice() {
        [] => "none".to_owned(),
        numbers => numbers.join(", "),
    }
}

/// What a manager works with.
#[derive(Debug)]
pub struct ManagerParts {
    /// Directory of the repository.
    pub repository: Repository,
    /// Who decides what is loaded.
    pub control: ModelControl,
    /// Loads versions.
    pub loader: Loader,
    /// Where they are served.
    pub engine: Arc<Engine>,
}

type Answer = oneshot::Sender<Result<(), ManageError>>;

#[derive(Debug)]
enum Command {
    Load(String, Option<String>, Answer),
    Unload(String, Answer),
    /// Look after the device, which is lost.
    Care,
}

/// What callers on the control plane use; any thread may.
#[derive(Debug)]
pub struct Manager {
    repository: Repository,
    mode: ControlMode,
    engine: Arc<Engine>,
    notes: Arc<Mutex<Notes>>,
    commands: Mutex<Option<SyncSender<Command>>>,
    changed: watch::Sender<u64>,
    is_device_lost: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Tells when everything that is to be served at the start is loaded, or why that is impossible.
pub type Started = oneshot::Receiver<Result<(), RepositoryError>>;

impl Manager {
    /// Begins to load what is to be served at the start.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub fn start(parts: ManagerParts) -> std::io::Result<(Arc<Self>, Started)> {
        let (commands, wanted) = sync_channel(WAITING_MAX);
        let (draining, drained) = channel();
        let changed = watch::Sender::new(0);
        let (start, started) = oneshot::channel();
        let manager = Arc::new(Self {
            repository: parts.repository.clone(),
            mode: parts.control.mode,
            engine: Arc::clone(&parts.engine),
            notes: Arc::default(),
            commands: Mutex::new(Some(commands)),
            changed: changed.clone(),
            is_device_lost: Arc::default(),
            stopping: Arc::default(),
            threads: Mutex::default(),
        });
        let changes = Changes {
            repository: parts.repository,
            control: parts.control,
            loader: parts.loader,
            engine: Arc::clone(&parts.engine),
            notes: Arc::clone(&manager.notes),
            draining,
            changed,
            stopping: Arc::clone(&manager.stopping),
            known: HashMap::new(),
            device: DeviceCare::new(
                Arc::clone(&manager.is_device_lost),
                parts
                    .engine
                    .devices()
                    .map_or(0, |devices| devices.settings().recovery_attempts),
            ),
        };
        let told = Arc::downgrade(&manager);
        parts.engine.on_device_loss(move || {
            if let Some(manager) = told.upgrade() {
                manager.device_lost();
            }
        });
        let stopping = Arc::clone(&manager.stopping);
        let threads = [
            thread("loader", move || work(changes, &wanted, start))?,
            thread("retirer", move || {
                retire::work(&parts.engine, &drained, &stopping)
            })?,
        ];
        manager.threads.lock().extend(threads);
        Ok((manager, started))
    }

    /// Who decides what is loaded.
    #[must_use]
    pub fn mode(&self) -> ControlMode {
        self.mode
    }

    /// Counts what changes in the table of models; for those who tell others about it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Has the loader bring the device back. On any thread; does not wait.
    fn device_lost(&self) {
        self.is_device_lost.store(true, Ordering::Release);
        self.changed.send_modify(|changes| *changes += 1);
        let commands = self.commands.lock().clone();
        if let Some(commands) = commands {
            // If it is full the loader works, and looks after each command.
            let _ = commands.try_send(Command::Care);
        }
    }

    /// What the repository holds and what of it is served, by name and number; only what takes requests if
    /// `ready_only`.
    ///
    /// # Errors
    /// If the repository cannot be read.
    pub async fn index(&self, ready_only: bool) -> Result<Vec<IndexEntry>, ManageError> {
        let repository = self.repository.clone();
        // A directory may lie on a disk of another machine.
        let scanned = tokio::task::spawn_blocking(move || repository.scan()).await;
        let scanned = scanned.map_err(|_| ManageError::Ending)?.map_err(|error| {
            tracing::warn!(%error, "cannot list models");
            ManageError::Unreadable
        })?;
        let names = scanned.models.into_iter().map(|found| found.name);
        let mut entries = index::index(&self.engine.models().snapshot(), &self.notes.lock(), names);
        entries.retain(|entry| !ready_only || entry.state == IndexState::Ready);
        Ok(entries)
    }

    /// Loads a model, or what has changed of it: new versions are warmed up before they take the place of old ones,
    /// which finish what they have. Returns when the new ones serve. A model that is loaded and has not changed stays
    /// as it is. What cannot be loaded takes nothing away that was served.
    ///
    /// `config`, in protocol buffers' JSON, takes the place of the model's `config.pbtxt` until the next load.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn load(&self, name: &str, config: Option<String>) -> Result<(), ManageError> {
        self.command(|answer| Command::Load(name.to_owned(), config, answer))
            .await
    }

    /// Unloads a model: no request finds it any more when this returns; those that were taken are finished.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub async fn unload(&self, name: &str) -> Result<(), ManageError> {
        self.command(|answer| Command::Unload(name.to_owned(), answer))
            .await
    }

    async fn command(&self, command: impl FnOnce(Answer) -> Command) -> Result<(), ManageError> {
        if self.mode != ControlMode::Explicit {
            return Err(ManageError::NotExplicit);
        }
        let (answer, outcome) = oneshot::channel();
        let sender = self.commands.lock().clone().ok_or(ManageError::Ending)?;
        sender
            .try_send(command(answer))
            .map_err(|error| match error {
                TrySendError::Full(_) => ManageError::Busy,
                TrySendError::Disconnected(_) => ManageError::Ending,
            })?;
        drop(sender);
        outcome.await.unwrap_or(Err(ManageError::Ending))
    }

    /// Has a label name a version that is served; 0 takes the label away. It stands over the configuration's until
    /// the model is unloaded.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub fn set_label(&self, name: &str, label: &str, version: u64) -> Result<(), ManageError> {
        let byte_size = label.len();
        if !(1..=LABEL_BYTES_MAX).contains(&byte_size) {
            return Err(ManageError::LabelSize { byte_size });
        }
        self.change(name, |entry| {
            if version > 0 {
                check_served(name, entry, version)?;
            }
            if !entry.assigned.contains_key(label) && entry.assigned.len() >= LABELS_MAX {
                return Err(ManageError::TooManyLabels { name: name.into() });
            }
            if version == 0 && !entry.labels.contains_key(label) {
                entry.assigned.remove(label);
            } else {
                entry.assigned.insert(label.to_owned(), version);
            }
            Ok(())
        })?;
        tracing::info!(model = name, label, version, "label set");
        Ok(())
    }

    /// Divides requests that name neither a version nor a label between versions by weight; without weights they go
    /// to the newest. Holds until the model is unloaded.
    ///
    /// # Errors
    /// See [`ManageError`].
    pub fn set_split(&self, name: &str, weights: BTreeMap<u64, u32>) -> Result<(), ManageError> {
        let split = if weights.is_empty() {
            None
        } else {
            Some(Split::new(weights)?)
        };
        let log = split.as_ref().map(|split| format!("{:?}", split.weights()));
        self.change(name, |entry| {
            for &version in split.iter().flat_map(|split| split.weights().keys()) {
                check_served(name, entry, version)?;
            }
            entry.split = split;
            Ok(())
        })?;
        tracing::info!(
            model = name,
            weights = log.as_deref().unwrap_or("none"),
            "split set"
        );
        Ok(())
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut ModelEntry) -> Result<(), ManageError>,
    ) -> Result<(), ManageError> {
        self.engine.models().change(name, |entry| {
            if entry.versions.is_empty() {
                return Err(ManageError::NotLoaded { name: name.into() });
            }
            change(entry)
        })
    }

    /// Ends the threads, after the version that is being loaded.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        drop(self.commands.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the repository ended by a panic");
            }
        }
    }
}

fn check_served(name: &str, entry: &ModelEntry, version: u64) -> Result<(), ManageError> {
    if entry.versions.contains_key(&version) {
        return Ok(());
    }
    Err(ManageError::VersionNotServed {
        name: name.to_owned(),
        version,
        served: entry.versions.keys().copied().collect(),
    })
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
}

/// The life of the loader.
fn work(
    mut changes: Changes,
    commands: &Receiver<Command>,
    start: oneshot::Sender<Result<(), RepositoryError>>,
) {
    // Whoever waited may have been told to end.
    let _ = start.send(changes.start());
    let interval = changes.control.poll_interval;
    let mut poll_at = Instant::now() + interval;
    loop {
        changes.care_for_device();
        let polls = changes.control.mode == ControlMode::Poll;
        let due = polls
            .then_some(poll_at)
            .into_iter()
            .chain(changes.device.due());
        let command = match due.min() {
            Some(at) => commands.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if changes.stopping.load(Ordering::Acquire) {
            return;
        }
        match command {
            // Whoever asked may have gone; it is done all the same.
            Ok(Command::Load(name, config, answer)) => {
                drop(answer.send(changes.load(&name, config)));
            }
            Ok(Command::Unload(name, answer)) => drop(answer.send(changes.unload(&name))),
            // The loop looks after it each time.
            Ok(Command::Care) => {}
            Err(RecvTimeoutError::Timeout) if !polls || Instant::now() < poll_at => {}
            Err(RecvTimeoutError::Timeout) => {
                changes.poll();
                poll_at = Instant::now() + interval;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
