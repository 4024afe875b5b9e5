//! `Pool`: a fixed number of OS threads, each with a state of its own, behind a bounded queue.
//!
//! For work that blocks or computes: SQLite, reports. What the work is, is not decided here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Threads that take work from one queue.
///
/// `waiting_max` pieces of work may wait beside those that run. At the bound [`Pool::run`] waits for room, so its caller
/// needs a deadline, and [`Pool::try_run`] refuses.
pub(crate) struct Pool<S> {
    shared: Arc<Shared<S>>,
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    /// As much waits as may wait.
    #[error("the threads have more work waiting than they take")]
    Full,
    /// The work panicked; its thread lives on with a fresh state.
    #[error("the work panicked")]
    Panicked,
    /// The pool was closed.
    #[error("the threads are stopped")]
    Closed,
}

struct Work<S> {
    act: Box<dyn FnOnce(&mut S) + Send>,
    piece: Piece,
}

/// One piece of work, by which it can be given up. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece(Arc<AtomicU8>);

impl Piece {
    const GIVEN_UP: u8 = 1;
    const ENDED: u8 = 2;

    /// Whether both are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it was the first to say so.
    fn becomes(&self, state: u8) -> bool {
        self.0.compare_exchange(0, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::GIVEN_UP
    }
}

/// A place in the pool. The one of work that was given up has gone to the thread in its place.
struct Room {
    permit: Option<OwnedSemaphorePermit>,
    piece: Piece,
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && !self.piece.becomes(Piece::ENDED)
        {
            permit.forget();
        }
    }
}

struct Shared<S> {
    queue: Mutex<Queue<S>>,
    available: Condvar,
    make: Box<dyn Fn() -> S + Send + Sync>,
    busy: AtomicUsize,
    panics: AtomicU64,
}

struct Queue<S> {
    waiting: VecDeque<Work<S>>,
    closed: bool,
}

impl<S: 'static> Pool<S> {
    /// Starts the threads. `make` is called on each, and again after a panic.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        name: &str,
        threads: usize,
        waiting_max: usize,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), closed: false }),
            available: Condvar::new(),
            make: Box::new(make),
            busy: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
        });
        let room = Arc::new(Semaphore::new(threads + waiting_max));
        let pool = Self { shared, room, threads: Mutex::new(Vec::new()) };
        for at in 0..threads {
            pool.spawn(&format!("{name}-{at}"))?;
        }
        Ok(pool)
    }

    /// Does work on one of the threads. Waits while the queue is full.
    ///
    /// # Cancel safety
    /// Dropped before it has room, nothing happens. Dropped later, the work is skipped if it has not begun, and else
    /// runs to its end: long work has to look at a flag.
    ///
    /// # Errors
    /// [`PoolError::Panicked`], [`PoolError::Closed`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        self.run_piece(Piece::default(), work).await
    }

    /// As [`Pool::run`], with a handle by which the work can be given up.
    pub(crate) async fn run_piece<T: Send + 'static>(
        &self,
        piece: Piece,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| PoolError::Closed)?;
        self.give(room, piece, work)?.await.unwrap_or(Err(PoolError::Panicked))
    }

    /// Does work on one of the threads, if there is room for it at once.
    ///
    /// # Errors
    /// As [`Pool::run`], and [`PoolError::Full`].
    pub(crate) async fn try_run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| PoolError::Full)?;
        self.give(room, Piece::default(), work)?.await.unwrap_or(Err(PoolError::Panicked))
    }

    /// How many threads are at work, and how many pieces of work wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.shared.busy.load(Ordering::Relaxed), self.shared.queue.lock().waiting.len())
    }

    /// Starts a thread in place of the one that does not come back from a piece of work; that one ends when it does. Answers
    /// whether there was anything to give up.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn give_up(&self, piece: &Piece, name: &str) -> std::io::Result<bool> {
        if !piece.becomes(Piece::GIVEN_UP) {
            return Ok(false);
        }
        self.spawn(name)?;
        self.room.add_permits(1);
        Ok(true)
    }

    /// Takes no more work; the threads end after what waits.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.available.notify_all();
    }

    /// Waits until the threads have ended. Blocks: for use after [`Pool::close`], outside of the runtime.
    pub(crate) fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread catches the panics of its work, so it has nothing to tell.
            let _ = thread.join();
        }
    }

    fn spawn(&self, name: &str) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || shared.work())?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn give<T: Send + 'static>(
        &self,
        room: OwnedSemaphorePermit,
        piece: Piece,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, PoolError>>, PoolError> {
        let (reply, answer) = oneshot::channel();
        let room = Room { permit: Some(room), piece: piece.clone() };
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Err(PoolError::Closed);
        }
        let act = move |state: &mut S| {
            let room = room;
            if !reply.is_closed() {
                let value = work(state);
                drop(room);
                // The one who asked may have left meanwhile.
                let _ = reply.send(Ok(value));
            }
        };
        queue.waiting.push_back(Work { act: Box::new(act), piece });
        drop(queue);
        self.shared.available.notify_one();
        Ok(answer)
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.available.notify_all();
    }
}

impl<S> Shared<S> {
    fn work(&self) {
        let mut state = (self.make)();
        while let Some(work) = self.next() {
            self.busy.fetch_add(1, Ordering::Relaxed);
            let outcome = catch_unwind(AssertUnwindSafe(|| (work.act)(&mut state)));
            self.busy.fetch_sub(1, Ordering::Relaxed);
            if outcome.is_err() {
                self.panics.fetch_add(1, Ordering::Relaxed);
                state = (self.make)();
            }
            if work.piece.is_given_up() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Work<S>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            if queue.closed {
                return None;
            }
            self.available.wait(&mut queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_and_a_panic_fails_only_its_own() {
        let pool = Pool::start("test", 1, 4, || 0_u32).expect("threads");
        assert_eq!(pool.run(|n| std::mem::replace(n, 5)).await, Ok(0));
        assert_eq!(pool.run(|_| panic!("on purpose")).await.map(|(): ()| ()), Err(PoolError::Panicked));
        assert_eq!(pool.run(|n| *n).await, Ok(0), "the state is fresh after a panic");
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::start("test", 1, 1, || ()).expect("threads");
        let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let first = pool.try_run(move |()| gate.recv());
        let second = pool.try_run(|()| ());
        tokio::pin!(first, second);
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(pool.try_run(|()| ()).await, Err(PoolError::Full));
        go.send(()).expect("the work waits");
        assert!(first.await.is_ok() && second.await.is_ok());
    }

    #[tokio::test]
    async fn the_thread_in_place_of_one_that_was_given_up_stays() {
        let pool = Pool::start("test", 1, 1, || ()).expect("threads");
        let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let piece = Piece::default();
        let mut stuck = Box::pin(pool.run_piece(piece.clone(), move |()| gate.recv()));
        assert!(futures_util::poll!(&mut stuck).is_pending());
        while pool.load() != (1, 0) {
            tokio::task::yield_now().await;
        }
        assert!(pool.give_up(&piece, "spare").expect("a thread"));
        assert!(!pool.give_up(&piece, "spare").expect("given up already"));
        for n in 0..3 {
            assert_eq!(pool.run(move |()| n).await, Ok(n), "on the one thread in its place");
        }
        go.send(()).expect("the work waits");
        assert!(stuck.await.is_ok());
        assert_eq!(pool.run(|()| 3).await, Ok(3), "one of the two has ended");
        assert_eq!(pool.room.available_permits(), 2, "a thread and a place to wait");
        let ended = Piece::default();
        assert_eq!(pool.run_piece(ended.clone(), |()| 4).await, Ok(4));
        assert!(!pool.give_up(&ended, "spare").expect("it has ended"));
    }

    #[tokio::test]
    async fn work_whose_asker_left_is_skipped() {
        let pool = Pool::start("test", 1, 4, || 0_u32).expect("threads");
        let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let mut first = Box::pin(pool.run(move |_| gate.recv()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(pool.run(|n| *n = 9));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        go.send(()).expect("the work waits");
        assert!(first.await.is_ok());
        assert_eq!(pool.run(|n| *n).await, Ok(0));
    }
}
