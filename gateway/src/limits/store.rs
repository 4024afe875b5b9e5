//! `Store`: where buckets are kept, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use parking_lot::Mutex;

/// Keys of one limit. At the bound that key is forgotten which is nearest to a full bucket (of those that share its part of
/// the store): who has used little wins little by it, and who is at his limit stays there. Some 3 MB for each limit.
pub(super) const KEYS_MAX: usize = 100_000;
/// So that threads rarely meet, and the search at the bound stays short: six microseconds.
const PARTS: usize = 64;

/// When each key's bucket is full again.
pub(super) struct Store {
    parts: Box<[Mutex<Part>]>,
    keys_max_per_part: usize,
}

type Part = HashMap<u64, Nanos, BuildHasherDefault<AsItIs>>;

impl Store {
    pub(super) fn new(keys_max: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, keys_max_per_part: keys_max.div_ceil(PARTS) }
    }

    fn part(&self, key: u64) -> &Mutex<Part> {
        // Neither the lowest bits nor the highest: by those the map finds its own places.
        &self.parts[(key >> 32) as usize % PARTS]
    }
}

impl StateStore for Store {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut part = self.part(*key).lock();
        if let Some(full_at) = part.get_mut(key) {
            let (answer, next) = f(Some(*full_at))?;
            *full_at = next;
            return Ok(answer);
        }
        let (answer, next) = f(None)?;
        if part.len() >= self.keys_max_per_part {
            forget_one(&mut part);
        }
        part.insert(*key, next);
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<u64> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        for part in &self.parts {
            let mut part = part.lock();
            part.retain(|_, full_at| *full_at > drop_below);
            // What a flood of keys has needed is given back.
            if part.capacity() > 64 && part.len() < part.capacity() / 4 {
                part.shrink_to_fit();
            }
        }
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn forget_one(part: &mut Part) {
    let fullest = part.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key);
    if let Some(key) = fullest {
        part.remove(&key);
    }
}

/// Keys are hashes already, by a secret of this process.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
