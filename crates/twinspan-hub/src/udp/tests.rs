//! Roads on sockets of this machine, and the threads that they have of their own.

use twinspan_core::time::Timestamp;

use super::*;
use crate::quic::tests::config;

const PATIENCE: Duration = Duration::from_secs(30);

/// One end of a road, looked at from behind.
struct End {
    shared: Arc<Shared>,
    opened: Opened,
}

fn end(side: Side, port: u16, reliability: Reliability, road: Transport) -> End {
    let mut config = config(side, port, if side == Side::Listen { 1 } else { 2 });
    config.reliability = Some(reliability);
    let begun = begin(&config, road).unwrap();
    let shared = Arc::clone(&begun.road.shared);
    End { shared, opened: sides(begun, &config) }
}

/// The roads of this machine.
fn roads() -> Vec<Transport> {
    let mut roads = vec![Transport::BatchUdp];
    match begin(&config(Side::Listen, 0, 3), Transport::IoUring) {
        Ok(_) => roads.push(Transport::IoUring),
        Err(error) => println!("skipped on io_uring: {error}"),
    }
    roads
}

/// A listener and a connector that have met.
fn met(reliability: Reliability, road: Transport) -> (End, End) {
    let here = end(Side::Listen, 0, reliability, road);
    let port = here.shared.core().socket.local_addr().port();
    let there = end(Side::Connect, port, reliability, road);
    until("they met", || here.opened.peers.subscribers() + there.opened.peers.subscribers() == 2);
    (here, there)
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}");
        thread::yield_now();
    }
}

impl End {
    /// A thread that sleeps on the road until it took one message, and never comes back.
    fn sleep_in_a_thread(&mut self) -> JoinHandle<()> {
        let mut inlet = self.opened.inlet.take().unwrap();
        thread::spawn(move || {
            let mut room = Vec::new();
            while inlet.try_take(&mut room).is_none() {
                inlet.sleep(None);
            }
        })
    }

    /// Until its own thread sleeps for as long as the user's.
    fn until_both_sleep(&self) {
        let never = Timestamp::NEVER.as_nanos();
        until("both sleep", || self.shared.looks_at.load(Ordering::SeqCst) == never);
    }

    fn publish(&mut self) {
        self.opened.out.as_mut().unwrap().publish(b"a message", More::Unknown).unwrap();
    }
}

#[test]
fn what_was_taken_is_acknowledged_though_the_user_never_calls_again() {
    for road in roads() {
        let (mut here, mut there) = met(Reliability::Reliable, road);
        let user = there.sleep_in_a_thread();
        there.until_both_sleep();
        here.publish();
        user.join().unwrap();
        until("acknowledged", || here.shared.core().node.unacknowledged() == 0);
        // A link that is given up owes nothing either.
        assert_eq!(here.opened.peers.ended(), 0, "{road:?}");
    }
}

#[test]
fn what_comes_is_taken_in_though_who_gave_the_descriptor_to_an_epoll_never_calls_again() {
    for road in roads() {
        // The system may let nobody watch the socket.
        for (reliability, watches) in [
            (Reliability::BestEffort, true),
            (Reliability::Reliable, true),
            (Reliability::Reliable, false),
        ] {
            let (mut here, mut there) = met(reliability, road);
            let mut inlet = there.opened.inlet.take().unwrap();
            assert!(watches || there.shared.watches_socket.set(false).is_ok());
            let mut room = Vec::new();
            // What the meeting left is taken in; then nobody looks any more.
            while inlet.take_or_arm(&mut room).is_some() {}
            assert!(there.shared.is_armed());
            here.publish();
            until("taken in", || !there.shared.core().inbox.is_empty());
            until("acknowledged", || here.shared.core().node.unacknowledged() == 0);
            // Whoever comes back is told.
            sleep_on(inlet.fd(), Some(PATIENCE));
            assert!(inlet.take_or_arm(&mut room).is_some(), "{road:?} {reliability:?}");
            assert_eq!(inlet.take_or_arm(&mut room), None);
        }
    }
}

#[test]
fn the_word_behind_the_last_message_is_seen_to_though_the_user_never_calls_again() {
    for road in roads() {
        for sleeps in [false, true] {
            let (mut here, mut there) = met(Reliability::BestEffort, road);
            let user = sleeps.then(|| here.sleep_in_a_thread());
            if sleeps {
                here.until_both_sleep();
            }
            let before = here.shared.core().socket.report().datagrams_out;
            here.publish();
            {
                let core = here.shared.core();
                let looks_at = Timestamp::from_nanos(here.shared.looks_at.load(Ordering::SeqCst));
                let slept_until = here.shared.slept_until();
                // It is due 20 ms behind the message, long before a sign of life.
                let due_at = core.node.poll_timeout();
                let is_overslept = vigil::is_overslept(looks_at, slept_until, due_at);
                // A user's thread that slept may be on its way to look, which rings.
                let is_back = looks_at == Timestamp::NEVER && slept_until.is_none();
                assert!(
                    is_back || !is_overslept,
                    "{road:?} {due_at:?} {looks_at:?} {slept_until:?}"
                );
            }
            let sent = || here.shared.core().socket.report().datagrams_out;
            until("the word came", || sent() >= before + 2);
            if let Some(user) = user {
                there.publish();
                user.join().unwrap();
            }
        }
    }
}
