//! A server on several cores: a thread for each, bound to it.

#[cfg(not(target_os = "linux"))]
use super::server::{ServeError, ServeOptions, ServerHandle};

/// Starts a server on several cores.
#[cfg(not(target_os = "linux"))]
pub(super) fn serve(_: ServeOptions) -> Result<ServerHandle, ServeError> {
    Err(ServeError::CoresUnsupported)
}

#[cfg(target_os = "linux")]
pub(super) use linux::serve;

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, mpsc};
    use std::thread::{self, JoinHandle};

    use twinspan_core::random::{SecretSource, Stream};
    use twinspan_core::steer::Steering;
    use twinspan_core::time::Timestamp;
    use twinspan_net::{
        GroupMember, ReactorEnv, allowed_cores, bind_group, bind_unsteered_group, pin_to_core,
    };
    use twinspan_provider::{
        OsSecrets, RandomProvider, SocketReport, TimeProvider, UdpError, UdpOptions, UdpSocket,
        drive,
    };
    use twinspan_session::{CryptoSuite, ServerIdentity, TokenIssuer, TokenKey, UserId};

    use super::super::server::{
        BUFFERS_MADE, GATHER, ServeError, ServeOptions, ServerHandle, Started, bans_left,
        ended_at_once, in_order, unix_at_start_s,
    };
    use super::super::suite_of;
    use super::super::tap::{ASK_STOP, Served, Shared, Tap};
    use super::super::woken::Woken;
    use crate::config::ServerConfig;
    use crate::server::{Front, Member, Office, Outpost, ServerKeys, connect};

    /// What the thread of a core is given.
    struct Task {
        core: usize,
        number: u16,
        steering: Steering,
        socket: GroupMember,
        config: ServerConfig,
        keys: ServerKeys,
        /// The keys to rotate to at once.
        then: Option<ServerKeys>,
        /// Who is let in no more, and until when.
        bans: Arc<[(UserId, u64)]>,
        suites: CryptoSuite,
        outpost: Outpost,
        /// The world, for the first core.
        office: Option<Office>,
        epoch_nanos: u64,
        shared: Arc<Shared>,
        /// Of all threads: when one fails, the others end too.
        all: Arc<[Arc<Shared>]>,
    }

    type Report = Result<SocketReport, ServeError>;

    /// Starts a server on several cores.
    pub(in super::super) fn serve(options: ServeOptions) -> Result<ServerHandle, ServeError> {
        let ServeOptions { address, mut config, keys, previous_keys, messages, .. } = options;
        let bans: Arc<[_]> = options.bans.into();
        let cores = allowed_cores()?;
        let (asked, have) = (options.cores, cores.len());
        let too_many = ServeError::Cores { asked, have };
        let Some(shards) = u16::try_from(asked).ok().filter(|_| asked <= have) else {
            return Err(too_many);
        };
        if options.relay.is_some() {
            return Err(ServeError::RelayCores);
        }
        let epoch_nanos = ReactorEnv::clock_ns();
        config.unix_at_start_s = unix_at_start_s(Timestamp::START);
        let mut secrets = OsSecrets;
        let mut key = [0; 4];
        secrets.fill(&mut key);
        let steering = Steering::new(u32::from_le_bytes(key), shards);
        let path = options.io_path;
        let udp = UdpOptions { gather: GATHER, path, ..UdpOptions::default() };
        let bind = if options.kernel_steers { bind_group } else { bind_unsteered_group };
        let sockets = bind(address, steering, &udp)?;
        let is_steered = sockets.iter().all(GroupMember::is_steered);
        let address = sockets.first().map_or(address, GroupMember::local_addr);
        let keys = keys.unwrap_or_else(|| ServerKeys {
            identity: ServerIdentity::new(&mut secrets),
            tokens: TokenKey::new(&mut secrets),
        });
        let public_key = keys.identity.public_key();
        let issuer = TokenIssuer::new(keys.tokens.clone(), public_key);
        let (keys, then) = in_order(keys, previous_keys);
        let world = Stream::new(OsSecrets::seed()?, "world", 0);
        let (office, outposts) = connect(&config, messages, steering, world)?;
        let suites = suite_of(&options.ciphers)?;
        let all: Arc<[_]> = (0..shards).map(|_| Arc::new(Shared::default())).collect();
        let mut office = Some(office);
        let mut running = Running { all: Arc::clone(&all), threads: Vec::new() };
        let (started_tx, started_rx) = mpsc::channel();
        let parts = sockets.into_iter().zip(outposts).zip(cores).zip(&*all).zip(0..);
        for ((((socket, outpost), core), shared), number) in parts {
            let task = Task {
                core,
                number,
                steering,
                socket,
                config: config.clone(),
                keys: keys.clone(),
                then: then.clone(),
                bans: Arc::clone(&bans),
                suites,
                outpost,
                office: office.take(),
                epoch_nanos,
                shared: Arc::clone(shared),
                all: Arc::clone(&all),
            };
            let started = started_tx.clone();
            let thread = thread::Builder::new().name(format!("twinspan-core{number}"));
            running.threads.push(thread.spawn(move || run(task, &started))?);
        }
        drop(started_tx);
        let mut reports: Vec<Option<SocketReport>> = all.iter().map(|_| None).collect();
        for _ in 0..shards {
            let (number, report) = started_rx.recv().map_err(|_| ended_at_once())?;
            let report: Report = report;
            if let Some(place) = reports.get_mut(usize::from(number)) {
                *place = Some(report?);
            }
        }
        let mut reports = reports.into_iter().flatten();
        let report = reports.next().ok_or_else(ended_at_once)?;
        let started = Started {
            address,
            relay_address: None,
            report,
            relay_report: None,
            public_key,
            issuer,
            secrets: Box::new(OsSecrets),
            epoch_nanos,
        };
        let threads = std::mem::take(&mut running.threads);
        Ok(ServerHandle::new(started, all.to_vec(), threads, reports.collect(), is_steered))
    }

    /// Threads of a server that could not be started on all cores end.
    struct Running {
        all: Arc<[Arc<Shared>]>,
        threads: Vec<JoinHandle<Result<(), UdpError>>>,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            if self.threads.is_empty() {
                return;
            }
            stop(&self.all);
            for thread in self.threads.drain(..) {
                // What went wrong is told by who started them.
                let _ = thread.join();
            }
        }
    }

    /// Asks all threads to end.
    fn stop(all: &[Arc<Shared>]) {
        for shared in all {
            shared.asked.fetch_max(ASK_STOP, Ordering::Relaxed);
        }
    }

    /// A thread that ends in a panic, or because its socket failed, takes the others with it: their
    /// players see no world any more.
    struct Alarm {
        all: Arc<[Arc<Shared>]>,
        is_off: bool,
    }

    impl Drop for Alarm {
        fn drop(&mut self) {
            if !self.is_off {
                stop(&self.all);
            }
        }
    }

    /// The thread of a core.
    fn run(task: Task, started: &mpsc::Sender<(u16, Report)>) -> Result<(), UdpError> {
        let number = task.number;
        let mut alarm = Alarm { all: Arc::clone(&task.all), is_off: false };
        let ended = match prepare(task) {
            Ok(Prepared { env, socket, server: AnyShard::Front(server), shared }) => {
                // Whoever called `serve` waits for this; if it is gone nobody needs to know.
                let _ = started.send((number, Ok(socket.report())));
                drive_on(&env, socket, *server, shared)
            }
            Ok(Prepared { env, socket, server: AnyShard::Member(server), shared }) => {
                let _ = started.send((number, Ok(socket.report())));
                drive_on(&env, socket, *server, shared)
            }
            Err(error) => {
                let _ = started.send((number, Err(error)));
                return Ok(());
            }
        };
        alarm.is_off = ended.is_ok();
        ended
    }

    enum AnyShard {
        Front(Box<Front>),
        Member(Box<Member>),
    }

    struct Prepared {
        env: ReactorEnv,
        socket: twinspan_net::BatchUdp,
        server: AnyShard,
        shared: Arc<Shared>,
    }

    fn prepare(task: Task) -> Result<Prepared, ServeError> {
        let Task { core, number, steering, socket, config, keys, then, suites, .. } = task;
        pin_to_core(core)?;
        let env = ReactorEnv::with_epoch(None, task.epoch_nanos)?;
        let socket = env.adopt(socket)?;
        socket.pool().make(BUFFERS_MADE);
        let (secrets, jitter) = (env.secrets(), env.stream("session", u64::from(number)));
        let (place, suites) = ((steering, number), Arc::new(suites));
        let mut member = Member::new(config, place, suites, keys, secrets, jitter, task.outpost)?;
        if let Some(present) = then {
            member.rotate_keys(present);
        }
        for (user, left) in bans_left(&task.bans) {
            member.ban(env.now(), user, left);
        }
        let server = match task.office {
            Some(office) => AnyShard::Front(Box::new(Front::new(office, member))),
            None => AnyShard::Member(Box::new(member)),
        };
        Ok(Prepared { env, socket, server, shared: task.shared })
    }

    fn drive_on<S: Served + 'static>(
        env: &ReactorEnv,
        socket: impl UdpSocket,
        server: S,
        shared: Arc<Shared>,
    ) -> Result<(), UdpError> {
        let mut tap = Rc::new(RefCell::new(Tap::new(server, shared)));
        let mut socket = Woken::new(socket, Rc::clone(&tap));
        env.clone().block_on(drive(env, &mut socket, &mut tap))
    }
}
