//! Asking over streams: by the server's name, connecting again whenever something breaks.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_provider::{
    AcceptError, AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener,
    TcpOptions,
};

use super::{Ledger, NAME, Progress, RETRY, STREAM_PORT, Shape, Way, sleep, tag, within};
use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::tcp::{SimListener, SimTcp};

/// Requests that one connection carries.
const REQUESTS_PER_CONNECTION: usize = 3;
/// How long a client waits for a connection, and for an answer.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_millis(1_500);
/// Between two requests of a stream, this many of those between two datagrams.
const SPACINGS: u32 = 5;
/// How long the server waits for the next request.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request that the server takes at most.
const BYTES_MAX: usize = 1 << 16;
/// Connections of the server at the same time; it hears no further one until one has ended.
const CONNECTIONS_MAX: usize = 64;

/// Reads a request: client, number and what is to be sent back.
async fn read(stream: &mut SimTcp) -> io::Result<(u64, u64, Vec<u8>)> {
    let len = stream.read_u32_le().await? as usize;
    if len > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (client, number) = (stream.read_u64_le().await?, stream.read_u64_le().await?);
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    let mut seen = [0; 8];
    stream.read_exact(&mut seen).await?;
    if seen != tag(number, &bytes) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((client, number, bytes))
}

async fn write(stream: &mut SimTcp, client: u64, number: u64, bytes: &[u8]) -> io::Result<()> {
    // A request is no longer than its length can say.
    stream.write_u32_le(bytes.len() as u32).await?;
    stream.write_u64_le(client).await?;
    stream.write_u64_le(number).await?;
    stream.write_all(bytes).await?;
    stream.write_all(&tag(number, bytes)).await
}

async fn listen(env: &SimEnv, shape: Shape) -> SimListener {
    let local = SocketAddr::new(env.ip(), STREAM_PORT);
    // The range of the backlog is that of the option.
    let options = TcpOptions { backlog: shape.backlog as u32, ..TcpOptions::default() };
    loop {
        if let Ok(listener) = env.listen(local, &options).await {
            return listener;
        }
        sleep(env, RETRY).await;
    }
}

/// The server: answers on every connection until its host is asked to stop.
pub(super) async fn serve(env: SimEnv, shape: Shape, ledger: Rc<RefCell<Ledger>>) {
    let mut listener = listen(&env, shape).await;
    let asked = async {
        env.asked_to_stop().await;
        crate::reachable!("the server was asked to stop");
    };
    let accepting = async {
        let mut tasks: Vec<SimTask> = Vec::new();
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    tasks.retain(|task| !task.is_finished());
                    if tasks.len() < CONNECTIONS_MAX {
                        let connection = connection(env.clone(), stream, Rc::clone(&ledger));
                        tasks.push(env.spawn("connection", connection));
                    }
                }
                Err(AcceptError::HostStopped) => return,
                Err(_) => {
                    crate::reachable!("accepting failed for a while");
                    sleep(&env, RETRY).await;
                }
            }
        }
    };
    let (mut asked, mut accepting) = (std::pin::pin!(asked), std::pin::pin!(accepting));
    std::future::poll_fn(|cx| {
        if asked.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        accepting.as_mut().poll(cx)
    })
    .await;
}

async fn connection(env: SimEnv, mut stream: SimTcp, ledger: Rc<RefCell<Ledger>>) {
    loop {
        let asked = within(&env, IDLE_TIME, read(&mut stream)).await;
        let Some(Ok((client, number, bytes))) = asked else { return };
        ledger.borrow_mut().carry_out((Way::Stream, client, number));
        let answered = within(&env, IDLE_TIME, write(&mut stream, client, number, &bytes)).await;
        if !matches!(answered, Some(Ok(()))) {
            return;
        }
    }
}

/// What a request carries.
fn payload(shape: Shape, client: u64, number: u64) -> Vec<u8> {
    let len = (number * 7_919 + client * 101 + 13) % (shape.bytes_max + 1);
    (0..len).map(|byte| (byte ^ number) as u8).collect()
}

/// A client: asks for all that it does not know to be answered.
pub(super) async fn ask(env: SimEnv, shape: Shape, client: u64, progress: Rc<RefCell<Progress>>) {
    let mut tries = 0_u32;
    loop {
        let open: Vec<u64> = {
            let progress = progress.borrow();
            let open = (0..shape.streams).filter(|number| !progress.streams.contains(number));
            open.take(REQUESTS_PER_CONNECTION).collect()
        };
        if open.is_empty() {
            return;
        }
        let outcome = once(&env, shape, (client, &open), &progress).await;
        if outcome.is_err() {
            crate::reachable!("a stream broke and was made again");
            sleep(&env, RETRY * (1 << tries.min(4))).await;
            tries += 1;
        } else {
            tries = 0;
        }
    }
}

/// Asks some requests over one connection.
async fn once(
    env: &SimEnv,
    shape: Shape,
    (client, open): (u64, &[u64]),
    progress: &Rc<RefCell<Progress>>,
) -> io::Result<()> {
    let found = env.resolve(NAME, STREAM_PORT).await.map_err(io::Error::other)?;
    let peer = found.addresses.first().copied().ok_or(io::ErrorKind::NotFound)?;
    let options = TcpOptions { connect_timeout: CONNECT_TIME, ..TcpOptions::default() };
    let mut stream = env.connect(peer, &options).await.map_err(io::Error::other)?;
    for number in open {
        let bytes = payload(shape, client, *number);
        let exchange = async {
            write(&mut stream, client, *number, &bytes).await?;
            read(&mut stream).await
        };
        let answer = within(env, ANSWER_TIME, exchange).await;
        let (whose, which, back) = answer.ok_or(io::ErrorKind::TimedOut)??;
        {
            let mut progress = progress.borrow_mut();
            if (whose, which) == (client, *number) && back == bytes {
                progress.streams.insert(*number);
            } else {
                progress.wrong += 1;
            }
        }
        sleep(env, shape.spacing * SPACINGS).await;
    }
    stream.shutdown().await
}
