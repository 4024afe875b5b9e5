//! Which gateway takes what Django sends: one record, stored behind the newest one only, and again and again.
//!
//! Nothing depends on there being one only: see the module above.

use bytes::Bytes;

use super::Django;
use crate::broker::BrokerError;
use crate::broker::nats::api::Outcome;
use crate::broker::nats::names::Stream;
use crate::broker::nats::session::Session;

use std::time::Duration;

/// How long a gateway is believed to be there without saying so again.
const LEASE: Duration = Duration::from_secs(2);
/// Who holds it when nobody does.
const NOBODY: &[u8] = b"!";

impl Django {
    /// Renews the lease, or takes it if nobody has it. Says whether this node holds it.
    pub(super) async fn lease(&self, session: &Session) -> Result<bool, BrokerError> {
        let held = *self.lease.lock();
        let expected = match held {
            Some(sequence) => sequence,
            None => match self.vacant(session).await? {
                Some(sequence) => sequence,
                None => return Ok(false),
            },
        };
        // Until it is known how it went: who cannot be reached does not hold it.
        *self.lease.lock() = None;
        let stored = session.api.store(&session.names.registrar(), self.holder(), expected).await?;
        let Outcome::Stored(sequence) = stored else { return Ok(false) };
        *self.lease.lock() = Some(sequence);
        Ok(true)
    }

    /// Gives the lease up, so that another node need not wait for its end.
    pub(in crate::broker::nats) async fn resign(&self, session: &Session) {
        let Some(expected) = self.lease.lock().take() else { return };
        // Otherwise it ends by itself.
        let _ = session.api.store(&session.names.registrar(), Bytes::from_static(NOBODY), expected).await;
    }

    /// The number of a lease that has ended, or is that of an earlier run of this node; none when another node holds it.
    async fn vacant(&self, session: &Session) -> Result<Option<u64>, BrokerError> {
        let newest = session.api.newest(&session.names.stream(Stream::Plain), &session.names.registrar()).await?;
        Ok(match newest {
            None => Some(0),
            Some(newest) => {
                let is_over = session.clock().age(newest.at) >= LEASE;
                let is_free = is_over || newest.payload == NOBODY || newest.payload == self.holder();
                is_free.then_some(newest.sequence)
            }
        })
    }

    fn holder(&self) -> Bytes {
        Bytes::copy_from_slice(self.node.as_str().as_bytes())
    }
}
