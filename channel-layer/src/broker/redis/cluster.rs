//! Redis Cluster: finds its masters, and is linked to all of them or to none.
//!
//! A group's names are in one slot, and its topic is a sharded one: only the slot's master carries its messages. Whatever
//! happens to one of the links, or to the distribution of the slots, is the end of all of them: the masters are looked for
//! anew, and the layer finds out what was missed. While the cluster elects, nothing is taken.

use std::sync::Arc;

use futures_util::future::select_all;
use redis::{Client, Value};
use tokio::time::timeout;

use super::config::Server;
use super::fleet::{Fleet, Known, Slots};
use super::link::{Link, Live, Own};
use super::retry::Retry;
use super::shared::Shared;
use super::slot::{SLOTS, slot};
use super::up::{Spread, Up};
use crate::broker::BrokerEvent;

/// Where the masters are looked for.
pub(super) struct Cluster {
    /// Those of the configuration, asked in this order.
    pub(super) seeds: Vec<Server>,
}

/// A master, and the slots that it has: from the first to the last.
struct Master {
    host: String,
    port: u16,
    ranges: Vec<(usize, usize)>,
}

impl Cluster {
    /// Keeps the links for ever.
    pub(super) async fn keep(self, known: Known, shared: Arc<Shared>) {
        let mut retry = Retry::default();
        loop {
            match self.connect(&shared).await {
                Ok((fleet, lives)) => {
                    retry = Retry::default();
                    known.set(Ok(fleet));
                    shared.tell(BrokerEvent::Up).await;
                    let (why, _, rest) = select_all(lives.into_iter().map(|live| Box::pin(live.watch()))).await;
                    known.set(Err(why.clone()));
                    // With them end the connections.
                    drop(rest);
                    shared.tell(BrokerEvent::Down { why }).await;
                }
                Err(why) => {
                    tracing::debug!(why, "the cluster cannot be reached");
                    known.set(Err(why));
                }
            }
            retry.wait().await;
        }
    }

    async fn connect(&self, shared: &Shared) -> Result<(Fleet, Vec<Live>), String> {
        let (seed, masters) = self.masters(shared).await?;
        let slots = slots(&masters)?;
        let own_slot = usize::from(slots.0[slot(shared.node.as_str())]);
        let (mut links, mut lives) = (Vec::new(), Vec::new());
        for (at, master) in masters.into_iter().enumerate() {
            let spread = if at == own_slot { vec![shared.names.node(&shared.node)] } else { Vec::new() };
            // What is published to all arrives once, whichever server it was published to.
            let common = if at == 0 { vec![shared.names.mail(), shared.names.notes()] } else { Vec::new() };
            let link = Link::new(at, seed.beside(master.host, master.port)?, Own { spread, common });
            lives.push(link.connect(shared, Spread::Shard).await?);
            is_whole(&link.up().map_err(|error| error.to_string())?).await?;
            links.push(link);
        }
        Ok((Fleet::new(links, Some(slots)), lives))
    }

    /// The masters, and who has named them.
    async fn masters(&self, shared: &Shared) -> Result<(&Server, Vec<Master>), String> {
        let mut why = "no server of the cluster is named".to_owned();
        for seed in &self.seeds {
            let client = seed.find(shared.timeout).await?;
            match timeout(shared.timeout, ask(&client)).await {
                Ok(Ok(answer)) => {
                    let masters = read(&answer, client.get_connection_info().addr());
                    return masters
                        .map(|masters| (seed, masters))
                        .ok_or_else(|| "CLUSTER SLOTS has another form".to_owned());
                }
                Ok(Err(error)) => why = format!("a server of the cluster cannot be asked: {error}"),
                Err(_elapsed) => why = "a server of the cluster does not answer".to_owned(),
            }
        }
        Err(why)
    }
}

/// Whether a server sees enough of the others to serve: one that has come back needs a while.
async fn is_whole(up: &Up) -> Result<(), String> {
    let info: Result<String, _> = up.run(redis::cmd("CLUSTER").arg("INFO")).await;
    match info {
        Ok(info) if info.contains("cluster_state:ok") => Ok(()),
        Ok(_) => Err("a server of the cluster misses others; CLUSTER INFO says more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn ask(client: &Client) -> redis::RedisResult<Vec<Value>> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await
}

/// `[[first slot, last slot, [host, port, …], replicas…], …]`; without a host, it is that of who answers.
fn read(answer: &[Value], asked: &redis::ConnectionAddr) -> Option<Vec<Master>> {
    let mut masters: Vec<Master> = Vec::new();
    for range in answer {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { return None };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            _ => match asked {
                redis::ConnectionAddr::Tcp(host, _) | redis::ConnectionAddr::TcpTls { host, .. } => host.clone(),
                _ => return None,
            },
        };
        let (port, range) = (u16::try_from(*port).ok()?, (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?));
        match masters.iter_mut().find(|known| known.host == host && known.port == port) {
            Some(known) => known.ranges.push(range),
            None => masters.push(Master { host, port, ranges: vec![range] }),
        }
    }
    Some(masters)
}

fn slots(masters: &[Master]) -> Result<Slots, String> {
    let mut slots = vec![u16::MAX; SLOTS];
    for (at, master) in masters.iter().enumerate() {
        for (first, last) in &master.ranges {
            slots.iter_mut().take(last + 1).skip(*first).for_each(|slot| *slot = at as u16);
        }
    }
    match slots.iter().position(|at| *at == u16::MAX) {
        None => Ok(Slots(slots.into())),
        Some(slot) => Err(format!("no server of the cluster has slot {slot}; CLUSTER INFO says more")),
    }
}
