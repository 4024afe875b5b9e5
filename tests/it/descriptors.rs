//! More connections than the process may open files: who is in stays in, nothing spins, and the next one is let in soon.

use std::time::{Duration, Instant};

use groupcast_tests::home::BARE;
use groupcast_tests::raw::handshake_head;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Raw};
use tokio::time::{sleep, timeout};

/// Of the gateway, hard.
const FILES: u32 = 128;
/// More than that.
const CLIENTS: usize = 200;
const TEXT: u8 = 0x81;

#[tokio::test]
async fn running_out_of_files_costs_nobody_a_connection_and_the_next_one_is_let_in_within_a_second() {
    let gateway = Gateway::start_with_files(BARE, FILES).await;
    let (mut served, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let mut raw = asked(&gateway).await;
        match timeout(Duration::from_millis(300), raw.reply()).await {
            Ok(reply) if reply.status == 101 => served.push(raw),
            // In the kernel's queue: nobody has accepted it.
            Err(_) => waiting.push(raw),
            // Told, and no file is used for it.
            Ok(reply) => reply.problem(503, "overloaded"),
        }
        // Some that wait are enough, each costs a time-out.
        if waiting.len() == 10 {
            break;
        }
    }
    eprintln!("{} are served, {} wait, {} files are open", served.len(), waiting.len(), gateway.usage().open_files);
    assert!((30..FILES as usize).contains(&served.len()), "{} are served", served.len());
    all_live(&mut served).await;

    // What the gateway does with nothing to do is what is measured.
    let before = gateway.usage().cpu;
    sleep(Duration::from_secs(2)).await;
    let idle = gateway.usage().cpu - before;
    assert!(idle < Duration::from_millis(400), "{idle:?} of CPU in 2 s without work");

    let left = Instant::now();
    drop(served.split_off(served.len() - 5));
    let let_in = async {
        match waiting.first_mut() {
            Some(first) => {
                assert_eq!(first.reply().await.status, 101, "the first that waits is the first to be let in")
            }
            None => while asked(&gateway).await.reply().await.status != 101 {},
        }
    };
    within_time(Duration::from_secs(1), "somebody is let in after others have gone", let_in).await;
    eprintln!("let in after {:?}", left.elapsed());
    all_live(&mut served).await;
    drop(waiting);
    let printed = gateway.printed();
    let complaints = printed.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!(complaints < 20, "the log is not flooded: {complaints} lines\n{printed}");
}

/// A client that has asked for a WebSocket.
async fn asked(gateway: &Gateway) -> Raw {
    let mut raw = Raw::connect(gateway.address()).await;
    raw.write(handshake_head(gateway.address(), &[]).as_bytes()).await;
    raw
}

/// Each answers a ping of the protocol.
async fn all_live(sockets: &mut [Raw]) {
    for socket in sockets {
        socket.send_frame(TEXT, true, br#"{"type":"ping"}"#).await;
        loop {
            let (opcode, payload) = socket.frame().await.expect("it is open");
            assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&payload));
            if payload == br#"{"type":"pong"}"# {
                break;
            }
        }
    }
}
