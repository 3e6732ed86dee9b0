//! Hubs of a multicast group, on the loopback interface.

use std::time::Duration;

use twinspan_hub::{
    BuildError, Bytes, Compression, Disagreement, Hub, HubBuilder, Payload, TopicKey, Transport,
};

use crate::{free, topic};

const PATIENCE: Duration = Duration::from_secs(30);

/// A group that no other test has, by its port.
fn endpoint() -> String {
    format!("udp://239.255.77.1:{}/{}", free().port(), topic())
}

fn builder<T: Payload>(endpoint: &str) -> HubBuilder<T> {
    Hub::builder(endpoint).multicast_interface("127.0.0.1")
}

/// Hubs of a group; `None` where this machine has none, which a skipped test says.
fn hubs<T: Payload>(endpoint: &str, count: usize) -> Option<Vec<Hub<T>>> {
    let built: Result<Vec<_>, _> = (0..count).map(|_| builder(endpoint).build()).collect();
    match built {
        Ok(hubs) => Some(hubs),
        Err(error) => {
            assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{error}");
            println!("skipped: {error}");
            None
        }
    }
}

#[test]
fn everybody_of_a_group_hears_everybody() {
    let Some(hubs) = hubs::<Bytes>(&endpoint(), 3) else { return };
    assert!(hubs.iter().all(|hub| hub.wait_for_subscribers(2, PATIENCE)));
    for (from, hub) in hubs.iter().enumerate() {
        for length in [0, 8, 1_165, 5_000, 60_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at + from) as u8).collect();
            hub.publish_bytes(&bytes).unwrap();
            for (at, other) in hubs.iter().enumerate() {
                if at != from {
                    let message = other.recv_timeout_message(PATIENCE).unwrap().unwrap();
                    assert_eq!((message.value.0, message.lost), (bytes.clone(), 0));
                }
            }
            assert_eq!(hub.try_recv(), Ok(None), "one hears oneself only when asked to");
        }
    }
    let text = hubs[0].transport().to_string();
    for part in ["it takes part in a group", "across 1 networks at most", "best effort"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_a_member_loses_is_counted_exactly() {
    let endpoint = endpoint();
    let Some(mut hubs) = hubs::<u64>(&endpoint, 1) else { return };
    let here = hubs.remove(0);
    let there = builder::<u64>(&endpoint).injected_loss(0.1).build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    let thread = std::thread::spawn(move || {
        for value in 0..10_000_u64 {
            here.publish(&value).unwrap();
        }
        here.flush().unwrap();
        here
    });
    let (mut taken, mut newest) = (0, None);
    while taken + there.stats().lost < 10_000 {
        if let Some(message) = there.recv_timeout_message(Duration::from_millis(5)).unwrap() {
            assert!(newest < Some(message.value), "in order, and none twice");
            newest = Some(message.value);
            taken += 1;
        }
    }
    assert_eq!(taken + there.stats().lost, 10_000);
    drop(thread.join().unwrap());
}

#[test]
fn a_member_that_goes_is_missed_at_once() {
    let Some(mut hubs) = hubs::<u64>(&endpoint(), 2) else { return };
    assert!(hubs.iter().all(|hub| hub.wait_for_subscribers(1, PATIENCE)));
    drop(hubs.remove(1));
    while hubs[0].subscribers() > 0 {
        assert_eq!(hubs[0].try_recv(), Ok(None));
    }
    assert_eq!(hubs[0].stats().ended, 0, "it said goodbye");
}

#[test]
fn what_a_group_is_not_is_a_typed_error() {
    let endpoint = endpoint();
    let error = builder::<u64>(&endpoint).reliable().build().unwrap_err();
    assert!(matches!(error, BuildError::Multicast { what: "reliable", .. }), "{error}");
    assert!(error.to_string().contains("leave out reliable"), "{error}");
    let key = TopicKey::from_bytes([1; 32]);
    let error = builder::<u64>(&endpoint).seal(key).build().unwrap_err();
    assert!(matches!(error, BuildError::Multicast { what: "seal", .. }), "{error}");
    let error = builder::<u64>(&endpoint).multicast_interface("none-such").build().unwrap_err();
    assert!(matches!(error, BuildError::Setting { setting: "multicast_interface", .. }), "{error}");
    let error = builder::<u64>(&endpoint).multicast_ttl(0).build().unwrap_err();
    assert!(error.to_string().contains("multicast_ttl is 0: set it to 1 to 255"), "{error}");
}

#[test]
fn nothing_is_packed_in_a_group_which_is_said() {
    let endpoint = endpoint();
    let Some(hubs) = hubs::<Bytes>(&endpoint, 1) else { return };
    let packs = builder::<Bytes>(&endpoint).compression(Compression::Zstd).dictionary(b"words");
    let packs = packs.build().unwrap();
    let text = packs.transport().to_string();
    assert!(text.contains("compression has no effect in a group"), "{text}");
    assert!(packs.wait_for_subscribers(1, PATIENCE) && packs.compression().is_none());
    packs.publish_bytes(&[7; 1_000]).unwrap();
    assert_eq!(hubs[0].recv_timeout(PATIENCE).unwrap().unwrap().0, [7; 1_000]);
}

#[test]
fn settings_of_groups_are_said_to_have_no_effect_where_there_is_none() {
    let topic = crate::topic();
    for (endpoint, told) in [
        (format!("shm://{topic}"), "has no effect in shared memory"),
        (format!("udp://127.0.0.1:0/{topic}"), "has no effect: the host is no multicast address"),
        (format!("tcp://127.0.0.1:0/{topic}"), "has no effect on streams"),
        (format!("hub://127.0.0.1:0/{topic}"), "has no effect on streams"),
    ] {
        let hub = || {
            let hub = Hub::<u64>::builder(&endpoint);
            if endpoint.starts_with("shm") { hub } else { hub.listen() }
        };
        let set = hub().multicast_interface("127.0.0.1").multicast_ttl(8).build().unwrap();
        let text = set.transport().to_string();
        for name in ["multicast_interface", "multicast_ttl"] {
            assert!(text.contains(&format!("{name} {told}")), "{text}");
        }
        drop(set);
        let text = hub().build().unwrap().transport().to_string();
        assert!(!text.contains("multicast_"), "{text}");
    }
}

#[test]
fn another_type_in_the_group_is_told() {
    let endpoint = endpoint();
    let Some(hubs) = hubs::<u64>(&endpoint, 1) else { return };
    let other = builder::<[u8; 3]>(&endpoint).transport(Transport::BatchUdp).build().unwrap();
    while hubs[0].declined().is_none() || other.declined().is_none() {
        let _ = (hubs[0].try_recv(), other.try_recv());
    }
    let declined = hubs[0].declined().unwrap();
    assert!(matches!(declined.why, Some(Disagreement::Type(_))), "{declined}");
}
