//! Endpoints lead where they say, or the error says why not.

use std::time::{Duration, Instant};

use twinspan_core::random::draw;
use twinspan_hub::{
    Access, BuildError, Bytes, Compression, Helped, Hub, HubBuilder, JoinError, Namesakes, Payload,
    Policy, SettingReport, Transport, Trust, explain,
};

use crate::{LONG, free, met, there_and_back, topic};

/// Schemes of roads over a network.
const NETWORKS: [&str; 4] = ["udp", "tcp", "quic", "hub"];

#[test]
fn the_report_says_which_road_and_what_has_no_effect() {
    let hub = Hub::<u8>::builder(format!("shm://{}", topic()))
        .batch_size(64)
        .compression(Compression::Lz4)
        .latency_guard()
        .build()
        .unwrap();
    let report = hub.transport();
    assert_eq!(report.transport, Transport::SharedMemory);
    let text = report.to_string();
    assert!(text.starts_with("shared memory: the endpoint begins with shm://; "), "{text}");
    for part in ["batch_size has no effect", "compression is off", "the latency guard was"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn without_a_topic_the_type_s_name_is_the_topic() {
    let hub = Hub::<i128>::new("shm://").unwrap();
    assert_eq!(hub.topic(), "i128");
}

#[test]
fn roads_that_are_not_built_say_so() {
    let built = Hub::<u8>::builder("tcp://a:1").transport(Transport::Quic).build();
    assert!(matches!(built, Err(BuildError::Road { .. })));
    assert!(matches!(Hub::<u8>::new("ftp://a"), Err(BuildError::Endpoint(_))));
}

#[test]
fn a_topic_has_one_type() {
    let topic = topic();
    let _first = Hub::<[f32; 4]>::new(&topic).unwrap();
    let errors = [
        Hub::<[f32; 3]>::new(&topic).map(|_| ()).unwrap_err(),
        Hub::<[f64; 4]>::new(&topic).map(|_| ()).unwrap_err(),
        Hub::<Bytes>::new(&topic).map(|_| ()).unwrap_err(),
        Hub::<[f32; 4]>::builder(&topic).type_version(1).build().map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, BuildError::Join(JoinError::AnotherType { .. })), "{error}");
        assert!(error.to_string().contains("carries [f32; 4] of 16 bytes aligned to 4"), "{error}");
    }
    assert!(Hub::<[f32; 4]>::new(&topic).is_ok());
}

#[test]
fn who_was_there_before_another_type_came_is_told_on_every_road() {
    for scheme in NETWORKS {
        let endpoint = format!("{scheme}://127.0.0.1:{}/types", free().port());
        // Nobody is there who could refuse it.
        let there = Hub::<[u8; 16]>::builder(&endpoint).connect().build().unwrap();
        let here = Hub::<[u64; 2]>::builder(&endpoint).listen().build().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while here.declined().is_none() || there.declined().is_none() {
            assert!(Instant::now() < end, "{scheme}: nobody is told");
            std::thread::yield_now();
        }
        let (ours, theirs) = (here.declined().unwrap(), there.declined().unwrap());
        assert!(ours.to_string().contains("it carries [u8; 16] of 16 bytes"), "{scheme}: {ours}");
        assert!(
            theirs.to_string().contains("it carries [u64; 2] of 16 bytes"),
            "{scheme}: {theirs}"
        );
        assert!(here.stats().declined > 0 && there.stats().declined > 0, "{scheme}");
        assert_eq!((here.subscribers(), there.subscribers()), (0, 0), "{scheme}");
    }
}

/// Settings that no road over a network has.
fn with_settings_of_memory(builder: HubBuilder<u64>) -> HubBuilder<u64> {
    builder.access(Access::Group(7)).pool_blocks(8).namesakes(Namesakes::Ignore)
}

/// Settings that QUIC alone has.
fn with_settings_of_quic(builder: HubBuilder<u64>) -> HubBuilder<u64> {
    builder
        .trust(Trust::Pinned("0f".repeat(32).parse().unwrap()))
        .state_folder(std::env::temp_dir())
}

#[test]
fn what_was_asked_for_and_means_nothing_on_a_road_is_named() {
    for scheme in NETWORKS {
        let builder = Hub::<u64>::builder(format!("{scheme}://127.0.0.1:0/idle")).listen();
        let hub = with_settings_of_memory(builder.socket_buffer_bytes(1 << 20)).build().unwrap();
        let text = hub.transport().to_string();
        for name in ["access", "pool_blocks", "namesakes"] {
            assert!(text.contains(&format!("{name} has no effect on ")), "{scheme}: {text}");
        }
        assert_eq!(text.contains("socket_buffer_bytes has no effect"), scheme == "tcp", "{text}");
    }
    for scheme in ["udp", "tcp"] {
        let builder = Hub::<u64>::builder(format!("{scheme}://127.0.0.1:0/idle")).listen();
        let hub = with_settings_of_quic(builder).build().unwrap();
        let text = hub.transport().to_string();
        for name in ["trust", "state_folder"] {
            assert!(text.contains(&format!("{name} has no effect on ")), "{scheme}: {text}");
        }
    }
    let builder = Hub::<u64>::builder(topic()).dictionary(b"words".repeat(9));
    let hub = with_settings_of_quic(builder).build().unwrap();
    let text = hub.transport().to_string();
    for name in ["trust", "state_folder", "dictionary"] {
        assert!(text.contains(&format!("{name} has no effect in shared memory")), "{text}");
    }
    // Who finds others by announcements may have namesakes.
    let hub = Hub::<u64>::builder(topic()).transport(Transport::Tcp);
    let hub = with_settings_of_memory(hub).build().unwrap();
    let text = hub.transport().to_string();
    assert!(text.contains("access has no effect on TCP") && !text.contains("namesakes"), "{text}");
}

#[test]
fn a_policy_that_best_effort_cannot_keep_is_told() {
    let told = |builder: HubBuilder<u64>| builder.listen().build().unwrap().transport().to_string();
    let builder = || Hub::<u64>::builder("udp://127.0.0.1:0/policy");
    assert!(told(builder()).contains("best effort: a full subscriber misses the oldest"));
    let text = told(builder().policy(Policy::Block));
    assert!(text.contains("nobody waits for a full subscriber, which drops what is new"), "{text}");
    let text = told(builder().policy(Policy::DropNew).reliable());
    assert!(text.contains("holds publishers back, so policy has no effect"), "{text}");
}

#[test]
fn settings_out_of_their_range_are_refused_on_every_road_over_a_network() {
    for scheme in NETWORKS {
        let of = |topic: &str| Hub::<Bytes>::builder(format!("{scheme}://127.0.0.1:0/{topic}"));
        for (builder, name) in [
            (of("a").batch_size(0), "batch_size"),
            (of("a").batch_size(257), "batch_size"),
            (of("a").depth(0), "depth"),
            (of("a").depth(65_537), "depth"),
            (of("a").history(65_537), "history"),
            (of("a").flush_interval(Duration::from_secs(2)), "flush_interval"),
            (of("a").message_bytes_max((256 << 20) + 1), "message_bytes_max"),
            (of("a").datagram_bytes(511), "datagram_bytes"),
            (of(&"a".repeat(81)), "topic"),
        ] {
            let error = builder.listen().build().unwrap_err();
            let is_right =
                matches!(&error, BuildError::Setting { setting, .. } if *setting == name);
            assert!(is_right, "{scheme}, {name}: {error}");
        }
        assert!(of(&"a".repeat(80)).listen().build().is_ok());
        let error = of("a").connect().build().unwrap_err().to_string();
        assert!(error.contains("the port is 0: set it to the one at which"), "{scheme}: {error}");
    }
}

#[test]
fn who_listens_at_a_free_port_tells_which_one_that_is() {
    for scheme in NETWORKS {
        for host in ["127.0.0.1", "[::1]", "[::]"] {
            let listening = Hub::<u64>::builder(format!("{scheme}://{host}:0/free")).listen();
            let here = listening.build().unwrap();
            let text = here.transport().to_string();
            let (_, bound) = text.split_once("it listens at ").unwrap_or_else(|| panic!("{text}"));
            let bound = bound.split([';', ' ']).next().unwrap();
            let there = Hub::<u64>::builder(format!("{scheme}://{bound}/free")).connect();
            let there = there.build().unwrap();
            assert!(here.wait_for_subscribers(1, LONG), "{scheme} at {bound}");
            assert!(there.wait_for_subscribers(1, LONG), "{scheme} at {bound}");
            there_and_back(&here, there);
        }
    }
}

/// Builds a hub at an endpoint, over a completion ring where that is said; `None` where there is none.
fn over(road: Option<Transport>, builder: HubBuilder<u64>) -> Option<Hub<u64>> {
    let Some(road) = road else { return Some(builder.build().unwrap()) };
    match builder.transport(road).build() {
        Err(error @ BuildError::NoRing { .. }) => {
            assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{error}");
            println!("skipped: {error}");
            None
        }
        built => Some(built.unwrap()),
    }
}

#[test]
fn the_wildcard_of_ipv6_has_peers_of_both_families_on_every_road() {
    let ring = ("udp", Some(Transport::IoUring));
    for (scheme, road) in NETWORKS.map(|scheme| (scheme, None)).into_iter().chain([ring]) {
        let listening = Hub::<u64>::builder(format!("{scheme}://[::]:0/both")).listen();
        let Some(here) = over(road, listening) else { continue };
        let text = here.transport().to_string();
        assert!(text.contains("at [::] it has peers of IPv6 and of IPv4"), "{text}");
        let (_, rest) = text.split_once("it listens at [::]:").unwrap_or_else(|| panic!("{text}"));
        let port = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap();
        let to = |host| Hub::<u64>::builder(format!("{scheme}://{host}:{port}/both")).connect();
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let there = over(road, to(host)).unwrap();
            assert!(here.wait_for_subscribers(1, LONG), "{scheme} at {host}");
            assert!(there.wait_for_subscribers(1, LONG), "{scheme} at {host}");
            there_and_back(&here, there);
            let end = Instant::now() + LONG;
            while here.subscribers() > 0 {
                assert!(Instant::now() < end, "{scheme} at {host}: it left");
                std::thread::yield_now();
            }
        }
        // Both at once: what one publishes comes to either.
        let pair = ["127.0.0.1", "[::1]"].map(|host| over(road, to(host)).unwrap());
        assert!(here.wait_for_subscribers(2, LONG), "{scheme}");
        here.publish(&7).unwrap();
        assert_eq!(pair.map(|there| there.recv().unwrap()), [7, 7], "{scheme}");
    }
}

#[test]
fn who_is_refused_at_both_families_is_told_by_the_address_that_it_has() {
    let here = Hub::<u64>::builder("udp://[::]:0/both").listen().build().unwrap();
    let text = here.transport().to_string();
    let (_, rest) = text.split_once("it listens at [::]:").unwrap();
    let port = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap();
    let endpoint = format!("udp://127.0.0.1:{port}/both");
    let error = Hub::<f64>::builder(&endpoint).connect().build().unwrap_err();
    assert!(matches!(error, BuildError::AnotherType { .. }), "{error}");
    let declined = here.declined().unwrap().address.unwrap();
    assert_eq!(declined.ip(), std::net::Ipv4Addr::LOCALHOST, "{declined}");
}

#[test]
fn who_comes_second_at_the_other_family_s_wildcard_goes_to_the_first_on_every_road() {
    for scheme in NETWORKS {
        for [first, second] in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["127.0.0.1", "[::]"]] {
            let at = |host, port| format!("{scheme}://{host}:{port}/families");
            let port = free().port();
            let here = Hub::<u64>::new(at(first, port)).unwrap();
            let explained = explain(&at(second, port).parse().unwrap()).unwrap();
            assert_eq!(explained.is_taken, Some(true), "{scheme}: {explained:?}");
            let there = Hub::<u64>::new(at(second, port)).unwrap();
            let text = there.transport().to_string();
            assert!(text.contains("it connects: somebody listens there already"), "{text}");
            assert!(here.wait_for_subscribers(1, LONG), "{scheme}, {first} and {second}");
            assert!(there.wait_for_subscribers(1, LONG), "{scheme}, {first} and {second}");
            there_and_back(&here, there);
        }
    }
}

#[test]
fn who_comes_second_to_a_wildcard_goes_to_the_first_on_every_road() {
    for scheme in NETWORKS {
        for host in ["0.0.0.0", "[::]"] {
            let endpoint = format!("{scheme}://{host}:{}/wildcard", free().port());
            let here = Hub::<u64>::new(&endpoint).unwrap();
            let there = Hub::<u64>::new(&endpoint).unwrap();
            let text = there.transport().to_string();
            assert!(text.contains("it connects: somebody listens there already"), "{text}");
            assert!(here.wait_for_subscribers(1, LONG), "{endpoint}");
            assert!(there.wait_for_subscribers(1, LONG), "{endpoint}");
            there_and_back(&here, there);
        }
    }
}

/// A link-local address of this machine with its interface; `None` where there is none.
pub(crate) fn link_local() -> Option<String> {
    let interfaces = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    interfaces.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let digits = words.next().filter(|digits| digits.starts_with("fe80"))?;
        let ip = std::net::Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        Some(format!("[{ip}%{}]", words.next_back()?))
    })
}

#[test]
fn addresses_of_one_cable_lead_there_with_their_interface() {
    let Some(host) = link_local() else {
        println!("skipped: no interface here has a link-local address");
        return;
    };
    for scheme in NETWORKS {
        let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("{scheme}://{host}:{port}/cable");
        let here = Hub::<u64>::new(&endpoint).unwrap();
        let text = here.transport().to_string();
        assert!(text.contains("it listens: the host is this machine"), "{text}");
        let there = Hub::<u64>::builder(&endpoint).connect().build().unwrap();
        assert!(here.wait_for_subscribers(1, LONG), "{endpoint}");
        assert!(there.wait_for_subscribers(1, LONG), "{endpoint}");
        there_and_back(&here, there);
    }
}

/// The names of a hub's settings, each with what it says.
fn settings<T: Payload>(hub: &Hub<T>) -> Vec<(&'static str, SettingReport)> {
    hub.settings().into_iter().map(|it| (it.name, it)).collect()
}

#[test]
fn every_setting_is_told_with_what_is_in_effect_and_whether_it_helped() {
    let of = |scheme: &str| -> (Hub<u64>, Hub<u64>) {
        pair(scheme, |it| {
            let it = it.reliable().core(0).batch_size(32).socket_buffer_bytes(1 << 20);
            // Memory has no datagrams.
            if scheme == "hub" { it.transport(Transport::BatchUdp) } else { it }
        })
    };
    for scheme in NETWORKS {
        let (here, there) = of(scheme);
        for value in 0..200 {
            here.publish(&value).unwrap();
        }
        here.flush().unwrap();
        for value in 0..200 {
            assert_eq!(there.recv(), Ok(value), "{scheme}");
        }
        let end = Instant::now() + LONG;
        let told = loop {
            let told = settings(&there);
            // Its own thread may not have run yet.
            if told.iter().all(|(_, it)| it.effective != "none yet") {
                break told;
            }
            assert!(Instant::now() < end, "{scheme}: {told:?}");
            std::thread::yield_now();
        };
        let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
        let expected: &[&str] = match scheme {
            "tcp" => &["core"],
            "quic" => &["socket_buffer_bytes", "core"],
            _ => &["batch_size", "socket_buffer_bytes", "busy_poll", "core"],
        };
        assert_eq!(names, expected, "{scheme}: {told:?}");
        for (name, it) in &told {
            match *name {
                "core" => {
                    assert_eq!((&*it.asked, &*it.effective), ("0", "0"), "{scheme}: {it}");
                    assert!(it.figure.contains("a wake-up there took "), "{scheme}: {it}");
                }
                "socket_buffer_bytes" => {
                    assert_eq!(it.asked, "1048576", "{scheme}: {it}");
                    let (receive, _) = it.effective.split_once(" to receive and ").unwrap();
                    assert!(receive.parse::<usize>().unwrap() > 0, "{scheme}: {it}");
                }
                // Behind `hub://` messages lie in chunks of a stream, of which calls take their own number.
                "batch_size" => {
                    let wanted = if scheme == "udp" { "32" } else { "64" };
                    assert_eq!((&*it.asked, &*it.effective), (wanted, wanted), "{scheme}: {it}");
                    assert_ne!(it.helped, Helped::Unknown, "{scheme}: {it}");
                }
                _ => {
                    assert_eq!((&*it.asked, it.helped), ("50µs", Helped::No), "{scheme}: {it}");
                    let why = "a device without a queue to poll, as loopback is";
                    let is_refused = it.figure.contains("without CAP_NET_ADMIN");
                    assert!(is_refused || it.figure.contains(why), "{scheme}: {it}");
                }
            }
        }
        // The listener behind `hub://` has one of each for each of its roads.
        assert!(here.settings().len() >= told.len(), "{scheme}: {:?}", here.settings());
    }
    assert_eq!(Hub::<u64>::new(topic()).unwrap().settings(), []);
}

/// A listener and who connected to it, made with the same options.
fn pair<T: Payload>(
    scheme: &str,
    options: impl Fn(HubBuilder<T>) -> HubBuilder<T>,
) -> (Hub<T>, Hub<T>) {
    let endpoint = format!("{scheme}://127.0.0.1:{}/pair", free().port());
    let here = options(Hub::builder(&endpoint).listen()).build().unwrap();
    let there = options(Hub::builder(&endpoint).connect()).build().unwrap();
    met(&here, 1);
    met(&there, 1);
    (here, there)
}

#[test]
fn late_joiners_get_the_last_messages_on_every_road() {
    for scheme in NETWORKS {
        let endpoint = format!("{scheme}://127.0.0.1:{}/late", free().port());
        let here = Hub::<u64>::builder(&endpoint).listen().history(3).build().unwrap();
        for value in 0..10 {
            here.publish(&value).unwrap();
        }
        let there = Hub::<u64>::builder(&endpoint).connect().history(3).build().unwrap();
        let mut got = Vec::new();
        while got.len() < 3 {
            let message = there.recv_message().unwrap();
            got.push((message.value, message.number, message.lost));
        }
        assert_eq!(got, [(7, 7, 0), (8, 8, 0), (9, 9, 0)], "{scheme}");
        here.publish(&10).unwrap();
        assert_eq!(there.recv(), Ok(10), "{scheme}");
    }
}

#[test]
fn a_subscriber_that_stalls_is_an_error_for_its_reliable_publisher_on_every_road() {
    for scheme in NETWORKS {
        let patience = Duration::from_millis(200);
        let (here, there) =
            pair::<[u8; 1_000]>(scheme, |it| it.reliable().publish_timeout(patience).depth(64));
        let mut published = 0_u64;
        let error = loop {
            match here.publish(&[published as u8; 1_000]) {
                Ok(_) => published += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("has taken nothing for 200ms"), "{scheme}: {error}");
        // What was published is there in order, and it goes on.
        for number in 0..published {
            assert_eq!(there.recv().unwrap(), [number as u8; 1_000], "{scheme}: {number}");
        }
        here.publish(&[7; 1_000]).unwrap();
        assert_eq!(there.recv().unwrap(), [7; 1_000], "{scheme}");
        assert_eq!(there.stats().lost, 0, "{scheme}");
    }
}

#[test]
fn compression_is_off_by_itself_on_every_road_where_it_does_not_pay() {
    for scheme in NETWORKS {
        let (here, there) = pair::<Bytes>(scheme, |it| it.reliable().compression(Compression::Lz4));
        for number in 0..100 {
            let noise: Vec<u8> =
                (0..125).flat_map(|at| draw(number, &[at]).to_le_bytes()).collect();
            here.publish_bytes(&noise).unwrap();
            assert_eq!(there.recv().unwrap().0, noise, "{scheme}");
        }
        let stats = here.compression().unwrap();
        assert_eq!((stats.packed, stats.plain, stats.is_on), (0, 100, false), "{scheme}: {stats}");
        assert_eq!(stats.times_off, 1, "{scheme}: {stats}");
    }
}
