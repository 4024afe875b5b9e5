//! The answers of HTTP/2, each with a deadline of its own: a client that opens no window for a stream stalls it without
//! stalling the socket, and the socket's deadlines do not see that.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::task_local;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;

/// What is given to h2 at once. It keeps what the window has no room for.
const PIECE_BYTES: usize = 16 << 10;

task_local! {
    /// That of the stream whose task runs.
    static PACE: Rc<Pace>;
}

/// Since when a piece of a stream's answer has waited for its client.
#[derive(Debug, Default)]
struct Pace(Cell<Option<Instant>>);

/// Runs the streams of a connection beside it, on the shard's thread, and drops one whose client takes nothing of its
/// answer for too long; h2 then resets it.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) tasks: TaskTracker,
    pub(super) at_most: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn_local(in_time(future, self.at_most));
    }
}

async fn in_time(future: impl Future, at_most: Duration) {
    let pace = Rc::new(Pace::default());
    let mut future = pin!(future);
    let mut alarm: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if PACE.sync_scope(pace.clone(), || future.as_mut().poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        // Only the future itself changes it, so this is looked at whenever there is something to see.
        let Some(since) = pace.0.get() else {
            alarm = None;
            return Poll::Pending;
        };
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(since + at_most)));
        if alarm.deadline() != since + at_most {
            alarm.as_mut().reset(since + at_most);
        }
        alarm.as_mut().poll(cx)
    })
    .await;
}

/// The body of an answer, in pieces that a window has room for.
pub(super) struct Paced<B> {
    body: B,
    rest: Bytes,
    /// None outside of a stream's task.
    pace: Option<Rc<Pace>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, rest: Bytes::new(), pace: PACE.try_with(Rc::clone).ok() }
    }

    fn waits(&self, since: Option<Instant>) {
        if let Some(pace) = &self.pace {
            pace.0.set(since);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    /// Asked for more, the client has taken something of what it had.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.waits(None);
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        self.waits(Some(Instant::now()));
        let piece = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
