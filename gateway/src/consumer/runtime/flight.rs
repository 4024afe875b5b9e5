//! `Flights`: executions under way that several identical jobs wait for.
//!
//! A job that asks for what is executed already is an asker of that flight: it needs no slot, and has its own lease,
//! attempt, record and events. A flight goes on as long as anybody asks for it, whoever began it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::consumer::cache::Freshness;
use crate::consumer::life::Life;
use crate::consumer::product::Product;
use crate::consumer::work::Failure;
use crate::jobs::Progress;

/// How a flight ended: with what all of its askers get.
pub(super) type Landed = Result<Arc<Product>, Failure>;

/// The flights of one consumer, by the key of their jobs. As many as have a slot.
#[derive(Clone, Default)]
pub(super) struct Flights {
    by_key: Arc<Mutex<HashMap<String, Arc<Flight>>>>,
}

/// One execution.
struct Flight {
    key: String,
    /// Of its query, if it is one.
    freshness: Option<Freshness>,
    /// Changed under the lock of the map alone: at 0 it is stopped, and is not joined any more.
    askers: AtomicUsize,
    landed: watch::Sender<Option<Landed>>,
    progress: watch::Sender<Option<Progress>>,
    /// Cancelled when the last asker has gone.
    stop: CancellationToken,
    /// Whether its work moves.
    life: Arc<Life>,
    is_lost: AtomicBool,
}

/// Somebody who waits for a flight. Dropped, he has gone.
pub(super) struct Asker {
    flights: Flights,
    flight: Arc<Flight>,
}

/// The one who executes a flight. Dropped without a landing, as by a panic of ours, its askers fail.
pub(super) struct Pilot {
    flights: Flights,
    flight: Arc<Flight>,
}

impl Flights {
    /// The keys of what is in flight, each with an asker: until these are dropped no flight of them is stopped, and what
    /// has landed meanwhile can still be told.
    pub(super) fn hold_all(&self) -> Vec<Asker> {
        let by_key = self.by_key.lock();
        by_key.values().filter(|flight| flight.is_fresh()).map(|flight| self.asker_of(flight)).collect()
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.lock().is_empty()
    }

    /// Joins the flight of a key, if there is one that began after its query was last invalidated.
    pub(super) fn join(&self, key: &str) -> Option<Asker> {
        let by_key = self.by_key.lock();
        by_key.get(key).filter(|flight| flight.is_fresh()).map(|flight| self.asker_of(flight))
    }

    /// Begins a flight, whose first asker is the one who began it.
    pub(super) fn begin(&self, key: &str, freshness: Option<Freshness>) -> (Pilot, Asker) {
        let flight = Arc::new(Flight {
            key: key.to_owned(),
            freshness,
            askers: AtomicUsize::new(1),
            landed: watch::Sender::new(None),
            progress: watch::Sender::new(None),
            stop: CancellationToken::new(),
            life: Arc::default(),
            is_lost: AtomicBool::new(false),
        });
        // One whose query was invalidated goes on for those who have it.
        self.by_key.lock().insert(key.to_owned(), Arc::clone(&flight));
        let pilot = Pilot { flights: self.clone(), flight: Arc::clone(&flight) };
        (pilot, Asker { flights: self.clone(), flight })
    }

    /// Under the lock of the map.
    fn asker_of(&self, flight: &Arc<Flight>) -> Asker {
        flight.askers.fetch_add(1, Ordering::Relaxed);
        Asker { flights: self.clone(), flight: Arc::clone(flight) }
    }

    /// Takes a flight out of the map, unless another one has its place.
    fn remove(by_key: &mut HashMap<String, Arc<Flight>>, flight: &Arc<Flight>) {
        if by_key.get(&flight.key).is_some_and(|found| Arc::ptr_eq(found, flight)) {
            by_key.remove(&flight.key);
        }
    }
}

impl Flight {
    /// Whether it may serve who asks from here on: its query was not invalidated since it began.
    fn is_fresh(&self) -> bool {
        self.freshness.as_ref().is_none_or(Freshness::is_fresh)
    }
}

impl Asker {
    /// Whether the flight may serve who asks from here on.
    pub(super) fn is_fresh(&self) -> bool {
        self.flight.is_fresh()
    }

    /// The key of the flight.
    pub(super) fn key(&self) -> &str {
        &self.flight.key
    }

    /// Whether its work moves.
    pub(super) fn life(&self) -> Arc<Life> {
        Arc::clone(&self.flight.life)
    }

    /// Says that its work hangs: nobody joins it any more.
    pub(super) fn lose(&self) {
        Flights::remove(&mut self.flights.by_key.lock(), &self.flight);
        self.flight.is_lost.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub(super) fn is_lost(&self) -> bool {
        self.flight.is_lost.load(Ordering::Relaxed)
    }

    /// Another one for the same flight.
    pub(super) fn another(&self) -> Self {
        let _by_key = self.flights.by_key.lock();
        self.flights.asker_of(&self.flight)
    }

    /// What comes of the flight.
    ///
    /// # Cancel safety
    /// Nothing is lost; the asker goes only when he is dropped himself.
    pub(super) async fn landed(&self) -> Landed {
        let mut landed = self.flight.landed.subscribe();
        let found = landed.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
        // The sender lives in the flight that `self` holds.
        found.unwrap_or_else(|| Err(lost()))
    }

    /// How far it is.
    pub(super) fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.flight.progress.subscribe()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut by_key = self.flights.by_key.lock();
        if self.flight.askers.fetch_sub(1, Ordering::Relaxed) == 1 {
            Flights::remove(&mut by_key, &self.flight);
            self.flight.stop.cancel();
        }
    }
}

impl Pilot {
    /// Cancelled when nobody asks any more.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.flight.stop
    }

    /// Whether its work moves.
    pub(super) fn life(&self) -> &Arc<Life> {
        &self.flight.life
    }

    /// Whether it was stopped because its work hangs.
    pub(super) fn is_lost(&self) -> bool {
        self.flight.is_lost.load(Ordering::Relaxed)
    }

    /// Where to say how far it is.
    pub(super) fn progress(&self) -> watch::Sender<Option<Progress>> {
        self.flight.progress.clone()
    }

    /// Gives all askers what came of it. Who asks from here on begins another one.
    pub(super) fn land(self, landed: Landed) {
        self.end(landed);
    }

    fn end(&self, landed: Landed) {
        Flights::remove(&mut self.flights.by_key.lock(), &self.flight);
        self.flight.landed.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(landed);
            }
            is_first
        });
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.end(Err(lost()));
    }
}

fn lost() -> Failure {
    Failure::transient("interrupted", "the execution that it shared with others was stopped; it is tried again")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn failure() -> Failure {
        Failure::permanent("x", "y")
    }

    #[test]
    fn everybody_gets_what_landed_and_who_comes_later_begins_anew() {
        let flights = Flights::default();
        let (pilot, first) = flights.begin("a", None);
        let second = flights.join("a").expect("in flight");
        let third = second.another();
        assert!(first.landed().now_or_never().is_none() && flights.join("b").is_none());
        pilot.land(Err(failure()));
        for asker in [&first, &second, &third] {
            assert_eq!(asker.landed().now_or_never().and_then(Result::err), Some(failure()));
        }
        assert!(flights.join("a").is_none() && flights.is_empty());
    }

    #[test]
    fn the_last_who_goes_stops_it() {
        let flights = Flights::default();
        let (pilot, first) = flights.begin("a", None);
        let second = flights.join("a").expect("in flight");
        let held = flights.hold_all();
        drop(first);
        drop(second);
        assert!(!pilot.stop().is_cancelled(), "one is held");
        assert_eq!(held[0].key(), "a");
        drop(held);
        assert!(pilot.stop().is_cancelled());
        assert!(flights.join("a").is_none(), "what is stopped is not joined");
    }

    #[test]
    fn what_hangs_is_not_joined_and_ends_with_its_last_asker() {
        let flights = Flights::default();
        let (pilot, first) = flights.begin("a", None);
        let second = flights.join("a").expect("in flight");
        first.lose();
        drop(first);
        assert!(flights.join("a").is_none());
        let (_next, _asker) = flights.begin("a", None);
        assert!(pilot.is_lost() && !pilot.stop().is_cancelled());
        drop(second);
        assert!(pilot.stop().is_cancelled() && flights.join("a").is_some());
    }

    #[test]
    fn what_is_held_is_told_although_it_landed() {
        let flights = Flights::default();
        let (pilot, first) = flights.begin("a", None);
        let held = flights.hold_all();
        pilot.land(Err(failure()));
        drop(first);
        let (_next, _asker) = flights.begin("a", None);
        let late = held[0].another();
        drop(held);
        assert_eq!(late.landed().now_or_never().and_then(Result::err), Some(failure()));
        assert_eq!(flights.join("a").map(|other| other.landed().now_or_never().is_none()), Some(true));
    }

    #[test]
    fn a_pilot_who_is_gone_leaves_nobody_waiting() {
        let flights = Flights::default();
        let (pilot, asker) = flights.begin("a", None);
        drop(pilot);
        assert_eq!(asker.landed().now_or_never().and_then(Result::err), Some(lost()));
    }
}
