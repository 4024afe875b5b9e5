//! The published keys of an issuer, as far as they have been read. Whoever reads them puts them here; whoever checks a
//! token looks here, and waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::public_key::{self, PublicKey, PublicKeyError};

/// The keys of one issuer. Shared by those who read them and those who use them.
pub struct Issuer {
    keys: RwLock<Arc<Vec<PublicKey>>>,
    /// Rung for a key that is not among them.
    bell: Notify,
    /// Somebody is to read them again, and has not yet.
    is_asked: AtomicBool,
    /// When the bell was rung last, in milliseconds since 1970.
    rung_at: Mutex<Option<u64>>,
    /// Unknown keys lead to one reading in this time, whatever is shown: anybody can make up the name of a key.
    interval_ms: u64,
}

impl Issuer {
    pub(super) fn new(interval_ms: u64) -> Self {
        Self {
            keys: RwLock::default(),
            bell: Notify::new(),
            is_asked: AtomicBool::new(false),
            rung_at: Mutex::new(None),
            interval_ms,
        }
    }

    /// Takes a set of keys as it was published. With an error those stay that were there.
    ///
    /// # Errors
    /// When it is no set, or no key in it could be used.
    pub fn publish(&self, set: &[u8]) -> Result<usize, PublicKeyError> {
        let keys = public_key::from_set(set)?;
        let count = keys.len();
        *self.keys.write() = Arc::new(keys);
        Ok(count)
    }

    /// Whether there is any key.
    pub fn is_known(&self) -> bool {
        !self.keys.read().is_empty()
    }

    /// Waits until the keys are to be read again because of one that is not among them.
    ///
    /// # Cancel safety
    /// A ring that nobody waits for is kept.
    pub async fn asked(&self) {
        self.bell.notified().await;
    }

    /// Has the keys read again soon.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Says that they have been read again, for better or worse.
    pub fn answered(&self) {
        self.is_asked.store(false, Ordering::SeqCst);
    }

    pub(super) fn keys(&self) -> Arc<Vec<PublicKey>> {
        self.keys.read().clone()
    }

    /// Asks for the keys to be read again; says whether that is about to happen.
    pub(super) fn ask(&self, now_ms: u64) -> bool {
        let mut rung_at = self.rung_at.lock();
        if rung_at.is_none_or(|at| now_ms.saturating_sub(at) >= self.interval_ms) {
            *rung_at = Some(now_ms);
            self.is_asked.store(true, Ordering::SeqCst);
            self.bell.notify_one();
        }
        self.is_asked.load(Ordering::SeqCst)
    }
}
