//! `Fleet`: the processes of a run. One, when the store is a directory; several, when they share a server.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::Plan;
use super::config::{Store, URL_VARIABLE};
use crate::cli::CliError;
use crate::cli::sandbox::{Folder, Life};
use crate::kill_point::{self, KillPoint};

/// How often is looked whether one has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Who lives, by place; an entry is empty while its process does not listen.
pub(super) type Living = Vec<Option<SocketAddr>>;

/// The processes. They are killed with their owner.
pub(super) struct Fleet<'a> {
    plan: &'a Plan,
    folder: &'a Folder,
    lives: Vec<Option<Life>>,
    living: watch::Sender<Living>,
}

impl<'a> Fleet<'a> {
    /// A fleet with nobody in it.
    pub(super) fn new(plan: &'a Plan, folder: &'a Folder) -> Self {
        let places = plan.processes as usize;
        let (living, _) = watch::channel(vec![None; places]);
        Self { plan, folder, lives: (0..places).map(|_| None).collect(), living }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.lives.len()
    }

    /// Follows who lives.
    pub(super) fn living(&self) -> watch::Receiver<Living> {
        self.living.subscribe()
    }

    /// Where the process at a place listens.
    pub(super) fn address(&self, place: usize) -> Option<SocketAddr> {
        self.living.borrow()[place]
    }

    /// The address of one that lives, not at a place if another lives.
    pub(super) fn other_than(&self, place: usize) -> Option<SocketAddr> {
        let living = self.living.borrow();
        let others = living.iter().enumerate().filter(|(at, _)| *at != place).find_map(|(_, address)| *address);
        others.or(living[place])
    }

    /// Starts a process at a place, and says when.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn start(&mut self, place: usize, point: Option<(KillPoint, u32)>) -> Result<Instant, CliError> {
        let mut settings = vec![("GROUPCAST_SERVER__NODE".to_owned(), format!("torture{place}"))];
        if let Some((point, nth)) = point {
            settings.push((kill_point::VARIABLE.to_owned(), format!("{point}:{nth}")));
        }
        if let Store::Postgres { url, .. } = &self.plan.store {
            settings.push((URL_VARIABLE.to_owned(), url.expose().to_owned()));
        }
        let life = Life::start(self.folder, &settings)?;
        let began = life.began();
        self.lives[place] = Some(life);
        Ok(began)
    }

    /// Waits until the process at a place listens; for ever, if it ends before. Once for each life.
    ///
    /// # Errors
    /// When it takes too long.
    pub(super) fn listening(&mut self, place: usize) -> impl Future<Output = Result<SocketAddr, CliError>> + use<> {
        let listening = self.lives[place].as_mut().map(Life::listening);
        let living = self.living.clone();
        async move {
            let Some(listening) = listening else { return std::future::pending().await };
            let address = listening.await?;
            living.send_modify(|living| living[place] = Some(address));
            Ok(address)
        }
    }

    /// Waits until one ends by itself: where, and how.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn first_ended(&mut self) -> (usize, ExitStatus) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let ended =
                self.lives.iter_mut().enumerate().find_map(|(at, life)| Some((at, life.as_mut()?.has_ended()?)));
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Nobody is sent to a place any more, although its process lives.
    pub(super) fn hide(&self, place: usize) {
        self.living.send_modify(|living| living[place] = None);
    }

    /// Ends the process at a place with no chance to do anything.
    pub(super) async fn kill(&mut self, place: usize) {
        if let Some(life) = self.lives[place].take() {
            life.kill().await;
        }
        self.hide(place);
    }

    /// Has the process at a place stand still, or go on.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn stand_still(&self, place: usize, still: bool) -> Result<(), CliError> {
        let life = self.lives[place].as_ref().ok_or_else(|| CliError::Failed("there is no process".to_owned()))?;
        life.stand_still(still).map_err(|error| CliError::Failed(format!("a gateway cannot be stopped: {error}")))
    }

    /// Shows a process again.
    pub(super) fn show(&self, place: usize, address: SocketAddr) {
        self.living.send_modify(|living| living[place] = Some(address));
    }

    /// Asks all to end, and waits: what went wrong.
    pub(super) async fn stop(mut self) -> Vec<String> {
        let mut faults = Vec::new();
        for life in self.lives.drain(..).flatten() {
            faults.extend(life.stop().await.err());
        }
        faults
    }
}
