//! Sealed topics, as users have them.

use std::time::Duration;

use twinspan_hub::{
    BuildError, Bytes, Disagreement, Hub, HubBuilder, SealCipher, Sealing, TopicKey, Transport,
};

use crate::{topic, udp_endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

fn key(byte: u8) -> TopicKey {
    TopicKey::from_bytes([byte; 32])
}

#[test]
fn messages_go_both_ways_with_every_cipher() {
    for cipher in [SealCipher::Aes128Gcm, SealCipher::Aes256Gcm, SealCipher::ChaCha20Poly1305] {
        for reliable in [false, true] {
            let endpoint = udp_endpoint();
            let hub = || {
                let hub = Hub::<Bytes>::builder(&endpoint).seal(key(7)).seal_cipher(cipher);
                if reliable { hub.reliable() } else { hub }
            };
            let here = hub().listen().build().unwrap();
            let there = hub().connect().build().unwrap();
            let all = [&here, &there];
            assert!(all.iter().all(|hub| hub.wait_for_subscribers(1, PATIENCE)));
            for length in [0, 1, 1_140, 1_160, 5_000, 65_536] {
                let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
                here.publish_bytes(&bytes).unwrap();
                assert_eq!(there.recv_timeout(PATIENCE).unwrap().unwrap().0, bytes);
                there.publish_bytes(&bytes).unwrap();
                assert_eq!(here.recv_timeout(PATIENCE).unwrap().unwrap().0, bytes);
            }
            assert!(here.transport().to_string().contains("sealed with the topic's key, by "));
        }
    }
}

#[test]
fn a_reliable_sealed_topic_loses_nothing_on_a_bad_network() {
    let endpoint = udp_endpoint();
    let hub = || Hub::<u64>::builder(&endpoint).seal(key(7)).reliable().injected_loss(0.05);
    let (here, there) = (hub().listen().build().unwrap(), hub().connect().build().unwrap());
    assert!(here.wait_for_subscribers(1, PATIENCE));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..20_000 {
                here.publish(&value).unwrap();
            }
            here.flush().unwrap();
        });
        for value in 0..20_000 {
            assert_eq!(there.recv_timeout(PATIENCE), Ok(Some(value)));
        }
    });
    assert_eq!(there.stats().lost, 0);
}

#[test]
fn ends_that_are_sealed_otherwise_refuse_each_other_and_both_say_so() {
    type Change = fn(HubBuilder<u64>) -> HubBuilder<u64>;
    let (clear, one, other): (Change, Change, Change) =
        (|hub| hub, |hub| hub.seal(key(1)), |hub| hub.seal(key(2)));
    for (listens, connects, there, here) in [
        (one, clear, Sealing::Sealed, Sealing::Clear),
        (clear, one, Sealing::Clear, Sealing::Sealed),
        (one, other, Sealing::Key, Sealing::Key),
    ] {
        let endpoint = udp_endpoint();
        let listener = listens(Hub::builder(&endpoint)).listen().build().unwrap();
        // Who listens answers by itself, without a call of the user's.
        let error = connects(Hub::builder(&endpoint)).connect().build().unwrap_err();
        assert!(
            matches!(&error, BuildError::Sealing { what, .. } if *what == there),
            "{error} for {there:?}"
        );
        assert!(error.to_string().contains("key"), "{error}");
        let declined = listener.declined().unwrap();
        assert_eq!(declined.why, Some(Disagreement::Sealing(here)), "{declined}");
        assert!(listener.stats().declined > 0);
        assert_eq!(listener.subscribers(), 0);
    }
}

#[test]
fn hubs_that_find_each_other_are_told_who_is_declined() {
    type Change = fn(HubBuilder<u64>) -> HubBuilder<u64>;
    let (clear, one, other): (Change, Change, Change) =
        (|hub| hub, |hub| hub.seal(key(1)), |hub| hub.seal(key(2)));
    for (first, second) in [(one, other), (one, clear), (clear, one)] {
        let topic = topic();
        let hub = |change: Change| change(Hub::builder(&topic).transport(Transport::BatchUdp));
        let hubs = [hub(first).build().unwrap(), hub(second).build().unwrap()];
        let end = std::time::Instant::now() + PATIENCE;
        for hub in &hubs {
            while hub.declined().is_none() {
                assert!(std::time::Instant::now() < end, "nobody says who was declined");
                std::thread::yield_now();
            }
            let declined = hub.declined().unwrap();
            assert!(matches!(declined.why, Some(Disagreement::Sealing(_))), "{declined}");
            assert!(hub.stats().declined > 0 && hub.subscribers() == 0);
        }
    }
}

#[test]
fn keys_are_for_udp_alone() {
    for (endpoint, road) in [
        ("shm://sealed", Transport::SharedMemory),
        ("tcp://127.0.0.1:1/a", Transport::Tcp),
        ("quic://127.0.0.1:1/a", Transport::Quic),
    ] {
        let error = Hub::<u64>::builder(endpoint).seal(key(1)).build().unwrap_err();
        assert!(matches!(error, BuildError::Seal { road: told } if told == road), "{error}");
    }
    let error = Hub::<u64>::builder(udp_endpoint()).seal_cipher(SealCipher::Aes128Gcm).build();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("seal_cipher is Aes128Gcm: set it to none, or give a key"), "{error}");
    let text = format!("{:?}", Hub::<u64>::builder("udp://a:1").seal(key(0x5a)));
    assert!(text.contains("TopicKey(..)") && !text.contains("90, 90"), "{text}");
}
