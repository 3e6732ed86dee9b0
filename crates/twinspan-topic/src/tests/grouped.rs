//! Topics of a group, over the same network: what is sent there comes to all.

use super::*;
use crate::greet::{Disagreement, Greeting};

fn group() -> SocketAddr {
    SocketAddr::from(([239, 1, 2, 3], 9_000))
}

fn grouped(index: usize) -> NodeConfig {
    NodeConfig { side: NodeSide::Group(group()), ..config(index, false) }
}

fn net(seed: u64, faults: Faults, count: usize) -> Net {
    Net::new(seed, faults, (0..count).map(grouped))
}

/// Until all know of each other.
fn meet(net: &mut Net) {
    let others = net.ends.len() - 1;
    net.run_until(|net| net.ends.iter().all(|end| end.node.subscribers() == others));
}

#[test]
fn everybody_hears_everybody_and_each_datagram_leaves_once() {
    let mut net = net(1, Faults::default(), 4);
    meet(&mut net);
    let before = net.ends[0].node.stats().datagrams_out;
    for number in 0..200 {
        net.publish(0, &message(number));
        net.publish(1, &number.to_le_bytes());
    }
    net.ends.iter_mut().for_each(|end| end.node.flush());
    net.run(Duration::from_millis(500));
    for at in [2, 3] {
        let taken = net.take(at);
        assert_eq!(taken.len(), 400);
        assert!(taken.iter().all(|(taken, _)| taken.lost == 0));
    }
    assert_eq!((net.take(0).len(), net.take(1).len()), (200, 200), "and nobody itself");
    let bytes: usize = (0..200).map(|number| message(number).len()).sum();
    let left = net.ends[0].node.stats().datagrams_out - before;
    assert!((left as usize) < bytes / 500, "{left} datagrams for {bytes} bytes and three others");
}

#[test]
fn what_is_lost_is_counted_exactly_at_each_of_them() {
    let faults = Faults { loss: 0.1, twice: 0.1, late: Duration::from_millis(2) };
    let mut net = net(5, faults, 3);
    meet(&mut net);
    // Each has heard where the publisher is.
    let mut taken = [0, 0];
    for number in 0..400 {
        net.publish(0, &message(number));
        net.ends[0].node.flush();
        net.run(Duration::from_millis(1));
        for (at, taken) in (1..).zip(&mut taken) {
            *taken += net.take(at).len() as u64;
        }
    }
    net.run(Duration::from_secs(8));
    for (at, taken) in (1..).zip(&mut taken) {
        *taken += net.take(at).len() as u64;
        let lost = net.ends[at].inbox.stats().lost;
        assert_eq!(*taken + lost, 400, "{at}");
        assert!(lost > 20, "{at}: {lost}");
    }
}

#[test]
fn who_comes_late_misses_nothing_that_is_counted() {
    let mut net = net(1, Faults::default(), 2);
    meet(&mut net);
    for number in 0..50 {
        net.publish(0, &message(number));
    }
    net.ends[0].node.flush();
    net.run(Duration::from_millis(100));
    let now = net.now;
    net.ends.push(end(2, grouped(2), now));
    meet(&mut net);
    for number in 50..60 {
        net.publish(0, &message(number));
    }
    net.ends[0].node.flush();
    net.run(Duration::from_millis(100));
    let numbers: Vec<_> = net.take(2).iter().map(|(it, _)| (it.number, it.lost)).collect();
    assert_eq!(numbers, (50..60).map(|number| (number, 0)).collect::<Vec<_>>());
}

#[test]
fn who_goes_says_so_and_who_is_silent_is_forgotten_and_known_again() {
    let mut net = net(1, Faults::default(), 3);
    meet(&mut net);
    net.ends[2].node.close(net.now);
    net.run(Duration::from_millis(50));
    assert_eq!((net.ends[0].node.subscribers(), net.ends[0].node.stats().left), (1, 1));
    net.publish(0, b"first");
    net.ends[0].node.flush();
    net.run(Duration::from_millis(50));
    assert_eq!(net.take(1).len(), 1);
    net.is_cut = true;
    net.publish(0, b"to nobody");
    net.ends[0].node.flush();
    net.run(Duration::from_secs(12));
    assert_eq!((net.ends[1].node.publishers(), net.ends[1].node.stats().ended), (0, 1));
    net.is_cut = false;
    net.run(Duration::from_secs(3));
    net.publish(0, b"again");
    net.ends[0].node.flush();
    net.run(Duration::from_millis(50));
    let taken = net.take(1);
    assert_eq!(taken.len(), 1);
    assert_eq!(net.ends[1].inbox.stats().lost, 1, "what was missed meanwhile is counted");
}

#[test]
fn another_topic_shares_the_group_and_another_type_is_told() {
    let topic = Greeting { topic: "other".into(), ..grouped(1).greeting };
    let mut identity = grouped(2).greeting.identity;
    identity.version = 9;
    let typed = Greeting { identity, ..grouped(2).greeting };
    let configs = [
        grouped(0),
        NodeConfig { greeting: topic, ..grouped(1) },
        NodeConfig { greeting: typed, ..grouped(2) },
    ];
    let mut net = Net::new(1, Faults::default(), configs);
    net.run(Duration::from_secs(3));
    for at in 0..3 {
        net.publish(at, b"hello");
        net.ends[at].node.flush();
    }
    net.run(Duration::from_millis(50));
    for at in 0..3 {
        assert!(net.take(at).is_empty());
        assert_eq!(net.ends[at].node.subscribers(), 0);
    }
    let events: Vec<_> = std::iter::from_fn(|| net.ends[0].node.poll_event()).collect();
    let is_type =
        |event: &Event| matches!(event, Event::Declined { why: Some(Disagreement::Type(_)), .. });
    assert!(!events.is_empty() && events.iter().all(is_type), "{events:?}");
}

#[test]
fn strangers_are_bounded_and_nobody_is_answered() {
    let mut here = end(0, grouped(0), Timestamp::START);
    let mut out = [0; 1_200];
    while here.node.poll_transmit(Timestamp::START, &mut out).is_some() {}
    for number in 0..1_000_u64 {
        let greeting = Greeting { id: [0; 16], ..grouped(1).greeting };
        let mut id = greeting.id;
        id[..8].copy_from_slice(&(number + 1).to_le_bytes());
        let other = NodeConfig { greeting: Greeting { id, ..greeting }, ..grouped(1) };
        let mut other = end(1, other, Timestamp::START);
        let sent = other.node.poll_transmit(Timestamp::START, &mut out).unwrap();
        let bytes = out[..sent.bytes].to_vec();
        here.node.handle_datagram(Timestamp::START, address(1), &bytes, &mut here.inbox);
    }
    assert_eq!(here.node.subscribers(), LINKS_MAX);
    assert_eq!(here.node.stats().refused, 1_000 - LINKS_MAX as u64);
    for kind in 0..13_u8 {
        let bytes = [&[kind][..], &[0; 60]].concat();
        here.node.handle_datagram(Timestamp::START, address(1), &bytes, &mut here.inbox);
    }
    let mut answers = 0;
    while let Some(sent) = here.node.poll_transmit(Timestamp::START, &mut out) {
        assert_eq!(sent.to, group(), "nothing goes to one alone");
        answers += 1;
    }
    assert!(answers <= 1, "{answers}");
}

#[test]
fn a_group_is_neither_reliable_nor_sealed() {
    let reliable = NodeConfig { side: NodeSide::Group(group()), ..config(0, true) };
    let text = reliable.check().unwrap_err().to_string();
    assert_eq!(text, "reliable, of a group, is 1, set it to 0..=0");
    let seal = crate::config::Seal::new(twinspan_session::link::SharedKey::from_bytes([1; 32]));
    let sealed = NodeConfig { seal: Some(seal), ..grouped(0) };
    assert!(sealed.check().unwrap_err().to_string().starts_with("seal, of a group, is 1"));
}
