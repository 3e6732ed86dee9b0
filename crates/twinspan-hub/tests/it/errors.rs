//! Mistakes that a user can make, each an error that says what to do.

use serde::{Deserialize, Serialize, Serializer};
use twinspan_hub::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use twinspan_hub::{BuildError, Hub, PublishError, RecvError, Serde};

use crate::topic;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8192))]
struct Wide([u8; 8_192]);

#[test]
fn values_that_are_aligned_to_more_than_a_page_are_refused_in_shared_memory() {
    let error = Hub::<Wide>::new(topic()).unwrap_err();
    assert!(matches!(error, BuildError::Align(8_192)), "{error}");
    assert!(error.to_string().contains("4096 are the most"), "{error}");
}

#[test]
fn a_host_without_an_address_is_named() {
    for scheme in ["udp", "tcp", "quic", "hub"] {
        // No name service is asked for an interface that is not there.
        let error = Hub::<u64>::new(format!("{scheme}://[fe80::1%no-such]:9/a")).unwrap_err();
        assert!(matches!(error, BuildError::Resolve { .. }), "{scheme}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("no address of `fe80::1%no-such` is known"), "{text}");
        assert!(text.ends_with("give an address, or another name"), "{text}");
    }
}

mod old {
    #[derive(Clone, Debug, PartialEq, super::Serialize, super::Deserialize)]
    pub(super) struct Pose {
        pub(super) x: u8,
    }
}

mod new {
    #[derive(Clone, Debug, PartialEq, super::Serialize, super::Deserialize)]
    pub(super) struct Pose {
        pub(super) x: String,
    }
}

#[test]
fn a_value_of_another_type_with_the_same_name_is_no_value_and_harms_nothing() {
    let topic = topic();
    let here = Hub::<Serde<old::Pose>>::new(&topic).unwrap();
    let there = Hub::<Serde<new::Pose>>::new(&topic).unwrap();
    here.publish(&Serde(old::Pose { x: 200 })).unwrap();
    let error = there.recv().unwrap_err();
    assert!(matches!(error, RecvError::Decode(_)), "{error}");
    assert!(error.to_string().starts_with("cannot decode a message: "), "{error}");
    // What comes behind it is judged by itself.
    let good = Hub::<Serde<new::Pose>>::new(&topic).unwrap();
    good.publish(&Serde(new::Pose { x: "here".to_owned() })).unwrap();
    assert_eq!(there.recv().unwrap().x, "here");
}

#[derive(Debug, Deserialize)]
struct Never;

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it has no bytes"))
    }
}

#[test]
fn a_value_that_cannot_be_encoded_is_not_published() {
    let hub = Hub::<Serde<Never>>::new(topic()).unwrap();
    let error = hub.publish(&Serde(Never)).unwrap_err();
    assert!(matches!(error, PublishError::Encode(_)), "{error}");
    assert_eq!(hub.stats().published, 0);
    let (count, error) = hub.publish_all(&[Serde(Never), Serde(Never)]).unwrap_err();
    assert_eq!(count, 0, "{error}");
}

#[test]
fn who_holds_too_many_samples_is_told_and_goes_on_when_one_is_dropped() {
    let topic = topic();
    let hub = || Hub::<[u8; 8_000]>::builder(&topic).depth(32).pool_blocks(48).build().unwrap();
    let (here, there) = (hub(), hub());
    for number in 0..16 {
        here.publish(&[number; 8_000]).unwrap();
    }
    let mut held: Vec<_> = (0..15).map(|_| there.recv_sample().unwrap()).collect();
    let error = there.recv_sample().map(|_| ()).unwrap_err();
    assert!(matches!(error, RecvError::TooManyHeld(_)), "{error}");
    drop(held.remove(7));
    assert_eq!(there.recv_sample().unwrap()[0], 15);
}
