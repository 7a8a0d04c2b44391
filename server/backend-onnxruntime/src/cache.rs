//! What is kept from one run to the next, under the keys that the server gives.

use std::collections::VecDeque;

use adjoin_backend::BindingKey;
use rustc_hash::FxHashMap;

/// Most entries. Each holds a few hundred bytes of the engine's, and a server with more prepared
/// requests than this only loses time: a third of a microsecond for a request that is not here.
pub(crate) const ENTRIES_MAX: usize = 1024;

/// A bounded map that gives up the oldest entry for a new one.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    entries: FxHashMap<BindingKey, T>,
    /// The keys of `entries`, oldest first.
    order: VecDeque<BindingKey>,
}

impl<T> Cache<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: FxHashMap::default(),
            order: VecDeque::new(),
        }
    }

    pub(crate) fn get_mut(&mut self, key: BindingKey) -> Option<&mut T> {
        self.entries.get_mut(&key)
    }

    /// Puts `entry` in the place of what was under `key`, if anything was.
    pub(crate) fn insert(&mut self, key: BindingKey, entry: T) {
        if self.entries.insert(key, entry).is_some() {
            return;
        }
        if self.order.len() == ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_entry_makes_room() {
        let mut cache = Cache::new();
        let last = ENTRIES_MAX as u64;
        for n in 0..=last {
            cache.insert(BindingKey(n), n);
            cache.insert(BindingKey(n), n + 1);
        }
        assert_eq!(cache.get_mut(BindingKey(0)), None);
        assert_eq!(cache.get_mut(BindingKey(1)), Some(&mut 2));
        assert_eq!(cache.get_mut(BindingKey(last)), Some(&mut (last + 1)));
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
    }
}
