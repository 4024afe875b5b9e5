//! `Sessions`: who is signed in at the admin page. In memory alone: a restart signs everybody out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::caller::Service;
use crate::clock;

/// How long a session lasts at most: a working day.
pub(super) const LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);
/// How long it lasts when nobody asks for anything. The page asks every few seconds while it can be seen.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Sessions at once. At the bound the oldest one ends.
const SESSIONS_MAX: usize = 64;

/// Who is signed in.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Vec<Session>>);

/// What is kept of a token: not the token.
pub(super) type Digested = [u8; 32];

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) digest: Digested,
    pub(super) operator: Arc<Service>,
    began: Instant,
    used: Instant,
}

impl Session {
    /// What is left of it, if it is used.
    pub(super) fn left(&self, now: Instant) -> Duration {
        LIFETIME.saturating_sub(now.saturating_duration_since(self.began))
    }

    fn is_alive(&self, now: Instant) -> bool {
        !self.left(now).is_zero() && now.saturating_duration_since(self.used) < IDLE
    }
}

impl Sessions {
    /// Begins a session; its token, of 256 random bits.
    pub(super) fn begin(&self, operator: Arc<Service>, now: Instant) -> String {
        let random = [clock::random().to_le_bytes(), clock::random().to_le_bytes()].concat();
        let token = URL_SAFE_NO_PAD.encode(random);
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.is_alive(now));
        if sessions.len() == SESSIONS_MAX {
            // They stand in the order in which they began.
            let ended = sessions.remove(0);
            tracing::info!(
                operator = ended.operator.name,
                "the oldest session of the admin page ends: there are too many"
            );
        }
        sessions.push(Session { digest: digest(&token), operator, began: now, used: now });
        token
    }

    /// The session of a token, which is used by that. Takes as long whichever it is.
    pub(super) fn find(&self, token: &str, now: Instant) -> Option<Session> {
        let digest = digest(token);
        self.with(&digest, |session| {
            session.is_alive(now).then(|| {
                session.used = now;
                session.clone()
            })
        })
        .flatten()
    }

    /// Whether a session lives; it is not used by that.
    pub(super) fn lives(&self, digest: &Digested, now: Instant) -> bool {
        self.with(digest, |session| session.is_alive(now)).unwrap_or(false)
    }

    /// Ends a session.
    pub(super) fn end(&self, digest: &Digested) {
        self.0.lock().retain(|session| !bool::from(session.digest.ct_eq(digest)));
    }

    fn with<T>(&self, digest: &Digested, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut sessions = self.0.lock();
        let mut found = None;
        for session in sessions.iter_mut() {
            if session.digest.ct_eq(digest).into() {
                found = Some(session);
            }
        }
        found.map(act)
    }
}

fn digest(token: &str) -> Digested {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Auth;
    use crate::config::{AuthConfig, Hidden};

    const KEY: &str = "fedcba9876543210fedcba9876543210";
    const MS: Duration = Duration::from_millis(1);

    fn operator() -> Arc<Service> {
        let config = AuthConfig { api_keys: Some(Hidden::new(KEY)), ..AuthConfig::default() };
        Auth::new(Some(&config)).expect("a good key").operator(KEY).expect("a key for everything")
    }

    #[test]
    fn a_session_lives_while_it_is_used_and_a_day_at_most() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let token = sessions.begin(operator(), began);
        assert!(sessions.find(&token, began).is_some());
        assert!(sessions.find(&format!("{token}x"), began).is_none() && sessions.find("", began).is_none());
        let mut now = began;
        while now + IDLE - MS < began + LIFETIME {
            now += IDLE - MS;
            assert!(sessions.find(&token, now).is_some(), "{:?}", now - began);
        }
        assert!(sessions.find(&token, began + LIFETIME).is_none());
        let other = sessions.begin(operator(), began);
        assert!(sessions.find(&other, began + IDLE).is_none(), "nobody has used it");
    }

    #[test]
    fn looking_whether_it_lives_does_not_prolong_it() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let token = sessions.begin(operator(), began);
        let session = sessions.find(&token, began).expect("it has begun");
        let lives = |at| sessions.lives(&session.digest, at);
        assert!(lives(began + IDLE - MS) && !lives(began + IDLE));
        sessions.end(&session.digest);
        assert!(!lives(began) && sessions.find(&token, began).is_none());
    }

    #[test]
    fn of_too_many_sessions_the_oldest_ends() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let tokens: Vec<_> = (0..=SESSIONS_MAX).map(|_| sessions.begin(operator(), now)).collect();
        assert!(sessions.find(&tokens[0], now).is_none());
        assert!(tokens[1..].iter().all(|token| sessions.find(token, now).is_some()));
    }

    #[test]
    fn the_token_is_not_kept() {
        let sessions = Sessions::default();
        let token = sessions.begin(operator(), Instant::now());
        assert!(token.len() >= 43 && !format!("{sessions:?}").contains(&token));
    }
}
