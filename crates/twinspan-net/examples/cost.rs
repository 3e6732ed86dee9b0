//! What a datagram costs on each path of this machine, in nanoseconds of one thread's time.
//!
//! `chrt -f 10 taskset -c 0,1 cargo run --release -p twinspan-net --example cost`
//!
//! Receiving: 78 bytes, 64 datagrams at a time, put into the queue by this thread or by another one
//! that is pinned to the last core. Sending: 530 bytes over the loopback interface, the receiver's
//! half included, to 64 sockets in turn, or to one so that datagrams join in runs.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("there is one path on this system; nothing to compare");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::thread;

    use rustix::time::{ClockId, clock_gettime};
    use twinspan_core::packet::{Datagram, DatagramBatch};
    use twinspan_core::time::Timestamp;
    use twinspan_net::{BareSocket, allowed_cores, pin_to_core, scheduling_class};
    use twinspan_provider::{IoPath, Offload, UdpOptions};

    type Outcome<T> = Result<T, Box<dyn Error>>;

    const BATCH: usize = 64;
    const ROUNDS: usize = 2_000;
    const INPUT_BYTES: usize = 78;
    const STATE_BYTES: usize = 530;

    pub(super) fn main() -> Outcome<()> {
        let cores = allowed_cores()?;
        let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
            return Err("no core is allowed".into());
        };
        pin_to_core(*first)?;
        println!("core {first}, scheduling class {}", scheduling_class());
        println!("ns per received datagram      queued here   queued by core {last}");
        let with = |path| UdpOptions { path, ..UdpOptions::default() };
        let joined = UdpOptions { coalesce_receives: true, ..UdpOptions::default() };
        for (name, options, runs) in [
            ("recvfrom", with(IoPath::Plain), false),
            ("recvmmsg", with(IoPath::Batch), false),
            ("recvmmsg, sender joins", with(IoPath::Batch), true),
            ("recvmmsg with GRO", joined, false),
            ("recvmmsg with GRO, sender joins", joined, true),
            ("io_uring multishot", with(IoPath::Ring), false),
        ] {
            match BareSocket::bind(loopback(), &options) {
                Ok(_) => {
                    let here = received(options, runs, None)?;
                    let there = received(options, runs, Some(*last))?;
                    println!("{name:<34}{here:>5}{there:>15}");
                }
                Err(error) => println!("{name:<34}{error}"),
            }
        }
        println!("ns per sent datagram          to 64 sockets   to one");
        for (name, path, segment_sends) in [
            ("sendto", IoPath::Plain, false),
            ("sendmmsg", IoPath::Batch, false),
            ("sendmmsg with GSO", IoPath::Batch, true),
        ] {
            let options = UdpOptions { path, segment_sends, ..UdpOptions::default() };
            let (many, one) = (sent(options, BATCH)?, sent(options, 1)?);
            println!("{name:<34}{many:>5}{one:>9}");
        }
        Ok(())
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    fn thread_ns() -> u64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
    }

    fn fill(from: &BareSocket, batch: &mut DatagramBatch, peers: &[SocketAddr], bytes: usize) {
        for peer in peers.iter().cycle().take(batch.room()) {
            let Some(mut packet) = from.pool().take() else { break };
            packet.set_len(bytes);
            drop(batch.push(Datagram { peer: *peer, at: Timestamp::START, packet }));
        }
    }

    /// The median cost of receiving one datagram.
    fn received(options: UdpOptions, runs: bool, core: Option<usize>) -> Outcome<u64> {
        let mut socket = BareSocket::bind(loopback(), &options)?;
        let peer = socket.local_addr();
        let (go, wait): (SyncSender<()>, Receiver<()>) = sync_channel(0);
        let (told, done) = sync_channel(0);
        let send = move || -> Option<()> {
            let options = UdpOptions { segment_sends: runs, ..UdpOptions::default() };
            let mut sender = BareSocket::bind(loopback(), &options).ok()?;
            let mut batch = DatagramBatch::new(BATCH);
            if let Some(core) = core {
                pin_to_core(core).ok()?;
            }
            while wait.recv().is_ok() {
                fill(&sender, &mut batch, &[peer], INPUT_BYTES);
                sender.send(&mut batch).ok()?;
                told.send(()).ok()?;
            }
            Some(())
        };
        // On this core the other thread runs while this one waits for its word.
        let sender = thread::spawn(send);
        let mut batch = DatagramBatch::new(BATCH);
        let mut costs = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            go.send(())?;
            done.recv()?;
            let began = thread_ns();
            while batch.room() > 0 && socket.recv(&mut batch)? > 0 {}
            let spent = thread_ns() - began;
            if batch.room() == 0 {
                costs.push(spent / BATCH as u64);
            }
            batch.clear();
        }
        drop(go);
        sender.join().map_err(|_| "the sender panicked")?;
        median(costs)
    }

    /// The median cost of sending one datagram, in turn to so many sockets.
    fn sent(options: UdpOptions, peers: usize) -> Outcome<u64> {
        let mut sender = BareSocket::bind(loopback(), &options)?;
        if options.segment_sends && sender.report().segmentation != Offload::On {
            return Err("the kernel cannot split runs".into());
        }
        let mut sockets = Vec::new();
        for _ in 0..peers {
            sockets.push(BareSocket::bind(loopback(), &UdpOptions::default())?);
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(BareSocket::local_addr).collect();
        let (mut batch, mut sink) = (DatagramBatch::new(BATCH), DatagramBatch::new(BATCH));
        let mut costs = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            fill(&sender, &mut batch, &addresses, STATE_BYTES);
            let began = thread_ns();
            let count = sender.send(&mut batch)? as u64;
            costs.push((thread_ns() - began) / count.max(1));
            batch.clear();
            for socket in &mut sockets {
                while socket.recv(&mut sink)? > 0 {
                    sink.clear();
                }
            }
        }
        median(costs)
    }

    fn median(mut costs: Vec<u64>) -> Outcome<u64> {
        costs.sort_unstable();
        costs.get(costs.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
    }
}
