//! Redis on several servers: [`Replicated`] (a master, a replica and three sentinels) and [`Cluster`] (three masters that
//! share the slots).

use crate::daemon::{free_port, until};
use crate::redis::Redis;

/// The name under which the sentinels know the master.
const NAME: &str = "groupcast";

/// A master, its replica, and three sentinels of whom two have to agree.
#[derive(Debug)]
pub struct Replicated {
    /// Who is master at first.
    pub master: Redis,
    /// Who becomes it.
    pub replica: Redis,
    /// Who decides.
    pub sentinels: [Redis; 3],
}

impl Replicated {
    /// Starts all five; the sentinels know each other and the replica when this returns.
    pub fn start() -> Self {
        let master = Redis::start(&[]);
        let replica = master.replica();
        let sentinels = [master.sentinel(NAME), master.sentinel(NAME), master.sentinel(NAME)];
        for sentinel in &sentinels {
            sentinel.eventually(&["SENTINEL", "REPLICAS", NAME], &replica.port().to_string());
            sentinel.eventually(&["INFO", "sentinel"], "sentinels=3");
        }
        Self { master, replica, sentinels }
    }

    /// The name under which the sentinels know the master.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// Where the sentinels are.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::address).collect()
    }

    /// The port of whom the sentinels hold for the master.
    pub fn master_port(&self) -> u16 {
        let asked = self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        asked.list()[1].text().parse().expect("a port")
    }
}

/// Three masters that share the slots.
#[derive(Debug)]
pub struct Cluster {
    /// The masters, in the order of their slots.
    pub nodes: [Redis; 3],
}

impl Cluster {
    /// Starts the cluster; every node answers for all slots when this returns.
    pub fn start() -> Self {
        let buses = [free_port(), free_port(), free_port()];
        let nodes = buses.map(|bus| {
            let bus = bus.to_string();
            Redis::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus])
        });
        for (n, node) in nodes.iter().enumerate() {
            let (first, last) = (16_384 * n / 3, 16_384 * (n + 1) / 3 - 1);
            let slots = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            assert_eq!(slots, "OK");
            let (port, bus) = (node.port().to_string(), buses[n].to_string());
            assert_eq!(nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
        for node in &nodes {
            node.eventually(&["CLUSTER", "INFO"], "cluster_state:ok");
            node.eventually(&["CLUSTER", "INFO"], "cluster_known_nodes:3");
            node.eventually(&["CLUSTER", "INFO"], "cluster_slots_ok:16384");
        }
        Self { nodes }
    }

    /// Where the nodes are.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// The node that answers for a key.
    pub fn node_of(&self, key: &str) -> &Redis {
        let slot = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).number() as usize;
        (0..3).find(|n| slot < 16_384 * (n + 1) / 3).map(|n| &self.nodes[n]).expect("the nodes share all slots")
    }

    /// Waits until the others hold a node that is gone for failed.
    pub fn await_failed(&self, alive: &Redis) {
        until("a node is noticed to be gone", || alive.command(&["CLUSTER", "INFO"]).contains("cluster_state:fail"));
    }
}
