//! What a server says of its disk, by its monitoring port: nothing else tells it to who is no administrator.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any server writes.
const ANSWER_MAX: u64 = 1 << 20;

/// Whether the server of this id, asked at `HOST:PORT`, waits for the disk before it acknowledges.
pub(super) async fn syncs_always(address: &str, server_id: &str) -> Result<bool, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    told(&answer, server_id)
}

pub(super) fn told(answer: &[u8], server_id: &str) -> Result<bool, String> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("it is no HTTP")?;
    if !answer.starts_with(b"HTTP/1.") || answer.get(8..13) != Some(b" 200 ") {
        return Err("it does not answer with 200".to_owned());
    }
    let told: Value = serde_json::from_slice(&answer[end + 4..]).map_err(|error| error.to_string())?;
    if told["server_id"] != server_id {
        return Err("it is that of another server".to_owned());
    }
    Ok(told["jetstream"]["config"]["sync_always"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_itself_proves_it() {
        let answer = |body: &str| format!("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{body}").into_bytes();
        let always = answer(r#"{"server_id":"N1","jetstream":{"config":{"sync_always":true}}}"#);
        assert_eq!(told(&always, "N1"), Ok(true));
        assert!(told(&always, "N2").is_err());
        assert_eq!(told(&answer(r#"{"server_id":"N1","jetstream":{}}"#), "N1"), Ok(false));
        assert!(told(b"HTTP/1.0 404 Not Found\r\n\r\n{}", "N1").is_err());
        assert!(told(b"", "N1").is_err());
    }
}
