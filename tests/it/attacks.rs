//! What an attacker tries. Whatever it is, somebody well-behaved beside it goes on being served, and memory stays bounded.

mod canaries;
mod crowds;
mod floods;
mod forgeries;
mod http2_floods;
mod http2_frames;
mod odd_input;
mod origins;
mod oversized;
mod scene;
mod slow;
mod smuggling;
