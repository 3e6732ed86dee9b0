//! Sealed topics, over the same network.

use twinspan_core::aead::Cipher;
use twinspan_session::KeyConfig;
use twinspan_session::link::SharedKey;

use super::*;
use crate::config::Seal;
use crate::greet::{Disagreement, Sealing};

fn seal(byte: u8, cipher: Cipher) -> Seal {
    Seal { key: SharedKey::from_bytes([byte; 32]), cipher, keys: KeyConfig::default() }
}

fn sealed(index: usize, reliable: bool, seal: Seal) -> NodeConfig {
    NodeConfig { seal: Some(seal), ..config(index, reliable) }
}

fn pair(seed: u64, faults: Faults, reliable: bool) -> Net {
    let cipher = if seed.is_multiple_of(2) { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
    let ends = [0, 1].map(|index| sealed(index, reliable, seal(7, cipher)));
    Net::new(seed, faults, ends)
}

#[test]
fn reliable_comes_once_and_in_order_at_any_loss() {
    for (seed, loss) in [(1, 0.0), (2, 0.05), (3, 0.3)] {
        let faults = Faults { loss, twice: 0.05, late: Duration::from_millis(3) };
        let mut net = pair(seed, faults, true);
        net.hear_all(200);
        let repeats = net.ends[0].node.stats().unauthentic;
        assert_eq!(repeats > 0, loss > 0.0 || seed == 1, "those that came twice: {repeats}");
    }
}

#[test]
fn best_effort_counts_exactly_and_nothing_is_readable_on_the_way() {
    let mut net = pair(4, Faults { loss: 0.1, ..Faults::default() }, false);
    net.meet();
    let secret = b"a text that nobody on the way shall read";
    for number in 0..300_u64 {
        let mut text = number.to_le_bytes().to_vec();
        text.extend_from_slice(secret);
        net.publish(0, &text);
        net.ends[0].node.flush();
        net.transmit();
        for (.., bytes) in &net.under_way {
            let shown = bytes.windows(8).any(|part| part == &secret[..8]);
            assert!(!shown && bytes.first() != Some(&5), "clear text leaves");
        }
        let until = net.now.after(Duration::from_millis(1));
        net.step(until);
    }
    net.run(Duration::from_secs(5));
    let taken = net.take(1);
    let stats = net.ends[1].inbox.stats();
    assert_eq!(stats.taken + stats.lost, 300);
    assert!(stats.lost > 0 && taken.len() > 200);
}

#[test]
fn greetings_are_not_said_in_the_clear() {
    let mut net = pair(1, Faults::default(), false);
    let topic = net.ends[0].node.topic().to_owned();
    let mut shown = 0;
    net.run_until(|net| {
        for (.., bytes) in &net.under_way {
            shown += usize::from(bytes.windows(topic.len()).any(|it| it == topic.as_bytes()));
        }
        net.ends[1].node.subscribers() == 1
    });
    assert_eq!(shown, 0);
}

#[test]
fn ends_that_are_sealed_otherwise_refuse_each_other_and_both_are_told() {
    use Sealing::{Clear, Key, Sealed};
    let aes = || Some(seal(7, Cipher::Aes128Gcm));
    for (there, here, told_here, told_there) in [
        (aes(), None, Sealed, Clear),
        (None, aes(), Clear, Sealed),
        (Some(seal(8, Cipher::Aes128Gcm)), aes(), Key, Key),
    ] {
        let ends = [(0, there), (1, here)];
        let ends = ends.map(|(index, seal)| NodeConfig { seal, ..config(index, false) });
        let mut net = Net::new(1, Faults::default(), ends);
        net.run(Duration::from_secs(1));
        for (at, told) in [(0, told_there), (1, told_here)] {
            let events: Vec<_> = std::iter::from_fn(|| net.ends[at].node.poll_event()).collect();
            let wanted = Disagreement::Sealing(told);
            let is_told = events.iter().any(|event| match event {
                Event::Refused { why, .. } => at == 1 && *why == Some(wanted.clone()),
                Event::Declined { why, .. } => at == 0 && *why == Some(wanted.clone()),
                _ => false,
            });
            assert!(is_told, "{at}: {wanted} in {events:?}");
            assert_eq!(net.ends[at].node.subscribers(), 0);
        }
        net.publish(1, b"never heard");
        net.ends[1].node.flush();
        net.run(Duration::from_secs(5));
        assert!(net.take(0).is_empty());
    }
}

#[test]
fn other_disagreements_are_told_inside_the_seal() {
    let there = sealed(0, false, seal(7, Cipher::Aes128Gcm));
    let mut here = sealed(1, false, seal(7, Cipher::Aes128Gcm));
    here.greeting.identity.version = 9;
    let mut net = Net::new(1, Faults::default(), [there, here]);
    net.run(Duration::from_secs(1));
    let events: Vec<_> = std::iter::from_fn(|| net.ends[1].node.poll_event()).collect();
    let is_told =
        |event: &Event| matches!(event, Event::Refused { why: Some(Disagreement::Type(_)), .. });
    assert!(events.iter().any(is_told), "{events:?}");
    let events: Vec<_> = std::iter::from_fn(|| net.ends[0].node.poll_event()).collect();
    let is_told =
        |event: &Event| matches!(event, Event::Declined { why: Some(Disagreement::Type(_)), .. });
    assert!(events.iter().any(is_told), "{events:?}");
}

#[test]
fn who_connects_decides_the_cipher() {
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let there = sealed(0, true, seal(7, Cipher::Aes256Gcm));
        let mut net = Net::new(1, Faults::default(), [there, sealed(1, true, seal(7, cipher))]);
        net.meet();
        net.publish(0, b"hello");
        net.ends[0].node.flush();
        net.run(Duration::from_millis(50));
        assert_eq!(net.take(1).len(), 1);
    }
}

/// Everything that a connecting node sent until it had met the other one.
fn heard() -> (Net, Vec<Vec<u8>>) {
    let mut net = pair(2, Faults::default(), true);
    let mut heard = Vec::new();
    let until = net.now.after(Duration::from_secs(5));
    while net.ends[0].node.subscribers() == 0 {
        net.transmit();
        let from_caller = net.under_way.iter().filter(|(_, _, to, ..)| *to == 0);
        heard.extend(from_caller.map(|(.., bytes)| bytes.clone()));
        net.step(until);
    }
    heard.dedup();
    (net, heard)
}

#[test]
fn what_was_heard_and_is_said_again_opens_nothing() {
    let (mut net, heard) = heard();
    assert!(heard.iter().filter(|bytes| bytes[0] == 8).count() >= 2, "{}", heard.len());
    net.run(Duration::from_millis(100));
    let joined = net.ends[0].node.stats().joined;
    for _ in 0..20 {
        for bytes in &heard {
            for from in [address(1), address(77)] {
                let end = &mut net.ends[0];
                end.node.handle_datagram(net.now, from, bytes, &mut end.inbox);
            }
        }
        net.run(Duration::from_millis(300));
    }
    let stats = net.ends[0].node.stats();
    assert_eq!((stats.joined, stats.left, stats.ended), (joined, 0, 0));
    assert_eq!(net.ends[0].node.subscribers(), 1, "who is there stays");
    net.publish(1, b"still here");
    net.ends[1].node.flush();
    net.run(Duration::from_millis(100));
    assert_eq!(net.take(0).len(), 1);
}

#[test]
fn a_hello_of_a_hub_that_went_wakes_no_ghost() {
    let (mut net, heard) = heard();
    net.ends[1].node.close(net.now);
    net.run(Duration::from_millis(100));
    assert_eq!(net.ends[0].node.subscribers(), 0);
    for bytes in &heard {
        let end = &mut net.ends[0];
        end.node.handle_datagram(net.now, address(1), bytes, &mut end.inbox);
    }
    net.run(Duration::from_millis(100));
    assert_eq!(net.ends[0].node.subscribers(), 0, "only its keys would show that it is there");
}

#[test]
fn forged_ends_and_resets_cut_no_sealed_link() {
    let mut net = pair(1, Faults::default(), true);
    net.meet();
    net.run(Duration::from_millis(100));
    for _ in 0..200 {
        for at in 0..2 {
            let tokens = [net.ends[at].node.token_of(0), net.ends[1 - at].node.token_of(0)];
            let now = net.now;
            let end = &mut net.ends[at];
            let from = address(1 - at);
            for token in tokens.into_iter().flatten() {
                for packet in [
                    Packet::Reset { token },
                    Packet::End { token, reason: EndReason::Closed, next: 1_000 },
                ] {
                    let mut bytes = Vec::new();
                    packet.write(&mut bytes);
                    end.node.handle_datagram(now, from, &bytes, &mut end.inbox);
                }
                let mut clear = vec![5, 8];
                clear.extend_from_slice(&token.to_le_bytes());
                clear.extend_from_slice(&[0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]);
                end.node.handle_datagram(now, from, &clear, &mut end.inbox);
            }
        }
        net.run(Duration::from_millis(100));
    }
    for end in &net.ends {
        assert_eq!((end.node.stats().joined, end.node.subscribers()), (1, 1));
        assert_eq!(end.inbox.stats().lost, 0);
    }
}

#[test]
fn a_forged_reset_and_a_lost_sign_of_life_cut_no_sealed_link() {
    let usual = config(0, false).keepalive_interval;
    for keepalive_interval in [usual, usual / 4] {
        for seed in 0..40 {
            let cipher = Cipher::Aes128Gcm;
            let ends = [0, 1]
                .map(|at| NodeConfig { keepalive_interval, ..sealed(at, false, seal(7, cipher)) });
            let mut net = Net::new(seed, Faults { loss: 0.1, ..Faults::default() }, ends);
            net.meet();
            net.run(Duration::from_millis(300));
            let links = |net: &Net| [0, 1].map(|at| net.ends[at].node.stats().joined);
            let before = links(&net);
            let tokens = [0, 1].map(|at| net.ends[1 - at].node.token_of(0).unwrap());
            for (at, token) in tokens.into_iter().enumerate() {
                let mut reset = Vec::new();
                Packet::Reset { token }.write(&mut reset);
                let (now, end) = (net.now, &mut net.ends[at]);
                end.node.handle_datagram(now, address(1 - at), &reset, &mut end.inbox);
            }
            net.run(5 * usual);
            assert_eq!(links(&net), before, "{seed} at {keepalive_interval:?}");
            assert!(net.ends.iter().all(|end| end.node.stats().ended == 0));
        }
    }
}

#[test]
fn who_was_forgotten_begins_anew_after_a_while() {
    let mut net = pair(1, Faults::default(), true);
    net.meet();
    let now = net.now;
    net.ends[0] = end(0, sealed(0, true, seal(7, Cipher::Aes128Gcm)), now);
    net.publish(1, b"to nobody");
    net.ends[1].node.flush();
    net.run(Duration::from_secs(1));
    assert_eq!(net.ends[0].node.subscribers(), 0);
    net.run(Duration::from_secs(7));
    assert_eq!(net.ends[0].node.subscribers(), 1, "sooner than silence would tell");
    net.publish(1, b"to the new one");
    net.ends[1].node.flush();
    net.run(Duration::from_millis(100));
    let taken = net.take(0);
    assert_eq!(taken.last().map(|(_, bytes)| &bytes[..]), Some(&b"to the new one"[..]));
}

#[test]
fn goodbyes_are_sealed_and_believed() {
    let mut net = pair(1, Faults::default(), false);
    net.meet();
    net.run(Duration::from_millis(50));
    net.ends[0].node.close(net.now);
    net.run(Duration::from_millis(50));
    let stats = net.ends[1].node.stats();
    assert_eq!((stats.left, stats.ended, net.ends[1].node.subscribers()), (1, 0, 0));
}

#[test]
fn keys_change_on_the_way_in_both_kinds_of_topics() {
    for reliable in [false, true] {
        let mut seal = seal(7, Cipher::Aes128Gcm);
        seal.keys = KeyConfig { rekey_packets: 16, packets_max: 400, ..KeyConfig::default() };
        let faults = Faults { loss: 0.02, twice: 0.02, late: Duration::from_millis(1) };
        let ends = [0, 1].map(|index| sealed(index, reliable, seal.clone()));
        let mut net = Net::new(3, faults, ends);
        net.meet();
        let (mut taken, mut other) = (0, 0);
        for number in 0..3_000_u64 {
            net.publish(1, &number.to_le_bytes());
            net.ends[1].node.flush();
            if number % 10 == 0 {
                net.publish(0, b"back");
                net.ends[0].node.flush();
            }
            net.run(Duration::from_millis(2));
            taken += net.take(0).len() as u64;
            other += net.take(1).len() as u64;
        }
        net.run(Duration::from_secs(3));
        taken += net.take(0).len() as u64;
        other += net.take(1).len() as u64;
        assert_eq!(net.ends[0].node.stats().joined, 1, "one link all the while");
        assert_eq!(taken + net.ends[0].inbox.stats().lost, 3_000);
        assert_eq!(other + net.ends[1].inbox.stats().lost, 300);
        if reliable {
            assert_eq!((taken, other), (3_000, 300));
        }
    }
}

#[test]
fn who_may_seal_no_more_goes_without_a_word() {
    for says_goodbye in [false, true] {
        let mut seal = seal(7, Cipher::Aes128Gcm);
        seal.keys = KeyConfig { rekey_packets: 16, packets_max: 400, ..KeyConfig::default() };
        let ends = [0, 1].map(|index| sealed(index, false, seal.clone()));
        let mut net = Net::new(1, Faults::default(), ends);
        net.meet();
        net.run(Duration::from_millis(100));
        // The other end hears nothing and confirms no new keys, until the last are used up.
        let (now, node) = (net.now, &mut net.ends[1].node);
        let (mut out, mut sent) = ([0; 1_200], 0);
        while node.poll_timeout() > Timestamp::START {
            assert!(sent < 2_000, "keys wear out");
            node.publish(b"unheard").unwrap();
            node.flush();
            while let Some(datagram) = node.poll_transmit(now, &mut out) {
                assert!(datagram.bytes > 0);
                sent += 1;
            }
        }
        assert!(sent > 0);
        if says_goodbye {
            node.close(now);
        } else {
            node.handle_timeout(now);
            assert_eq!(node.stats().ended, 1);
        }
        while let Some(datagram) = node.poll_transmit(now, &mut out) {
            assert!(datagram.bytes > 0, "nothing is no datagram");
        }
    }
}

#[test]
fn a_flood_of_sealed_hellos_leaves_nothing_and_gets_less_than_it_sends() {
    let config = sealed(0, false, seal(7, Cipher::Aes128Gcm));
    let mut listener = end(0, config, Timestamp::START);
    let (mut sent, mut got) = (0, 0);
    let mut out = [0; 1_200];
    for number in 0..10_000_u32 {
        let from = SocketAddr::from((number.to_be_bytes(), 1_000));
        let mut hello = Vec::new();
        let (cookie, cipher) = ([3; 16], Cipher::Aes128Gcm);
        let message = &[1; 48];
        Packet::SealedHello { token: 7, cookie, cipher, message }.write(&mut hello);
        sent += hello.len();
        listener.node.handle_datagram(Timestamp::START, from, &hello, &mut listener.inbox);
        while let Some(reply) = listener.node.poll_transmit(Timestamp::START, &mut out) {
            assert!(reply.to == from && reply.bytes < hello.len());
            got += reply.bytes;
        }
    }
    assert!(got > 0 && got < sent);
    assert_eq!(listener.node.stats().joined, 0);
}

#[test]
fn many_sealed_hubs_have_a_link_each_and_no_more_than_there_may_be() {
    let configs = (0..=LINKS_MAX + 1).map(|at| sealed(at, false, seal(7, Cipher::Aes128Gcm)));
    let mut net = Net::new(1, Faults::default(), configs);
    net.run(Duration::from_secs(4));
    assert_eq!(net.ends[0].node.subscribers(), LINKS_MAX);
    // The first one comes again from another place: its old link gives way.
    let now = net.now;
    let mut moved = end(200, sealed(1, false, seal(7, Cipher::Aes128Gcm)), now);
    moved.at = address(200);
    net.ends[1] = moved;
    net.run(Duration::from_millis(200));
    assert_eq!(net.ends[0].node.subscribers(), LINKS_MAX);
    assert_eq!(net.ends[1].node.subscribers(), 1);
}

#[test]
fn all_who_listen_and_call_each_other_have_one_sealed_link_each() {
    for calls in [
        &[(1, 0), (2, 0), (2, 1)][..],
        &[(0, 1), (0, 2), (1, 2)],
        &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)],
    ] {
        let listens = |at| {
            let sealed = sealed(at, true, seal(7, Cipher::Aes128Gcm));
            NodeConfig { side: NodeSide::Listen, ..sealed }
        };
        let faults = Faults { loss: 0.05, ..Faults::default() };
        let mut net = Net::new(1, faults, (0..3).map(listens));
        for (from, to) in calls {
            let now = net.now;
            assert!(net.ends[*from].node.call(now, address(*to)));
        }
        net.run(Duration::from_secs(15));
        let joined = |net: &Net| -> Vec<u64> {
            net.ends.iter().map(|end| end.node.stats().joined).collect()
        };
        let before = joined(&net);
        net.run(Duration::from_secs(60));
        assert_eq!(joined(&net), before, "links stay as they are");
        for end in &net.ends {
            assert_eq!((end.node.subscribers(), end.node.publishers()), (2, 2));
        }
    }
}

#[test]
fn who_comes_again_at_its_address_is_let_in_sealed_too() {
    for id in [1, 3] {
        let before = |at| {
            let mut config = sealed(at, true, seal(7, Cipher::Aes128Gcm));
            config.greeting.id = [[9; 16], [2; 16]][at];
            config
        };
        come_again(before, id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sealed_text_of_who_has_the_key_harms_nobody(
        reliable: bool,
        texts in proptest::collection::vec(
            (prop_oneof![Just(5_u8), Just(6_u8), any::<u8>()],
             proptest::collection::vec(any::<u8>(), 0..80)),
            0..30,
        ),
    ) {
        let mut net = pair(1, Faults::default(), reliable);
        net.meet();
        for (kind, rest) in texts {
            let text = [&[kind][..], &rest].concat();
            let now = net.now;
            let Some(bytes) = net.ends[1].node.seal_by(0, now, &text) else { break };
            let end = &mut net.ends[0];
            end.node.handle_datagram(now, address(1), &bytes, &mut end.inbox);
            net.run(Duration::from_millis(5));
            net.take(0);
        }
        prop_assert!(net.ends[0].node.subscribers() <= 1);
    }
}
