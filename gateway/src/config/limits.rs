//! `[limits]`: every bound and deadline of the front door. All are on; none can be switched off.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::network::Network;
use super::rate::Rate;
use super::units::{Size, Time};

/// `[limits]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of one message from a client: more closes a socket with 1009, and is 413 from a user or anonymous caller over HTTP. Default 64 KiB.
    pub message_bytes: Size,
    /// Bytes of one HTTP request's body; more is 413. Default 1 MiB.
    pub publish_bytes: Size,
    /// Connections of all kinds at once; more are refused with 503. Default 10,000.
    pub connections: usize,
    /// Connections of one IP address at once, or of one IPv6 network of 64 bits; more are refused with 429. Default 10,000.
    ///
    /// As many as `connections`: behind a proxy, and on loopback, everybody has the same address.
    pub connections_per_address: usize,
    /// Connections of one user (of a token's `sub`) at once; more are refused with 429. Default 100.
    pub connections_per_user: usize,
    /// New connections of one address; more are refused with 429. Of this and every `…_rate`, what comes in two seconds may come at
    /// once. Default `100/s`.
    pub connection_rate: Rate,
    /// Requests and commands of one address, unless a service makes them; more get `rate_limited`. Default `1000/s`.
    pub address_rate: Rate,
    /// Requests and commands of one user, by whatever connections; more get `rate_limited`. Default `200/s`.
    pub user_rate: Rate,
    /// Requests and commands of one service, by its API keys; more get `rate_limited`. Default `100000/s`, the most that can be said.
    pub key_rate: Rate,
    /// Messages of clients to one group, whoever sends them; more get `rate_limited`. What services send is not counted. Default
    /// `1000/s`.
    pub group_rate: Rate,
    /// Whose addresses `connection_rate` and `address_rate` pass over, and, where they show no credential, `group_rate`. Default
    /// this machine: programs beside the gateway, and proxies on it that are not in `trusted_proxies`.
    pub exempt_addresses: Vec<Network>,
    /// Memory of the process: a size, or a share of what its control group allows or the machine has. From 85 % of it on what needs
    /// more is refused with 503, from 95 % on what holds most is let go. Default `80%`; Linux only.
    pub memory: Budget,
    /// Live queries at once, each with its parameters counted once however many subscribe; more are refused with
    /// `overloaded`. Default 1000.
    pub live_queries: usize,
    /// Groups that one connection may be subscribed to; more get `limit_exceeded`. Default 100.
    pub subscriptions_per_connection: usize,
    /// Commands of one connection that are worked on at once; then reading from it stops. Default 64.
    pub commands_in_flight: usize,
    /// Commands of one connection in a second, twice as many at once; more get `rate_limited`. Default 100.
    pub commands_per_second: u32,
    /// Pings and pongs of one connection in a second that are answered; more close it with 1008. Default 20.
    pub control_frames_per_second: u32,
    /// Bytes of one group's log on one shard; at the bound the slowest readers get a `gap`. Default 1 MiB.
    pub log_bytes: Size,
    /// Bytes of all logs of one shard; at the bound the farthest-behind readers get a `gap`. Default 64 MiB.
    pub log_bytes_per_shard: Size,
    /// Bytes of all histories; at the bound the oldest messages of the longest histories go. Default 256 MiB.
    pub history_bytes: Size,
    /// Channels that exist at once beside those of connections; more are refused with `overloaded`. Default 1,000,000.
    pub channels: usize,
    /// Bytes of all unread messages in channels; at the bound a `send` is refused. Default 256 MiB.
    pub channel_bytes: Size,
    /// Bytes of the results that are kept for `[[query]] cache`; at the bound those go that were used longest ago. Default
    /// 64 MiB.
    pub cache_bytes: Size,
    /// How many results are kept for `[[query]] cache`, as above. Default 10,000.
    pub cache_results: usize,
    /// Publications on their way to one shard; at the bound publishers wait. Default 4096.
    pub shard_queue: usize,
    /// How long a publisher waits for room before it is refused with 503. Default 5 s.
    pub publish_timeout: Time,
    /// Bytes of a request's head; more is 431. Default 16 KiB, at least 8 KiB.
    pub header_bytes: Size,
    /// From the connect to its first byte. Default 5 s.
    pub first_byte_timeout: Time,
    /// From the first byte to the end of a TLS handshake, and from a WebSocket's handshake to its first turn. Default
    /// 8 s.
    pub handshake_timeout: Time,
    /// From the first byte of a request's head to its end. Default 5 s.
    pub header_timeout: Time,
    /// From the end of the head to the end of the body; more is 408. Default 8 s.
    pub body_timeout: Time,
    /// How long an HTTP connection may be silent between two requests, and a client of HTTP/2 take nothing of an answer.
    /// Default 30 s.
    pub idle_timeout: Time,
    /// How often a WebSocket is pinged. Default 25 s.
    pub ping_interval: Time,
    /// How long the pong may take; more closes with 3008. Default 10 s.
    pub pong_timeout: Time,
    /// How long a write to a socket may make no progress; more closes a WebSocket with 3008, and any other connection.
    /// Default 8 s.
    pub write_timeout: Time,
    /// The longest `wait` of a long-poll; more is cut to it. Default 60 s.
    pub wait_timeout: Time,
    /// How long a drain may take before what is left is cut. Default 25 s.
    pub drain_timeout: Time,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let seconds = |s| Time(Duration::from_secs(s));
        let rate = |text: &str| text.parse().expect("it is a rate");
        Self {
            message_bytes: Size(64 << 10),
            publish_bytes: Size(1 << 20),
            connections: 10_000,
            connections_per_address: 10_000,
            connections_per_user: 100,
            connection_rate: rate("100/s"),
            address_rate: rate("1000/s"),
            user_rate: rate("200/s"),
            key_rate: rate("100000/s"),
            group_rate: rate("1000/s"),
            exempt_addresses: ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("it is a network")).to_vec(),
            memory: Budget::Share(80),
            live_queries: 1000,
            subscriptions_per_connection: 100,
            commands_in_flight: 64,
            commands_per_second: 100,
            control_frames_per_second: 20,
            log_bytes: Size(1 << 20),
            log_bytes_per_shard: Size(64 << 20),
            history_bytes: Size(256 << 20),
            channels: 1_000_000,
            channel_bytes: Size(256 << 20),
            cache_bytes: Size(64 << 20),
            cache_results: 10_000,
            shard_queue: 4096,
            publish_timeout: seconds(5),
            header_bytes: Size(16 << 10),
            first_byte_timeout: seconds(5),
            handshake_timeout: seconds(8),
            header_timeout: seconds(5),
            body_timeout: seconds(8),
            idle_timeout: seconds(30),
            ping_interval: seconds(25),
            pong_timeout: seconds(10),
            write_timeout: seconds(8),
            wait_timeout: seconds(60),
            drain_timeout: seconds(25),
        }
    }
}
