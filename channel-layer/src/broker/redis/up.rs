//! A link that is there: what can be asked of one server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, RedisResult, ServerErrorKind};
use tokio::time::timeout;

use super::arrivals::Broken;
use super::failure;
use super::publisher::Publisher;
use crate::broker::{BrokerError, Level};

/// A link that is there. A cheap handle.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) commands: MultiplexedConnection,
    pub(super) pushes: MultiplexedConnection,
    pub(super) run_id: Arc<str>,
    pub(super) level: Level,
    pub(super) broken: Arc<Broken>,
    pub(super) spread: Spread,
    /// Whether the server tells when something has come for the dialect.
    pub(super) tracks: bool,
    pub(super) timeout: Duration,
    /// Takes publications.
    pub(super) publisher: Publisher,
}

/// How far a topic reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// All of a server.
    Everywhere,
    /// The server of a cluster that has the topic's slot; the others are spared.
    Shard,
}

impl Spread {
    /// The command that publishes.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Everywhere => "PUBLISH",
            Self::Shard => "SPUBLISH",
        }
    }
}

impl Up {
    /// Runs a command.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(command.query_async(&mut connection)).await
    }

    /// As [`Up::run`], by the connection that is pushed to: what was pushed before the answer has been taken.
    pub(super) async fn ask_pushed<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BrokerError> {
        let mut connection = self.pushes.clone();
        self.in_time(command.query_async(&mut connection)).await
    }

    /// Runs a script; loads it first when the server does not have it.
    pub(super) async fn invoke<T: FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(call.invoke_async(&mut connection)).await
    }

    /// As [`Up::invoke`], for a call that is made already.
    pub(super) async fn run_script<T: FromRedisValue>(
        &self,
        call: &redis::Cmd,
        script: &redis::Script,
    ) -> Result<T, BrokerError> {
        let mut connection = self.commands.clone();
        let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
        self.in_time(async {
            match call.query_async(&mut connection).await {
                Err(error) if error.kind() == unknown => {
                    script.prepare_invoke().load_async(&mut connection).await?;
                    call.query_async(&mut connection).await
                }
                answer => answer,
            }
        })
        .await
    }

    /// Runs commands at once; each has its own answer.
    pub(super) async fn run_all(&self, commands: &redis::Pipeline) -> Result<Vec<redis::Value>, BrokerError> {
        let mut connection = self.commands.clone();
        self.in_time(commands.query_async(&mut connection)).await
    }

    /// Publishes to a topic that is spread as groups are; says to how many nodes.
    pub(super) async fn publish(&self, topic: &str, payload: &[u8]) -> Result<usize, BrokerError> {
        self.publish_by(self.spread.verb(), topic, payload).await
    }

    /// Publishes to a topic that is the same on all servers of a cluster.
    pub(super) async fn publish_common(&self, topic: &str, payload: &[u8]) -> Result<(), BrokerError> {
        self.publish_by(Spread::Everywhere.verb(), topic, payload).await.map(drop)
    }

    pub(super) async fn subscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        match self.spread {
            Spread::Everywhere => self.subscribe_common(topics).await,
            Spread::Shard => self.each("SSUBSCRIBE", topics).await,
        }
    }

    pub(super) async fn subscribe_common(&self, topics: &[String]) -> Result<(), BrokerError> {
        if topics.is_empty() {
            return Ok(());
        }
        let mut connection = self.pushes.clone();
        self.in_time(connection.subscribe(topics)).await
    }

    pub(super) async fn subscribe_patterns(&self, patterns: &[String]) -> Result<(), BrokerError> {
        if patterns.is_empty() {
            return Ok(());
        }
        let mut connection = self.pushes.clone();
        self.in_time(connection.psubscribe(patterns)).await
    }

    pub(super) async fn unsubscribe(&self, topics: &[String]) -> Result<(), BrokerError> {
        self.broken.expect_ends(topics.len());
        match self.spread {
            Spread::Everywhere => {
                let mut connection = self.pushes.clone();
                self.in_time(connection.unsubscribe(topics)).await
            }
            Spread::Shard => self.each("SUNSUBSCRIBE", topics).await,
        }
    }

    /// One command for each topic: those of one command have to be in one slot.
    async fn each(&self, verb: &str, topics: &[String]) -> Result<(), BrokerError> {
        if topics.is_empty() {
            return Ok(());
        }
        let mut commands = redis::pipe();
        for topic in topics {
            commands.cmd(verb).arg(topic);
        }
        let mut connection = self.pushes.clone();
        self.in_time(commands.query_async::<Vec<redis::Value>>(&mut connection)).await.map(drop)
    }

    async fn publish_by(&self, verb: &str, topic: &str, payload: &[u8]) -> Result<usize, BrokerError> {
        self.run(redis::cmd(verb).arg(topic).arg(payload)).await
    }

    /// Asks to be told when keys change that begin with one of these; says whether that was granted.
    pub(super) async fn track(&self, prefixes: &[String]) -> bool {
        if prefixes.is_empty() {
            return false;
        }
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in prefixes {
            command.arg("PREFIX").arg(prefix);
        }
        let mut connection = self.pushes.clone();
        let granted: Result<redis::Value, BrokerError> = self.in_time(command.query_async(&mut connection)).await;
        if let Err(error) = &granted {
            tracing::warn!(%error, "Redis does not tell what has come, so it is asked all the time; grant CLIENT TRACKING");
        }
        granted.is_ok()
    }

    /// Bounds all that a call does, and says what its answer means for the caller and for the link.
    async fn in_time<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, BrokerError> {
        let Ok(answer) = timeout(self.timeout, call).await else {
            return Err(BrokerError::TimedOut { after: self.timeout });
        };
        answer.map_err(|error| {
            let misplaced = [ServerErrorKind::ReadOnly, ServerErrorKind::Moved].map(ErrorKind::Server);
            if misplaced.contains(&error.kind()) {
                self.broken.note("the server is not the one to ask any more");
            }
            failure(&error)
        })
    }
}
