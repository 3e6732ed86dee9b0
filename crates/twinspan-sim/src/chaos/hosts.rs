//! Hosts that stop and start again, and tasks that are put off or panic.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use super::slots::Garbage;
use super::troubles::Ending;
use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::slab::Key;
use crate::timer::keep_waker;
use crate::trace::TraceKind;
use crate::world::{HostId, State, World};

/// Panics of tasks that are kept to be told.
const PANICS_MAX: usize = 64;
/// Tasks of one host that may wait to be asked to stop.
const STOP_WAITERS_MAX: usize = 1 << 16;
/// How long a host is down whose task panicked.
const PANIC_DOWN: Duration = Duration::from_secs(1);

/// With what a host starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// It never ran.
    First,
    /// It has all that it had written.
    Kept,
    /// It has lost what it had written.
    Empty,
    /// It has what it had written some time before.
    Old,
}

/// A task that panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPanic {
    /// The host's name.
    pub host: String,
    /// Its address.
    pub ip: IpAddr,
    /// The task's name.
    pub task: &'static str,
    /// When.
    pub at: Timestamp,
    /// What it said.
    pub message: String,
    /// The run's seed.
    pub seed: u64,
    /// Events up to there, and the hash over them.
    pub events: u64,
    /// The hash.
    pub trace_hash: u64,
}

impl std::fmt::Display for HostPanic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, ip, task, at, message, seed, events, trace_hash } = self;
        write!(f, "task \"{task}\" of host \"{host}\" ({ip}) panicked at {at}: {message} ")?;
        write!(f, "(seed {seed}, {events} events, trace {trace_hash:016x})")
    }
}

/// Starts a host's tasks.
pub(crate) type Boot = Rc<RefCell<dyn FnMut(SimEnv, Start) -> Vec<SimTask>>>;

/// Hosts that can start again.
#[derive(Default)]
pub(crate) struct Boots {
    known: BTreeMap<IpAddr, Known>,
    panics: Vec<HostPanic>,
}

struct Known {
    name: String,
    boot: Boot,
    tasks: Vec<SimTask>,
    is_asked: bool,
    waiters: Vec<Waker>,
}

impl Boots {
    pub(crate) fn is_known(&self, ip: IpAddr) -> bool {
        self.known.contains_key(&ip)
    }

    /// Knows a host from now on.
    pub(crate) fn know(&mut self, ip: IpAddr, name: String, boot: Boot) {
        let (tasks, waiters) = (Vec::new(), Vec::new());
        self.known.insert(ip, Known { name, boot, tasks, is_asked: false, waiters });
    }

    /// All that a world holds of its hosts, to be dropped when it is free.
    pub(crate) fn take_all(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.known)
    }

    pub(crate) fn panics(&self) -> &[HostPanic] {
        &self.panics
    }

    pub(super) fn ask_to_stop(&mut self, ip: IpAddr) {
        if let Some(known) = self.known.get_mut(&ip) {
            known.is_asked = true;
            known.waiters.drain(..).for_each(Waker::wake);
        }
    }

    /// Ready when the host was asked to stop.
    pub(crate) fn poll_asked(&mut self, ip: IpAddr, cx: &Context<'_>) -> Poll<()> {
        let Some(known) = self.known.get_mut(&ip) else { return Poll::Pending };
        if known.is_asked {
            return Poll::Ready(());
        }
        let is_there = known.waiters.iter().any(|waker| waker.will_wake(cx.waker()));
        if !is_there && known.waiters.len() < STOP_WAITERS_MAX {
            let mut slot = None;
            keep_waker(&mut slot, cx);
            known.waiters.extend(slot);
        }
        Poll::Pending
    }

    fn take_old(&mut self, ip: IpAddr) -> (Vec<SimTask>, Vec<Waker>) {
        let Some(known) = self.known.get_mut(&ip) else { return Default::default() };
        known.is_asked = false;
        (std::mem::take(&mut known.tasks), std::mem::take(&mut known.waiters))
    }
}

impl State {
    /// Stops a host as a power cut does and lets it start again later, if it knows how to.
    pub(super) fn crash_host(
        &mut self,
        now: Timestamp,
        kind: FaultKind,
        ip: IpAddr,
        (down, start): (Duration, Start),
        garbage: &mut Garbage,
    ) {
        let Some(lost) = self.take_host_down(now, ip, garbage) else { return };
        (0..lost).for_each(|_| self.faults.observe(kind));
        if self.chaos.boots.is_known(ip) {
            self.chaos.troubles.end_with(now.after(down), Ending::Boot(ip, start));
        }
    }

    /// Takes a running host's tasks, sockets and streams away; how many there were.
    pub(crate) fn take_host_down(
        &mut self,
        now: Timestamp,
        ip: IpAddr,
        garbage: &mut Garbage,
    ) -> Option<usize> {
        let id = self.hosts.at(ip)?;
        let host = self.hosts.get_mut(id).filter(|host| host.is_running)?;
        host.is_running = false;
        self.trace.record(now, TraceKind::HostStop, [u64::from(id.0), 0, 0, 0]);
        self.crash_disk(id);
        let tasks = self.executor.take_tasks(|task| task.host == id);
        let sockets = self.network.unbind_all(|host| host == id);
        let streams = self.streams.stop(|host| host == id);
        let streams = streams + self.stop_segments(|host| host == id);
        let lost = tasks.len() + sockets.len() + streams;
        // Whoever outside still waits on one of the sockets learns that it is gone.
        sockets.iter().for_each(crate::network::Socket::wake_all);
        garbage.tasks.extend(tasks);
        garbage.sockets.extend(sockets);
        garbage.streams.push(self.take_dead());
        self.chaos.held.retain(|(host, _)| *host != id);
        Some(lost)
    }

    /// Whether a ready task has to wait because its host stands; it is kept until that runs on.
    pub(crate) fn put_off(&mut self, now: Timestamp, key: Key, host: HostId) -> bool {
        let Some(ip) = self.hosts.get(host).map(|host| host.ip) else { return false };
        let Some(kind) = self.chaos.troubles.standing(now, ip) else { return false };
        self.faults.observe(kind);
        self.trace.record(now, TraceKind::PutOff, [u64::from(key.index), 0, 0, 0]);
        self.chaos.held.push((host, key));
        true
    }

    /// Tasks of a host that runs again go on.
    pub(super) fn release_tasks(&mut self, now: Timestamp, ip: IpAddr) {
        if self.chaos.troubles.standing(now, ip).is_some() {
            return;
        }
        let Some(id) = self.hosts.at(ip) else { return };
        let held = std::mem::take(&mut self.chaos.held);
        for (host, key) in held {
            if host == id {
                self.executor.wake(key);
            } else {
                self.chaos.held.push((host, key));
            }
        }
    }

    /// Takes down what is to be told of a task that panicked.
    pub(crate) fn note_panic(
        &mut self,
        now: Timestamp,
        (id, task): (HostId, &'static str),
        payload: &(dyn Any + Send),
    ) -> Option<HostPanic> {
        let host = self.hosts.get(id)?;
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let told = HostPanic {
            host: host.name.clone(),
            ip: host.ip,
            task,
            at: now,
            message: text.unwrap_or_else(|| "it said nothing".to_owned()),
            seed: self.config.seed,
            events: self.trace.events(),
            trace_hash: self.trace.hash(),
        };
        if self.chaos.boots.panics.len() < PANICS_MAX {
            self.chaos.boots.panics.push(told.clone());
        }
        Some(told)
    }
}

impl World {
    /// Does what the faults' engine has due at `at`.
    pub(crate) fn chaos_moment(self: &Rc<Self>, at: Timestamp) {
        self.now.set(self.now.get().max(at));
        let garbage = self.state.borrow_mut().chaos_due(self.now.get());
        self.finish(garbage);
    }

    /// Drops what went, and starts hosts.
    pub(crate) fn finish(self: &Rc<Self>, garbage: Garbage) {
        let Garbage { tasks, sockets, streams, boots } = garbage;
        // What the futures hold may use the world while they are dropped.
        drop((tasks, sockets, streams));
        for (ip, start) in boots {
            self.boot(ip, start);
        }
    }

    /// Starts a host that knows how to.
    pub(crate) fn boot(self: &Rc<Self>, ip: IpAddr, start: Start) {
        let (old, found) = {
            let mut state = self.state.borrow_mut();
            let boots = &mut state.chaos.boots;
            let old = boots.take_old(ip);
            (old, boots.known.get(&ip).map(|known| (known.name.clone(), Rc::clone(&known.boot))))
        };
        drop(old);
        let Some((name, boot)) = found else { return };
        let env = SimEnv::new(self, &name, ip);
        let tasks = (boot.borrow_mut())(env, start);
        let mut state = self.state.borrow_mut();
        match state.chaos.boots.known.get_mut(&ip) {
            Some(known) => known.tasks = tasks,
            None => {
                drop(state);
                drop(tasks);
            }
        }
    }

    /// A task panicked and its host is to crash for it.
    pub(crate) fn crash_for_panic(self: &Rc<Self>, host: HostId) {
        let mut garbage = Garbage::default();
        {
            let state = &mut *self.state.borrow_mut();
            let Some(ip) = state.hosts.get(host).map(|host| host.ip) else { return };
            state.faults.inject(FaultKind::Panic);
            let again = (PANIC_DOWN, Start::Kept);
            state.chaos.is_on = true;
            state.crash_host(self.now.get(), FaultKind::Panic, ip, again, &mut garbage);
            // The task itself counts, also when there was nothing else.
            state.faults.observe(FaultKind::Panic);
        }
        self.finish(garbage);
    }
}
