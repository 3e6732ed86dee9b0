//! The scenario `planted`: a sender with a defect on purpose, to show that sweeps find it and that
//! shrinking leaves the two faults that it needs.
//!
//! A sender sends one message after another, each until it is acknowledged. The defect: when a
//! message was sent twice without an answer it is taken for delivered. So a message is missing where
//! both were lost, and only there; every other fault is harmless.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{
    NetworkProvider, TaskProvider, TimeProvider, Timer, UdpError, UdpOptions, UdpSocket,
};

use super::{Hosted, Running};
use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::sim::Sim;
use crate::swarm::Options;
use crate::udp::SimUdp;

const SENDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 3, 1)), 5);
const RECEIVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 3, 2)), 5);
/// How long an answer is waited for: longer than any copy or late datagram is under way.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// The scenario. Its promise is broken in some runs, which is what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Planted;

impl Hosted for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn kinds(&self) -> Vec<FaultKind> {
        vec![
            FaultKind::Loss,
            FaultKind::Duplicate,
            FaultKind::Reorder,
            FaultKind::Spoof,
            FaultKind::SpuriousWake,
        ]
    }

    fn fault_time(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn settle_time(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        let messages = options.size("messages", 400, 1..=2_000);
        let outcome = Rc::new(RefCell::new(Outcome::default()));
        let mut tasks = Vec::new();
        for (name, local) in [("receiver", RECEIVER), ("sender", SENDER)] {
            let env = sim.host(name, local.ip());
            let (inner, outcome) = (env.clone(), Rc::clone(&outcome));
            tasks.push(env.spawn(name, async move {
                let Ok(socket) = inner.bind_udp(local, &UdpOptions::default()).await else {
                    return;
                };
                // It ends when the host is stopped, which nothing here does.
                let _ = if local == SENDER {
                    send_all(inner, socket, messages, outcome).await
                } else {
                    receive(inner, socket, outcome).await
                };
            }));
        }
        Box::new(Sending { messages, outcome, _tasks: tasks })
    }
}

#[derive(Default)]
struct Outcome {
    received: BTreeSet<u64>,
    /// Messages that the sender takes for delivered.
    done: u64,
}

/// Sends one number.
async fn send(
    env: &SimEnv,
    socket: &mut SimUdp,
    peer: SocketAddr,
    number: u64,
) -> Result<(), UdpError> {
    let mut out = DatagramBatch::new(1);
    if let Some(mut packet) = socket.pool().take()
        && packet.fill(&number.to_le_bytes())
    {
        // An empty batch has room for one.
        let _ = out.push(Datagram { peer, at: env.now(), packet });
    }
    while !out.is_empty() {
        poll_fn(|cx| socket.poll_send(cx, &mut out)).await?;
    }
    Ok(())
}

async fn send_all(
    env: SimEnv,
    mut socket: SimUdp,
    messages: u64,
    outcome: Rc<RefCell<Outcome>>,
) -> Result<(), UdpError> {
    let (mut received, mut timer) = (DatagramBatch::new(8), env.timer());
    for number in 0..messages {
        // The defect: a third try, and as many as it takes, would be right.
        for _ in 0..2 {
            send(&env, &mut socket, RECEIVER, number).await?;
            timer.set(Some(env.now().after(ANSWER_TIME)));
            let mut is_answered = false;
            while !is_answered {
                let heard = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
                    Poll::Ready(outcome) => Poll::Ready(outcome.map(|_| true)),
                    Poll::Pending => timer.poll_expired(cx).map(|()| Ok(false)),
                });
                if !heard.await? {
                    break;
                }
                while let Some(datagram) = received.pop() {
                    let told = datagram.packet.first_chunk().map(|word| u64::from_le_bytes(*word));
                    is_answered |= told == Some(number);
                }
            }
            if is_answered {
                break;
            }
        }
        outcome.borrow_mut().done += 1;
    }
    Ok(())
}

async fn receive(
    env: SimEnv,
    mut socket: SimUdp,
    outcome: Rc<RefCell<Outcome>>,
) -> Result<(), UdpError> {
    let mut received = DatagramBatch::new(8);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut received)).await?;
        while let Some(datagram) = received.pop() {
            let told = datagram.packet.first_chunk().map(|word| u64::from_le_bytes(*word));
            let (Some(number), peer) = (told, datagram.peer) else { continue };
            drop(datagram);
            outcome.borrow_mut().received.insert(number);
            send(&env, &mut socket, peer, number).await?;
        }
    }
}

struct Sending {
    messages: u64,
    outcome: Rc<RefCell<Outcome>>,
    _tasks: Vec<SimTask>,
}

impl Running for Sending {
    fn is_settled(&self) -> bool {
        self.outcome.borrow().done >= self.messages
    }

    fn unsettled(&self) -> String {
        let done = self.outcome.borrow().done;
        format!("{} of {} messages are not sent", self.messages - done, self.messages)
    }

    fn broken(&self) -> Vec<String> {
        let outcome = self.outcome.borrow();
        let missing: Vec<_> =
            (0..outcome.done).filter(|number| !outcome.received.contains(number)).collect();
        match missing.as_slice() {
            [] => Vec::new(),
            [first, ..] => vec![format!(
                "{} messages were taken for delivered and never came, the first is {first}",
                missing.len()
            )],
        }
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let outcome = self.outcome.borrow();
        let sender = format!("{} of {} taken for delivered", outcome.done, self.messages);
        let receiver = format!("{} messages received", outcome.received.len());
        vec![(SENDER.ip(), sender), (RECEIVER.ip(), receiver)]
    }
}
