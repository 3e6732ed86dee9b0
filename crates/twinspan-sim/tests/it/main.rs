//! The simulator from outside: determinism, faults, sockets, tasks and timers.

#[cfg(test)]
mod compare;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod determinism;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod echo;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod names;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod planned;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod tcp_ends;
#[cfg(test)]
mod topics;
#[cfg(test)]
mod topology;
