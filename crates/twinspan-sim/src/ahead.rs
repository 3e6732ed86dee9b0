//! Looks a few events ahead, and wishes for the memory that they will need.
//!
//! With thousands of hosts all that belongs to one has left the caches since its last turn, and a turn
//! is a walk from one thing to the next: the event names a flow, the flow a socket, the socket a host,
//! the host a task and a machine. Each step is made some events before the one after it, so that none
//! has to wait. Nothing of it changes what happens.

use std::cell::RefCell;
use std::rc::Rc;

use twinspan_core::prefetch;
use twinspan_provider::Machine;

use crate::slab::Key;
use crate::world::{Event, HostId, State};

/// Hosts from which on it is worth it: what fewer have stays in the caches.
const HOSTS_MIN: usize = 256;
/// How many events ahead each step is made: the event itself, what it names, what that names, what is
/// known of the host's turn, its task and its machine, what these name.
const AHEAD: [usize; 6] = [11, 9, 7, 5, 3, 2];

/// What a host's machine wants to find in the caches at its turn: for simulations of thousands, see
/// [`Sim::set_wish`](crate::Sim::set_wish).
pub trait Wish {
    /// Wishes for it. It must neither change anything nor use the simulation.
    fn wish(&self);
}

impl<M: Machine> Wish for RefCell<M> {
    fn wish(&self) {
        if let Ok(machine) = self.try_borrow() {
            machine.prefetch();
        }
    }
}

/// What a host's turn begins with.
pub(crate) struct Turn {
    /// The task that it started last.
    pub(crate) task: Key,
    pub(crate) wish: Option<Rc<dyn Wish>>,
}

impl Turn {
    pub(crate) const NONE: Self = Self { task: Key::NOWHERE, wish: None };
}

impl State {
    pub(crate) fn turn_mut(&mut self, host: HostId) -> Option<&mut Turn> {
        self.turns.get_mut(host.0 as usize)
    }

    fn turn(&self, event: &Event) -> Option<&Turn> {
        let host = match event {
            Event::Deliver(flight) => self.network.receiver_of(flight)?.host,
            Event::Timer(key) => self.timers.get(*key)?.host,
            _ => return None,
        };
        self.turns.get(host.0 as usize)
    }

    /// Makes one step for each of the next events.
    pub(crate) fn look_ahead(&self) {
        if self.turns.len() < HOSTS_MIN {
            return;
        }
        let [event, names, named, host, task, memory] = AHEAD;
        self.wheel.prefetch(event);
        match self.wheel.upcoming(names) {
            Some(Event::Deliver(flight)) => self.network.prefetch_flow(flight),
            Some(Event::Timer(key)) => self.timers.prefetch(*key),
            _ => {}
        }
        match self.wheel.upcoming(named) {
            Some(Event::Deliver(flight)) => self.network.prefetch_ends(flight),
            Some(Event::Timer(key)) => {
                if let Some(waker) = self.timers.get(*key).and_then(|timer| timer.waker.as_ref()) {
                    prefetch::bytes(waker.data().cast(), prefetch::LINE_BYTES);
                }
            }
            _ => {}
        }
        if let Some(event) = self.wheel.upcoming(host) {
            if let Event::Deliver(flight) = event {
                self.network.prefetch_waker(flight);
            }
            if let Some(turn) = self.turn(event) {
                prefetch::value(turn);
            }
        }
        if let Some(turn) = self.wheel.upcoming(task).and_then(|event| self.turn(event)) {
            self.executor.tasks.prefetch(turn.task);
            if let Some(wish) = &turn.wish {
                prefetch::value(&**wish);
            }
        }
        if let Some(turn) = self.wheel.upcoming(memory).and_then(|event| self.turn(event)) {
            self.executor.prefetch_body(turn.task);
            if let Some(wish) = &turn.wish {
                wish.wish();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use twinspan_core::packet::{Datagram, DatagramBatch};
    use twinspan_provider::{
        NetworkProvider, TaskProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
    };

    use super::*;
    use crate::{Sim, SimConfig, SimEnv};

    struct Told(Cell<u32>);

    impl Wish for Told {
        fn wish(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn address(number: u16) -> SocketAddr {
        let ip = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::from(number);
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), 9)
    }

    /// Sends to the host after it now and then, and takes what comes.
    async fn chatter(env: SimEnv, number: u16, count: u16) {
        let mut socket = env.bind_udp(address(number), &UdpOptions::default()).await.unwrap();
        let (mut out, mut received) = (DatagramBatch::new(1), DatagramBatch::new(8));
        let (peer, mut timer) = (address((number + 1) % count), env.timer());
        // Each at its own pace: what happens at one moment needs no looking ahead.
        let pace = Duration::from_nanos(900_000 + 1_117 * u64::from(number));
        loop {
            timer.set(Some(env.now().after(pace)));
            poll_fn(|cx| {
                let _ = socket.poll_recv(cx, &mut received);
                received.clear();
                timer.poll_expired(cx)
            })
            .await;
            let packet = socket.pool().take().unwrap();
            out.push(Datagram { peer, at: env.now(), packet }).unwrap();
            poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
        }
    }

    /// The hash of a run, and how often the hosts' wishes were asked for.
    fn run(count: u16, wishes: bool) -> (u64, u32) {
        let mut sim = Sim::new(SimConfig::default());
        let told = Rc::new(Told(Cell::new(0)));
        let mut tasks = Vec::new();
        for number in 0..count {
            let env = sim.host("node", address(number).ip());
            tasks.push(env.spawn("chatter", chatter(env.clone(), number, count)));
            if wishes {
                let wish = Rc::clone(&told) as Rc<dyn Wish>;
                assert!(sim.set_wish(address(number).ip(), wish));
            }
        }
        assert!(!sim.set_wish(address(count).ip(), Rc::clone(&told) as Rc<dyn Wish>), "nobody");
        sim.run_for(Duration::from_millis(50));
        (sim.trace_hash(), told.0.get())
    }

    #[test]
    fn wishes_are_asked_for_where_there_are_many_hosts_and_change_nothing() {
        let (many, few) = (HOSTS_MIN as u16 + 10, 20);
        let (with, without) = (run(many, true), run(many, false));
        assert!(with.1 > 1_000, "{} times", with.1);
        assert_eq!((with.0, 0), without);
        assert_eq!(run(few, true).1, 0, "few hosts stay in the caches");
    }
}
