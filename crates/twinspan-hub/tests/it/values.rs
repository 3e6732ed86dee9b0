//! What users publish arrives, whatever it is and however they wait for it.

use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use twinspan_hub::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use twinspan_hub::{Bytes, Echo, Hub, Policy, PublishError, RecvError, Roles, Serde, Wait};

use crate::topic;

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Imu {
    acceleration: [f64; 3],
    rotation: [f64; 3],
}

#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Image {
    number: u64,
    pixels: [u8; 100_000 - 8],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Status {
    text: String,
    faults: Vec<u16>,
}

fn imu(value: f64) -> Imu {
    Imu { acceleration: [value; 3], rotation: [-value; 3] }
}

fn pair<T: twinspan_hub::Payload>() -> (Hub<T>, Hub<T>) {
    let topic = topic();
    (Hub::new(&topic).unwrap(), Hub::new(&topic).unwrap())
}

#[test]
fn plain_data_arrives_as_it_is() {
    let (here, there) = pair::<Imu>();
    assert_eq!(here.try_recv(), Ok(None));
    assert_eq!(here.publish(&imu(1.5)), Ok(0));
    there.publish(&imu(2.5)).unwrap();
    assert_eq!((there.recv(), here.recv()), (Ok(imu(1.5)), Ok(imu(2.5))));
    assert_eq!(here.publish_all(&[imu(1.0), imu(2.0), imu(3.0)]), Ok(3));
    let values: Vec<_> = there.iter().take(3).map(Result::unwrap).collect();
    assert_eq!(values, [imu(1.0), imu(2.0), imu(3.0)]);
    let message = {
        here.publish(&imu(4.0)).unwrap();
        there.recv_message().unwrap()
    };
    assert_eq!((message.number, message.lost), (4, 0));
    assert_eq!((here.subscribers(), here.publishers()), (1, 1));
}

#[test]
fn values_of_serde_and_bytes_arrive() {
    let (here, there) = pair::<Serde<Status>>();
    for length in [0, 10, 20_000] {
        let status = Status { text: "x".repeat(length), faults: vec![7; 3] };
        here.publish(&Serde(status.clone())).unwrap();
        assert_eq!(there.recv().unwrap().0, status);
    }
    let (here, there) = pair::<Bytes>();
    let mut bytes = Bytes::default();
    for length in [0, 1, 240, 241, 65_536] {
        here.publish_bytes(&vec![3; length]).unwrap();
        there.recv_into(&mut bytes).unwrap();
        assert_eq!(bytes.0, vec![3; length]);
    }
    assert!(matches!(here.publish_bytes(&[0; 65_537]), Err(PublishError::Road(_))));
    assert_eq!(here.publish_all(&[Bytes(vec![1]), Bytes(vec![2])]), Ok(2));
}

#[test]
fn many_are_received_at_once_and_only_the_first_is_waited_for() {
    let (here, there) = pair::<Imu>();
    let mut values = [imu(0.0); 4];
    assert_eq!(there.try_recv_all(&mut values), Ok(0));
    assert_eq!(there.recv_all(&mut []), Ok(0), "without a place nothing is waited for");
    here.publish_all(&[imu(1.0), imu(2.0), imu(3.0), imu(4.0), imu(5.0), imu(6.0)]).unwrap();
    assert_eq!(there.recv_all(&mut values), Ok(4));
    assert_eq!(values, [imu(1.0), imu(2.0), imu(3.0), imu(4.0)]);
    assert_eq!(there.recv_all(&mut values), Ok(2));
    assert_eq!(values, [imu(5.0), imu(6.0), imu(3.0), imu(4.0)], "those behind are as they were");
    here.publish(&imu(7.0)).unwrap();
    assert_eq!(there.try_recv_all(&mut values), Ok(1));
    assert_eq!((values[0], there.try_recv()), (imu(7.0), Ok(None)));
    let mute = Hub::<Imu>::builder(topic()).roles(Roles::Publisher).build().unwrap();
    assert_eq!(mute.recv_all(&mut values), Err((0, RecvError::NoSubscriber)));
    assert_eq!(mute.try_recv_all(&mut values), Err((0, RecvError::NoSubscriber)));
}

#[test]
fn loans_and_samples_lie_in_shared_memory_when_they_are_long() {
    let (here, there) = pair::<Image>();
    let mut loan = here.loan().unwrap();
    loan.number = 7;
    loan.pixels.fill(9);
    loan.publish().unwrap();
    let sample = there.recv_sample().unwrap();
    assert!(sample.is_shared() && sample.number == 7 && sample.pixels.iter().all(|it| *it == 9));
    drop(here.loan().unwrap());
    assert!(there.try_recv_sample().unwrap().is_none());
    let (here, there) = pair::<Imu>();
    let mut loan = here.loan().unwrap();
    *loan = imu(1.0);
    loan.publish().unwrap();
    let sample = there.recv_sample().unwrap();
    assert_eq!((*sample, sample.is_shared()), (imu(1.0), false));
    let (here, there) = pair::<Bytes>();
    for length in [100, 60_000] {
        let mut loan = here.loan_bytes(length).unwrap();
        loan.fill(5);
        loan.publish().unwrap();
        assert_eq!(*there.recv_bytes().unwrap(), vec![5; length]);
    }
}

#[test]
fn who_begins_with_a_wait_for_the_descriptor_is_told_of_what_came_before() {
    let (here, there) = pair::<u64>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for value in 0..20 {
            if value % 2 == 1 {
                let none = there.recv_nonblocking().unwrap_err();
                assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
            }
            here.publish(&value).unwrap();
            let fd = crate::udp::watched(&there);
            assert_eq!(crate::udp::hear(&there, &fd).await, value);
        }
    });
}

#[test]
fn tasks_wait_on_any_runtime() {
    let (here, there) = pair::<u64>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let echo = tokio::spawn(async move {
            for value in 0..500 {
                assert_eq!(there.recv_async().await, Ok(value));
                there.publish(&(value + 1_000)).unwrap();
            }
        });
        let mut answers = here.stream();
        for value in 0..500 {
            here.publish(&value).unwrap();
            assert_eq!(answers.next().await, Some(Ok(value + 1_000)));
        }
        echo.await.unwrap();
    });
}

#[test]
fn waiting_for_a_time_ends() {
    let hub = Hub::<u8>::new(topic()).unwrap();
    assert_eq!(hub.recv_timeout(Duration::from_millis(1)), Ok(None));
    let hub = Hub::<u8>::builder(topic()).echo(Echo::On).build().unwrap();
    hub.publish(&3).unwrap();
    assert_eq!(hub.recv_timeout(Duration::from_secs(60)), Ok(Some(3)));
    assert!(hub.arm() && hub.fd().is_some());
}

#[test]
fn a_role_that_is_not_there_is_an_error() {
    let topic = topic();
    let publisher = Hub::<u8>::builder(&topic).roles(Roles::Publisher).build().unwrap();
    let subscriber = Hub::<u8>::builder(&topic).roles(Roles::Subscriber).build().unwrap();
    assert_eq!(publisher.recv(), Err(RecvError::NoSubscriber));
    assert_eq!(publisher.try_recv(), Err(RecvError::NoSubscriber));
    assert_eq!(subscriber.publish(&1), Err(PublishError::NoPublisher));
    assert!(subscriber.loan().is_err() && publisher.recv_sample().is_err());
    assert!(publisher.wait_for_subscribers(1, Duration::ZERO));
    assert!(!publisher.wait_for_subscribers(2, Duration::ZERO));
    publisher.publish(&5).unwrap();
    assert_eq!(subscriber.recv(), Ok(5));
}

#[test]
fn policies_history_and_losses_are_told() {
    let topic = topic();
    let here = Hub::<u64>::builder(&topic).depth(4).history(2).build().unwrap();
    for value in 0..10 {
        here.publish(&value).unwrap();
    }
    let late = Hub::<u64>::builder(&topic).history(2).policy(Policy::DropNew).build().unwrap();
    assert_eq!((late.recv(), late.recv(), late.try_recv()), (Ok(8), Ok(9), Ok(None)));
    let over = Hub::<u64>::builder(&topic).build().unwrap();
    let published = (10..30).filter(|value| here.publish(value).is_ok()).count();
    assert_eq!((published, here.stats().dropped), (4, 16));
    drop(late);
    while here.publish(&99).is_err() {}
    for value in 0..20 {
        here.publish(&value).unwrap();
    }
    let mut lost = 0;
    while let Some(message) = over.try_recv_message().unwrap() {
        lost += message.lost;
    }
    assert!(lost > 0);
    assert_eq!(over.stats().lost, lost);
}

#[test]
fn a_hub_serves_threads_that_share_it() {
    let topic = topic();
    let here = Hub::<u64>::builder(&topic).wait(Wait::Block).build().unwrap();
    let there = Hub::<u64>::builder(&topic).policy(Policy::Block).depth(16).build().unwrap();
    let mut all = std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let here = &here;
            scope.spawn(move || {
                for value in 0..500 {
                    here.publish(&(thread * 1_000 + value)).unwrap();
                }
            });
        }
        (0..1_500).map(|_| there.recv().unwrap()).collect::<Vec<_>>()
    });
    all.sort_unstable();
    let expected = (0..3_u64).flat_map(|thread| (0..500).map(move |it| thread * 1_000 + it));
    assert_eq!(all, expected.collect::<Vec<_>>());
}
