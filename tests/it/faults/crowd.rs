//! `Crowd`: sockets that record all they get, and writers that record all they are told, at two gateways.
//!
//! Each socket is in two groups: one keeps history and shows places, the other one does neither. A writer sends to both in
//! turn, one message after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use groupcast_tests::strands::{Outcome, Strands};
use groupcast_tests::verdict::{Place, Records, Verdict};
use groupcast_tests::wait::within;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const KEPT: &str = "kept.room";
pub(crate) const PLAIN: &str = "room";
/// What the groups are, in the configuration.
pub(crate) const GROUPS: &str = "[[group]]\nname = \"kept.*\"\nhistory = {}\n";

/// How long any answer may take: the broker's deadline of these tests is 500 ms, and the rest is for a busy machine.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two messages of a writer: it is about what happens, not about how much.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Book {
    kept: Records,
    plain: Strands,
    /// The longest that a writer has waited for a refusal.
    slowest: Duration,
    refused: u64,
}

type Shared = Arc<Mutex<Book>>;

/// What came of it all.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) kept: Verdict,
    pub(crate) plain: Outcome,
    /// Messages that were refused, and how long the longest refusal took.
    pub(crate) refused: (u64, Duration),
}

/// Readers and writers at work.
pub(crate) struct Crowd {
    book: Shared,
    readers: Vec<Reader>,
    writers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

struct Reader {
    name: String,
    /// Messages of the group with history, and of the other one.
    got: watch::Receiver<[Got; 2]>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Got {
    messages: usize,
    is_last: bool,
}

impl Crowd {
    /// Two sockets and a writer at each gateway.
    pub(crate) async fn start(gateways: &[&Gateway]) -> Self {
        let (book, (stop, stopped)) = (Shared::default(), watch::channel(false));
        let mut readers = Vec::new();
        for (n, gateway) in gateways.iter().enumerate() {
            readers.push(Reader::start(format!("{n}a"), gateway, &book).await);
            readers.push(Reader::start(format!("{n}b"), gateway, &book).await);
        }
        let write =
            |(n, gateway): (usize, &&Gateway)| tokio::spawn(write(gateway.http(), n, book.clone(), stopped.clone()));
        let writers = gateways.iter().enumerate().map(write).collect();
        Self { book, readers, writers, stop }
    }

    /// Waits until every socket has got something more in each group.
    pub(crate) async fn progress(&self) {
        self.progress_of(0..self.readers.len() / 2).await;
    }

    /// As [`Crowd::progress`], of the sockets of some gateways.
    pub(crate) async fn progress_of(&self, gateways: std::ops::Range<usize>) {
        for reader in &self.readers[2 * gateways.start..2 * gateways.end] {
            reader.progress().await;
        }
    }

    /// Ends the writers, has a last message go to each group by `http`, waits until every socket has got it, and judges.
    pub(crate) async fn end(self, http: &Http) -> Outcomes {
        self.stop.send_replace(true);
        for writer in self.writers {
            within("a writer ends", writer).await.expect("no writer panics");
        }
        let last = json!({"type": "last", "id": "last"});
        let kept = http.group_send(KEPT, &last).await;
        http.group_send(PLAIN, &last).await;
        let head = place(&kept["epoch"], &kept["offset"]).expect("it keeps history");
        for reader in self.readers {
            let name = reader.ended().await;
            lock(&self.book).kept.ended(&name, KEPT, &head);
        }
        let book = lock(&self.book);
        Outcomes { kept: book.kept.verdict(), plain: book.plain.outcome(), refused: (book.refused, book.slowest) }
    }
}

impl Outcomes {
    /// Nothing was lost, doubled, moved or invented without a word, whatever happened.
    #[track_caller]
    pub(crate) fn are_sound(&self) {
        let Verdict { acked, found, told_lost, .. } = self.kept;
        assert!(acked >= 3, "nothing was tried: {self:?}");
        assert_eq!(self.kept, Verdict { acked, found, told_lost, ..Verdict::default() });
        let Outcome { acked, received, told, .. } = self.plain;
        assert!(acked >= 3, "nothing was tried: {self:?}");
        assert_eq!(self.plain, Outcome { acked, received, told, ..Outcome::default() });
        assert!(self.refused.1 < ANSWER, "{self:?}");
    }
}

impl Reader {
    async fn start(name: String, gateway: &Gateway, book: &Shared) -> Self {
        let mut socket = Socket::subscribed(gateway, &[PLAIN]).await;
        let told = socket.command(json!({"type": "subscribe", "group": KEPT})).await;
        let begin = place(&told["epoch"], &told["offset"]).expect("it keeps history");
        lock(book).plain.begins(&name);
        lock(book).kept.subscribed(&name, KEPT, begin.clone());
        let (count, got) = watch::channel([Got::default(); 2]);
        let task = tokio::spawn(read(socket, name.clone(), begin.0, book.clone(), count));
        Self { name, got, task }
    }

    async fn progress(&self) {
        let mut got = self.got.clone();
        let before = *got.borrow();
        let is_more = |now: &[Got; 2]| (0..2).all(|group| now[group].messages > before[group].messages);
        let more = async { got.wait_for(is_more).await.map(drop) };
        within(&format!("more than {before:?} at {}", self.name), more).await.expect("the socket lives");
    }

    /// Waits for the last message of each group; the name.
    async fn ended(mut self) -> String {
        let last = async { self.got.wait_for(|got| got.iter().all(|group| group.is_last)).await.map(drop) };
        within("the last message", last).await.expect("the socket lives");
        self.task.abort();
        self.name
    }
}

/// Records all that a socket gets. Panics, which its owner notices, when the socket ends.
async fn read(mut socket: Socket, name: String, mut epoch: String, book: Shared, count: watch::Sender<[Got; 2]>) {
    loop {
        let frame = socket.next().await;
        let mut book = lock(&book);
        let is_kept = frame["group"] == KEPT;
        match (frame["type"].as_str(), is_kept) {
            (Some("gap"), true) => {
                book.kept.gap(&name, KEPT, frame["missed"].as_u64());
                frame["epoch"].as_str().expect("it keeps history").clone_into(&mut epoch);
            }
            (Some("gap"), false) => book.plain.gap(&name),
            (Some("message"), _) => {
                let id = frame["message"]["id"].as_str().expect("all have one");
                if is_kept {
                    let at = frame["offset"].as_u64().map(|offset| (epoch.clone(), offset));
                    book.kept.received(&name, KEPT, id, at);
                } else if let Some(knot) = knot(id) {
                    book.plain.received(&name, knot);
                }
                let is_last = id == "last";
                count.send_modify(|got| {
                    let got = &mut got[usize::from(!is_kept)];
                    *got = Got { messages: got.messages + 1, is_last };
                });
            }
            _ => panic!("{frame} was not to come"),
        }
    }
}

/// Sends one message after the other, and records those that are taken.
async fn write(http: Http, writer: usize, book: Shared, stopped: watch::Receiver<bool>) {
    let mut number = 0;
    while !*stopped.borrow() {
        number += 1;
        let id = format!("{writer}-{number}");
        for group in [KEPT, PLAIN] {
            let began = Instant::now();
            let answer = http.post(&format!("/v1/groups/{group}/send"), &json!({"type": "chat", "id": id})).await;
            let mut book = lock(&book);
            match (answer.status, group) {
                (202, KEPT) => {
                    let answer = answer.json();
                    book.kept.acked(KEPT, &id, "acknowledged", place(&answer["epoch"], &answer["offset"]));
                }
                (202, _) => book.plain.acked((writer as u64, number)),
                (503, _) => {
                    book.refused += 1;
                    book.slowest = book.slowest.max(began.elapsed());
                }
                (other, _) => panic!("{other}: {}", answer.text()),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `WRITER-NUMBER`.
fn knot(id: &str) -> Option<(u64, u64)> {
    let (writer, number) = id.split_once('-')?;
    Some((writer.parse().ok()?, number.parse().ok()?))
}

fn place(epoch: &Value, offset: &Value) -> Option<Place> {
    Some((epoch.as_str()?.to_owned(), offset.as_u64()?))
}

fn lock(book: &Shared) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
