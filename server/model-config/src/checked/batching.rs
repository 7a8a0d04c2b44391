//! `dynamic_batching`: how requests wait for one another, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use adjoin_control_api::inference::{ModelDynamicBatching, ModelQueuePolicy, model_queue_policy};

use super::bounded;
use crate::error::ConfigError;

/// How requests wait and are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Sizes at which a batch does not wait for the delay to end: ascending, each once, 1 to `max_batch_size`.
    pub preferred_batch_sizes: Vec<u32>,
    /// How long the oldest request may wait for others.
    pub max_queue_delay: Duration,
    /// Whether responses leave in the order in which requests came.
    pub preserve_ordering: bool,
    /// Levels, 1 or more; level 1 is the most urgent.
    pub priority_levels: u16,
    /// Level of requests that ask for none.
    pub default_priority_level: u16,
    /// For levels without a policy of their own.
    pub default_queue_policy: QueuePolicy,
    /// Of single levels.
    pub priority_queue_policy: BTreeMap<u16, QueuePolicy>,
}

/// What holds for the requests of a level while they wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// What happens to a request that has waited for too long.
    pub timeout_action: TimeoutAction,
    /// Longest wait of a request that names none; `None`: no limit.
    pub default_timeout: Option<Duration>,
    /// Whether a request may name a shorter one.
    pub allow_timeout_override: bool,
    /// Most waiting requests; `None`: the server's own limit.
    pub max_queue_size: Option<u32>,
}

/// What happens to a request that has waited for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It goes behind all others.
    Delay,
}

impl Default for DynamicBatching {
    fn default() -> Self {
        Self {
            preferred_batch_sizes: Vec::new(),
            max_queue_delay: Duration::ZERO,
            preserve_ordering: false,
            priority_levels: 1,
            default_priority_level: 1,
            default_queue_policy: QueuePolicy::default(),
            priority_queue_policy: BTreeMap::new(),
        }
    }
}

impl DynamicBatching {
    pub(super) fn new(
        configured: &ModelDynamicBatching,
        max_batch_size: u32,
    ) -> Result<Self, ConfigError> {
        let path = |field: &str| format!("dynamic_batching.{field}");
        let mut preferred_batch_sizes = Vec::new();
        for (index, &size) in configured.preferred_batch_size.iter().enumerate() {
            let path = path(&format!("preferred_batch_size[{index}]"));
            if max_batch_size == 0 {
                let expected = "with max_batch_size 0 requests are never joined";
                return Err(ConfigError::value(path, size, expected));
            }
            preferred_batch_sizes.push(bounded(path, size, 1..=max_batch_size)?);
        }
        preferred_batch_sizes.sort_unstable();
        preferred_batch_sizes.dedup();
        let levels = level(
            path("priority_levels"),
            configured.priority_levels,
            0,
            u16::MAX,
        )?;
        let default_level = match levels {
            0 => 1,
            _ => level(
                path("default_priority_level"),
                configured.default_priority_level,
                1,
                levels,
            )?,
        };
        let priority_levels = levels.max(1);
        let default_queue_policy = match &configured.default_queue_policy {
            Some(policy) => QueuePolicy::new(&path("default_queue_policy"), policy)?,
            None => QueuePolicy::default(),
        };
        let mut priority_queue_policy = BTreeMap::new();
        for (&key, policy) in &configured.priority_queue_policy {
            let path = path(&format!("priority_queue_policy[{key}]"));
            let key = level(format!("the key of {path}"), key, 1, priority_levels)?;
            priority_queue_policy.insert(key, QueuePolicy::new(&path, policy)?);
        }
        let batching = Self {
            preferred_batch_sizes,
            max_queue_delay: Duration::from_micros(configured.max_queue_delay_microseconds),
            preserve_ordering: configured.preserve_ordering,
            priority_levels,
            default_priority_level: default_level,
            default_queue_policy,
            priority_queue_policy,
        };
        batching.check_order()?;
        Ok(batching)
    }

    /// The policy of a level.
    #[must_use]
    pub fn queue_policy(&self, priority: u16) -> &QueuePolicy {
        let own = self.priority_queue_policy.get(&priority);
        own.unwrap_or(&self.default_queue_policy)
    }

    /// Priorities and delayed requests overtake others, which an order forbids.
    fn check_order(&self) -> Result<(), ConfigError> {
        let path = "dynamic_batching.preserve_ordering";
        if self.preserve_ordering && self.priority_levels > 1 {
            let expected = format!(
                "it goes with one priority level, and there are {}",
                self.priority_levels
            );
            return Err(ConfigError::value(path, "true", expected));
        }
        let delays = |policy: &QueuePolicy| {
            policy.timeout_action == TimeoutAction::Delay && policy.default_timeout.is_some()
        };
        let mut policies = self.priority_queue_policy.values();
        if self.preserve_ordering && (delays(&self.default_queue_policy) || policies.any(delays)) {
            let expected = "it does not go with the timeout action DELAY";
            return Err(ConfigError::value(path, "true", expected));
        }
        Ok(())
    }
}

impl QueuePolicy {
    fn new(path: &str, configured: &ModelQueuePolicy) -> Result<Self, ConfigError> {
        use model_queue_policy::TimeoutAction as Word;
        let timeout_action = match Word::try_from(configured.timeout_action) {
            Ok(Word::Reject) => TimeoutAction::Reject,
            Ok(Word::Delay) => TimeoutAction::Delay,
            Err(_) => {
                let path = format!("{path}.timeout_action");
                return Err(ConfigError::value(
                    path,
                    configured.timeout_action,
                    "it is REJECT or DELAY",
                ));
            }
        };
        let timeout_us = configured.default_timeout_microseconds;
        Ok(Self {
            timeout_action,
            default_timeout: (timeout_us > 0).then(|| Duration::from_micros(timeout_us)),
            allow_timeout_override: configured.allow_timeout_override,
            max_queue_size: Some(configured.max_queue_size).filter(|&size| size > 0),
        })
    }
}

fn level(path: String, value: u64, least: u16, most: u16) -> Result<u16, ConfigError> {
    let number = u16::try_from(value).ok();
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| ConfigError::value(path, value, format!("it is {least} to {most}")))
}
