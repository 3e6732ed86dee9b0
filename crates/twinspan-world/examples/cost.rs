//! What replication costs: bytes per visible entity and state, nanoseconds per state, memory.
//!
//! `cargo run --release -p twinspan-world --example cost -- [players] [seconds] [seed]`
//!
//! Players roam as the bots of the game do; each state reaches its client and is acknowledged two
//! states later. `--rest` lets all of them stand still.

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use twinspan_core::random::Stream;
use twinspan_world::{
    Baselines, CellEncodings, EntityId, Input, InterestConfig, Kind, PlanInput, Replica,
    STATE_ROOM_MIN, StateHeader, StatePlan, Subscriptions, TICK_HZ, TICKS_PER_STATE, World,
    WorldConfig,
};

/// States until a client's acknowledgement is there: 100 ms.
const ACK_STATES: usize = 2;
/// Bytes that a session adds to a state's text: channel and acknowledgements.
const FRAME_BYTES: u64 = 10;
/// Clients whose states are read as a client reads them.
const READERS: usize = 8;

struct Client {
    id: EntityId,
    subscriptions: Subscriptions,
    baselines: Baselines,
    tags: VecDeque<Vec<u32>>,
    replica: Option<Replica>,
    wish: Input,
    turn_at: u32,
    act_at: u32,
}

#[derive(Default)]
struct Totals {
    states: u64,
    visible: u64,
    bytes: u64,
    headers: u64,
    deltas: u64,
    keyframes: u64,
    sections: u64,
    left_out: u64,
    unreadable: u64,
    mismatches: u64,
    step: Duration,
    update: Duration,
    assembly: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let rests = std::env::args().any(|argument| argument == "--rest");
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let players = numbers.next().unwrap_or(10_000) as usize;
    let seconds = numbers.next().unwrap_or(10) as u32;
    let seed = numbers.next().unwrap_or(1);
    let others = if rests { 0 } else { players / 10 };
    let population = players + 2 * others;
    let cells = (population as f64 / 0.0042).sqrt() / 32.0;
    let config = WorldConfig {
        side: cells.ceil() * 32.0,
        entities_max: population * 2,
        ..WorldConfig::default()
    };
    let mut world = World::new(config, Stream::new(seed, "world", 0))?;
    let mut random = Stream::new(seed, "cost", 0);
    let mut clients = Vec::new();
    for number in 0..players {
        clients.push(Client {
            id: world.spawn_anywhere(Kind::Player)?,
            subscriptions: Subscriptions::new(InterestConfig::default()),
            baselines: Baselines::new(),
            tags: VecDeque::with_capacity(ACK_STATES + 1),
            replica: (number < READERS).then(Replica::new),
            wish: Input::default(),
            turn_at: random.below(120) as u32,
            act_at: random.below(60) as u32,
        });
    }
    for kind in [Kind::Npc, Kind::Projectile] {
        for _ in 0..others {
            world.spawn_anywhere(kind)?;
        }
    }
    let mut encodings = CellEncodings::new(&world);
    let mut plan = StatePlan::new(STATE_ROOM_MIN.max(1_100));
    let warm_up = 3 * TICK_HZ;
    let mut totals = Totals::default();
    let mut tags: Vec<Vec<u32>> = Vec::new();
    for tick in 0..warm_up + seconds * TICK_HZ {
        if tick == warm_up {
            totals = Totals::default();
        }
        move_all(&mut world, &mut clients, &mut random, tick, rests);
        let began = Instant::now();
        world.step();
        let stepped = Instant::now();
        encodings.update(&world);
        totals.step += stepped - began;
        totals.update += stepped.elapsed();
        let phase = tick as usize % usize::from(TICKS_PER_STATE);
        for client in clients.iter_mut().skip(phase).step_by(usize::from(TICKS_PER_STATE)) {
            if client.tags.len() == ACK_STATES {
                let mut done = client.tags.pop_front().unwrap_or_default();
                done.iter().for_each(|tag| client.baselines.on_acked(*tag));
                done.clear();
                tags.push(done);
            }
        }
        let mut reading = Duration::ZERO;
        let began = Instant::now();
        for client in clients.iter_mut().skip(phase).step_by(usize::from(TICKS_PER_STATE)) {
            let Some(entity) = world.entity(client.id) else { continue };
            client.subscriptions.update(world.tick(), entity.position, world.grid());
            let header = StateHeader::of(&world, client.id, &client.subscriptions);
            plan.plan(PlanInput {
                header: header.ok_or("a player is gone")?,
                subscriptions: &client.subscriptions,
                baselines: &mut client.baselines,
                encodings: &mut encodings,
                world: &world,
                budget: usize::MAX,
            });
            let mut sent = tags.pop().unwrap_or_default();
            sent.extend((0..plan.parts()).map(|part| plan.tag(part)));
            client.tags.push_back(sent);
            totals.states += 1;
            totals.bytes += plan.len() as u64 + FRAME_BYTES * plan.parts() as u64;
            let shares = plan.shares();
            totals.headers += shares.headers + FRAME_BYTES * plan.parts() as u64;
            totals.deltas += shares.deltas;
            totals.keyframes += shares.keyframes;
            totals.sections += shares.sections;
            totals.left_out += plan.left_out() as u64;
            if let Some(replica) = &mut client.replica {
                let began = Instant::now();
                for part in 0..plan.parts() {
                    replica.apply(plan.part(part).unwrap_or_default())?;
                }
                reading += began.elapsed();
            }
        }
        totals.assembly += began.elapsed().saturating_sub(reading);
        for client in clients.iter().skip(phase).step_by(usize::from(TICKS_PER_STATE)) {
            totals.visible += visible(&world, &client.subscriptions);
        }
    }
    for replica in clients.iter().filter_map(|client| client.replica.as_ref()) {
        totals.unreadable += replica.unreadable();
        totals.mismatches += replica.mismatches();
    }
    report(&totals, seconds * TICK_HZ, population);
    Ok(())
}

/// Entities in the cells that a client sees, itself left out.
fn visible(world: &World, subscriptions: &Subscriptions) -> u64 {
    let seen: usize = subscriptions.cells().map(|cell| world.grid().cell(cell).len()).sum();
    seen.saturating_sub(1) as u64
}

/// Lets players walk, turn and act as bots do.
fn move_all(
    world: &mut World,
    clients: &mut [Client],
    random: &mut Stream,
    tick: u32,
    rests: bool,
) {
    for index in 0..clients.len() {
        let Some(client) = clients.get_mut(index) else { continue };
        if rests {
            continue;
        }
        if tick >= client.turn_at {
            let forward = if random.chance(0.125) { 0.0 } else { 1.0 };
            let yaw = random.between(0.0, 360.0) as f32;
            client.wish = Input::toward(forward, 0.0, yaw, random.between(-30.0, 30.0) as f32);
            client.turn_at = tick + random.between(60.0, 180.0) as u32;
        }
        let input = Input {
            sequence: tick + 1,
            claimed: twinspan_world::ClaimedPosition::NONE,
            ..client.wish
        };
        // A player's first input is refused by nobody.
        let _ = world.submit(client.id, input);
        if tick >= client.act_at {
            client.act_at += TICK_HZ;
            let actor = client.id;
            let near = world.entity(actor).map(|entity| world.grid().cell_of(entity.position));
            let targets = near.map_or(0, |cell| world.grid().cell(cell).len());
            let pick = random.below(targets.max(1) as u64) as usize;
            let target = near.and_then(|cell| world.grid().cell(cell).get(pick).copied());
            // Out of range and cooling down are part of play.
            let _ = world.apply_effect(actor, target.unwrap_or(actor));
        }
    }
}

fn report(totals: &Totals, ticks: u32, population: usize) {
    let per_entity = |bytes: u64| bytes as f64 / totals.visible.max(1) as f64;
    let per_state = |bytes: u64| bytes as f64 / totals.states.max(1) as f64;
    println!("entities {population}, states {}", totals.states);
    println!("visible per state        {:8.2}", per_state(totals.visible));
    println!("bytes per state          {:8.2}", per_state(totals.bytes));
    println!("bytes per visible entity {:8.3}", per_entity(totals.bytes));
    println!("  headers and frames     {:8.3}", per_entity(totals.headers));
    println!("  deltas                 {:8.3}", per_entity(totals.deltas));
    println!("  keyframes              {:8.3}", per_entity(totals.keyframes));
    println!("  one by one             {:8.3}", per_entity(totals.sections));
    println!(
        "left out {}, unreadable {}, mismatches {}",
        totals.left_out, totals.unreadable, totals.mismatches
    );
    let nanos = |time: Duration| time.as_nanos() as f64;
    let states = totals.states.max(1) as f64;
    let ticks = f64::from(ticks);
    println!("step and grid, us per tick   {:8.1}", nanos(totals.step) / ticks / 1e3);
    println!("follow paths, us per tick    {:8.1}", nanos(totals.update) / ticks / 1e3);
    println!("follow paths, ns per state   {:8.1}", nanos(totals.update) / states);
    println!("assembly, ns per state       {:8.1}", nanos(totals.assembly) / states);
    println!(
        "client bytes: subscriptions {}, baselines {}",
        size_of::<Subscriptions>(),
        size_of::<Baselines>()
    );
}
