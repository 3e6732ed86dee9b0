//! Endpoints lead where they say, or the error says why not.

use twinspan_hub::{BuildError, Bytes, Compression, Hub, JoinError, Transport};

use crate::topic;

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
