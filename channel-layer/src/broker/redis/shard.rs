//! Which of several servers has a name: as channels_redis decides it, so that both look in the same place.

/// The server of a name: the low 12 bits of its CRC-32, spread over the servers (channels_redis 4.3,
/// `BaseLayer.consistent_hash`).
pub fn index(name: &[u8], servers: usize) -> usize {
    if servers <= 1 {
        return 0;
    }
    let mut crc = flate2::Crc::new();
    crc.update(name);
    // As Python does it, in floating point: `int(bigval / (4096 / servers))`.
    (f64::from(crc.sum() & 0xFFF) / (4096.0 / servers as f64)) as usize
}

#[cfg(test)]
mod tests {
    use super::index;

    #[test]
    fn names_are_where_channels_redis_looks_for_them() {
        for (name, expected) in [
            ("key_one", [1, 2, 2, 6]),
            ("key_two", [0, 1, 1, 4]),
            ("my_group", [0, 1, 1, 3]),
            ("asgi__group__my_group", [0, 1, 1, 3]),
            ("specific.gw1!", [1, 2, 3, 9]),
        ] {
            assert_eq!([2, 3, 4, 10].map(|servers| index(name.as_bytes(), servers)), expected, "{name}");
        }
        assert_eq!(index(b"any", 1), 0);
    }
}
