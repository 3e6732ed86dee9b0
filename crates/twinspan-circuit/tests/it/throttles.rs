//! Seven classes of throttle, each of which keeps to the rate that its peer asked for.

use std::time::Duration;

use twinspan_circuit::{
    Circuits, Config, RATE_MIN, Rates, SendOptions, THROTTLE_CLASSES, ThrottleClass,
};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::Var2;
use twinspan_lludp::messages::LayerData;

/// How long it is measured.
const TIME: Duration = Duration::from_secs(20);
/// Bits of a message, about.
const MESSAGE_BITS: f32 = 4_080.0;

fn rates() -> Rates {
    let mut rates = [0.0; THROTTLE_CLASSES];
    for (rate, number) in rates.iter_mut().zip(1_u8..) {
        *rate = 40_000.0 * f32::from(number);
    }
    Rates::new(rates)
}

/// Bits a second that leave when a fifth more of each of these classes is to be sent than may be.
fn measured(classes: &[ThrottleClass]) -> f32 {
    let peer = ([10, 0, 0, 1], 9_000).into();
    let stream = Stream::new(1, "throttles", 0);
    let mut circuits = Circuits::new(Config::simulator(), stream).unwrap();
    let start = Timestamp::START.after(Duration::from_secs(1));
    circuits.open(start, peer).unwrap();
    assert!(circuits.set_rates(peer, &rates()));
    assert_eq!(circuits.rates(peer), Some(rates()));
    let mut message = LayerData::default();
    message.layer_data.data = Var2::new(vec![7; 500]).unwrap();
    let mut out = [0; 1_200];
    let mut bytes = 0;
    let mut queued = [0.0; THROTTLE_CLASSES];
    let mut now = start;
    while now < start.after(TIME) {
        for class in classes {
            let wanted = 1.2 * rates().get(*class) * now.since(start).as_secs_f32();
            let options = SendOptions::UNRELIABLE.at_rate_of(*class);
            while queued[class.index()] < wanted {
                queued[class.index()] += MESSAGE_BITS;
                circuits.send(now, peer, &message, options).unwrap();
            }
        }
        while let Some((to, len)) = circuits.poll_transmit(now, &mut out) {
            assert_eq!(to, peer);
            bytes += len;
        }
        now = now.after(Duration::from_millis(10));
    }
    bytes as f32 * 8.0 / TIME.as_secs_f32()
}

#[test]
fn each_class_keeps_to_its_own_rate() {
    for class in ThrottleClass::ALL {
        let (wanted, got) = (rates().get(class), measured(&[class]));
        assert!(wanted > RATE_MIN && (0.9..1.1).contains(&(got / wanted)), "{class:?}: {got}");
    }
}

#[test]
fn no_class_takes_from_another_and_all_together_send_the_sum() {
    let (wanted, got) = (rates().total(), measured(&ThrottleClass::ALL));
    assert!((0.9..1.1).contains(&(got / wanted)), "{got} of {wanted}");
}
