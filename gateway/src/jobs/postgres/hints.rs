//! Hints between the processes that share a store, by `NOTIFY`: work has come, a job is to be cancelled, a job has ended.
//!
//! Only hints: whoever waits for something also looks by himself, so all goes on, more slowly, where they are lost. They
//! are sent beside the transactions they tell of, because `NOTIFY` makes commits wait for each other.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::JobId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

use super::carrier;
use super::db::Db;
use super::rows::Kept;
use crate::clock;
use crate::jobs::watch::Watch;
use crate::postgres::Address;

/// Hints that wait to be sent; more are dropped.
const QUEUE_MAX: usize = 4096;

/// Hints in one statement.
const BATCH_MAX: usize = 512;

/// The pause after a lost connection grows up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A connection that has nothing to say is asked this often whether it lives.
const ASK: Duration = Duration::from_secs(10);

/// Something that another process may want to know at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Hint {
    /// There is work for a consumer.
    Work(String),
    /// A running job is to be cancelled.
    Cancel(JobId),
    /// A job has ended, and the process that took it in tells those who asked.
    Ended {
        /// The job.
        id: JobId,
        /// That process.
        origin: String,
    },
}

impl Hint {
    /// That a job has ended.
    pub(super) fn ended(kept: &Kept) -> Self {
        Self::Ended { id: kept.row.id, origin: kept.origin.clone() }
    }

    /// As it is sent: `w CONSUMER`, `c JOB`, `e JOB NODE`.
    fn payload(&self) -> String {
        match self {
            Self::Work(consumer) => format!("w {consumer}"),
            Self::Cancel(id) => format!("c {id}"),
            Self::Ended { id, origin } => format!("e {id} {origin}"),
        }
    }

    /// `None`: not one of this program's.
    fn parse(payload: &str) -> Option<Self> {
        let (kind, rest) = payload.split_once(' ')?;
        match kind {
            "w" => Some(Self::Work(rest.to_owned())),
            "c" => Some(Self::Cancel(rest.parse().ok()?)),
            "e" => {
                let (id, origin) = rest.split_once(' ')?;
                Some(Self::Ended { id: id.parse().ok()?, origin: origin.to_owned() })
            }
            _ => None,
        }
    }
}

/// Reads a hint and writes it again.
#[cfg(feature = "fuzzing")]
pub(crate) fn reread_hint(payload: &str) -> Option<String> {
    Hint::parse(payload).map(|hint| hint.payload())
}

/// Where hints are given to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hints {
    queue: mpsc::Sender<Hint>,
}

impl Hints {
    /// Starts the task that sends them.
    pub(super) fn start(db: &Db, channel: &str) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        db.spawn(send(db.clone(), channel.to_owned(), inbox));
        Self { queue }
    }

    /// Sends hints soon, or never.
    pub(super) fn give(&self, hints: impl IntoIterator<Item = Hint>) {
        hints.into_iter().for_each(|hint| drop(self.queue.try_send(hint)));
    }
}

async fn send(db: Db, channel: String, mut inbox: mpsc::Receiver<Hint>) {
    let mut hints = Vec::new();
    loop {
        let taken = tokio::select! {
            taken = inbox.recv_many(&mut hints, BATCH_MAX) => taken,
            () = db.closed.cancelled() => return,
        };
        if taken == 0 {
            return;
        }
        let payloads: HashSet<String> = hints.drain(..).map(|hint| hint.payload()).collect();
        let payloads: Vec<String> = payloads.into_iter().collect();
        let sql = "select pg_notify($1, payload) from unnest($2::text[]) as payload";
        if let Err(error) = db.read(sql, vec![Box::new(channel.clone()), Box::new(payloads)]).await {
            tracing::debug!(%error, "hints were not sent");
        }
    }
}

/// Starts the task that hears hints, and does what they say in this process, which is called `node`.
pub(super) fn listen(db: &Db, address: Address, channel: String, node: String, watch: Arc<Watch>) {
    let ear = Ear { address, channel, node, watch };
    let closed = db.closed.clone();
    db.spawn(async move {
        // Whatever it does at this moment can be dropped.
        closed.run_until_cancelled(ear.listen_on()).await;
    });
}

struct Ear {
    address: Address,
    channel: String,
    node: String,
    watch: Arc<Watch>,
}

impl Ear {
    async fn listen_on(&self) {
        let mut pause = Duration::from_millis(100);
        loop {
            let began = tokio::time::Instant::now();
            let error = self.listen_once().await;
            tracing::debug!(error, "hints are not heard; jobs are looked for now and then");
            if began.elapsed() > PAUSE_MAX {
                pause = Duration::from_millis(100);
            }
            sleep(pause.mul_f64(0.5 + clock::random_fraction() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until the connection is lost; answers why.
    async fn listen_once(&self) -> String {
        let (config, tls) = match self.address.connector() {
            Ok(connector) => connector,
            Err(error) => return error.to_string(),
        };
        let connected = timeout(crate::postgres::CONNECT_TIMEOUT, config.connect(tls)).await;
        let (client, mut connection) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "connecting took too long".to_owned(),
        };
        let hear = async {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(told))) => self.hear(told.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.to_string(),
                    None => return "the server closed the connection".to_owned(),
                }
            }
        };
        let live = async {
            let listen = format!("listen \"{}\"", self.channel);
            let mut statement = listen.as_str();
            loop {
                match timeout(ASK, client.batch_execute(statement)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "the server does not answer".to_owned(),
                }
                if !statement.is_empty() {
                    // What was told meanwhile was not heard.
                    self.watch.wake_all();
                    statement = "";
                }
                sleep(ASK).await;
            }
        };
        tokio::select! {
            error = hear => error,
            error = live => error,
        }
    }

    fn hear(&self, payload: &str) {
        if let Some(event) = payload.strip_prefix(carrier::PREFIX) {
            carrier::read(event, &self.node).into_iter().for_each(|carried| self.watch.arrived.put(carried));
            return;
        }
        match Hint::parse(payload) {
            Some(Hint::Work(consumer)) => self.watch.wake_known(&consumer),
            Some(Hint::Cancel(id)) => self.watch.cancel_running(id),
            Some(Hint::Ended { id, origin }) => {
                self.watch.ended(id);
                if origin == self.node {
                    self.watch.events.notify_one();
                }
            }
            None => tracing::debug!("a hint of another program was passed over"),
        }
    }
}

/// The name of the channel of a schema.
pub(super) fn channel_of(schema: &str) -> String {
    format!("groupcast_{schema}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_read_back() {
        let id = JobId::new(7, 7);
        for hint in [Hint::Work("a.b".into()), Hint::Cancel(id), Hint::Ended { id, origin: "gw1".into() }] {
            assert_eq!(Hint::parse(&hint.payload()), Some(hint));
        }
        for strange in ["", "w", "x y", "c nothing", "e 1 2"] {
            assert_eq!(Hint::parse(strange), None, "{strange}");
        }
    }
}
