//! Which slot of a cluster has a name: CRC-16 of what stands in its braces (Redis Cluster Specification, Key distribution
//! model). All names of ours that belong together have the same in braces.

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// The slot of what stands in a name's braces.
pub(super) fn slot(tag: &str) -> usize {
    usize::from(tag.bytes().fold(0, step)) % SLOTS
}

/// XMODEM: polynomial 0x1021, from zero, nothing reflected.
fn step(crc: u16, byte: u8) -> u16 {
    (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn names_are_in_the_slots_of_the_specification() {
        // 0x31C3 is the specification's own example; the others are what CLUSTER KEYSLOT answers.
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(["foo", "bar", ""].map(slot), [12_182, 5_061, 0]);
    }
}
