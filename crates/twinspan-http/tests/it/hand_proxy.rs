//! A SOCKS5 proxy made by hand, on either side of the seam: streams and datagrams, over both families
//! and to names.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    AsyncRead, AsyncReadExt, AsyncWriteExt, Env, ReadBuf, TcpListener, TcpOptions, UdpOptions,
    UdpSocket,
};

/// Datagrams that are taken at once.
const BATCH: usize = 64;

/// What a proxy did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    pub(crate) associations: u64,
    pub(crate) unauthorized: u64,
    /// Datagrams to addresses of either family, and to names.
    pub(crate) to_ipv4: u64,
    pub(crate) to_ipv6: u64,
    pub(crate) to_names: u64,
    pub(crate) back: u64,
}

/// A proxy at work; it ends with this.
pub(crate) struct HandProxy<E: Env> {
    pub(crate) address: SocketAddr,
    seen: Rc<Cell<Seen>>,
    _task: E::Task,
}

impl<E: Env> HandProxy<E> {
    /// Starts one that wants this user and password, if any.
    pub(crate) async fn start(env: &E, local: IpAddr, auth: Option<(&str, &str)>) -> Self {
        let at = SocketAddr::new(local, 0);
        let mut listener = env.listen(at, &TcpOptions::default()).await.unwrap();
        let address = listener.local_addr();
        let auth = auth.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let (inner, seen) = (env.clone(), Rc::new(Cell::new(Seen::default())));
        let told = Rc::clone(&seen);
        let task = env.spawn("proxy by hand", async move {
            let mut tasks = Vec::new();
            while let Ok(stream) = listener.accept().await {
                let client = Client {
                    env: inner.clone(),
                    local,
                    auth: auth.clone(),
                    seen: Rc::clone(&told),
                };
                tasks.push(inner.spawn("client of a proxy", client.attend(stream)));
            }
        });
        Self { address, seen, _task: task }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.get()
    }
}

struct Client<E: Env> {
    env: E,
    local: IpAddr,
    auth: Option<(String, String)>,
    seen: Rc<Cell<Seen>>,
}

impl<E: Env> Client<E> {
    fn count(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.get();
        change(&mut seen);
        self.seen.set(seen);
    }

    async fn attend(self, mut stream: E::Tcp) {
        // Whoever goes in the middle of it is gone.
        let _ = self.serve(&mut stream).await;
    }

    async fn serve(&self, stream: &mut E::Tcp) -> std::io::Result<()> {
        let [version, count] = read(stream).await?;
        assert_eq!(version, 5);
        let mut methods = vec![0; count.into()];
        stream.read_exact(&mut methods).await?;
        let wanted = if self.auth.is_some() { 2 } else { 0 };
        if !methods.contains(&wanted) {
            self.count(|seen| seen.unauthorized += 1);
            return stream.write_all(&[5, 0xFF]).await;
        }
        stream.write_all(&[5, wanted]).await?;
        if let Some((user, password)) = &self.auth {
            assert_eq!(read(stream).await?, [1]);
            let (told, secret) = (counted(stream).await?, counted(stream).await?);
            let is_right = told == user.as_bytes() && secret == password.as_bytes();
            stream.write_all(&[1, u8::from(!is_right)]).await?;
            if !is_right {
                self.count(|seen| seen.unauthorized += 1);
                return Ok(());
            }
        }
        let [version, command, _, kind] = read(stream).await?;
        assert_eq!(version, 5);
        let target = match kind {
            1 => SocketAddr::from((read::<4, _>(stream).await?, port(stream).await?)),
            4 => SocketAddr::from((read::<16, _>(stream).await?, port(stream).await?)),
            3 => {
                let name = String::from_utf8(counted(stream).await?).unwrap();
                let port = port(stream).await?;
                self.resolve(&name, port).await
            }
            other => panic!("an address of kind {other}"),
        };
        match command {
            1 => self.connect(stream, target).await,
            3 => self.associate(stream, target).await,
            other => panic!("command {other}"),
        }
    }

    /// An address of a name, over IPv4 where it has one.
    async fn resolve(&self, name: &str, port: u16) -> SocketAddr {
        let addresses = self.env.resolve(name, port).await.unwrap().addresses;
        let four = addresses.iter().find(|address| address.is_ipv4());
        *four.or(addresses.first()).unwrap()
    }

    async fn connect(&self, near: &mut E::Tcp, target: SocketAddr) -> std::io::Result<()> {
        self.count(|seen| seen.connections += 1);
        let Ok(mut far) = self.env.connect(target, &TcpOptions::default()).await else {
            return near.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        };
        near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        loop {
            let (mut out, mut back) = ([0; 4_096], [0; 4_096]);
            let moved = {
                let mut reads = pin!(near.read(&mut out));
                let mut answers = pin!(far.read(&mut back));
                poll_fn(|cx| match reads.as_mut().poll(cx) {
                    Poll::Ready(len) => Poll::Ready((true, len)),
                    Poll::Pending => answers.as_mut().poll(cx).map(|len| (false, len)),
                })
                .await
            };
            match moved {
                (true, Ok(len @ 1..)) => far.write_all(&out[..len]).await?,
                (false, Ok(len @ 1..)) => near.write_all(&back[..len]).await?,
                _ => return Ok(()),
            }
        }
    }

    async fn associate(&self, control: &mut E::Tcp, told: SocketAddr) -> std::io::Result<()> {
        let wanted = if self.local.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        assert_eq!(told, wanted.parse().unwrap(), "where from is not told, but how");
        self.count(|seen| seen.associations += 1);
        let options = UdpOptions { pool_packets: 4 * BATCH, ..UdpOptions::default() };
        let bind = |at: SocketAddr| {
            let options = &options;
            async move { self.env.bind_udp(at, options).await.unwrap() }
        };
        let mut near = bind(SocketAddr::new(self.local, 0)).await;
        let mut four = bind("127.0.0.1:0".parse().unwrap()).await;
        let mut six = bind("[::1]:0".parse().unwrap()).await;
        let mut reply = vec![5, 0, 0];
        put(&mut reply, near.local_addr());
        control.write_all(&reply).await?;
        let client = RefCell::new(None);
        let [mut out, mut from_four, mut from_six] = [(); 3].map(|()| DatagramBatch::new(BATCH));
        loop {
            let goes_on = poll_fn(|cx| {
                let mut byte = [0];
                if Pin::new(&mut *control).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready() {
                    return Poll::Ready(false);
                }
                let came = [
                    near.poll_recv(cx, &mut out).is_ready(),
                    four.poll_recv(cx, &mut from_four).is_ready(),
                    six.poll_recv(cx, &mut from_six).is_ready(),
                ];
                if came.contains(&true) { Poll::Ready(true) } else { Poll::Pending }
            })
            .await;
            if !goes_on {
                return Ok(());
            }
            while let Some(Datagram { peer, packet, .. }) = out.pop() {
                client.replace(Some(peer));
                let (to, at) = self.target(&packet).await;
                let bytes = packet[at..].to_vec();
                drop(packet);
                if to.is_ipv4() {
                    send(&mut four, to, &bytes).await;
                } else {
                    send(&mut six, to, &bytes).await;
                }
            }
            let back = std::iter::from_fn(|| from_four.pop().or_else(|| from_six.pop()));
            let back: Vec<(SocketAddr, Vec<u8>)> =
                back.map(|datagram| (datagram.peer, datagram.packet.to_vec())).collect();
            for (from, bytes) in back {
                let Some(client) = *client.borrow() else { continue };
                self.count(|seen| seen.back += 1);
                let mut whole = vec![0, 0, 0];
                put(&mut whole, from);
                whole.extend(bytes);
                send(&mut near, client, &whole).await;
            }
        }
    }

    /// Where a datagram is to go, and where its bytes begin.
    async fn target(&self, packet: &[u8]) -> (SocketAddr, usize) {
        assert_eq!(packet[..3], [0, 0, 0], "a header, and no fragment");
        let (port_at, host) = match packet[3] {
            1 => (8, IpAddr::from(<[u8; 4]>::try_from(&packet[4..8]).unwrap())),
            4 => (20, IpAddr::from(<[u8; 16]>::try_from(&packet[4..20]).unwrap())),
            3 => {
                let end = 5 + usize::from(packet[4]);
                let name = std::str::from_utf8(&packet[5..end]).unwrap();
                self.count(|seen| seen.to_names += 1);
                (end, self.resolve(name, 1).await.ip())
            }
            other => panic!("an address of kind {other}"),
        };
        self.count(|seen| match packet[3] {
            1 => seen.to_ipv4 += 1,
            4 => seen.to_ipv6 += 1,
            _ => {}
        });
        let port = u16::from_be_bytes([packet[port_at], packet[port_at + 1]]);
        (SocketAddr::new(host, port), port_at + 2)
    }
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn port(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<u16> {
    Ok(u16::from_be_bytes(read(stream).await?))
}

/// Bytes behind a byte that says how many.
async fn counted(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let [len] = read(stream).await?;
    let mut bytes = vec![0; len.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// An address as SOCKS5 has it.
fn put(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

async fn send(socket: &mut impl UdpSocket, peer: SocketAddr, bytes: &[u8]) {
    let mut batch = DatagramBatch::new(1);
    // Lost, as a network may lose it.
    let Some(mut packet) = socket.pool().take() else { return };
    assert!(packet.fill(bytes));
    batch.push(Datagram { peer, at: Timestamp::START, packet }).unwrap();
    while !batch.is_empty() {
        if poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.is_err() {
            return;
        }
    }
}

/// Whether this machine has IPv6 to itself; says so where it has not.
pub(crate) fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped on this machine's sockets: it has no IPv6 loopback");
    }
    has
}
