//! Clients, a relay and a server: in the simulator and on real sockets.

#[cfg(test)]
mod allocation;
#[cfg(test)]
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod real;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod world;
