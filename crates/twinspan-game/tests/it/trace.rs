//! The trace hash: a function of the settings alone, and sensitive to everything.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_game::scenario::{Protection, WorldReport, WorldScenario};
use twinspan_sim::Sim;

/// Hash of [`small`] with the simulator's tag.
///
/// To be changed with whatever changes a packet, a schedule or a draw: run
/// `cargo test -p twinspan-game --features scenarios --test it trace -- --nocapture` and copy the
/// hashes that it prints.
const GOLDEN_TAG: u64 = 0x4cb0_03bf_d078_bd47;
/// The same with the real ciphers.
const GOLDEN_REAL: u64 = 0x0c7b_f6b1_d0da_9ad4;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The first client's host.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));

fn small(protection: Protection) -> WorldScenario {
    WorldScenario {
        clients: 4,
        duration: Duration::from_secs(1),
        protection,
        ..WorldScenario::default()
    }
}

fn run(scenario: &WorldScenario) -> WorldReport {
    let report = scenario.run().unwrap();
    assert_eq!(report.broken, Vec::<String>::new());
    report
}

/// The small run in which whatever is sent arrives.
fn lossless() -> WorldScenario {
    let small = small(Protection::Tag);
    WorldScenario { conditions: Conditions { loss: 0.0, ..small.conditions }, ..small }
}

/// The hash of the lossless run after `tamper` was let at one datagram of the first client.
fn tampered(tamper: impl FnOnce(&mut [u8], &mut Duration) + 'static) -> u64 {
    const NUMBER: u64 = 40;
    let reached = Rc::new(Cell::new(false));
    let flag = Rc::clone(&reached);
    let install = |sim: &mut Sim| {
        sim.tamper(CLIENT, SERVER, NUMBER, move |bytes, delay| {
            flag.set(true);
            tamper(bytes, delay);
        });
    };
    let report = lossless().run_tampered(install).unwrap();
    assert!(reached.get(), "there was no datagram {NUMBER}");
    report.trace_hash
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let first = run(&small(Protection::Tag));
    let again = run(&small(Protection::Tag));
    assert_eq!((first.trace_hash, first.events), (again.trace_hash, again.events));
    let other = run(&WorldScenario { seed: 2, ..small(Protection::Tag) });
    assert_ne!(first.trace_hash, other.trace_hash);
}

#[test]
fn one_changed_byte_or_delay_changes_the_trace() {
    let untouched = tampered(|_, _| {});
    assert_eq!(untouched, run(&lossless()).trace_hash, "looking changes nothing");
    let byte = tampered(|bytes, _| {
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
    });
    assert_ne!(untouched, byte);
    let delay = tampered(|_, delay| *delay += Duration::from_micros(1));
    assert_ne!(untouched, delay);
    assert_ne!(byte, delay);
}

#[test]
fn the_small_run_has_this_trace_in_every_profile() {
    let [tag, real] = [Protection::Tag, Protection::Real].map(|kind| run(&small(kind)).trace_hash);
    println!("trace hashes: tag {tag:#018x}, real {real:#018x};");
    assert_eq!([tag, real], [GOLDEN_TAG, GOLDEN_REAL]);
}

#[test]
fn another_process_elsewhere_has_the_same_trace() {
    let elsewhere = std::env::temp_dir();
    assert_ne!(elsewhere, std::env::current_dir().unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trace::the_small_run_has_this_trace_in_every_profile", "--nocapture"])
        .current_dir(elsewhere)
        .env_clear()
        .envs([("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Pacific/Chatham"), ("HOME", "/")])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let tag = run(&small(Protection::Tag)).trace_hash;
    assert!(printed.contains(&format!("tag {tag:#018x},")), "{printed}");
}
