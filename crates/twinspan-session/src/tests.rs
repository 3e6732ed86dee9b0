//! Two-ended tests over a seeded link that loses, delays, duplicates and reorders.

mod delivery;
mod differential;
mod flood;
mod gate;
mod handshake;
mod hidden;
mod hostile;
mod latency;
mod life;
mod moves;
mod rekey;
mod resume;
mod rig;
mod vectors;
