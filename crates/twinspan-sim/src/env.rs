//! What a driver gets of a simulated host.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use twinspan_core::link::FaultKind;
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    BindError, ConnectError, NetworkProvider, OffloadError, RandomProvider, ResolveError, Resolved,
    TaskProvider, TcpOptions, TimeProvider, UdpOptions, WallTime,
};

use crate::chaos::Strike;
use crate::executor::SimTask;
use crate::names;
use crate::tcp::{SimListener, SimTcp};
use crate::timer::SimTimer;
use crate::trace::{Origin, TraceKind};
use crate::udp::SimUdp;
use crate::world::{HostId, World};

/// One start of a simulated host, in place of a real node. When the host was stopped, it starts and
/// binds nothing more; ask [`Sim::host`](crate::Sim::host) for the next one.
#[derive(Clone)]
pub struct SimEnv {
    world: Rc<World>,
    host: HostId,
    incarnation: u32,
    ip: IpAddr,
    seed: u64,
}

impl SimEnv {
    pub(crate) fn new(world: &Rc<World>, name: &str, ip: IpAddr) -> Self {
        let (host, incarnation, seed) = world.start_host(name, ip);
        Self { world: Rc::clone(world), host, incarnation, ip, seed }
    }

    /// The host's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The value of a setting that a planned fault may make unusual: `usual`, or, in runs that have
    /// [`FaultKind::Knob`], perhaps another one of `range`,
    /// its ends most of all. The same setting of a host keeps its value.
    pub fn knob(&self, name: &str, usual: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let ends = (*range.start(), *range.end());
        self.world.state.borrow_mut().knob((self.host, name), usual, ends)
    }

    /// Waits until the host is asked to stop, which is some time before it is stopped. Only hosts of
    /// [`Sim::boot`](crate::Sim::boot) are asked.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn asked_to_stop(&self) {
        let asked = |cx: &mut std::task::Context<'_>| {
            self.world.state.borrow_mut().chaos.boots.poll_asked(self.ip, cx)
        };
        std::future::poll_fn(asked).await;
    }

    /// The world, which host of it this is, and which of its starts.
    pub(crate) fn parts(&self) -> (&Rc<World>, HostId, u32) {
        (&self.world, self.host, self.incarnation)
    }

    /// Whether a planned fault strikes a service of the host at a socket, the `number`th time that it
    /// is asked.
    pub(crate) fn strike_service(
        &self,
        kind: FaultKind,
        local: SocketAddr,
        number: u64,
    ) -> Option<Strike> {
        self.world.state.borrow_mut().strike_service(kind, local, number)
    }

    /// Adds an event of the host's own to the trace.
    pub fn note(&self, kind: &str, values: &[u64]) {
        let now = self.world.now.get();
        let trace = &mut self.world.state.borrow_mut().trace;
        let what = (trace.words.hash(kind), Origin::Host(self.host));
        trace.record_all(now, TraceKind::Note, what, values);
    }
}

impl TimeProvider for SimEnv {
    type Timer = SimTimer;

    fn now(&self) -> Timestamp {
        self.world.now.get()
    }

    /// The simulation's wall clock, and what [`Sim::step_wall`](crate::Sim::step_wall) made of it.
    fn wall(&self) -> WallTime {
        let state = &mut *self.world.state.borrow_mut();
        let mut offset = state.hosts.get(self.host).map_or(0, |host| host.wall_offset_ns);
        if state.chaos.is_on {
            let (now, faults) = (self.world.now.get(), &mut state.faults);
            let ahead =
                state.chaos.troubles.wall_ahead_ns(now, self.ip, |kind| faults.observe(kind));
            offset = offset.saturating_add(ahead);
        }
        let passed = self.world.now.get().since(Timestamp::START);
        let wall = self.world.config.wall_start.after(passed).unix_nanos();
        WallTime::from_unix_nanos(wall.saturating_add_signed(offset))
    }

    fn timer(&self) -> SimTimer {
        SimTimer::new(&self.world, self.host)
    }
}

impl RandomProvider for SimEnv {
    fn stream(&self, name: &'static str, instance: u64) -> Stream {
        Stream::new(self.seed, name, instance)
    }

    fn secrets(&self) -> Box<dyn SecretSource> {
        let mut state = self.world.state.borrow_mut();
        let instance = state.hosts.get_mut(self.host).map_or(0, |host| {
            host.secrets += 1;
            host.secrets
        });
        Box::new(Stream::new(self.seed, "secrets", instance))
    }
}

impl TaskProvider for SimEnv {
    type Task = SimTask;

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> SimTask {
        self.world.spawn(self.host, self.incarnation, name, Box::pin(future))
    }

    /// Does the work at once, when the future is first polled: time stands still meanwhile.
    async fn offload<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OffloadError> {
        {
            let state = &mut *self.world.state.borrow_mut();
            if state.hosts.running(self.host, self.incarnation).is_none() {
                return Err(OffloadError::HostStopped);
            }
            let ids = [u64::from(self.host.0), state.trace.words.hash(name), 0, 0];
            state.trace.record(self.world.now.get(), TraceKind::Offload, ids);
        }
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| OffloadError::Panicked)
    }
}

impl NetworkProvider for SimEnv {
    type Udp = SimUdp;
    type Tcp = SimTcp;
    type Listener = SimListener;

    async fn bind_udp(&self, local: SocketAddr, options: &UdpOptions) -> Result<SimUdp, BindError> {
        let host = (self.host, self.incarnation);
        let now = self.world.now.get();
        let bound = self.world.state.borrow_mut().bind(now, host, local, options)?;
        Ok(SimUdp::new(&self.world, bound, options))
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<SimTcp, ConnectError> {
        SimTcp::connect(&self.world, (self.host, self.incarnation), peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<SimListener, BindError> {
        let host = (self.host, self.incarnation);
        let now = self.world.now.get();
        let (key, local) = self.world.state.borrow_mut().listen(now, host, local, options)?;
        Ok(SimListener::new(&self.world, key, local))
    }

    /// Asks the simulation's own table ([`Sim::set_name`](crate::Sim::set_name)), or a name server over
    /// the network where there is one ([`Sim::set_name_server`](crate::Sim::set_name_server)).
    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        names::resolve(self, name, port).await
    }
}

impl std::fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimEnv").field("ip", &self.ip).finish_non_exhaustive()
    }
}
