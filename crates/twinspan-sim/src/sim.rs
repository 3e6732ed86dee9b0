//! The hand on the simulation: hosts, faults, time and what came of it.

use std::cell::RefCell;
use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::chaos::{Judge, under};
use twinspan_core::link::{Conditions, FaultCounters, FaultKind};
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use twinspan_provider::TaskProvider;

use crate::ahead::Wish;
use crate::chaos::{HostPanic, Mark, MarkCount, Start};
use crate::config::SimConfig;
use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::names::{Answer, NameFailure};
use crate::network::SentDatagram;
use crate::plan::{Fault, FaultPlan};
use crate::queue::{Queue, QueueKind};
use crate::segment::{TcpMode, TcpReport};
use crate::trace::{Origin, TraceCheckpoints, TraceEvent, TraceKind, TraceLegend};
use crate::world::{World, events_max, ip_words};

/// A simulated network with everything on it. Dropping it stops all tasks.
pub struct Sim {
    pub(crate) world: Rc<World>,
}

impl Sim {
    /// A simulation without hosts, at [`Timestamp::START`].
    pub fn new(config: SimConfig) -> Self {
        Self { world: World::new(config) }
    }

    /// The host at `ip`: the one that is there, or one made or started again.
    ///
    /// # Panics
    /// When there are [`HOSTS_MAX`](crate::HOSTS_MAX) hosts already.
    pub fn host(&mut self, name: &str, ip: IpAddr) -> SimEnv {
        SimEnv::new(&self.world, name, ip)
    }

    /// Stops the host at `ip` as a power cut does: its tasks and sockets are gone, what it sent
    /// goes on. False when none runs there.
    pub fn stop_host(&mut self, ip: IpAddr) -> bool {
        self.world.stop_host(ip)
    }

    /// Makes a host at `ip` that starts again when a planned fault has stopped it, or
    /// [`Sim::start_again`] says so. `boot` starts its tasks, now and each time; they end with the
    /// host.
    ///
    /// # Panics
    /// As [`Sim::host`] does.
    pub fn boot(
        &mut self,
        name: &str,
        ip: IpAddr,
        boot: impl FnMut(SimEnv, Start) -> Vec<SimTask> + 'static,
    ) {
        let boot = Rc::new(RefCell::new(boot));
        self.world.state.borrow_mut().chaos.boots.know(ip, name.to_owned(), boot);
        self.world.boot(ip, Start::First);
    }

    /// Starts a host of [`Sim::boot`] again; false when there is none such, or it runs.
    pub fn start_again(&mut self, ip: IpAddr, start: Start) -> bool {
        let runs = {
            let state = self.world.state.borrow();
            let host = state.hosts.at(ip).and_then(|id| state.hosts.get(id));
            !state.chaos.boots.is_known(ip) || host.is_some_and(|host| host.is_running)
        };
        if !runs {
            self.world.boot(ip, start);
        }
        !runs
    }

    /// Some events before the turn of the host at `ip`, `wish` is asked to bring what the host's machine
    /// will touch into the caches; in simulations of a few hosts it is not. False when there is no such
    /// host.
    pub fn set_wish(&mut self, ip: IpAddr, wish: Rc<dyn Wish>) -> bool {
        let state = &mut *self.world.state.borrow_mut();
        let turn = state.hosts.at(ip).and_then(|host| state.turn_mut(host));
        turn.map(|turn| turn.wish = Some(wish)).is_some()
    }

    /// Lets the faults of a plan strike from now on, in place of those of an earlier one.
    pub fn plan_faults(&mut self, plan: FaultPlan) {
        self.world.state.borrow_mut().chaos.follow(self.now(), plan);
    }

    /// Ends all planned faults, and partitions made by hand: nothing strikes any more, links and
    /// clocks are as without faults, and hosts that are down start again at once. What is on its
    /// way, and connections that were forgotten, stay as they are.
    pub fn heal_faults(&mut self) {
        self.world.state.borrow_mut().heal_faults(self.now());
        self.heal_all();
    }

    /// Writes down no more than so many planned faults from now on, where there would be
    /// [`FAULTS_RECORDED_MAX`](crate::plan::FAULTS_RECORDED_MAX): for runs of hours, whose faults
    /// nobody gives back to them. It changes nothing else.
    pub fn keep_faults(&mut self, faults: usize) {
        self.world.state.borrow_mut().chaos.keep_at_most(faults);
    }

    /// The planned faults that struck so far, in order: as a [`FaultPlan::Listed`] they give the same
    /// run again.
    pub fn struck(&self) -> Vec<Fault> {
        self.world.state.borrow().chaos.written_down().to_vec()
    }

    /// Faults that struck beyond those that can be written down.
    pub fn faults_unrecorded(&self) -> u64 {
        self.world.state.borrow().chaos.unrecorded
    }

    /// The tasks that panicked, the first ones where there were very many.
    pub fn panics(&self) -> Vec<HostPanic> {
        self.world.state.borrow().chaos.boots.panics().to_vec()
    }

    /// The marks that were met.
    pub fn marks(&self) -> Vec<MarkCount> {
        self.world.state.borrow().chaos.marks.counts()
    }

    /// Each `always!` that did not hold, the first ones where there were very many.
    pub fn broken_marks(&self) -> Vec<Mark> {
        self.world.state.borrow().chaos.marks.broken().to_vec()
    }

    /// The seed of everything that is drawn.
    pub fn seed(&self) -> u64 {
        self.world.config.seed
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.world.now.get()
    }

    /// Runs all that happens up to and at `end`, which is then the present.
    ///
    /// # Panics
    /// When tasks wake one another for ever without time moving on
    /// ([`POLLS_PER_MOMENT_MAX`](crate::POLLS_PER_MOMENT_MAX)).
    pub fn run_until(&mut self, end: Timestamp) {
        let world = &self.world;
        under(Rc::clone(world) as Rc<dyn Judge>, || world.run_until(end));
    }

    /// Runs for this long, like [`Sim::run_until`].
    ///
    /// # Panics
    /// As [`Sim::run_until`] does.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now().after(duration));
    }

    /// Runs `future` as a task of `env`'s host until it ends, for `limit` at most, and returns what
    /// it ended with. Other tasks run on their way, and time stops where it ended.
    ///
    /// # Panics
    /// As [`Sim::run_until`] does.
    pub fn block_on<F>(&mut self, env: &SimEnv, limit: Duration, future: F) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let outcome = Rc::new(RefCell::new(None));
        let told = Rc::clone(&outcome);
        let task = env.spawn("block_on", async move {
            let output = future.await;
            *told.borrow_mut() = Some(output);
        });
        let (world, end) = (&self.world, self.now().after(limit));
        under(Rc::clone(world) as Rc<dyn Judge>, || {
            world.run_until_done(end, || task.is_finished());
        });
        outcome.take()
    }

    /// Changes what every link between two hosts is like, also those that [`Sim::set_link`] set.
    /// Values out of range are held to it.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        let state = &mut *self.world.state.borrow_mut();
        state.network.set_conditions(conditions);
        let what = (0, Origin::Outside);
        state.trace.record_all(self.now(), TraceKind::Conditions, what, &words(&conditions));
    }

    /// Changes what the one direction from `from` to `to` is like.
    pub fn set_link(&mut self, from: IpAddr, to: IpAddr, conditions: Conditions) {
        let state = &mut *self.world.state.borrow_mut();
        state.network.set_link(from, to, conditions);
        let what = (draw(0, &ends(from, to)), Origin::Outside);
        state.trace.record_all(self.now(), TraceKind::Conditions, what, &words(&conditions));
    }

    /// Says how streams between two hosts travel that begin from now on, whatever
    /// [`SimConfig::tcp`] says. Over a topology they travel in segments all the same.
    pub fn set_tcp_mode(&mut self, one: IpAddr, other: IpAddr, mode: TcpMode) {
        let state = &mut *self.world.state.borrow_mut();
        state.tcp_modes.insert((one.min(other), one.max(other)), mode);
        let ids = [draw(0, &ends(one, other)), mode as u64, 0, 0];
        state.trace.record(self.now(), TraceKind::TcpMode, ids);
    }

    /// What all connections by segments did so far.
    pub fn tcp_report(&self) -> TcpReport {
        self.world.state.borrow().segments.report()
    }

    /// Cuts two hosts off from one another; what is on the way does not arrive either.
    pub fn partition(&mut self, one: IpAddr, other: IpAddr) {
        self.partition_one_way(one, other);
        self.partition_one_way(other, one);
    }

    /// Cuts the way from one host to another.
    pub fn partition_one_way(&mut self, from: IpAddr, to: IpAddr) {
        let state = &mut *self.world.state.borrow_mut();
        if state.network.cut(from, to) {
            state.faults.inject(FaultKind::Partition);
        }
        state.trace.record(self.now(), TraceKind::Partition, ends(from, to));
    }

    /// Ends all partitions.
    pub fn heal_all(&mut self) {
        let state = &mut *self.world.state.borrow_mut();
        state.network.heal_all();
        state.trace.record(self.now(), TraceKind::Heal, [0; 4]);
    }

    /// Gives a host name addresses, which hold for `ttl`.
    ///
    /// # Panics
    /// When there are [`NAMES_MAX`](crate::NAMES_MAX) names already.
    pub fn set_name(&mut self, name: &str, ips: &[IpAddr], ttl: Duration) {
        self.world.set_name(name, Answer::Addresses(ips.to_vec(), ttl));
    }

    /// From now on hosts ask the name server at this address, over the network and in messages of DNS:
    /// a host that runs [`serve_names`](crate::serve_names). Without one, the simulation's own table
    /// answers them, after [`SimConfig::name_delay`].
    pub fn set_name_server(&mut self, server: Option<IpAddr>) {
        let state = &mut *self.world.state.borrow_mut();
        state.names.server = server;
        let [high, low] = server.map_or([0; 2], ip_words);
        state.trace.record(self.now(), TraceKind::Resolve, [high, low, u64::MAX, 1]);
    }

    /// Lets every lookup of a name fail from now on, whatever addresses it has; they come back with
    /// [`Sim::set_name`].
    ///
    /// # Panics
    /// When there are [`NAMES_MAX`](crate::NAMES_MAX) names already.
    pub fn fail_name(&mut self, name: &str, failure: NameFailure) {
        self.world.set_name(name, Answer::Failure(failure));
    }

    /// Sets the wall clock of the host at `ip` forward, or back, from what it shows now; false when
    /// there is no such host. Time as timers have it does not change.
    pub fn step_wall(&mut self, ip: IpAddr, by_ns: i64) -> bool {
        let state = &mut *self.world.state.borrow_mut();
        let Some(id) = state.hosts.at(ip) else { return false };
        let Some(host) = state.hosts.get_mut(id) else { return false };
        host.wall_offset_ns = host.wall_offset_ns.saturating_add(by_ns);
        let ids = [u64::from(id.0), by_ns.cast_unsigned(), 0, 0];
        state.trace.record(self.now(), TraceKind::WallStep, ids);
        true
    }

    /// Lets `tamper` once at datagram `number` of those sent from one host to another, counted from
    /// 0 since the simulation began: it may change bytes and add to the delay. For tests of the
    /// trace. `tamper` must not use the simulation.
    pub fn tamper(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        number: u64,
        tamper: impl FnOnce(&mut [u8], &mut Duration) + 'static,
    ) {
        self.world.state.borrow_mut().network.tamper(from, to, number, Box::new(tamper));
    }

    /// Shows `tape` every datagram that is sent from now on. It changes nothing; it must not use
    /// the simulation.
    pub fn set_tape(&mut self, tape: impl FnMut(&SentDatagram<'_>) + 'static) {
        self.world.state.borrow_mut().network.tape = Some(Box::new(tape));
    }

    /// Adds an event of the caller's own to the trace.
    pub fn note(&mut self, kind: &str, values: &[u64]) {
        let now = self.now();
        let trace = &mut self.world.state.borrow_mut().trace;
        let what = (trace.words.hash(kind), Origin::Outside);
        trace.record_all(now, TraceKind::Note, what, values);
    }

    /// Keeps events in another queue from now on, which changes nothing but speed.
    ///
    /// # Panics
    /// When anything is under way already.
    pub fn set_queue(&mut self, kind: QueueKind) {
        let state = &mut *self.world.state.borrow_mut();
        assert!(state.wheel.is_empty(), "choose the queue before anything is under way");
        state.wheel = Queue::new(kind, events_max(&self.world.config));
    }

    /// Shows `show` the events with these numbers, counted from 0 over the whole run. It changes
    /// nothing; it must not use the simulation. One watches at a time.
    pub fn watch_trace(
        &mut self,
        numbers: Range<u64>,
        show: impl FnMut(&TraceEvent<'_>) + 'static,
    ) {
        self.world.state.borrow_mut().trace.watch(numbers, Box::new(show));
    }

    /// The trace hash at regular numbers of events, to find where two runs part.
    pub fn trace_checkpoints(&self) -> TraceCheckpoints {
        self.world.state.borrow().trace.checkpoints().clone()
    }

    /// What the numbers in the events so far stand for.
    pub fn trace_legend(&self) -> TraceLegend {
        let state = self.world.state.borrow();
        TraceLegend {
            words: state.trace.words.clone(),
            hosts: state.hosts.named(),
            flows: state.network.flow_ends(),
        }
    }

    /// A hash over every event so far: time, kind, who and payload. Two runs have one hash only when
    /// every event was the same.
    ///
    /// Part of it is, with the time in nanoseconds: each start and end of a host, a task, a socket, a
    /// listener and a connection; each poll of a task and each timer that fired; each datagram and
    /// each piece of a stream with its flow, its number, its length and a hash of its bytes, where it
    /// was sent, delivered or lost and why; what streams read and wrote; lookups; what was done to
    /// the network by hand; and notes. Which events wait in the queue and where things lie in memory
    /// is not.
    pub fn trace_hash(&self) -> u64 {
        self.world.state.borrow().trace.hash()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.world.state.borrow().trace.events()
    }

    /// How often each fault was injected, and had an effect.
    pub fn faults(&self) -> FaultCounters {
        self.world.state.borrow().faults
    }

    /// Ends of connections that somebody has or that still deliver what was written.
    pub fn stream_ends(&self) -> usize {
        let state = self.world.state.borrow();
        state.streams.ends.keys(|_| true).len() + state.segments.len()
    }

    /// What the host at `ip` has at present: nothing when there is no such host.
    pub fn load(&self, ip: IpAddr) -> HostLoad {
        let state = self.world.state.borrow();
        let Some(id) = state.hosts.at(ip) else { return HostLoad::default() };
        HostLoad {
            tasks: state.executor.tasks.keys(|task| task.host == id).len(),
            timers: state.timers.keys(|timer| timer.host == id).len(),
            sockets: state.network.sockets.keys(|socket| socket.host == id).len(),
        }
    }

    /// Datagrams that are on their way.
    pub fn in_flight(&self) -> usize {
        self.world.state.borrow().network.in_flight()
    }
}

/// What a host has at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLoad {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Timers, set or not.
    pub timers: usize,
    /// Datagram sockets.
    pub sockets: usize,
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.end();
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("now", &self.now()).finish_non_exhaustive()
    }
}

fn ends(from: IpAddr, to: IpAddr) -> [u64; 4] {
    let ([a, b], [c, d]) = (ip_words(from), ip_words(to));
    [a, b, c, d]
}

fn words(conditions: &Conditions) -> [u64; 7] {
    [
        conditions.loss.to_bits(),
        conditions.delay.as_nanos() as u64,
        conditions.jitter.as_nanos() as u64,
        conditions.duplicate.to_bits(),
        conditions.reorder.to_bits(),
        conditions.rate_bytes_per_s,
        conditions.queue_bytes_max,
    ]
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::task::Poll;

    use twinspan_core::packet::{Datagram, DatagramBatch};
    use twinspan_provider::{NetworkProvider, TimeProvider, Timer, UdpOptions, UdpSocket};

    use super::*;
    use crate::plan::Rates;

    /// Sends to its own host every 10 ms and receives.
    async fn chatter(env: SimEnv) {
        let local = SocketAddr::new(env.ip(), 5_000);
        let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let (mut out, mut received) = (DatagramBatch::new(8), DatagramBatch::new(8));
        let mut timer = env.timer();
        for number in 0_usize.. {
            let mut packet = socket.pool().take().unwrap();
            packet.set_len(number * 97 % 2_048);
            out.push(Datagram { peer: local, at: env.now(), packet }).unwrap();
            poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
            poll_fn(|cx| socket.poll_recv(cx, &mut received)).await.unwrap();
            received.clear();
            timer.set(Some(env.now().after(Duration::from_millis(10))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
        }
    }

    /// Sends to another port of its own host each second, and now and then to the first one.
    async fn wanderer(env: SimEnv) {
        let local = SocketAddr::new(env.ip(), 5_000);
        let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let mut out = DatagramBatch::new(8);
        let mut timer = env.timer();
        for number in 0_u16.. {
            let port = if number % 900 == 0 { 6_000 } else { 6_000 + number };
            let peer = SocketAddr::new(env.ip(), port);
            out.push(Datagram { peer, at: env.now(), packet: socket.pool().take().unwrap() })
                .unwrap();
            poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
            timer.set(Some(env.now().after(Duration::from_secs(1))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
        }
    }

    #[test]
    fn flows_that_are_idle_for_long_are_forgotten() {
        let mut sim = Sim::new(SimConfig::default());
        let env = sim.host("node", [10, 0, 0, 1].into());
        let task = env.spawn("wanderer", wanderer(env.clone()));
        let idle = crate::FLOW_IDLE.as_secs();
        let mut most = 0;
        for _ in 0..20_000 {
            sim.run_for(Duration::from_secs(1));
            most = most.max(sim.trace_legend().flows.len());
        }
        assert!((idle as usize..=2 * idle as usize + 2).contains(&most), "{most} flows at once");
        let state = sim.world.state.borrow();
        assert!(state.network.places_of_flows() <= most + 1, "places are taken again");
        assert_eq!(state.faults.effect(FaultKind::Unbound), 20_000, "all went their way");
        drop((state, task));
    }

    #[test]
    fn links_to_addresses_that_nobody_has_are_forgotten_with_their_flows() {
        let mut sim = Sim::new(SimConfig::default());
        let env = sim.host("node", [10, 0, 0, 1].into());
        let inner = env.clone();
        let task = env.spawn("answers forgers", async move {
            let local = SocketAddr::new(inner.ip(), 5_000);
            let mut socket = inner.bind_udp(local, &UdpOptions::default()).await.unwrap();
            let mut out = DatagramBatch::new(8);
            let mut timer = inner.timer();
            for number in 0_u32.. {
                let forged = std::net::Ipv4Addr::from(0xc633_0000 + number);
                let packet = socket.pool().take().unwrap();
                let peer = SocketAddr::new(forged.into(), 9);
                out.push(Datagram { peer, at: inner.now(), packet }).unwrap();
                poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
                timer.set(Some(inner.now().after(Duration::from_secs(10))));
                poll_fn(|cx| timer.poll_expired(cx)).await;
            }
        });
        // One that was made by hand stays.
        let set = [10, 9, 9, 9].into();
        sim.set_link([10, 0, 0, 1].into(), set, Conditions::MOBILE);
        let mut most = 0;
        for _ in 0..500 {
            sim.run_for(Duration::from_secs(100));
            most = most.max(sim.world.state.borrow().network.links_known());
        }
        let idle = crate::FLOW_IDLE.as_secs() as usize / 10;
        assert!((idle..=2 * idle + 3).contains(&most), "{most} links at once");
        let mut state = sim.world.state.borrow_mut();
        assert!(state.network.links.len() <= most + 1, "places are taken again");
        let link = state.network.link([10, 0, 0, 1].into(), set) as usize;
        assert_eq!(state.network.links[link].link.conditions().delay, Conditions::MOBILE.delay);
        assert_eq!(state.faults.effect(FaultKind::Unbound), 5_000, "all went their way");
        drop((state, task));
    }

    #[test]
    fn faults_are_written_down_up_to_a_limit_and_strike_beyond_it() {
        let run = |kept: Option<usize>| {
            let mut sim = Sim::new(SimConfig::default());
            if let Some(kept) = kept {
                sim.keep_faults(kept);
            }
            sim.plan_faults(FaultPlan::Drawn(Rates::new().with(FaultKind::Loss, 0.5)));
            let ips = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
            let env = sim.host("one", ips[0]);
            let peer = SocketAddr::new(ips[1], 7);
            let inner = env.clone();
            let task = env.spawn("sender", async move {
                let (env, local) = (inner, SocketAddr::new(ips[0], 7));
                let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
                let mut out = DatagramBatch::new(1);
                for _ in 0..100 {
                    let packet = socket.pool().take().unwrap();
                    out.push(Datagram { peer, at: env.now(), packet }).unwrap();
                    poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
                }
            });
            sim.run_for(Duration::from_secs(1));
            drop(task);
            (sim.struck().len() as u64, sim.faults_unrecorded(), sim.trace_hash())
        };
        let (all, none, hash) = run(None);
        assert!(all > 20 && none == 0, "{all} struck");
        assert_eq!(run(Some(3)), (3, all - 3, hash));
    }

    #[test]
    fn a_warm_simulation_makes_no_buffers_and_keeps_none() {
        let mut sim = Sim::new(SimConfig::default());
        let env = sim.host("node", [10, 0, 0, 1].into());
        let task = env.spawn("chatter", chatter(env.clone()));
        sim.run_for(Duration::from_secs(1));
        let warm = sim.world.state.borrow().network.store.counts();
        sim.run_for(Duration::from_secs(60));
        assert_eq!(sim.world.state.borrow().network.store.counts(), warm);
        drop(task);
        sim.run_for(Duration::from_secs(1));
        let state = sim.world.state.borrow();
        assert_eq!(state.network.store.counts(), (warm.0, 0));
        assert!(state.wheel.is_empty());
    }
    /// Says 300 things at once and then one a second; who hears them looks after two seconds.
    async fn crowded(env: SimEnv) {
        let local = SocketAddr::new(env.ip(), 5_000);
        let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let (mut out, mut timer) = (DatagramBatch::new(300), env.timer());
        let mut heard = DatagramBatch::new(64);
        for second in 1_u64.. {
            for _ in 0..(if second == 1 { 300 } else { 1 }) {
                let mut packet = socket.pool().take().unwrap();
                assert!(packet.fill(&[7; 100]));
                out.push(Datagram { peer: local, at: env.now(), packet }).unwrap();
            }
            while !out.is_empty() {
                poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
            }
            timer.set(Some(Timestamp::START.after(Duration::from_secs(second))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            while second > 1
                && poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut heard).is_ready())).await
            {
                heard.clear();
            }
        }
    }

    #[test]
    fn what_one_crowded_moment_took_is_given_back() {
        let mut sim = Sim::new(SimConfig::default());
        let env = sim.host("node", [10, 0, 0, 1].into());
        let task = env.spawn("crowded", crowded(env.clone()));
        let held = |sim: &Sim| {
            let mut state = sim.world.state.borrow_mut();
            let queue = state
                .network
                .sockets
                .values_mut()
                .map(|socket| socket.queue.capacity())
                .sum::<usize>();
            (queue, state.network.store.counts().0)
        };
        sim.run_for(Duration::from_secs(100));
        let (queue, buffers) = held(&sim);
        assert!(queue >= 300 && buffers >= 300, "{queue} places in the queue, {buffers} buffers");
        sim.run_for(Duration::from_mins(46));
        assert_eq!(held(&sim), (4, 1));
        drop(task);
    }
}
