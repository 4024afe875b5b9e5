//! The binary `groupcast`.

fn main() {}
