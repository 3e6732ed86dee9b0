//! Measures ways to listeners: whether somebody answers, how long that takes, what is lost.
//!
//! //= hub 14.2

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use twinspan_core::time::Timestamp;
use twinspan_net::shm::sleep_on;
use twinspan_topic::{Dialect, Probed, Prober, ProberConfig};

use crate::report::Transport;
use crate::system::{any_like, has_ipv6};

/// Connections that are made to measure TCP, and how long each is waited for.
const CONNECTS: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 1_500;

/// What was measured on one road.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// The road.
    pub transport: Transport,
    /// Where it leads.
    pub address: SocketAddr,
    /// Probes that were sent; connections that were begun, on TCP.
    pub probes: u32,
    /// Those without an answer in time.
    pub lost: u32,
    /// The shortest round trip; how long a connection took, on TCP.
    pub rtt_min: Option<Duration>,
    /// The middle one.
    pub rtt_median: Option<Duration>,
}

impl Measured {
    pub(crate) const fn new(transport: Transport, address: SocketAddr, probed: &Probed) -> Self {
        let Probed { settled, lost, rtt_min, rtt_median, .. } = *probed;
        Self { transport, address, probes: settled, lost, rtt_min, rtt_median }
    }
}

/// The address that reaches a listener: itself, or this machine for a wildcard.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() && has_ipv6() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        _ => {}
    }
    canonical(address)
}

/// The same address, of IPv4 where it stands for one.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Another port of the same host, on the same cable.
pub(crate) const fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Measures a road: by probes in 30 ms and at most a second for the last answers, or by three
/// connections of at most a second each on TCP.
pub(crate) fn measure(road: Transport, address: SocketAddr) -> io::Result<Probed> {
    let address = reachable(address);
    match road {
        Transport::Tcp => Ok(measure_tcp(address)),
        Transport::Quic => measure_datagrams(Dialect::Quic, address),
        _ => measure_datagrams(Dialect::Hub, address),
    }
}

fn measure_tcp(address: SocketAddr) -> Probed {
    let mut times = Vec::new();
    for _ in 0..CONNECTS {
        let began = Instant::now();
        if TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok() {
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    Probed {
        settled: CONNECTS,
        lost: CONNECTS - times.len() as u32,
        rtt_min: times.first().copied(),
        rtt_median: times.get(times.len() / 2).copied(),
        offer: None,
    }
}

/// A socket for probes to one address.
pub(crate) fn probing_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any_like(address))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A number that nobody else knows.
pub(crate) fn secret() -> io::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(seed))
}

fn measure_datagrams(dialect: Dialect, address: SocketAddr) -> io::Result<Probed> {
    let socket = probing_socket(address)?;
    let began = Instant::now();
    let now = || {
        let nanos = began.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    };
    let config = ProberConfig { dialect, ..ProberConfig::BRIEF };
    let mut prober = Prober::new(config, now(), secret()?);
    let (mut probe, mut answer) = (Vec::new(), [0; ANSWER_BYTES_MAX]);
    let mut is_refused = false;
    while !prober.is_over(now()) {
        while prober.poll_transmit(now(), &mut probe) {
            // One that cannot be sent is lost, as one that nobody answers.
            let _ = socket.send(&probe);
            is_refused = false;
        }
        // What the kernel says of a port where nobody is comes as an error of the next call. While
        // there are more probes that is no reason to stop: another may listen there at any time.
        loop {
            match socket.recv(&mut answer) {
                Ok(count) => {
                    prober.handle_datagram(now(), answer.get(..count).unwrap_or_default());
                }
                Err(error) => {
                    is_refused |= error.kind() == io::ErrorKind::ConnectionRefused;
                    break;
                }
            }
        }
        if is_refused && prober.poll_timeout() == Timestamp::NEVER {
            break;
        }
        let limit = prober.poll_timeout().since(now()).min(Duration::from_millis(2));
        sleep_on(socket.as_fd(), Some(limit));
    }
    // Nobody waits for what is not answered by now.
    Ok(prober.probed(now().after(config.answer_timeout)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn nobody_there_answers_nothing() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for road in [Transport::BatchUdp, Transport::Quic] {
            let probed = measure(road, free).unwrap();
            assert_eq!((probed.settled, probed.lost), (16, 16), "{road}");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let probed = measure(Transport::Tcp, free).unwrap();
        assert_eq!((probed.settled, probed.lost, probed.rtt_min), (3, 3, None));
    }

    #[test]
    fn a_listener_far_away_is_measured_without_loss() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let far = std::thread::spawn(move || {
            let (mut came, mut bytes) = (Vec::new(), [0; ANSWER_BYTES_MAX]);
            while came.len() < 16 {
                let (count, from) = listener.recv_from(&mut bytes).unwrap();
                came.push((bytes[..count].to_vec(), from));
            }
            // All probes are there, 30 ms after the first: an answer that is a good one is shorter.
            for (probe, from) in came {
                let mut answer = vec![0xff, 0, 0, 0, 0];
                answer.extend_from_slice(&probe[5..23]);
                answer.extend_from_slice(&[0, 0, 0, 1]);
                listener.send_to(&answer, from).unwrap();
            }
        });
        let probed = measure(Transport::Quic, address).unwrap();
        far.join().unwrap();
        assert_eq!((probed.settled, probed.lost), (16, 0));
        assert!(probed.is_there() && probed.rtt_median > Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_connection_s_time_is_measured() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let probed = measure(Transport::Tcp, listener.local_addr().unwrap()).unwrap();
        assert_eq!((probed.settled, probed.lost), (3, 0));
        assert!(probed.rtt_min > Some(Duration::ZERO) && probed.rtt_min <= probed.rtt_median);
    }
}
