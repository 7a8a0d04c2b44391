//! Which models spoil the device when they are loaded, so that one of them does not cost all others theirs.
//!
//! A model whose first run spoils the device's context takes all models on it along, each time it is loaded anew. So a
//! model that has done so is loaded behind those that have not, and one that has done so twice is left out until somebody
//! loads it himself.

use std::collections::BTreeMap;

/// So often a model may spoil the device before it is left out: the first time may have been another's fault.
const TIMES_MAX: u32 = 2;

/// How often each version has spoiled the device, by name and number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoilers(BTreeMap<(String, u64), u32>);

impl Spoilers {
    /// It spoiled the device.
    pub(super) fn note(&mut self, name: &str, number: u64) {
        *self.0.entry((name.to_owned(), number)).or_default() += 1;
    }

    /// It did not.
    pub(super) fn forget(&mut self, name: &str, number: u64) {
        self.0.remove(&(name.to_owned(), number));
    }

    /// Tries all versions of a model anew; false if none of them was left out.
    pub(super) fn forgive(&mut self, name: &str) -> bool {
        let is_left_out =
            |((of, _), times): (&(String, u64), &u32)| of == name && *times >= TIMES_MAX;
        let was_left_out = self.0.iter().any(is_left_out);
        self.0.retain(|(of, _), _| of != name);
        was_left_out
    }

    /// How often it has.
    pub(super) fn times(&self, name: &str, number: u64) -> u32 {
        let known = self.0.get(&(name.to_owned(), number));
        known.copied().unwrap_or_default()
    }

    /// Whether it is not loaded any more.
    pub(super) fn is_left_out(&self, name: &str, number: u64) -> bool {
        self.times(name, number) >= TIMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_spoils_the_device_twice_is_left_out_until_it_does_not() {
        let mut spoilers = Spoilers::default();
        spoilers.note("a", 1);
        assert!(!spoilers.is_left_out("a", 1));
        spoilers.note("a", 1);
        assert!(spoilers.is_left_out("a", 1));
        assert!(!spoilers.is_left_out("a", 2) && !spoilers.is_left_out("b", 1));
        spoilers.note("b", 1);
        assert!(!spoilers.forgive("b"), "it was not left out yet");
        assert!(spoilers.forgive("a") && !spoilers.is_left_out("a", 1));
        spoilers.note("a", 1);
        spoilers.forget("a", 1);
        assert_eq!(spoilers.times("a", 1), 0);
    }
}
