//! The registry: numbers, channels, reasons.

use twinspan_messages::{
    EncodeError, Encoder, Limits, MessageBuf, MessageId, Refusals, RefuseError, RegisterError,
    Registry, VerifyError,
};
use twinspan_reliable::{Channel, Delivery, StreamId};

use crate::codec::full_trade;
use crate::generated::town::{Chat, Item, Trade};

fn channel(stream: u8) -> Channel {
    Channel::new(Delivery::Ordered, StreamId::new(stream).unwrap())
}

fn registry() -> Registry {
    let mut registry = Registry::new(Limits::default());
    registry.register::<Trade>(MessageId(9), channel(6)).unwrap();
    registry.register::<Chat>(MessageId(2), channel(5)).unwrap();
    registry
}

#[test]
fn a_message_travels_with_its_number_in_front() {
    //= messages 1
    let registry = registry();
    let mut encoder = Encoder::new();
    let sent = registry.encode(&full_trade(), &mut encoder).unwrap();
    assert_eq!(sent.bytes[..2], [9, 0]);
    assert_eq!(sent.channel, channel(6));
    let incoming = registry.check(channel(6), sent.bytes).unwrap();
    assert_eq!((incoming.id(), incoming.type_index()), (MessageId(9), 1));
    assert!(incoming.read::<Chat>().is_none(), "it is of another type");
    let read = incoming.read::<Trade>().unwrap();
    assert_eq!(Trade::try_from(read).unwrap(), full_trade());
    let mut kept = MessageBuf::default();
    assert!(kept.read::<Trade>().is_none());
    incoming.keep(&mut kept);
    assert_eq!(Trade::try_from(kept.read::<Trade>().unwrap()).unwrap(), full_trade());
}

#[test]
fn what_cannot_be_registered_is_named() {
    let mut registry = registry();
    let taken = registry.register::<Item>(MessageId(9), channel(7)).unwrap_err();
    assert_eq!(taken, RegisterError::IdTaken { id: MessageId(9), name: "town.Trade" });
    let taken = registry.register::<Chat>(MessageId(3), channel(7)).unwrap_err();
    assert_eq!(taken, RegisterError::TypeTaken { name: "town.Chat", id: MessageId(2) });
    for stream in 0..5 {
        let refused = registry.register::<Item>(MessageId(3), channel(stream)).unwrap_err();
        assert_eq!(refused, RegisterError::Stream { stream });
    }
}

#[test]
fn what_the_other_end_would_refuse_is_not_sent() {
    let registry = registry();
    let mut encoder = Encoder::new();
    let unknown = registry.encode(&Item::default(), &mut encoder).unwrap_err();
    assert_eq!(unknown, EncodeError::Unregistered { name: "town.Item" });
    let long = Chat { text: "x".repeat(20_000), ..Chat::default() };
    let refused = registry.encode(&long, &mut encoder).unwrap_err();
    assert!(matches!(refused, EncodeError::Refused(VerifyError::TooLong { .. })));
}

#[test]
fn every_refusal_is_counted_by_its_reason() {
    let registry = registry();
    let mut encoder = Encoder::new();
    let said = Chat { text: "hi".into(), ..Chat::default() };
    let good = registry.encode(&said, &mut encoder).unwrap().bytes.to_vec();
    let mut malformed = good.clone();
    *malformed.last_mut().unwrap() = 1;
    malformed.truncate(good.len() - 4);
    let mut unknown = good.clone();
    unknown[0] = 77;
    let long = vec![2, 0].into_iter().chain([0; 17_000]).collect::<Vec<u8>>();
    let mut refusals = Refusals::default();
    for (channel, bytes) in [
        (channel(5), &good[..1]),
        (channel(5), &unknown),
        (channel(6), &good),
        (channel(5), &malformed),
        (channel(5), &long),
    ] {
        refusals.count(&registry.check(channel, bytes).unwrap_err());
    }
    let expected =
        Refusals { short: 1, unknown: 1, channel: 1, malformed: 1, over_limit: 1, unhandled: 0 };
    assert_eq!((refusals, refusals.total()), (expected, 5));
    let wrong = registry.check(channel(6), &good).unwrap_err();
    assert_eq!(wrong, RefuseError::Channel { name: "town.Chat", channel: channel(6) });
}
