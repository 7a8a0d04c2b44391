//! The response cache: answers of models whose configuration switches it on, by what was asked. Bounded in bytes; what was
//! not used for longest goes first.
//!
//! The key is a digest that nobody can find two inputs for: one caller must not be able to prepare an answer for another's
//! question. That an answer came quickly tells whoever asks that somebody has asked before.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use crate::model::request::{Request, Source};
use crate::session::response::OwnedOutput;

/// Bytes that an entry takes beside its outputs: key, shapes, bookkeeping.
const ENTRY_BYTES: u64 = 512;
/// Answers that are expected, for the size of the tables.
const ENTRIES_EXPECTED: usize = 1024;

/// What was asked.
pub(super) type Key = [u8; SHA256_OUTPUT_LEN];

/// An answer, in the model's order of outputs.
pub(super) type Answer = Arc<[OwnedOutput]>;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Key, Answer> for Bytes {
    fn weight(&self, _: &Key, answer: &Answer) -> u64 {
        ENTRY_BYTES
            + answer
                .iter()
                .map(|output| output.bytes.len() as u64)
                .sum::<u64>()
    }
}

/// Answers of all models.
#[derive(Debug)]
pub struct ResponseCache {
    // One table: parts for several threads would each keep only answers that fit a part of the bytes.
    answers: Option<Mutex<Cache<Key, Answer, Bytes>>>,
}

impl ResponseCache {
    /// A cache of so many bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(byte_size_max: u64) -> Self {
        let cache = || {
            let cache = Cache::with_weighter(ENTRIES_EXPECTED, byte_size_max, Bytes);
            Mutex::new(cache)
        };
        Self {
            answers: (byte_size_max > 0).then(cache),
        }
    }

    /// The key of a request, if its model's answers are kept.
    pub(super) fn key(&self, request: &Request) -> Option<Key> {
        let is_kept = self.answers.is_some() && request.version.settings().response_cache;
        let Source::Owned(buffers) = &request.source else {
            return None;
        };
        is_kept.then(|| key(request, buffers))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Answer> {
        self.answers.as_ref()?.lock().get(key).cloned()
    }

    pub(super) fn put(&self, key: Key, answer: Answer) {
        if let Some(answers) = &self.answers {
            answers.lock().insert(key, answer);
        }
    }
}

/// A digest of all that an answer depends on. Every part has its length before it, so that no two requests make the
/// same text.
fn key(request: &Request, buffers: &[bytes::Bytes]) -> Key {
    let mut context = Context::new(&SHA256);
    // Of this load of the version: the same number may stand for another file later.
    context.update(&request.version.load_id().to_le_bytes());
    for output in &request.outputs {
        context.update(&[u8::from(output.wanted)]);
    }
    for (place, bytes) in request.inputs.iter().zip(buffers) {
        context.update(&[
            place.dtype as u8,
            u8::try_from(place.shape.len()).unwrap_or(u8::MAX),
        ]);
        for size in &place.shape {
            context.update(&size.to_le_bytes());
        }
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use adjoin_schema::{DataType, Shape};

    use super::*;

    fn answer(byte_size: usize) -> Answer {
        let output = OwnedOutput {
            index: 0,
            dtype: DataType::Uint8,
            shape: Shape::from_slice(&[i64::try_from(byte_size).unwrap()]),
            bytes: vec![7; byte_size].into(),
        };
        [output].into()
    }

    #[test]
    fn what_does_not_fit_goes_or_is_never_kept() {
        let cache = ResponseCache::new(10_000);
        for number in 0..50 {
            cache.put([number; 32], answer(1000));
        }
        let kept = (0..50)
            .filter(|&number| cache.get(&[number; 32]).is_some())
            .count();
        assert!(
            (1..=6).contains(&kept),
            "{kept} of 1512 bytes each are kept in 10000"
        );
        cache.put([99; 32], answer(20_000));
        assert!(cache.get(&[99; 32]).is_none());
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let cache = ResponseCache::new(0);
        cache.put([1; 32], answer(1));
        assert!(cache.get(&[1; 32]).is_none());
    }
}
