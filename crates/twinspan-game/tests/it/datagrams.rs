//! Datagrams that no client of ours sends: replayed, changed, cut, forged, or sent in masses. They
//! are dropped, counted by cause and never answered with more bytes than came.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::Bot;
use twinspan_session::{SessionConfig, connection_id};

use crate::rig::{BOTS, NETWORK, Rig, SERVER, Shared, address, shared};
use crate::wire::{Forge, Middle, Outsider};

/// The honest player whose datagrams pass through strange hands.
const VICTIM: u32 = BOTS + 1;
/// The host in the middle.
const MIDDLE: u32 = 100;
/// Hosts of strangers begin here.
const STRANGERS: u32 = 1_000;
/// Where a HELLO carries its cookie, session 3.3.
const COOKIE: std::ops::Range<usize> = 228..244;

/// A server whose network makes no copies, so that every drop at it was somebody's doing, with an
/// honest player behind a man in the middle among others.
fn with_middle() -> (Rig, Shared<Bot>, Shared<Middle>) {
    let mut rig = Rig::empty(Conditions { duplicate: 0.0, ..NETWORK }, |_| {});
    for number in 1..=BOTS {
        rig.add_bot(number, SERVER);
    }
    let middle = shared(Middle::new(address(VICTIM), SERVER));
    for end in [SERVER.ip(), address(VICTIM).ip()] {
        rig.env(MIDDLE);
        rig.sim.set_link(address(MIDDLE).ip(), end, Conditions::CLEAN);
        rig.sim.set_link(end, address(MIDDLE).ip(), Conditions::CLEAN);
    }
    rig.launch(address(MIDDLE), middle.clone());
    let victim = rig.add_bot(VICTIM, address(MIDDLE));
    rig.wait("all to enter", Rig::all_entered);
    assert_eq!(rig.server.borrow().endpoint_stats().drops.total(), 0);
    (rig, victim, middle)
}

/// Random bytes in place of those from `from` on.
fn scramble(bytes: &mut [u8], from: usize, random: &mut Stream) {
    bytes.iter_mut().skip(from).for_each(|byte| *byte = random.next_u32() as u8);
}

/// One of everything that can be made of a datagram without its key.
fn forgeries(bytes: &[u8], before: &[Vec<u8>], random: &mut Stream) -> Vec<Vec<u8>> {
    let mut pick = |bound: usize| random.below(bound as u64) as usize;
    let replayed = bytes.to_vec();
    let sealed: Vec<_> = before.iter().filter(|old| connection_id(old) != Some(0)).collect();
    let old = sealed.get(pick(100)).map_or(replayed.clone(), |old| old.to_vec());
    let mut flipped = bytes.to_vec();
    flipped[pick(bytes.len())] ^= 1 << pick(8);
    let cut = bytes[..pick(bytes.len())].to_vec();
    let mut zero_number = bytes.to_vec();
    zero_number[6..14].fill(0);
    let mut garbage = vec![0; pick(1_700)];
    let mut header_kept = bytes.to_vec();
    // The first recorded datagram begins the handshake: its nonce is under its mac.
    let mut handshake = before.first().cloned().unwrap_or_default();
    if let Some(nonce) = handshake.get_mut(14..30) {
        nonce[pick(16)] ^= 1 << pick(8);
    }
    let mut other_kind = handshake.clone();
    other_kind.iter_mut().skip(4).take(1).for_each(|kind| *kind = 2 + pick(4) as u8);
    scramble(&mut garbage, 0, random);
    scramble(&mut header_kept, 14, random);
    vec![replayed, old, flipped, cut, zero_number, garbage, header_kept, handshake, other_kind]
}

fn forge() -> Forge {
    let mut random = Stream::new(5, "forge", 0);
    Box::new(move |bytes, before| forgeries(bytes, before, &mut random))
}

#[test]
fn forged_datagrams_from_the_client_s_own_address_are_dropped_by_cause() {
    let (mut rig, victim, middle) = with_middle();
    middle.borrow_mut().arm(forge());
    // More than the replay window's 1,024 packets.
    rig.run_for(Duration::from_secs(18));
    middle.borrow_mut().disarm();
    rig.assert_honest_unharmed();
    let middle = middle.borrow();
    let drops = rig.server.borrow().endpoint_stats().drops;
    assert!(middle.injected_to_server > 8_000);
    assert_eq!(drops.total(), middle.injected_to_server, "each was dropped once: {drops:?}");
    for (cause, count) in [
        ("replayed", drops.replayed),
        ("too old", drops.too_old),
        ("not authentic", drops.not_authentic),
        ("unknown connection", drops.unknown_connection),
        ("short", drops.short),
        ("too long", drops.too_long),
        ("bad long form", drops.bad_long_form),
        ("unsupported flag", drops.unsupported_flag),
        ("malformed", drops.malformed),
        ("bad mac1", drops.bad_mac1),
        ("unexpected", drops.unexpected),
    ] {
        assert!(count > 0, "none was dropped as {cause}: {drops:?}");
    }
    let victim = victim.borrow();
    let client = victim.client().session();
    assert_eq!(client.drops().total(), middle.injected_to_client, "{:?}", client.drops());
    let mut answers = middle.from_server.iter().filter(|bytes| connection_id(bytes) == Some(0));
    assert!(answers.by_ref().count() <= 4, "nothing but the handshake's own answers");
}

#[test]
fn recorded_datagrams_from_other_addresses_are_dropped_and_not_answered() {
    let (mut rig, _, middle) = with_middle();
    rig.run_for(Duration::from_secs(2));
    let mut random = Stream::new(6, "strangers", 0);
    let recorded: Vec<_> = middle.borrow().from_client.clone();
    let sealed = recorded.iter().filter(|bytes| connection_id(bytes) != Some(0));
    let forged = sealed.flat_map(|bytes| forgeries(bytes, &[], &mut random));
    let forged: Vec<_> = forged.collect();
    let strangers: Vec<_> = (STRANGERS..STRANGERS + 10)
        .map(|number| {
            let interval = Duration::from_millis(1);
            let stranger = shared(Outsider::new(SERVER, forged.clone(), interval));
            rig.env(number);
            rig.sim.set_link(address(number).ip(), SERVER.ip(), Conditions::CLEAN);
            rig.launch(address(number), stranger.clone());
            stranger
        })
        .collect();
    rig.run_for(Duration::from_millis(forged.len() as u64 + 100));
    let drops = rig.server.borrow().endpoint_stats().drops;
    assert_eq!(drops.total(), 10 * forged.len() as u64, "{drops:?}");
    // Another address is no reason by itself: the packets are copies, too old or forged.
    let seen_through = drops.replayed + drops.too_old + drops.not_authentic;
    assert!(seen_through > 10 * recorded.len() as u64, "{drops:?}");
    for stranger in strangers {
        assert_eq!(stranger.borrow().received.len(), 0, "a stranger got an answer");
    }
    rig.assert_honest_unharmed();
}

#[test]
fn replayed_handshakes_make_no_session_and_disturb_none() {
    let (mut rig, victim, middle) = with_middle();
    let is_handshake = |bytes: &&Vec<u8>| connection_id(bytes) == Some(0);
    let hellos: Vec<_> = middle.borrow().from_client.iter().filter(is_handshake).cloned().collect();
    let answers: Vec<_> =
        middle.borrow().from_server.iter().filter(is_handshake).cloned().collect();
    assert!(hellos.len() >= 2 && answers.len() >= 2, "HELLO twice, RETRY and ACCEPT");
    let with_cookie = |bytes: &&Vec<u8>| bytes[COOKIE] != [0; 16];
    let before = *rig.server.borrow().endpoint_stats();

    middle.borrow_mut().inject_to_server(hellos.clone());
    middle.borrow_mut().inject_to_client(answers.clone());
    let stranger = shared(Outsider::new(SERVER, hellos.clone(), Duration::from_millis(1)));
    rig.env(STRANGERS);
    rig.sim.set_link(address(STRANGERS).ip(), SERVER.ip(), Conditions::CLEAN);
    rig.launch(address(STRANGERS), stranger.clone());
    rig.run_for(Duration::from_secs(1));

    let stats = *rig.server.borrow().endpoint_stats();
    assert_eq!((stats.established, stats.accepted), (before.established, before.accepted));
    let cookied = hellos.iter().filter(with_cookie).count() as u64;
    let bare = hellos.len() as u64 - cookied;
    assert_eq!(stats.token_spent - before.token_spent, cookied, "refused at its own address");
    assert_eq!(stats.cookie_missing - before.cookie_missing, 2 * bare, "asked for a cookie");
    assert_eq!(stats.drops.cookie_bad, cookied, "a cookie is of no use elsewhere");
    let stranger = stranger.borrow();
    assert!(stranger.received_bytes() * 10 < stranger.sent_bytes);
    let unexpected = victim.borrow().client().session().drops().unexpected;
    // The answers that were replayed, and those to the replayed HELLOs.
    assert_eq!(unexpected, (answers.len() + hellos.len()) as u64);
    rig.assert_honest_unharmed();
}

/// A HELLO of user `user` without a cookie, as a stranger with a token and a real client makes it.
fn hello(rig: &mut Rig, user: u32) -> Vec<u8> {
    let mut session = rig.session(user, SessionConfig::default());
    let mut out = DatagramBatch::new(1);
    session.poll_transmit(Timestamp::START, &PacketPool::new(1), &mut out);
    out.pop().unwrap().packet.to_vec()
}

#[test]
fn a_flood_of_hellos_from_many_addresses_keeps_no_state_and_lets_players_in() {
    const HOSTS: u32 = 100;
    const EACH: usize = 100;
    let mut rig = Rig::new(|_| {});
    let mut random = Stream::new(7, "cookies", 0);
    let before = *rig.server.borrow().endpoint_stats();
    let strangers: Vec<_> = (STRANGERS..STRANGERS + HOSTS)
        .map(|number| {
            let bare = hello(&mut rig, number);
            let mut cookied = bare.clone();
            scramble(&mut cookied[..COOKIE.end], COOKIE.start, &mut random);
            let hellos = [bare, cookied].into_iter().cycle().take(EACH).collect();
            let stranger = shared(Outsider::new(SERVER, hellos, Duration::from_millis(20)));
            rig.sim.set_link(address(number).ip(), SERVER.ip(), Conditions::CLEAN);
            rig.launch(address(number), stranger.clone());
            stranger
        })
        .collect();
    rig.run_for(Duration::from_millis(500));
    rig.add_bot(VICTIM, SERVER);
    rig.wait_for(Duration::from_secs(1), "a player to enter during the flood", Rig::all_entered);
    rig.run_for(Duration::from_secs(2));

    let stats = *rig.server.borrow().endpoint_stats();
    let half = u64::from(HOSTS) * EACH as u64 / 2;
    assert!(stats.cookie_missing - before.cookie_missing >= half);
    assert_eq!(stats.drops.cookie_bad, half);
    assert_eq!(stats.accepted, u64::from(BOTS) + 1, "a handshake began without a right cookie");
    assert_eq!(stats.handshakes_lost, 0);
    for stranger in strangers {
        let stranger = stranger.borrow();
        assert_eq!(stranger.sent, EACH);
        assert!(stranger.received_bytes() * 10 < stranger.sent_bytes);
    }
    rig.assert_honest_unharmed();
}
