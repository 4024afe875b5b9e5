//! A gateway whose WebSockets at `/echo` send back what they get: what test suites of the WebSocket protocol, such as
//! Autobahn's, are run against. The frames are read and written and the closes done by the code that serves `/ws`.
//!
//! ```text
//! cargo run --example websocket_echo -- 9001
//! ```

use std::net::SocketAddr;

use anyhow::Context;
use groupcast::Groupcast;
use groupcast::config::{Config, Size};

/// The largest messages of the Autobahn suite have 16 MiB.
const MESSAGE_BYTES: usize = 32 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("say on which port to listen: websocket_echo 9001")?;
    let port: u16 = port.parse().context("the port is no number from 0 to 65535")?;
    let mut config = Config::default();
    config.server.compression = true;
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], port));
    let limits = &mut config.limits;
    limits.message_bytes = Size(MESSAGE_BYTES);
    // Not used here, but never smaller than a message.
    (limits.publish_bytes, limits.log_bytes) = (Size(MESSAGE_BYTES), Size(MESSAGE_BYTES));
    let running = Groupcast::new(config).echo_at("/echo").start().await?;
    writeln(&format!("echoes at ws://{}/echo", running.address()))?;
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}

fn writeln(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
