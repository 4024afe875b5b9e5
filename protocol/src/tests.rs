//! Tests of the crate as a whole: the golden vectors, and properties of arbitrary input.

mod properties;
mod vectors;
