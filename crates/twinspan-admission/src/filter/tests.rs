use core::net::Ipv4Addr;

use super::*;
use crate::{Conduct, Ruling};
use proptest::prelude::*;
use twinspan_core::random::Stream;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn filter(text: &str) -> Filter {
    let config = FilterConfig { rules: Rules::parse(text).unwrap(), ..FilterConfig::default() };
    Filter::new(config, [3; 16])
}

fn counts(filter: &Filter) -> Vec<(String, u64, u64)> {
    let mut stats = FilterStats::default();
    filter.copy_stats(&mut stats);
    stats.rules.iter().map(|row| (row.rule.to_string(), row.hits, row.acted)).collect()
}

const HOST: &str = r#"
trusted = ["10.0.0.0/8"]
[[source]]
name = "host"
counts = "handshakes"
network = "v4/32"
per_second = 1
burst = 3
action = "throttle"
[[source]]
name = "net"
counts = "handshakes"
network = "v4/24"
per_second = 1
burst = 5
action = "throttle"
"#;

#[test]
fn an_address_and_its_network_have_limits_of_their_own() {
    let mut filter = filter(HOST);
    let door = filter.door();
    let mut passed = |address: u32, ms: u64| {
        (0..10).filter(|_| door.allow_handshake(at(ms), v4(address))).count()
    };
    assert_eq!(passed(0xc000_0201, 0), 3, "the address's own");
    assert_eq!(passed(0xc000_0202, 0), 2, "what the network leaves");
    assert_eq!(passed(0xc000_0203, 0), 0);
    assert_eq!(passed(0xc000_0301, 0), 3, "another network");
    assert_eq!(passed(0xc000_0203, 2_000), 2, "two seconds of the network");
    assert_eq!(passed(0x0a00_0001, 0), 10, "trusted");
    assert_eq!(
        counts(&filter)[..2].iter().map(|row| row.2).sum::<u64>(),
        counts(&filter)[..2].iter().map(|row| row.1).sum()
    );
}

#[test]
fn who_fails_too_often_is_not_heard_until_it_was_quiet() {
    let mut filter = filter(
        "[[source]]\nname = \"f\"\ncounts = \"failures\"\nnetwork = \"v6/56\"\nper_second = 1\n\
         burst = 4\naction = \"throttle\"\n",
    );
    let door = filter.door();
    let home: IpAddr = "2001:db8:0:1::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8:0:2::1".parse().unwrap();
    for _ in 0..100 {
        door.on_failure(at(0), home);
    }
    assert!(!door.allow_handshake(at(0), neighbour), "one household");
    assert!(door.allow_handshake(at(0), v4(1)), "no rule is about IPv4");
    // However often it failed, the debt is bounded by the burst.
    assert!(door.allow_handshake(at(1_000), home));
}

#[test]
fn a_dry_run_counts_and_lets_pass() {
    for text in
        [format!("dry_run = true\n{HOST}"), HOST.replace("action =", "dry_run = true\naction =")]
    {
        let mut filter = filter(&text);
        let passed = (0..10).filter(|_| filter.door().allow_handshake(at(0), v4(1))).count();
        assert_eq!(passed, 10);
        let rows = counts(&filter);
        assert_eq!(rows[0], ("host".into(), 7, 0));
        assert_eq!(rows[1], ("net".into(), 5, 0));
    }
}

#[test]
fn other_rules_keep_what_was_counted_and_what_is_owed() {
    let mut filter = filter(HOST);
    for _ in 0..10 {
        filter.door().allow_handshake(at(0), v4(1));
    }
    assert_eq!(counts(&filter)[0], ("host".into(), 7, 7));
    let other = HOST.replace("burst = 3", "burst = 4").replace("\"net\"", "\"other\"");
    filter.replace_rules(&Rules::parse(&other).unwrap());
    assert_eq!(counts(&filter)[0], ("host".into(), 7, 7));
    assert_eq!(counts(&filter)[1], ("other".into(), 0, 0));
    let passed = (0..10).filter(|_| filter.door().allow_handshake(at(0), v4(1))).count();
    assert_eq!(passed, 1, "three of four are owed");
    let mut stats = FilterStats::default();
    filter.copy_stats(&mut stats);
    assert_eq!(stats.replacements, 1);
}

#[test]
fn a_banned_user_stays_out_until_its_time_is_over() {
    let mut filter = filter("banned_users = [7, 3]\n");
    let door = filter.door();
    assert!(!door.allow_user(at(0), 7) && !door.allow_user(at(0), 3) && door.allow_user(at(0), 4));
    door.ban(at(0), 4, Duration::from_secs(5));
    assert!(!door.allow_user(at(4_999), 4) && door.allow_user(at(5_000), 4));
    door.ban(at(5_000), 4, Duration::from_secs(5));
    assert!(door.lift_ban(4) && door.allow_user(at(5_000), 4) && !door.lift_ban(4));
    assert_eq!(counts(&filter).last().unwrap(), &("banned-users".into(), 3, 3));
    filter.replace_rules(&Rules::parse("dry_run = true\nbanned_users = [4]\n").unwrap());
    let door = filter.door();
    assert!(door.is_banned(at(0), 4) && door.allow_user(at(0), 4) && door.allow_user(at(0), 7));
    assert_eq!(counts(&filter).last().unwrap(), &("banned-users".into(), 4, 3));
}

/// Ten million addresses, each heard of once in a second: the table is as large as before, and the
/// network that they share is limited although its members are forgotten.
#[test]
fn a_flood_of_ten_million_sources_keeps_memory_constant() {
    let mut filter = filter(HOST);
    let capacity = filter.door().capacity();
    let mut crowd_passed = 0;
    let mut net_passed = 0;
    for number in 0..10_000_000_u32 {
        let now = Timestamp::from_nanos(u64::from(number) * 100);
        crowd_passed += u32::from(
            filter.door().allow_handshake(now, v4(number.wrapping_mul(0x9e37_79b1) | 0x8000_0000)),
        );
        if number % 1_000 == 0 {
            let neighbour = v4(0x0102_0300 | ((number / 1_000) & 0xff));
            net_passed += u32::from(filter.door().allow_handshake(now, neighbour));
        }
    }
    assert_eq!(filter.door().capacity(), capacity);
    let mut stats = FilterStats::default();
    filter.copy_stats(&mut stats);
    assert!(stats.networks_evicted > 9_000_000, "{stats:?}");
    assert!(crowd_passed > 9_000_000, "strangers are not held to account for each other");
    // Its debt is larger than those of the crowd, so the crowd does not push it out of the table.
    assert!(net_passed <= 6, "{net_passed}: a burst and a second's worth");
}

#[test]
fn both_halves_can_be_asked_at_once() {
    let mut filter = Filter::new(FilterConfig::default(), [1; 16]);
    let (door, judge) = filter.split();
    let mut conduct = Conduct::default();
    assert!(door.allow_user(at(0), 1));
    assert_eq!(judge.on_message(at(0), &mut conduct, 1, 0, 60), Ruling::Pass);
    door.ban(at(0), 1, Duration::from_secs(1));
    assert!(!door.allow_user(at(0), 1));
}

/// A door without a table: a bucket for every network there ever was.
#[derive(Default)]
struct Model(std::collections::BTreeMap<(u8, u32), crate::gauge::Gauge>);

impl Model {
    fn allow(&mut self, now: Timestamp, address: u32) -> bool {
        let (host, net) = (Allowance::new(1.0, 3), Allowance::new(1.0, 5));
        let keys = [((32, address), host), ((24, address >> 8), net)];
        let allowed = keys
            .iter()
            .all(|(key, allowance)| self.0.entry(*key).or_default().has_room(now, *allowance));
        if allowed {
            for (key, allowance) in keys {
                self.0.entry(key).or_default().spend(now, allowance);
            }
        }
        allowed
    }
}

proptest! {
    #[test]
    fn a_door_with_room_decides_as_one_that_remembers_everybody(seed: u64) {
        let mut filter = filter(HOST);
        let mut model = Model::default();
        let mut random = Stream::new(seed, "door", 0);
        let mut now = Timestamp::START;
        for _ in 0..500 {
            now = now.after(Duration::from_millis(random.below(400)));
            let address = 0xc000_0200 + random.below(3) as u32 * 256 + random.below(4) as u32;
            let allowed = filter.door().allow_handshake(now, v4(address));
            prop_assert_eq!(allowed, model.allow(now, address));
        }
    }
}
