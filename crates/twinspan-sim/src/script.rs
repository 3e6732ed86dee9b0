//! Scripted peers, for unit tests of code that talks to somebody.
//!
//! A [`Script`] says what each peer does with the connections that it gets: expects bytes, gives
//! some, waits, breaks off. [`Script::run`] runs the code under test against it in virtual time and
//! says where the two parted.
//!
//! ```
//! use std::time::Duration;
//! use twinspan_provider::{AsyncReadExt, AsyncWriteExt, NetworkProvider, TcpOptions};
//! use twinspan_sim::script::{Script, Step};
//!
//! let peer = "10.0.0.2:80".parse().unwrap();
//! let outcome = Script::new(7)
//!     .connection(peer, [
//!         Step::expect("ping\n"),
//!         Step::Wait(Duration::from_secs(1)),
//!         Step::give("po"),
//!         Step::Reset,
//!     ])
//!     .run(async move |env| {
//!         let mut stream = env.connect(peer, &TcpOptions::default()).await.unwrap();
//!         stream.write_all(b"ping\n").await.unwrap();
//!         let mut answer = Vec::new();
//!         let error = stream.read_to_end(&mut answer).await.unwrap_err();
//!         (answer, error.kind())
//!     });
//! let (answer, kind) = outcome.unwrap();
//! assert_eq!((&answer[..], kind), (&b"po"[..], std::io::ErrorKind::ConnectionReset));
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions, TcpStream,
    TimeProvider, Timer,
};

use crate::config::SimConfig;
use crate::env::SimEnv;
use crate::names::NameFailure;
use crate::run::{RUN_IP, RUN_LIMIT, RunError};
use crate::sim::Sim;
use crate::tcp::SimTcp;

/// How long peers may go on when the code under test has ended.
const AFTER: Duration = Duration::from_secs(60);

/// What a peer does next with a connection. After the last step it closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Reads exactly these bytes.
    Expect(Vec<u8>),
    /// Reads the end of the stream.
    ExpectEnd,
    /// Writes these bytes.
    Give(Vec<u8>),
    /// Does nothing for this long.
    Wait(Duration),
    /// Breaks the connection off; further steps are not done.
    Reset,
}

impl Step {
    /// [`Step::Expect`] of these bytes.
    pub fn expect(bytes: impl AsRef<[u8]>) -> Self {
        Self::Expect(bytes.as_ref().to_vec())
    }

    /// [`Step::Give`] of these bytes.
    pub fn give(bytes: impl AsRef<[u8]>) -> Self {
        Self::Give(bytes.as_ref().to_vec())
    }
}

/// Where the code under test left the script.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptError {
    /// A peer read something else than it expected, or could not go on.
    Parted {
        /// The peer.
        peer: SocketAddr,
        /// Which of its connections, from 0.
        connection: usize,
        /// Which of that connection's steps, from 0.
        step: usize,
        /// What the peer read of it; not more than it expected and a byte.
        read: Vec<u8>,
        /// Why it could not go on, where bytes do not say.
        error: Option<io::ErrorKind>,
    },
    /// Connections of the script were not made, or not followed to their end.
    Left {
        /// The first peer with any left.
        peer: SocketAddr,
        /// How many.
        connections: usize,
    },
    /// The code under test did not end.
    Unfinished(RunError),
}

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parted { peer, connection, step, read, error } => {
                write!(f, "connection {connection} of {peer} left its script at step {step}: ")?;
                write!(f, "the peer read \"{}\"", read.escape_ascii())?;
                error.map_or(Ok(()), |error| write!(f, " and then: {error}"))
            }
            Self::Left { peer, connections } => write!(
                f,
                "{connections} connections of {peer} were not made or not followed to their end"
            ),
            Self::Unfinished(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ScriptError {}

/// What the peers of the code under test do.
#[derive(Debug)]
pub struct Script {
    sim: Sim,
    peers: BTreeMap<SocketAddr, VecDeque<Vec<Step>>>,
}

impl Script {
    /// A world with nobody in it. The seed decides about short reads and the like.
    pub fn new(seed: u64) -> Self {
        let sim = Sim::new(SimConfig { seed, ..SimConfig::default() });
        Self { sim, peers: BTreeMap::new() }
    }

    /// The next connection that `peer` gets goes like this. After its last one it refuses.
    #[must_use]
    pub fn connection(mut self, peer: SocketAddr, steps: impl IntoIterator<Item = Step>) -> Self {
        self.peers.entry(peer).or_default().push_back(steps.into_iter().collect());
        self
    }

    /// There is a host at `peer`, and it refuses connections.
    #[must_use]
    pub fn refusal(mut self, peer: SocketAddr) -> Self {
        self.peers.entry(peer).or_default();
        self
    }

    /// There is a host at `ip` that does not answer: connecting times out.
    #[must_use]
    pub fn silence(mut self, ip: IpAddr) -> Self {
        self.sim.host("silent", ip);
        self.sim.stop_host(ip);
        self
    }

    /// A name has these addresses.
    #[must_use]
    pub fn name(mut self, name: &str, ips: &[IpAddr]) -> Self {
        self.sim.set_name(name, ips, Duration::from_secs(60));
        self
    }

    /// Looking a name up fails.
    #[must_use]
    pub fn name_failure(mut self, name: &str, failure: NameFailure) -> Self {
        self.sim.fail_name(name, failure);
        self
    }

    /// Runs the code under test on a host at [`RUN_IP`] and returns what it ended with.
    ///
    /// # Errors
    /// [`ScriptError`] says where it left the script; that goes before what it ended with.
    ///
    /// # Panics
    /// When the code under test does.
    pub fn run<F, A>(mut self, code: A) -> Result<F::Output, ScriptError>
    where
        F: Future + 'static,
        F::Output: 'static,
        A: FnOnce(SimEnv) -> F,
    {
        let parted = Rc::new(RefCell::new(None));
        let mut tasks = Vec::new();
        for (peer, connections) in std::mem::take(&mut self.peers) {
            let env = self.sim.host("peer", peer.ip());
            let play = Play { env: env.clone(), peer, parted: Rc::clone(&parted) };
            let left = Rc::new(RefCell::new(connections.len()));
            let task = env.spawn("peer", play.all(connections, Rc::clone(&left)));
            tasks.push((peer, left, task));
        }
        // They listen before anybody connects.
        self.sim.run_until(self.sim.now());
        let env = self.sim.host("code under test", RUN_IP);
        let future = code(env.clone());
        let seed_of_error = RunError::Unfinished { seed: self.sim.seed() };
        let output = self.sim.block_on(&env, RUN_LIMIT, future);
        self.sim.run_for(AFTER);
        if let Some(error) = parted.borrow_mut().take() {
            return Err(error);
        }
        let output = output.ok_or(ScriptError::Unfinished(seed_of_error))?;
        let left = tasks.iter().find(|(_, left, _)| *left.borrow() > 0);
        match left {
            Some((peer, left, _)) => {
                Err(ScriptError::Left { peer: *peer, connections: *left.borrow() })
            }
            None => Ok(output),
        }
    }
}

/// One peer at its work.
struct Play {
    env: SimEnv,
    peer: SocketAddr,
    /// Where the first of all peers that could not go on says why.
    parted: Rc<RefCell<Option<ScriptError>>>,
}

impl Play {
    async fn all(self, connections: VecDeque<Vec<Step>>, left: Rc<RefCell<usize>>) {
        if connections.is_empty() {
            return;
        }
        let Ok(mut listener) = self.env.listen(self.peer, &TcpOptions::default()).await else {
            return;
        };
        let mut playing = Vec::new();
        let count = connections.len();
        for (number, steps) in connections.into_iter().enumerate() {
            let Ok(stream) = listener.accept().await else { return };
            let (env, peer) = (self.env.clone(), self.peer);
            let (parted, left) = (Rc::clone(&self.parted), Rc::clone(&left));
            // Of its own, so that connections may overlap.
            playing.push(self.env.spawn("connection", async move {
                match follow(&env, stream, steps).await {
                    Ok(()) => *left.borrow_mut() -= 1,
                    Err((step, read, error)) => {
                        let connection = number;
                        let error = ScriptError::Parted { peer, connection, step, read, error };
                        parted.borrow_mut().get_or_insert(error);
                    }
                }
            }));
            if number + 1 == count {
                break;
            }
        }
        // Further connections are refused; those there are go on.
        drop(listener);
        std::future::pending::<()>().await;
    }
}

/// Where a connection left its steps, what was read, and the error if there was one.
type Left = (usize, Vec<u8>, Option<io::ErrorKind>);

async fn follow(env: &SimEnv, mut stream: SimTcp, steps: Vec<Step>) -> Result<(), Left> {
    for (number, step) in steps.into_iter().enumerate() {
        let outcome = match step {
            Step::Expect(wanted) => expect(&mut stream, &wanted).await,
            Step::ExpectEnd => expect_end(&mut stream).await,
            Step::Give(bytes) => {
                let given = stream.write_all(&bytes).await;
                given.map_err(|error| (Vec::new(), Some(error.kind())))
            }
            Step::Wait(duration) => {
                let mut timer = env.timer();
                timer.set(Some(env.now().after(duration)));
                std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
                Ok(())
            }
            Step::Reset => {
                stream.abort();
                return Ok(());
            }
        };
        outcome.map_err(|(read, error)| (number, read, error))?;
    }
    Ok(())
}

/// Reads what is wanted, and stops at the first byte that is not.
async fn expect(
    stream: &mut SimTcp,
    wanted: &[u8],
) -> Result<(), (Vec<u8>, Option<io::ErrorKind>)> {
    let mut read = Vec::with_capacity(wanted.len());
    for byte in wanted {
        match stream.read_u8().await {
            Ok(got) => read.push(got),
            Err(error) => return Err((read, Some(error.kind()))),
        }
        if read.last() != Some(byte) {
            return Err((read, None));
        }
    }
    Ok(())
}

async fn expect_end(stream: &mut SimTcp) -> Result<(), (Vec<u8>, Option<io::ErrorKind>)> {
    let mut byte = [0];
    match stream.read(&mut byte).await {
        Ok(0) => Ok(()),
        Ok(_) => Err((byte.to_vec(), None)),
        Err(error) => Err((Vec::new(), Some(error.kind()))),
    }
}

#[cfg(test)]
mod tests;
