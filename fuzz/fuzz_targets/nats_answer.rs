//! What comes from a NATS server: records of groups, answers of JetStream, times, subjects, what its monitoring port says.

#![no_main]

use bytes::Bytes;
use groupcast_channel_layer::broker::nats::fuzzing as nats;
use groupcast_fuzz::{no_beginning_is_accepted, text};
use groupcast_protocol::OFFSET_MAX;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const MESSAGE_BYTES_MAX: usize = 200;
/// The first moment of the year 10000, in nanoseconds since 1970.
const YEAR_10000: u128 = 253_402_300_800 * 1_000_000_000;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    record(&bytes);
    if let Some(message) = nats::of_channel(&bytes, MESSAGE_BYTES_MAX) {
        assert!(message.raw().len() <= MESSAGE_BYTES_MAX);
    }
    if let Some((answer, stored)) = nats::answer(data) {
        assert!(answer.get("error").is_none(), "an error was taken for an answer");
        if let Some((sequence, nanos, _)) = stored {
            assert_eq!(answer["message"]["seq"].as_u64(), Some(sequence));
            // A leap second may be the last of a year.
            assert!(nanos <= YEAR_10000, "{nanos}");
        }
    }
    if nats::syncs_always(data, "N1") == Some(true) {
        let end = data.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head ends");
        let told: Value = serde_json::from_slice(&data[end + 4..]).expect("JSON");
        assert_eq!((&told["server_id"], &told["jetstream"]["config"]["sync_always"]), (&"N1".into(), &true.into()));
    }
    let Some(text) = text(data) else { return };
    if let Some(nanos) = nats::time(text) {
        assert!(nanos <= YEAR_10000, "{text} is {nanos}");
    }
    if let Some((group, again)) = nats::group("asgi", text) {
        assert!(again.is_none_or(|again| again == text), "{group} has another subject");
    }
});

fn record(bytes: &Bytes) {
    let place = nats::place(bytes);
    let Some(record) = nats::record(bytes, MESSAGE_BYTES_MAX) else { return };
    // Nodes may differ in what they take for too large, and not in where a group is.
    assert_eq!(place, Some(record.offset));
    assert!(record.offset <= OFFSET_MAX);
    assert!(
        record.messages.iter().all(|(offset, message)| {
            (1..=record.offset).contains(offset) && message.raw().len() <= MESSAGE_BYTES_MAX
        })
    );
    assert!(record.messages.last().is_none_or(|(offset, _)| *offset == record.offset));
    let again = nats::record(&record.bytes, MESSAGE_BYTES_MAX).expect("what we write can be read");
    assert_eq!((&again.bytes, &again.messages), (&record.bytes, &record.messages));
    if !record.messages.is_empty() {
        no_beginning_is_accepted(bytes, |part| {
            nats::record(&Bytes::copy_from_slice(part), MESSAGE_BYTES_MAX).is_some()
        });
    }
}
