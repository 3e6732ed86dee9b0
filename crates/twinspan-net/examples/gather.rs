//! What letting datagrams gather saves a reactor that does nothing but receive.
//!
//! `chrt -f 10 taskset -c 0,1 cargo run --release -p twinspan-net --example gather`
//!
//! Another thread, pinned to the last core, sends one datagram of 78 bytes at a time, evenly, at
//! each rate for a second. Printed are the receiver's processor time per datagram and how many
//! datagrams one receive call brought.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("datagrams do not gather on this system");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::thread;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};
    use twinspan_core::packet::{DatagramBatch, PacketPool};
    use twinspan_core::time::Timestamp;
    use twinspan_net::{ReactorEnv, allowed_cores, pin_to_core, scheduling_class};
    use twinspan_provider::{
        Machine, NetworkProvider, TimeProvider, UdpOptions, UdpSocket as _, drive,
    };

    /// Counts datagrams, and ends when none came for a while.
    struct Sink {
        heard: u64,
        last_at: Timestamp,
        done: bool,
    }

    impl Machine for Sink {
        fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
            self.heard += received.len() as u64;
            self.last_at = now;
        }

        fn handle_timeout(&mut self, _now: Timestamp) {
            self.done = true;
        }

        fn poll_transmit(&mut self, _: Timestamp, _: &PacketPool, _: &mut DatagramBatch) {}

        fn poll_timeout(&self) -> Option<Timestamp> {
            Some(self.last_at.after(Duration::from_millis(200)))
        }

        fn is_done(&self) -> bool {
            self.done
        }
    }

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let cores = allowed_cores()?;
        let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
            return Err("no core is allowed".into());
        };
        pin_to_core(*first)?;
        println!("core {first}, scheduling class {}", scheduling_class());
        println!("datagrams/s   gather   ns per datagram   datagrams per call");
        for rate in [20_000_u64, 80_000] {
            for micros in [0, 250, 500, 1_000] {
                let gather = Duration::from_micros(micros);
                let (cost, per_call) = receive(gather, rate, *last)?;
                println!("{rate:>11}{micros:>6} µs{cost:>18}{per_call:>21.1}");
            }
        }
        Ok(())
    }

    fn receive(gather: Duration, rate: u64, core: usize) -> Result<(u64, f64), Box<dyn Error>> {
        let env = ReactorEnv::new(None)?;
        let options = UdpOptions { gather, ..UdpOptions::default() };
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut socket = env.block_on(env.bind_udp(local, &options))?;
        let peer = socket.local_addr();
        let sender = thread::spawn(move || -> std::io::Result<()> {
            pin_to_core(core)?;
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let began = ReactorEnv::clock_ns();
            for number in 0..rate {
                while ReactorEnv::clock_ns() < began + number * 1_000_000_000 / rate {
                    std::hint::spin_loop();
                }
                socket.send_to(&[0; 78], peer)?;
            }
            Ok(())
        });
        let mut sink = Sink { heard: 0, last_at: env.now(), done: false };
        let began = thread_ns();
        env.block_on(drive(&env, &mut socket, &mut sink))?;
        let spent = thread_ns() - began;
        sender.join().map_err(|_| "the sender panicked")??;
        let calls = socket.report().calls_in.max(1);
        Ok((spent / sink.heard.max(1), sink.heard as f64 / calls as f64))
    }

    fn thread_ns() -> u64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
    }
}
