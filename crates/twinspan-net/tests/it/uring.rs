//! Streams and datagrams by completion rings.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use twinspan_net::{UringEnv, UringError};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions, TcpStream,
    TimeProvider, Timer, conformance,
};

/// A shard with a ring, or why the test is over.
fn env() -> Option<UringEnv> {
    match UringEnv::new(Some(1)) {
        Ok(env) => Some(env),
        Err(error @ UringError::Unavailable(_)) => {
            super::skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn streams_and_datagrams_by_rings_conform_over_ipv4() {
    let Some(env) = env() else { return };
    env.block_on(conformance::all(&env, IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn streams_by_rings_conform_over_ipv6() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let Some(env) = env() else { return };
    env.block_on(conformance::streams::all(&env, IpAddr::V6(Ipv6Addr::LOCALHOST)));
}

#[test]
fn the_two_ways_of_a_stream_may_be_two_tasks() {
    let Some(env) = env() else { return };
    env.block_on(async {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listener = env.listen(local, &TcpOptions::default()).await.unwrap();
        let address = listener.local_addr();
        let client = env.connect(address, &TcpOptions::default()).await.unwrap();
        let mut server = listener.accept().await.unwrap();
        let echo = env.spawn("echo", async move {
            let mut bytes = [0; 1_000];
            while let Ok(len @ 1..) = server.read(&mut bytes).await {
                server.write_all(&bytes[..len]).await.unwrap();
            }
        });
        let (mut reads, mut writes) = tokio_split(client);
        let inner = env.clone();
        let writing = env.spawn("writes", async move {
            for number in 0..50_u8 {
                let mut timer = inner.timer();
                timer.set(Some(inner.now().after(Duration::from_micros(200))));
                std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
                writes.write_all(&[number; 100]).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        for number in 0..50_u8 {
            let mut bytes = [0; 100];
            reads.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [number; 100]);
        }
        drop((writing, echo));
    });
}

/// The two ways of a stream.
fn tokio_split<S: TcpStream>(stream: S) -> (impl AsyncReadExt + Unpin, impl AsyncWriteExt + Unpin) {
    struct Half<S>(std::rc::Rc<std::cell::RefCell<S>>);
    impl<S: TcpStream> twinspan_provider::AsyncRead for Half<S> {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut twinspan_provider::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
        }
    }
    impl<S: TcpStream> twinspan_provider::AsyncWrite for Half<S> {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::pin::Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
        }
    }
    let one = std::rc::Rc::new(std::cell::RefCell::new(stream));
    (Half(std::rc::Rc::clone(&one)), Half(one))
}

#[test]
fn what_is_under_way_when_a_shard_ends_is_taken_back() {
    for _ in 0..20 {
        let Some(env) = env() else { return };
        env.block_on(async {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut listener = env.listen(local, &TcpOptions::default()).await.unwrap();
            let address = listener.local_addr();
            let mut client = env.connect(address, &TcpOptions::default()).await.unwrap();
            let server = listener.accept().await.unwrap();
            // An accept, a receive and a send that will not end by themselves.
            let mut one = [0];
            let polled = std::future::poll_fn(|cx| {
                let accepting = listener.poll_accept(cx).is_pending();
                let mut room = twinspan_provider::ReadBuf::new(&mut one);
                let reading = std::pin::Pin::new(&mut client);
                let reading = twinspan_provider::AsyncRead::poll_read(reading, cx, &mut room);
                let mut written = 0;
                loop {
                    let writing = std::pin::Pin::new(&mut client);
                    let bytes = [7; 30_000];
                    match twinspan_provider::AsyncWrite::poll_write(writing, cx, &bytes) {
                        std::task::Poll::Ready(outcome) => written += outcome.unwrap(),
                        std::task::Poll::Pending => break,
                    }
                }
                std::task::Poll::Ready((accepting, reading.is_pending(), written > 0))
            });
            assert_eq!(polled.await, (true, true, true));
            drop(server);
        });
    }
}

/// Writes until no more is taken, in several turns: in one of them a task may have had its share.
async fn fill(stream: &mut impl TcpStream) {
    let mut refusals = 0;
    std::future::poll_fn(|cx| {
        loop {
            let writing = std::pin::Pin::new(&mut *stream);
            match twinspan_provider::AsyncWrite::poll_write(writing, cx, &[7; 30_000]) {
                std::task::Poll::Ready(outcome) => assert!(outcome.unwrap() > 0),
                std::task::Poll::Pending if refusals == 200 => {
                    return std::task::Poll::Ready(());
                }
                std::task::Poll::Pending => break,
            }
            refusals = 0;
        }
        refusals += 1;
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn what_a_shard_that_ends_could_not_send_is_a_broken_stream_to_its_peer() {
    let Some(env) = env() else { return };
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    env.block_on(async {
        let mut client = env.connect(address, &TcpOptions::default()).await.unwrap();
        fill(&mut client).await;
    });
    let (mut peer, _) = listener.accept().unwrap();
    drop(env);
    let ended = peer.read_to_end(&mut Vec::new());
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn shutting_a_stream_tells_that_what_was_written_last_is_lost() {
    let Some(env) = env() else { return };
    env.block_on(async {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listener = env.listen(local, &TcpOptions::default()).await.unwrap();
        let address = listener.local_addr();
        let mut client = env.connect(address, &TcpOptions::default()).await.unwrap();
        let server = listener.accept().await.unwrap();
        fill(&mut client).await;
        server.abort();
        assert!(client.shutdown().await.is_err(), "the write before it failed");
        assert!(client.shutdown().await.is_ok(), "told once");
    });
}
