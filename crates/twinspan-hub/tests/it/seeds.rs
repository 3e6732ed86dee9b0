//! Seeds of the scenario `hub` that broke a promise once.

use twinspan_hub::scenario::PlannedHub;
use twinspan_sim::scenario::{Case, Scenario};

/// With the few faults that it took.
#[track_caller]
fn keeps_its_promises(options: &str, faults: &[&str]) {
    let case = Case::listed(options, faults).unwrap();
    let verdict = PlannedHub.play(&case);
    assert_eq!(verdict.broken, Vec::<String>::new());
    assert_eq!(verdict.struck.len(), faults.len(), "each of them strikes");
}

/// With all that its rates draw.
#[track_caller]
fn keeps_them_all(options: &str) {
    let case = Case { options: options.parse().unwrap(), faults: None };
    assert_eq!(PlannedHub.play(&case).broken, Vec::<String>::new());
}

#[test]
fn what_a_link_sent_that_was_not_welcomed_is_none_of_the_next_one_s() {
    let options = "seed=640 duplicate=0.0618 byte_run=0.0564 burst=12 bytes_max=225 \
                   compression=1 datagram_bytes=512 delay_us=0 depth=64 drops_oldest=1 \
                   history=0 hosts=3 idle_us=1043154 in_flight_max=262144 interval_us=2001 \
                   jitter_us=0 late_us=0 messages=1 name_delay_us=0 pool_packets=64 \
                   receive_queue_max=4096 reliable_0=1 resume_us=505933 road_0=0 segments=1 \
                   silence_us=552492 slow_host=0 slow_us=34237 strangers=0 \
                   stream_give_up_us=1000032 stream_silence_us=1000000 topics=1";
    let faults =
        ["duplicate 3 10.0.0.1:9000>10.0.0.2:49152", "byte_run 1 10.0.0.1:9000>10.0.0.2:49152"];
    keeps_its_promises(options, &faults);
}

#[test]
fn replayed_and_forged_datagrams_of_former_links_double_nothing() {
    let options = "seed=5899 loss=0.0487 reorder=0.0016 backlog_full=0.0013 short_write=0.1169 \
                   delay_spike=0.0697 bit_flip=0.0882 unreachable=0.0052 spoof=0.0843 \
                   rebind=0.0215 replay=0.0745 accept_exhausted=0.0942 crash=0.023 \
                   restart_empty=0.0413 slow_cpu=0.024 clock_back=0.0034 burst=21 \
                   bytes_max=1110 compression=1 datagram_bytes=514 delay_us=5000 depth=44 \
                   drops_oldest=1 history=8 hosts=4 idle_us=30000000 in_flight_max=67 \
                   interval_us=2000 jitter_us=0 late_us=539 messages=40 name_delay_us=11 \
                   pool_packets=64 receive_queue_max=4096 reliable_0=0 reliable_1=0 \
                   reliable_2=0 reliable_3=1 resume_us=30000000 road_0=0 road_1=1 road_2=2 \
                   road_3=0 segments=0 silence_us=507877 slow_host=0 slow_us=5057 strangers=0 \
                   stream_give_up_us=1000000 stream_silence_us=1000001 topics=4";
    keeps_them_all(options);
}

#[test]
fn a_subscriber_that_comes_back_while_its_publisher_leaves_hears_nothing_twice() {
    let options = "seed=50 connect_refuse=0.4725 backlog_full=0.0049 short_read=0.1027 \
                   early_end=0.0374 half_open=0.0486 crash=0.0082 graceful_stop=0.0191 \
                   pause=0.0022 slow_cpu=0.0026 out_of_fds=0.0056 out_of_buffers=0.0021 \
                   segment_loss=0.0056 segment_damage=0.0022 burst=3 bytes_max=24 compression=1 \
                   datagram_bytes=513 delay_us=5000 depth=6 drops_oldest=0 history=8 hosts=4 \
                   idle_us=3619424 in_flight_max=262144 interval_us=2016 jitter_us=14 late_us=0 \
                   messages=6 name_delay_us=64 pool_packets=72 receive_queue_max=2 reliable_0=1 \
                   reliable_1=0 resume_us=500000 road_0=0 road_1=1 segments=0 \
                   silence_us=1157711 slow_host=4 slow_us=112890 strangers=0 \
                   stream_give_up_us=1000001 stream_silence_us=1000025 topics=2";
    let faults = [
        "connect_refuse 0 10.0.0.4:49152>10.0.0.1:8000",
        "half_open 7 10.0.0.4:49153>10.0.0.1:8000",
        "graceful_stop 8 10.0.0.1",
    ];
    keeps_its_promises(options, &faults);
}

#[test]
fn a_stream_of_which_one_way_ended_is_made_again() {
    let options = "seed=33 duplicate=0.0133 reorder=0.003 short_send=0.0016 send_stall=0.0035 \
                   connect_refuse=0.4128 short_write=0.078 duplicate_late=0.0011 \
                   delay_spike=0.0071 bit_flip=0.05 rebind=0.0041 connect_hang=0.4475 \
                   half_close=0.0598 slow_consumer=0.0078 segment_duplicate=0.0239 \
                   segment_reorder=0.0556 burst=1 bytes_max=5535 compression=0 \
                   datagram_bytes=512 delay_us=5000 depth=1 drops_oldest=0 history=56 hosts=3 \
                   idle_us=1007534 in_flight_max=22307 interval_us=2007 jitter_us=6 \
                   late_us=8094 messages=40 name_delay_us=0 pool_packets=68 receive_queue_max=1 \
                   reliable_0=1 reliable_1=0 reliable_2=0 resume_us=735977 road_0=1 road_1=0 \
                   road_2=1 segments=0 silence_us=10000000 slow_host=3 slow_us=221534 \
                   strangers=0 stream_give_up_us=1084352 stream_silence_us=1000030 topics=3";
    keeps_them_all(options);
}

#[test]
fn room_that_was_made_while_a_stream_was_made_again_is_told() {
    let options = "seed=2397 short_send=0.0193 backlog_full=0.0298 stream_reset=0.0748 \
                   short_read=0.0583 short_write=0.0538 connect_hang=0.2496 \
                   accept_exhausted=0.3406 early_end=0.0122 zero_window=0.0072 \
                   slow_consumer=0.0385 segment_loss=0.0013 segment_duplicate=0.0096 \
                   segment_reorder=0.0789 segment_damage=0.0029 burst=2 bytes_max=4000 \
                   compression=2 datagram_bytes=513 delay_us=0 depth=1 drops_oldest=0 history=0 \
                   hosts=2 idle_us=1000000 in_flight_max=64 interval_us=40000 jitter_us=0 \
                   late_us=0 messages=1 name_delay_us=0 pool_packets=64 receive_queue_max=4096 \
                   reliable_0=0 reliable_1=1 reliable_2=1 resume_us=500017 road_0=1 road_1=1 \
                   road_2=0 segments=1 silence_us=501361 slow_host=1 slow_us=40535 strangers=0 \
                   stream_give_up_us=5000000 stream_silence_us=15000000 topics=3";
    keeps_them_all(options);
}
