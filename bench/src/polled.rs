//! The loops of libraries that are polled: one for the server, one for all clients.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use anyhow::{Result, bail};

use crate::clock::{Schedule, now, sleep_until};
use crate::measure::{Window, stamp};
use crate::{INPUT_BYTES, INPUTS_HZ, Plan, STATES_HZ, process};

/// How often the clients are polled.
const CLIENT_POLL_NS: u64 = 1_000_000;
/// How long all may take to connect.
const CONNECT_NS: u64 = 60_000_000_000;

/// A server that is polled.
pub trait Server {
    /// Receives, and hands each message to `on_message`.
    fn poll(&mut self, elapsed_ns: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<()>;
    /// Queues a message for the player of this number; false when that is not connected.
    fn send(&mut self, player: usize, bytes: &[u8]) -> bool;
    /// Sends what was queued.
    fn flush(&mut self);
}

/// All clients.
pub trait Clients {
    /// Receives, for those that it is the turn of; says how many are connected.
    fn poll(&mut self, elapsed_ns: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<usize>;
    /// Sends a player's message.
    fn send(&mut self, player: usize, bytes: &[u8]) -> Result<()>;
    /// Sends what was queued.
    fn flush(&mut self);
}

/// Runs the server from before the first connection to the end of the window.
pub fn serve(plan: &Plan, server: &mut impl Server) -> Result<()> {
    let resident = process::resident_bytes();
    let begin = hear_beginning();
    let mut window: Option<(Window, Schedule)> = None;
    let mut state = vec![0; plan.state_bytes];
    let (mut last, mut next) = (now(), now());
    loop {
        if window.is_none() {
            match begin.try_recv() {
                Ok(begin) => {
                    let schedule = Schedule::new(now(), plan.players, STATES_HZ);
                    window = Some((Window::new(plan, begin, resident)?, schedule));
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => bail!("nobody said when to begin"),
            }
        }
        let at = now();
        server.poll(at - last, &mut |bytes| {
            if let Some((window, _)) = &mut window {
                window.on_message(now(), bytes);
            }
        })?;
        last = at;
        if let Some((window, schedule)) = &mut window {
            while let Some((player, slot)) = schedule.due(at) {
                stamp(&mut state, slot);
                if server.send(player, &state) {
                    window.on_sent(slot);
                }
            }
            if window.is_over(at) {
                window.report();
                return Ok(());
            }
        }
        server.flush();
        next = (next + plan.poll_us * 1_000).max(now());
        sleep_until(next);
    }
}

/// The moment at which the measured seconds begin, once the parent says it.
fn hear_beginning() -> Receiver<u64> {
    let (tell, hear) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).is_ok()
            && let Ok(begin) = line.trim().parse()
        {
            let _ = tell.send(begin);
            // The channel stays open for as long as the process.
            std::thread::park();
        }
    });
    hear
}

/// Runs all clients.
pub fn play(plan: &Plan, clients: &mut impl Clients) -> Result<()> {
    let began = now();
    let mut last = began;
    loop {
        let at = now();
        let connected = clients.poll(at - last, &mut |_| {})?;
        clients.flush();
        last = at;
        if connected == plan.players {
            break;
        }
        if at > began + CONNECT_NS {
            println!("{connected} of {} connected", plan.players);
            bail!("{connected} of {} connected", plan.players);
        }
        sleep_until(at + CLIENT_POLL_NS);
    }
    println!("ready");
    let mut window = Window::ask(plan, process::resident_bytes())?;
    let mut schedule = Schedule::new(now(), plan.players, INPUTS_HZ);
    let mut input = [0; INPUT_BYTES];
    let mut next = now();
    loop {
        let at = now();
        while let Some((player, slot)) = schedule.due(at) {
            stamp(&mut input, slot);
            clients.send(player, &input)?;
            window.on_sent(slot);
        }
        clients.flush();
        clients.poll(at - last, &mut |bytes| window.on_message(now(), bytes))?;
        last = at;
        if window.is_over(at) {
            window.report();
            return Ok(());
        }
        next = (next + CLIENT_POLL_NS).max(now());
        sleep_until(next);
    }
}
