use core::time::Duration;
use std::net::SocketAddr;

use proptest::prelude::*;
use twinspan_core::random::Stream;

use super::*;
use crate::bot::BotConfig;
use crate::table::{Table, world};

const BOTS: usize = 6;
const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7_000);

fn bots(clients: Vec<crate::client::Client>) -> Vec<Bot> {
    let config = BotConfig { action_interval: Duration::from_millis(200), ..BotConfig::default() };
    let bots = clients.into_iter().enumerate();
    let bot = |(number, client)| Bot::new(client, config, Stream::new(1, "bot", number as u64));
    bots.map(bot).collect()
}

fn start_at(index: usize) -> Timestamp {
    Timestamp::START.after(Duration::from_millis(7) * index as u32)
}

fn received(bot: &Bot) -> u64 {
    bot.client().session().stats().packets_in
}

/// What no bot is sent by a server, addressed to one of them or to none.
fn datagram(fleet: &Fleet, to: Option<usize>, by_nonce: bool) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    let bot = to.and_then(|to| fleet.bots().get(to));
    if by_nonce {
        bytes[4..7].copy_from_slice(&[2, 1, 1]);
        let nonce = bot.map_or([9; 16], |bot| bot.client().session().handshake_nonce());
        bytes[14..30].copy_from_slice(&nonce);
    } else {
        let id = bot.map_or(77, |bot| bot.client().session().connection_id());
        bytes[..4].copy_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[derive(Clone, Debug)]
enum Op {
    /// Time passes up to the next wake-up.
    Wake,
    /// Time passes, this many milliseconds.
    Pass(u64),
    /// A datagram comes for a bot, or for nobody.
    Receive { to: Option<usize>, by_nonce: bool, cut: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let to = proptest::option::weighted(0.8, 0..BOTS);
    prop_oneof![
        3 => Just(Op::Wake),
        1 => (0_u64..3_000).prop_map(Op::Pass),
        3 => (to, any::<bool>(), prop_oneof![Just(40), 0_usize..40])
            .prop_map(|(to, by_nonce, cut)| Op::Receive { to, by_nonce, cut }),
    ]
}

/// Hands the datagram to the fleet.
fn receive(fleet: &mut Fleet, now: Timestamp, bytes: &[u8], pool: &PacketPool) {
    let mut batch = DatagramBatch::new(1);
    let mut packet = pool.take().unwrap();
    assert!(packet.fill(bytes));
    batch.push(Datagram { peer: SERVER, at: now, packet }).unwrap();
    fleet.handle_datagrams(now, &mut batch);
}

/// Sends all that the fleet has to send, in batches of `room`.
fn drain(fleet: &mut Fleet, now: Timestamp, room: usize, pool: &PacketPool) {
    let mut out = DatagramBatch::new(room);
    loop {
        fleet.poll_transmit(now, pool, &mut out);
        if out.is_empty() {
            return;
        }
        out.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The fleet is called at its own wake-ups and at others: afterwards none of its bots may want to
    /// be called before the fleet does.
    #[test]
    fn datagrams_find_their_bot_and_no_wake_is_lost(
        ops in proptest::collection::vec(op(), 0..120), room in 1_usize..5,
    ) {
        let mut fleet = Fleet::new(bots(world(BOTS).1), start_at);
        let (pool, mut now) = (PacketPool::new(64), Timestamp::START);
        let mut strays = 0;
        let mut counts = [0; BOTS];
        let wanted = |bots: &[Bot], now: Timestamp| {
            let bots = bots.iter().enumerate().filter(|(_, bot)| !bot.is_done());
            let wakes = bots.filter_map(|(index, bot)| {
                let begun = now >= start_at(index);
                if begun { bot.poll_timeout() } else { Some(start_at(index)) }
            });
            wakes.min()
        };
        fleet.handle_timeout(now);
        drain(&mut fleet, now, room, &pool);
        for op in ops {
            match op {
                Op::Wake => now = now.max(fleet.poll_timeout().unwrap_or(now)),
                Op::Pass(ms) => now = now.after(Duration::from_millis(ms)),
                Op::Receive { to, by_nonce, cut } => {
                    let mut bytes = datagram(&fleet, to, by_nonce);
                    bytes.truncate(cut);
                    let needed = if by_nonce { 30 } else { 4 };
                    match to.filter(|_| cut >= needed) {
                        Some(to) => counts[to] += 1,
                        None => strays += 1,
                    }
                    receive(&mut fleet, now, &bytes, &pool);
                }
            }
            fleet.handle_timeout(now);
            drain(&mut fleet, now, room, &pool);
            let want = wanted(fleet.bots(), now);
            let has = fleet.poll_timeout();
            prop_assert!(
                want.is_none() || has.is_some_and(|has| has <= want.unwrap()),
                "a bot wants to be woken at {:?}, the fleet at {:?}", want, has
            );
            prop_assert!(want.is_none_or(|want| want > now), "a wake-up was not served");
        }
        prop_assert_eq!(fleet.strays(), strays);
        let reached: Vec<_> = fleet.bots().iter().map(received).collect();
        prop_assert_eq!(reached, counts);
        // Nobody answers: every bot gives up in the end.
        while let Some(at) = fleet.poll_timeout() {
            now = now.max(at);
            fleet.handle_timeout(now);
            drain(&mut fleet, now, room, &pool);
        }
        prop_assert!(fleet.is_done());
        let hellos = |bot: &Bot| bot.client().session().stats().hellos;
        prop_assert!(fleet.bots().iter().all(|bot| hellos(bot) > 0));
    }
}

#[test]
fn bots_in_a_fleet_do_what_they_do_alone() {
    let end = Timestamp::START.after(Duration::from_secs(5));
    let (server, clients) = world(BOTS);
    let mut alone = Table::new(server, bots(clients));
    alone.run_until(end);
    let (server, clients) = world(BOTS);
    let fleet = Fleet::new(bots(clients), |_| Timestamp::START);
    let mut together = Table::new(server, vec![fleet]);
    together.run_until(end);
    let summary = |bot: &Bot| {
        let (client, stats) = (bot.client(), bot.client().stats());
        let sent = (stats.inputs_sent, stats.reliable_sent, client.actions());
        (bot.connected_at(), client.next_input_at(), sent)
    };
    let alone: Vec<_> = alone.players.iter().map(summary).collect();
    let fleet = &together.players[0];
    assert_eq!(fleet.bots().iter().map(summary).collect::<Vec<_>>(), alone);
    assert_eq!(fleet.strays(), 0);
    let applied: u64 = fleet.bots().iter().map(|bot| bot.client().stats().states_applied).sum();
    assert_eq!(fleet.ages().down.count(), applied);
}

#[test]
fn a_fleet_ends_when_its_last_bot_has_ended() {
    let (server, clients) = world(BOTS);
    let mut table = Table::new(server, vec![Fleet::new(bots(clients), start_at)]);
    table.run_until(Timestamp::START.after(Duration::from_secs(1)));
    assert!(!table.players[0].is_done());
    table.players[0].close(table.now);
    table.run_until(table.now.after(Duration::from_secs(2)));
    assert!(table.players[0].is_done());
    assert_eq!(table.server.sessions(), 0);
}

#[test]
fn outdated_wake_ups_do_not_pile_up() {
    let (server, clients) = world(BOTS);
    let mut table = Table::new(server, vec![Fleet::new(bots(clients), start_at)]);
    table.run_until(Timestamp::START.after(Duration::from_secs(10)));
    let waiting = table.players[0].wakes.len();
    assert!(waiting <= 8 * BOTS + 65, "{waiting} wake-ups for {BOTS} bots");
}
