//! Helpers that start the real gateway.
