//! Players behind a SOCKS5 proxy: what befalls it, and how their associations are made again.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::reachable;
use twinspan_core::time::Timestamp;
use twinspan_http::Target;
use twinspan_http::socks5::{Socks5Config, Socks5Udp};
use twinspan_provider::{Machine, TaskProvider, TimeProvider, Timer, UdpOptions, drive};
use twinspan_sim::proxy::{SOCKS_PORT, SocksConfig, SocksProxy, SocksReply};
use twinspan_sim::{Sim, SimEnv, SimTask, Start};

/// The proxy's host.
pub(super) const PROXY_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));
/// What must show in a sweep.
pub(super) const RESTORED: &str = "an association with the proxy was made again";
/// How long a proxy may take until an association is made.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// The wait after an association that could not be made, or was lost.
const RETRY: Duration = Duration::from_millis(500);
/// Datagrams without an association that are lost at once.
const LOST_BATCH: usize = 32;
/// Turns of a machine without an association before the other tasks have theirs.
const TURNS_IN_A_ROW_MAX: u32 = 16;
/// One in so many steps of the hand is one in which a proxy loses its associations, dies or refuses.
const TROUBLE_ODDS: u64 = 1_000;
/// How long a proxy is dead or refuses, at most.
const TROUBLE_MS_MAX: u64 = 6_000;

/// What became of the players' associations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Associations {
    pub(super) made: u64,
    /// Of these, those that ended before their player did.
    pub(super) lost: u64,
    /// Attempts that came to nothing.
    pub(super) failed: u64,
}

/// The players' count, which their tasks keep.
pub(super) type Tally = Rc<Cell<Associations>>;

fn count(tally: &Tally, change: impl FnOnce(&mut Associations)) {
    let mut sum = tally.get();
    change(&mut sum);
    tally.set(sum);
}

/// The proxy on a host that can start again, and what is done to it by hand.
pub(super) struct ProxyHost {
    proxy: Rc<RefCell<Option<SocksProxy>>>,
    random: Stream,
    dead_until: Option<Timestamp>,
    refuses_until: Option<Timestamp>,
}

impl ProxyHost {
    /// Starts the host, with another proxy each time.
    pub(super) fn boot(sim: &mut Sim, seed: u64) -> Self {
        let proxy = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&proxy);
        sim.boot("proxy", PROXY_IP, move |env, _| {
            let (inner, slot) = (env.clone(), Rc::clone(&slot));
            vec![env.spawn("proxy", async move {
                let started = SocksProxy::start(&inner, SocksConfig::default());
                // The one before it is gone with its host.
                drop(slot.replace(Some(started)));
                inner.asked_to_stop().await;
                drop(slot.take());
            })]
        });
        let random = Stream::new(seed, "proxy", 0);
        Self { proxy, random, dead_until: None, refuses_until: None }
    }

    /// Lets something befall the proxy, now and then.
    pub(super) fn trouble(&mut self, now: Timestamp, sim: &mut Sim) {
        let which = self.random.below(TROUBLE_ODDS);
        if which > 2 || self.dead_until.is_some() {
            return;
        }
        let long = Duration::from_millis(500 + self.random.below(TROUBLE_MS_MAX));
        match which {
            0 => self.with(SocksProxy::drop_associations),
            1 => {
                sim.stop_host(PROXY_IP);
                self.dead_until = Some(now.after(long));
                self.refuses_until = None;
            }
            _ => {
                self.with(|proxy| proxy.refuse(Some(SocksReply::GeneralFailure)));
                self.with(SocksProxy::drop_associations);
                self.refuses_until = Some(now.after(long));
            }
        }
    }

    /// Brings back what is due.
    pub(super) fn mend(&mut self, now: Timestamp, sim: &mut Sim) {
        if self.dead_until.is_some_and(|until| until <= now) {
            self.dead_until = None;
            sim.start_again(PROXY_IP, Start::Kept);
        }
        if self.refuses_until.is_some_and(|until| until <= now) {
            self.refuses_until = None;
            self.with(|proxy| proxy.refuse(None));
        }
    }

    /// Brings back everything.
    pub(super) fn heal(&mut self, sim: &mut Sim) {
        self.mend(Timestamp::NEVER, sim);
    }

    fn with(&self, act: impl FnOnce(&SocksProxy)) {
        if let Some(proxy) = &*self.proxy.borrow() {
            act(proxy);
        }
    }
}

/// Drives a machine on the host by way of the proxy.
pub(super) fn launch_behind<M: Machine + 'static>(
    env: &SimEnv,
    local: SocketAddr,
    machine: M,
    tally: Tally,
) -> SimTask {
    env.spawn("machine", behind(env.clone(), local, machine, tally))
}

/// An association that ends is made again, as a viewer does: the machine's time goes on meanwhile,
/// and what it sends is lost.
async fn behind<M: Machine>(env: SimEnv, local: SocketAddr, mut machine: M, tally: Tally) {
    let server = Target::from(SocketAddr::new(PROXY_IP, SOCKS_PORT));
    let config = Socks5Config { timeout: ASK_TIMEOUT, ..Socks5Config::new(server) };
    let options = UdpOptions::default();
    let mut state = Without::NotBegun;
    loop {
        let asking = Socks5Udp::associate(env.clone(), &config, local, &options);
        match unless_done(&env, &mut machine, state, asking).await {
            None => return,
            Some(Ok(mut socket)) => {
                if state == Without::Cut {
                    reachable!("an association with the proxy was made again");
                }
                state = Without::Cut;
                count(&tally, |sum| sum.made += 1);
                if drive(&env, &mut socket, &mut machine).await.is_ok() {
                    return;
                }
                count(&tally, |sum| sum.lost += 1);
            }
            Some(Err(_)) => count(&tally, |sum| sum.failed += 1),
        }
        let mut timer = env.timer();
        timer.set(Some(env.now().after(RETRY)));
        let pause = poll_fn(|cx| timer.poll_expired(cx));
        if unless_done(&env, &mut machine, state, pause).await.is_none() {
            return;
        }
    }
}

/// What a machine without an association is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// Its first words wait.
    NotBegun,
    /// Its time goes on, and its words are lost.
    Cut,
}

/// What a future gives, unless the machine is done before that.
async fn unless_done<M: Machine, F: Future>(
    env: &SimEnv,
    machine: &mut M,
    state: Without,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = env.timer();
    let (pool, mut lost) = (PacketPool::new(LOST_BATCH), DatagramBatch::new(LOST_BATCH));
    poll_fn(|cx| {
        for _ in 0..TURNS_IN_A_ROW_MAX {
            if machine.is_done() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if state == Without::NotBegun {
                return Poll::Pending;
            }
            let now = env.now();
            machine.poll_transmit(now, &pool, &mut lost);
            if lost.is_empty() {
                timer.set(machine.poll_timeout());
                ready!(timer.poll_expired(cx));
                machine.handle_timeout(now);
            }
            lost.clear();
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
