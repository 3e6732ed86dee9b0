//! After its first messages neither side allocates, whatever the length.

use twinspan_hub::{Bytes, Hub};

use crate::{counting, topic};

#[test]
fn a_warm_exchange_allocates_nothing() {
    let topic = topic();
    let (here, there) = (Hub::<Bytes>::new(&topic).unwrap(), Hub::<Bytes>::new(&topic).unwrap());
    let mut value = Bytes::default();
    let mut exchange = |rounds: usize| {
        for round in 0..rounds {
            for length in [8, 200, 5_000, 60_000] {
                let mut loan = here.loan_bytes(length).unwrap();
                loan.fill(round as u8);
                loan.publish().unwrap();
                there.recv_into(&mut value).unwrap();
                assert_eq!(value.len(), length);
                here.publish(&value).unwrap();
                there.recv_into(&mut value).unwrap();
            }
        }
    };
    exchange(50);
    let before = counting::calls();
    exchange(200);
    assert_eq!(counting::calls() - before, 0);
}
