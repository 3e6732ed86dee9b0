//! Streams, listeners and names.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::{PATIENCE, patiently, sleep_until};
use crate::{
    AsyncReadExt, AsyncWrite, AsyncWriteExt, BindError, ConnectError, Env, ResolveError,
    TcpListener, TcpOptions, TcpStream, Timer, UdpOptions, UdpSocket,
};

/// Buffers small enough that a large transfer has to wait for its reader.
const SMALL: TcpOptions = TcpOptions {
    nodelay: true,
    connect_timeout: PATIENCE,
    receive_buffer_bytes: 32 << 10,
    send_buffer_bytes: 32 << 10,
    backlog: 16,
    // Never reached on a path that works.
    keepalive: Some(Duration::from_secs(600)),
    give_up: Some(Duration::from_secs(600)),
};
/// More than any side keeps on the way, however it rounds those sizes.
const LARGE_BYTES: usize = 8 << 20;

/// Runs every test of streams and names.
pub async fn all<E: Env>(env: &E, ip: IpAddr) {
    a_listener_names_its_port(env, ip).await;
    a_taken_stream_port_is_refused(env, ip).await;
    a_foreign_listening_address_is_refused(env).await;
    a_dropped_listener_frees_its_port(env, ip).await;
    datagrams_and_streams_share_no_ports(env, ip).await;
    nobody_listening_is_a_refusal(env, ip).await;
    a_listener_with_connections_to_accept_refuses_them_when_dropped(env, ip).await;
    both_ends_name_each_other(env, ip).await;
    bytes_are_echoed(env, ip).await;
    connections_are_accepted_in_the_order_they_came(env, ip).await;
    a_writer_waits_for_its_reader(env, ip).await;
    both_ways_are_used_at_once(env, ip).await;
    a_shut_way_out_leaves_the_way_in_open(env, ip).await;
    a_write_after_shutdown_is_a_broken_pipe(env, ip).await;
    much_flows_on_after_a_half_close(env, ip).await;
    both_may_close_at_once(env, ip).await;
    what_came_before_a_reset_is_read_first(env, ip).await;
    an_overfull_listener_hangs_and_then_takes_more(env, ip).await;
    what_was_written_before_a_drop_arrives(env, ip).await;
    an_aborted_connection_is_reset(env, ip).await;
    a_write_to_an_aborted_connection_is_reset_and_then_a_broken_pipe(env, ip).await;
    a_drop_with_unread_bytes_resets(env, ip).await;
    writes_to_a_peer_who_went_become_a_broken_pipe(env, ip).await;
    a_dropped_connect_leaves_the_listener_well(env, ip).await;
    names_without_a_resolver_are_answered_alike(env).await;
}

async fn listen<E: Env>(env: &E, ip: IpAddr) -> E::Listener {
    env.listen(SocketAddr::new(ip, 0), &SMALL).await.expect("a free port can be listened on")
}

/// The two ends of a connection: who connected, who accepted.
async fn pair<E: Env>(env: &E, ip: IpAddr) -> (E::Tcp, E::Tcp) {
    let mut listener = listen(env, ip).await;
    let connecting = env.connect(listener.local_addr(), &SMALL);
    let client = connecting.await.expect("the listener can be reached");
    let accepting = patiently(env, "a connection is accepted", listener.accept());
    (client, accepting.await.expect("a connection is accepted"))
}

/// The next bytes, or the kind of the error; empty at the end.
async fn read_some<E: Env>(env: &E, stream: &mut E::Tcp) -> Result<Vec<u8>, io::ErrorKind> {
    let mut bytes = [0; 4_096];
    let outcome = patiently(env, "a read ends", stream.read(&mut bytes)).await;
    outcome.map(|len| bytes.get(..len).unwrap_or_default().to_vec()).map_err(|error| error.kind())
}

/// All up to the end of the stream.
async fn read_all<E: Env>(env: &E, stream: &mut E::Tcp) -> Vec<u8> {
    let mut bytes = Vec::new();
    patiently(env, "the stream ends", stream.read_to_end(&mut bytes)).await.expect("it works");
    bytes
}

async fn write<E: Env>(env: &E, stream: &mut E::Tcp, bytes: &[u8]) {
    patiently(env, "a write ends", stream.write_all(bytes)).await.expect("it works");
}

/// Writes a byte now and then until that fails, and names the kind.
async fn write_until_it_fails<E: Env>(env: &E, stream: &mut E::Tcp) -> io::ErrorKind {
    let limit = env.now().after(PATIENCE);
    loop {
        if let Err(error) = stream.write_all(b"x").await {
            return error.kind();
        }
        assert!(env.now() < limit, "writes to nobody went on");
        sleep_until(env, env.now().after(Duration::from_millis(1))).await;
    }
}

/// Bytes that show when any is missing or in another place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Port 0 becomes a real one.
pub async fn a_listener_names_its_port<E: Env>(env: &E, ip: IpAddr) {
    let (one, other) = (listen(env, ip).await, listen(env, ip).await);
    assert_eq!(one.local_addr().ip(), ip);
    assert_ne!(one.local_addr().port(), 0);
    assert_ne!(one.local_addr(), other.local_addr());
}

/// A second listener on one port is [`BindError::Taken`].
pub async fn a_taken_stream_port_is_refused<E: Env>(env: &E, ip: IpAddr) {
    let first = listen(env, ip).await;
    match env.listen(first.local_addr(), &SMALL).await {
        Err(BindError::Taken(taken)) => assert_eq!(taken, first.local_addr()),
        Err(other) => panic!("a taken port is refused as taken, not: {other}"),
        Ok(_) => panic!("{} has two listeners", first.local_addr()),
    }
}

/// An address that belongs to another machine is [`BindError::NotLocal`].
pub async fn a_foreign_listening_address_is_refused<E: Env>(env: &E) {
    // Reserved for documentation: nobody's.
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    match env.listen(address, &SMALL).await {
        Err(BindError::NotLocal(refused)) => assert_eq!(refused, address),
        Err(other) => panic!("a foreign address is refused as not local, not: {other}"),
        Ok(_) => panic!("{address} was listened on"),
    }
}

/// The port of a dropped listener can be had again, even where a connection of it goes on.
pub async fn a_dropped_listener_frees_its_port<E: Env>(env: &E, ip: IpAddr) {
    let mut listener = listen(env, ip).await;
    let address = listener.local_addr();
    let client = env.connect(address, &SMALL).await.expect("the listener can be reached");
    let server = listener.accept().await.expect("a connection is accepted");
    drop(listener);
    let again = env.listen(address, &SMALL).await.expect("the port is free again");
    assert_eq!(again.local_addr(), address);
    drop((client, server));
}

/// A datagram socket and a listener may have the same port.
pub async fn datagrams_and_streams_share_no_ports<E: Env>(env: &E, ip: IpAddr) {
    let listener = listen(env, ip).await;
    match env.bind_udp(listener.local_addr(), &UdpOptions::default()).await {
        Ok(socket) => assert_eq!(socket.local_addr(), listener.local_addr()),
        // Another program of a real machine may have it.
        Err(error) => assert!(matches!(error, BindError::Taken(_)), "{error}"),
    }
}

/// A port that nobody listens on is [`ConnectError::Refused`].
pub async fn nobody_listening_is_a_refusal<E: Env>(env: &E, ip: IpAddr) {
    let address = listen(env, ip).await.local_addr();
    match env.connect(address, &SMALL).await {
        Err(error @ ConnectError::Refused(refused)) => {
            assert_eq!(refused, address);
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        Err(other) => panic!("nobody listening is a refusal, not: {other}"),
        Ok(_) => panic!("there was somebody at {address}"),
    }
}

/// Connections that were never accepted are reset with their listener.
pub async fn a_listener_with_connections_to_accept_refuses_them_when_dropped<E: Env>(
    env: &E,
    ip: IpAddr,
) {
    let listener = listen(env, ip).await;
    let connected = env.connect(listener.local_addr(), &SMALL).await;
    let mut client = connected.expect("a listener's backlog takes a connection");
    drop(listener);
    assert_eq!(read_some(env, &mut client).await, Err(io::ErrorKind::ConnectionReset));
}

/// Each end's peer is the other's local address.
pub async fn both_ends_name_each_other<E: Env>(env: &E, ip: IpAddr) {
    let (client, server) = pair(env, ip).await;
    assert_eq!(client.local_addr(), server.peer_addr());
    assert_eq!(server.local_addr(), client.peer_addr());
    assert_eq!(client.local_addr().ip(), ip);
    client.set_nodelay(false).expect("a connection can be told");
    client.set_nodelay(true).expect("a connection can be told");
}

/// What goes out comes back.
pub async fn bytes_are_echoed<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    for len in [1, 2, 1_000, 10_000] {
        let sent = pattern(len);
        write(env, &mut client, &sent).await;
        let mut bytes = vec![0; len];
        patiently(env, "it arrives", server.read_exact(&mut bytes)).await.expect("it works");
        write(env, &mut server, &bytes).await;
        bytes.fill(0);
        patiently(env, "it comes back", client.read_exact(&mut bytes)).await.expect("it works");
        assert!(bytes == sent, "{len} bytes come back as they went");
    }
}

/// First come, first accepted.
pub async fn connections_are_accepted_in_the_order_they_came<E: Env>(env: &E, ip: IpAddr) {
    let mut listener = listen(env, ip).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = env.connect(listener.local_addr(), &SMALL).await;
        clients.push(client.expect("a listener's backlog takes a connection"));
    }
    for client in &clients {
        let accepting = patiently(env, "a connection is accepted", listener.accept());
        let server = accepting.await.expect("a connection is accepted");
        assert_eq!(server.peer_addr(), client.local_addr());
    }
}

/// A writer whose peer does not read waits, and goes on when it does; nothing is lost or changed.
pub async fn a_writer_waits_for_its_reader<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    let sent = pattern(LARGE_BYTES);
    let mut written = 0;
    let mut timer = env.timer();
    // Until nothing more went for a while.
    loop {
        timer.set(Some(env.now().after(Duration::from_millis(50))));
        let rest = sent.get(written..).unwrap_or_default();
        let step = poll_fn(|cx| match Pin::new(&mut client).poll_write(cx, rest) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome.expect("it works"))),
            Poll::Pending => timer.poll_expired(cx).map(|()| None),
        });
        let Some(len) = step.await else { break };
        written += len;
        assert!(written < LARGE_BYTES, "all was taken though nobody reads");
    }
    assert!(written > 0);
    let (env_of_task, rest) = (env.clone(), sent.get(written..).unwrap_or_default().to_vec());
    let task = env.spawn("writes the rest", async move {
        write(&env_of_task, &mut client, &rest).await;
        client.shutdown().await.expect("it works");
        // Kept until the reader is done.
        assert_eq!(read_all(&env_of_task, &mut client).await, b"thanks");
    });
    assert!(read_all(env, &mut server).await == sent, "it arrives as it went");
    write(env, &mut server, b"thanks").await;
    drop(server);
    drop(task);
}

/// The two directions do not wait for one another, and an end may be split in two.
pub async fn both_ways_are_used_at_once<E: Env>(env: &E, ip: IpAddr) {
    const BYTES: usize = 500_000;
    let (client, server) = pair(env, ip).await;
    let mut tasks = Vec::new();
    let (mut server_in, mut server_out) = tokio::io::split(server);
    let (mut client_in, mut client_out) = tokio::io::split(client);
    tasks.push(env.spawn("server writes", async move {
        server_out.write_all(&pattern(BYTES)).await.expect("it works");
        server_out.shutdown().await.expect("it works");
    }));
    tasks.push(env.spawn("client writes", async move {
        client_out.write_all(&pattern(BYTES)).await.expect("it works");
        client_out.shutdown().await.expect("it works");
    }));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let both = async {
        // One after the other: the second stream has to wait half way.
        client_in.read_to_end(&mut one).await.expect("it works");
        server_in.read_to_end(&mut other).await.expect("it works");
    };
    patiently(env, "both streams end", both).await;
    let wanted = pattern(BYTES);
    assert!(one == wanted && other == wanted, "they arrive as they went");
}

/// After a shutdown the peer sees the end and can still answer.
pub async fn a_shut_way_out_leaves_the_way_in_open<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    write(env, &mut client, b"question").await;
    client.shutdown().await.expect("a way out can be shut");
    client.shutdown().await.expect("and once more");
    assert_eq!(read_all(env, &mut server).await, b"question");
    assert_eq!(read_some(env, &mut server).await, Ok(Vec::new()), "the end stays the end");
    sleep_until(env, env.now().after(Duration::from_millis(20))).await;
    write(env, &mut server, b"answer").await;
    drop(server);
    assert_eq!(read_all(env, &mut client).await, b"answer");
}

/// Who shut the way out cannot write.
pub async fn a_write_after_shutdown_is_a_broken_pipe<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, server) = pair(env, ip).await;
    client.shutdown().await.expect("a way out can be shut");
    let error = client.write_all(b"too late").await.expect_err("there is no way out");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(server);
}

/// One way that has ended does not hold up the other, however much goes there.
pub async fn much_flows_on_after_a_half_close<E: Env>(env: &E, ip: IpAddr) {
    const BYTES: usize = 1_000_000;
    let (mut client, mut server) = pair(env, ip).await;
    client.shutdown().await.expect("a way out can be shut");
    assert_eq!(read_some(env, &mut server).await, Ok(Vec::new()));
    let task = env.spawn("server writes", async move {
        server.write_all(&pattern(BYTES)).await.expect("the other way is open");
        server.shutdown().await.expect("it works");
    });
    assert!(read_all(env, &mut client).await == pattern(BYTES), "it arrives as it went");
    drop(task);
}

/// Two ends that close at the same moment both find the end of the stream, and nothing of the
/// connection holds up the next one.
pub async fn both_may_close_at_once<E: Env>(env: &E, ip: IpAddr) {
    for _ in 0..3 {
        let (mut client, mut server) = pair(env, ip).await;
        client.shutdown().await.expect("a way out can be shut");
        server.shutdown().await.expect("and the other at once");
        assert_eq!(read_some(env, &mut client).await, Ok(Vec::new()));
        assert_eq!(read_some(env, &mut server).await, Ok(Vec::new()));
        for end in [&mut client, &mut server] {
            let error = end.write_all(b"x").await.expect_err("there is no way out");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}

/// Bytes that had come are read before a reset is told.
pub async fn what_came_before_a_reset_is_read_first<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    write(env, &mut client, b"last words").await;
    // One byte shows that they have come.
    let mut first = [0];
    patiently(env, "they come", server.read_exact(&mut first)).await.expect("it works");
    client.abort();
    sleep_until(env, env.now().after(Duration::from_millis(20))).await;
    let mut words = Vec::new();
    let kind = loop {
        match read_some(env, &mut server).await {
            Ok(more) => {
                assert!(!more.is_empty(), "a reset is no end of the stream");
                words.extend(more);
            }
            Err(kind) => break kind,
        }
    };
    assert_eq!((words.as_slice(), kind), (b"ast words".as_slice(), io::ErrorKind::ConnectionReset));
}

/// Who connects to a listener that has no room is not answered; once a connection was accepted there
/// is room, and who still tries gets in.
pub async fn an_overfull_listener_hangs_and_then_takes_more<E: Env>(env: &E, ip: IpAddr) {
    /// More than any side makes of a backlog of one.
    const CONNECTIONS_MAX: usize = 16;
    let one = TcpOptions { backlog: 1, ..SMALL };
    let hasty = TcpOptions { connect_timeout: Duration::from_millis(200), ..SMALL };
    let bound = env.listen(SocketAddr::new(ip, 0), &one).await;
    let mut listener = bound.expect("a free port can be listened on");
    let address = listener.local_addr();
    let mut clients = Vec::new();
    let mut had_no_room = false;
    for _ in 0..CONNECTIONS_MAX {
        match env.connect(address, &hasty).await {
            Ok(client) => clients.push(client),
            Err(error) => {
                assert!(matches!(error, ConnectError::TimedOut(_)), "no room is silence: {error}");
                had_no_room = true;
                // Where segments are lost the first one, too, may find nobody in time.
                if !clients.is_empty() {
                    break;
                }
            }
        }
    }
    assert!(had_no_room, "a backlog of one took all that came");
    assert!(!clients.is_empty(), "a backlog of one takes one");
    let mut connecting = std::pin::pin!(env.connect(address, &SMALL));
    // Begun where there is no room.
    poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx).is_ready())).await;
    let mut servers = Vec::new();
    for _ in 0..clients.len() {
        let accepting = patiently(env, "a connection is accepted", listener.accept());
        servers.push(accepting.await.expect("a connection is accepted"));
    }
    let late = connecting.await.expect("there is room by now");
    drop((late, servers));
}

/// A drop is no abort: what was written is delivered, then the end.
pub async fn what_was_written_before_a_drop_arrives<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    write(env, &mut client, &pattern(20_000)).await;
    drop(client);
    assert!(read_all(env, &mut server).await == pattern(20_000), "it arrives as it went");
}

/// An abort is a reset at the other end, once; then the stream has ended.
pub async fn an_aborted_connection_is_reset<E: Env>(env: &E, ip: IpAddr) {
    let (client, mut server) = pair(env, ip).await;
    client.abort();
    assert_eq!(read_some(env, &mut server).await, Err(io::ErrorKind::ConnectionReset));
    assert_eq!(read_some(env, &mut server).await, Ok(Vec::new()));
}

/// A write is told of the reset when no read was, and then finds a broken pipe.
pub async fn a_write_to_an_aborted_connection_is_reset_and_then_a_broken_pipe<E: Env>(
    env: &E,
    ip: IpAddr,
) {
    let (client, mut server) = pair(env, ip).await;
    client.abort();
    assert_eq!(write_until_it_fails(env, &mut server).await, io::ErrorKind::ConnectionReset);
    assert_eq!(write_until_it_fails(env, &mut server).await, io::ErrorKind::BrokenPipe);
}

/// Who goes without having read what came resets the connection.
pub async fn a_drop_with_unread_bytes_resets<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, mut server) = pair(env, ip).await;
    write(env, &mut client, b"never read").await;
    // One byte shows that they have come.
    let mut first = [0];
    patiently(env, "they come", server.read_exact(&mut first)).await.expect("it works");
    drop(server);
    assert_eq!(read_some(env, &mut client).await, Err(io::ErrorKind::ConnectionReset));
}

/// A peer who closed its end: the stream ends, and writes fail with a broken pipe soon after.
pub async fn writes_to_a_peer_who_went_become_a_broken_pipe<E: Env>(env: &E, ip: IpAddr) {
    let (mut client, server) = pair(env, ip).await;
    drop(server);
    assert_eq!(read_some(env, &mut client).await, Ok(Vec::new()));
    assert_eq!(write_until_it_fails(env, &mut client).await, io::ErrorKind::BrokenPipe);
    assert_eq!(read_some(env, &mut client).await, Ok(Vec::new()));
}

/// Who gives up connecting takes nothing along.
pub async fn a_dropped_connect_leaves_the_listener_well<E: Env>(env: &E, ip: IpAddr) {
    let mut listener = listen(env, ip).await;
    for _ in 0..3 {
        let mut connecting = std::pin::pin!(env.connect(listener.local_addr(), &SMALL));
        // Begun, and given up at once.
        poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx).is_ready())).await;
    }
    let mut client = env.connect(listener.local_addr(), &SMALL).await.expect("it is reached");
    loop {
        let accepting = patiently(env, "a connection is accepted", listener.accept());
        let mut server = accepting.await.expect("a connection is accepted");
        if server.peer_addr() == client.local_addr() {
            write(env, &mut server, b"you").await;
            break;
        }
    }
    assert_eq!(read_all(env, &mut client).await, b"you");
}

/// Digits, `localhost`, `invalid` and what is no name.
pub async fn names_without_a_resolver_are_answered_alike<E: Env>(env: &E) {
    let digits = env.resolve("192.0.2.7", 80).await.expect("digits are an address");
    assert_eq!(digits.addresses, [SocketAddr::from(([192, 0, 2, 7], 80))]);
    let near = env.resolve("localhost", 81).await.expect("everybody has it");
    assert_eq!(near.addresses.first(), Some(&SocketAddr::from(([127, 0, 0, 1], 81))));
    let nobody = env.resolve("nobody.invalid", 80).await;
    assert!(matches!(nobody, Err(ResolveError::NotFound { .. })), "{nobody:?}");
    let garbled = env.resolve("no name", 80).await;
    assert!(matches!(garbled, Err(ResolveError::NoName { .. })), "{garbled:?}");
}
