//! Brings back a device that was lost, and the models that ran on it.
//!
//! Whoever finds the device lost says so ([`Engine::device_lost`]): its models take no requests from then on. Here, on
//! the loader's thread, what they hold of the old context is dropped, as soon as nothing runs on it; the device is reset,
//! once, and sessions' regions are registered again; then each model is loaded as it was when it was loaded first, warmed
//! up, and put in the place of the lost one. Models on the processor go on meanwhile.
//!
//! [`Engine::device_lost`]: crate::engine::Engine::device_lost

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::change::Changes;
use super::recovery::Attempts;
use super::spoilers::Spoilers;
use crate::devices::Devices;
use crate::model::{ModelVersion, State};

/// How often it is looked whether nothing runs on a lost device any more.
const INTERVAL: Duration = Duration::from_millis(2);

/// How long work on a lost device may take to end before that is said.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is said.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// Why a version is not loaded again.
const LEFT_OUT: &str =
    "the device was lost each time this model was loaded, so it is left out; load it to try again";

/// What is known of the device.
#[derive(Debug)]
pub(super) struct DeviceCare {
    /// Set by whoever finds it lost.
    noticed: Arc<AtomicBool>,
    attempts: Attempts,
    attempts_max: u32,
    /// A reset was begun and has not succeeded.
    needs_reset: bool,
    spoilers: Mutex<Spoilers>,
    /// Since when a reset waits for work on the device to end.
    waits_since: Option<Instant>,
    /// When that was last said.
    told_of_waiting_at: Option<Instant>,
}

impl DeviceCare {
    /// For a device that is brought back so often in a row.
    pub(super) fn new(noticed: Arc<AtomicBool>, attempts_max: u32) -> Self {
        Self {
            noticed,
            attempts: Attempts::new(attempts_max),
            attempts_max,
            needs_reset: false,
            spoilers: Mutex::default(),
            waits_since: None,
            told_of_waiting_at: None,
        }
    }

    /// When something is to be done for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.attempts.due()
    }
}

impl Changes {
    /// Does what is due for the device.
    pub(super) fn care_for_device(&mut self) {
        let is_lost = self.device.noticed.swap(false, Ordering::AcqRel);
        if is_lost && self.device.attempts.lost(Instant::now()) {
            self.explain_losses("it was lost once more");
        }
        let is_due = |at| at <= Instant::now();
        if self.device.due().is_some_and(is_due) {
            self.recover();
        }
    }

    /// Tries it again for an operator who loads a model that is lost: the device if it was given up, and the model if it was
    /// left out.
    pub(super) fn renew_device(&mut self, name: &str) {
        let now = Instant::now();
        if self.device.spoilers.lock().forgive(name) {
            self.device.attempts.reload(now);
        }
        self.device.attempts.renew(now);
        self.care_for_device();
    }

    /// Why versions of a model are lost, by number.
    pub(super) fn losses(&self, name: &str) -> BTreeMap<u64, String> {
        let models = self.engine.models().snapshot();
        let versions = models
            .get(name)
            .into_iter()
            .flat_map(|entry| &entry.versions);
        versions
            .filter_map(|(&number, version)| Some((number, version.loss()?)))
            .collect()
    }

    /// Remembers whether the loading of a version has spoiled the device.
    pub(super) fn note_load(&self, name: &str, number: u64, is_loaded: bool) {
        let mut spoilers = self.device.spoilers.lock();
        if is_loaded {
            spoilers.forget(name, number);
        } else if self.is_device_lost() {
            spoilers.note(name, number);
        }
    }

    fn is_device_lost(&self) -> bool {
        self.engine.devices().is_some_and(Devices::is_lost)
    }

    fn recover(&mut self) {
        let Some(devices) = self.engine.devices().cloned() else {
            return;
        };
        self.device.attempts.begin();
        if self.device.needs_reset || devices.is_lost() {
            self.device.needs_reset = true;
            if !self.strip_device() {
                self.device.attempts.put_off(Instant::now(), INTERVAL);
                self.tell_of_waiting();
                return;
            }
            self.device.waits_since = None;
            tracing::info!(
                attempt = self.device.attempts.made(),
                "resetting the device"
            );
            if let Err(error) = devices.rebuild() {
                return self.failed(&error.to_string());
            }
            self.device.needs_reset = false;
        }
        if let Some(reason) = self.reload_lost() {
            return self.failed(&reason);
        }
        self.device.attempts.succeeded(Instant::now());
        self.engine.give_device_up(false);
        tracing::info!("the device is back");
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Says that work on the lost device does not end, which keeps it from being reset.
    fn tell_of_waiting(&mut self) {
        let now = Instant::now();
        let since = *self.device.waits_since.get_or_insert(now);
        let seconds = now.duration_since(since).as_secs();
        let was_told = self.device.told_of_waiting_at;
        let is_early = |at: Instant| now.duration_since(at) < TELL_INTERVAL;
        if now.duration_since(since) < PATIENCE || was_told.is_some_and(is_early) {
            return;
        }
        self.device.told_of_waiting_at = Some(now);
        let text = format!(
            "the device is lost, and cannot be reset while a batch is on it, which has not ended for {seconds} s; restart the \
             server if it does not"
        );
        for version in self.lost() {
            version.explain_loss(&text);
        }
        tracing::error!("{text}");
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Drops what versions hold of the device; false if something still runs on it.
    fn strip_device(&self) -> bool {
        let models = self.engine.models().snapshot();
        let on_device = |version: &&Arc<ModelVersion>| version.is_on_device();
        let mut is_free = true;
        for entry in models.values() {
            // Those that drain end by themselves, and leave the list when nothing is left of them.
            is_free &= !entry.draining.iter().any(|version| version.is_on_device());
            for version in entry.versions.values().filter(on_device) {
                is_free &= version.strip().is_some();
            }
        }
        is_free
    }

    /// Loads what is lost; why that failed, if it did.
    fn reload_lost(&mut self) -> Option<String> {
        let mut failure = None;
        // Put in place together: while one is loaded no other one runs, so that what spoils the device is the one.
        let mut loaded = Vec::new();
        let mut lost = self.lost();
        lost.sort_by_cached_key(|version| {
            let (name, number) = (version.name(), version.version());
            let times = self.device.spoilers.lock().times(name, number);
            (times, name.to_string(), number)
        });
        for old in lost {
            let (name, number) = (old.name(), old.version());
            if self.device.spoilers.lock().is_left_out(name, number) {
                old.explain_loss(LEFT_OUT);
                continue;
            }
            if self.stopping.load(Ordering::Acquire) {
                return Some("the server ends".to_owned());
            }
            let Some(plan) = self.plan_of(old.name(), old.version()) else {
                continue;
            };
            match self.load_noted(name, &plan, number) {
                Ok(version) => loaded.push(version),
                Err(reason) if self.is_device_lost() => return Some(reason),
                Err(reason) => failure = Some(reason),
            }
        }
        for version in loaded {
            self.replace(version);
        }
        failure
    }

    /// Versions that are lost.
    fn lost(&self) -> Vec<Arc<ModelVersion>> {
        let models = self.engine.models().snapshot();
        let versions = models.values().flat_map(|entry| entry.versions.values());
        versions
            .filter(|version| version.state() == State::Lost)
            .cloned()
            .collect()
    }

    /// Puts a version in the place of the lost one of its number.
    fn replace(&self, version: Arc<ModelVersion>) {
        let name = Arc::clone(version.name());
        let mut replaced = Vec::new();
        let put = self.engine.models().change(&name, |entry| {
            replaced.extend(entry.versions.insert(version.version(), version));
            entry.draining.extend(replaced.iter().cloned());
            Ok::<(), Infallible>(())
        });
        let Ok(()) = put;
        self.drain(&name, replaced);
    }

    fn failed(&mut self, reason: &str) {
        self.device.attempts.failed(Instant::now());
        self.explain_losses(reason);
    }

    /// Says of all lost versions why they still are, and whether there is hope.
    fn explain_losses(&self, reason: &str) {
        let DeviceCare {
            attempts,
            attempts_max: most,
            ..
        } = &self.device;
        let (made, is_final) = (attempts.made(), attempts.is_given_up());
        let text = if is_final {
            format!(
                "the device is lost and given up after {made} of {most} attempts: {reason}; restart the server, or load the \
                 model again"
            )
        } else {
            format!(
                "the device is lost; attempt {made} of {most} to bring it back failed: {reason}"
            )
        };
        for version in self.lost() {
            version.explain_loss(&text);
        }
        tracing::error!("{text}");
        self.engine.give_device_up(is_final);
        self.changed.send_modify(|changes| *changes += 1);
    }
}
