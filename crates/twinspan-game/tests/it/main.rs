//! The game system as its users meet it: in the simulator and over real sockets.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod allocation;
#[cfg(test)]
mod cores;
#[cfg(test)]
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
#[cfg(test)]
mod datagrams;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod endure;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod far;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod late;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod narrow;
#[cfg(test)]
mod one_session;
#[cfg(test)]
mod players;
#[cfg(test)]
mod real;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod real_cores;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod rogue;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;
