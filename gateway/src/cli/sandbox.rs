//! Gateways of this very binary in a fresh folder, for commands that put them to the test.

mod folder;
mod life;

pub(super) use folder::Folder;
pub(super) use life::Life;
