//! The client, the server and the proxies from outside: in the simulator, on sockets, with peers.

#[cfg(test)]
mod allocations;
#[cfg(test)]
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
#[cfg(test)]
#[cfg(unix)]
mod daemons;
#[cfg(test)]
mod datagrams;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod hand_proxy;
#[cfg(test)]
#[cfg(unix)]
mod peers;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod rough;
#[cfg(test)]
mod server;
#[cfg(test)]
mod six;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod warnings;
