//! The readers: threads with a share of the connections each, which enter all that comes into ledgers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::clock::{Clock, nanos};
use super::connect::{Door, Reader};
use super::frames::{self, Frames};
use super::window::Window;
use crate::cli::CliError;

mod book;

pub(super) use book::{Book, Connection};

/// Handshakes that are under way at once, of all threads.
const OPENING_MAX: usize = 64;
/// One read takes as much as this; shared by all connections of a thread.
const READ_BYTES: usize = 256 << 10;
/// How long the gateway may not take a pong.
const PONG_DEADLINE: Duration = Duration::from_secs(10);

/// What readers, publishers and whoever watches them share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) window: Window,
    pub(super) opened: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Deliveries of messages that are measured.
    pub(super) deliveries: AtomicU64,
    /// A connection was opened or failed.
    pub(super) changed: Notify,
    /// Readers have to end.
    pub(super) end: CancellationToken,
}

impl Shared {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            clock: Clock::start(),
            window: Window::new(groups),
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            changed: Notify::new(),
            end: CancellationToken::new(),
        }
    }
}

/// The threads of the readers.
#[derive(Debug)]
pub(super) struct Readers(Vec<JoinHandle<Book>>);

impl Readers {
    /// Starts opening all connections.
    pub(super) fn start(plan: &Plan, door: &Door, shared: &Arc<Shared>) -> Result<Self, CliError> {
        // The other half of the machine is for the gateway, if it runs here, and for the publishers.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).clamp(1, (plan.connections as usize).max(1));
        let start = |thread: usize| {
            let (plan, door, shared) = (plan.clone(), door.clone(), shared.clone());
            let mine: Vec<u32> = (0..plan.connections).skip(thread).step_by(threads).collect();
            let permits = OPENING_MAX.div_ceil(threads);
            thread::Builder::new()
                .name(format!("reader-{thread}"))
                .spawn(move || read(&plan, door, shared, &mine, permits))
        };
        let started: Result<Vec<_>, _> = (0..threads).map(start).collect();
        started.map(Self).map_err(|e| CliError::Failed(format!("no thread can be started: {e}")))
    }

    /// Ends the reading: what each thread has seen.
    pub(super) fn finish(self, shared: &Shared) -> Vec<Book> {
        shared.end.cancel();
        self.0.into_iter().map(|thread| thread.join().expect("a reader's panic ends the process")).collect()
    }
}

/// One thread, until the end of the run.
fn read(plan: &Plan, door: Door, shared: Arc<Shared>, mine: &[u32], permits: usize) -> Book {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("what the main thread's runtime got is there for another one");
    let end = shared.end.clone();
    let thread = Rc::new(Thread {
        book: RefCell::new(Book::new(shared)),
        scratch: RefCell::new(vec![0; READ_BYTES].into()),
        opening: Semaphore::new(permits),
        door,
    });
    let tasks = LocalSet::new();
    for connection in mine {
        let group = plan.group_of(*connection);
        // Ends with its connection, or is dropped with the set.
        tasks.spawn_local(thread.clone().follow(group, plan.groups[group as usize].to_string()));
    }
    runtime.block_on(tasks.run_until(end.cancelled()));
    drop(tasks);
    Rc::into_inner(thread).expect("the tasks are gone").book.into_inner()
}

/// What the connections of one thread share.
struct Thread {
    book: RefCell<Book>,
    scratch: RefCell<Box<[u8]>>,
    opening: Semaphore,
    door: Door,
}

impl Thread {
    /// One connection, from its opening on.
    async fn follow(self: Rc<Self>, group: u32, name: String) {
        let permit = self.opening.acquire().await.expect("the semaphore is never closed");
        let began = Instant::now();
        let opened = self.door.reader(&name).await;
        drop(permit);
        let Reader { mut stream, mut frames } = match opened {
            Ok(reader) => reader,
            Err(why) => return self.book.borrow_mut().not_opened(why),
        };
        let connection = self.book.borrow_mut().opened(group, nanos(began.elapsed()));
        let why = loop {
            let pongs = match poll_fn(|cx| self.poll_frames(cx, connection, &mut stream, &mut frames)).await {
                Ok(pongs) => pongs,
                Err(why) => break why,
            };
            for pong in pongs {
                if !matches!(timeout(PONG_DEADLINE, stream.write_all(&pong)).await, Ok(Ok(()))) {
                    break;
                }
            }
        };
        self.book.borrow_mut().closed(connection, why);
    }

    /// Reads once and enters what came, before another connection uses the buffer. Gives back pongs to be sent.
    fn poll_frames(
        &self,
        cx: &mut std::task::Context<'_>,
        connection: Connection,
        stream: &mut TcpStream,
        frames: &mut Frames,
    ) -> Poll<Result<Vec<Vec<u8>>, String>> {
        let mut scratch = self.scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut read)).map_err(|e| format!("broke the connection: {e}"))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err("closed the connection without a word".to_owned()));
        }
        let mut book = self.book.borrow_mut();
        let mut turn = book.turn(connection, read.filled().len());
        let (mut pongs, mut closed) = (Vec::new(), None);
        let walked = frames.feed(read.filled(), |frame| match frame {
            frames::Frame::Text(text) => turn.take(text),
            frames::Frame::Ping(payload) => pongs.push(frames::pong(payload)),
            frames::Frame::Pong => {}
            frames::Frame::Close(payload) => {
                closed.get_or_insert_with(|| format!("closed the connection: {}", frames::close_reason(payload)));
            }
        });
        turn.end();
        match closed {
            Some(why) => Poll::Ready(Err(why)),
            None => Poll::Ready(walked.map(|()| pongs)),
        }
    }
}
