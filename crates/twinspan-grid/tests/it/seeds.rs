//! Seeds that broke a promise once, with the few faults that it took.

use twinspan_grid::scenario::PlannedCircuit;
use twinspan_sim::scenario::{Case, Scenario};

#[track_caller]
fn keeps_its_promises(options: &str, faults: &[&str]) {
    let case = Case::listed(options, faults).unwrap();
    assert_eq!(PlannedCircuit.play(&case).broken, Vec::<String>::new());
}

#[test]
fn a_forged_copy_of_the_code_takes_no_circuit_over() {
    let options = "seed=130 loss=0.0235 reorder=0.0504 send_stall=0.0145 loss_burst=0.0016 \
                   unreachable=0.0013 spoof=0.0668 replay=0.0095 partition_one_way=0.0031 \
                   partition_pair=0.011 clog_send=0.0044 clog_receive=0.0084 bandwidth=0.0144 \
                   flap=0.0033 no_buffers=0.0287 clients=3 delay_us=5000 in_flight_max=64 \
                   jitter_us=0 name_delay_us=5000 receive_queue_max=1 stream_give_up_us=1008916";
    let faults = ["spoof 7 10.1.0.1:30000>10.0.0.2:9000", "partition_one_way 13 10.0.0.2>10.1.0.1"];
    keeps_its_promises(options, &faults);
}

#[test]
fn a_forged_copy_that_overtakes_an_arrival_takes_nothing_over() {
    let options = "seed=452 loss=0.0635 duplicate=0.0213 reorder=0.0215 send_stall=0.031 \
                   loss_burst=0.0229 spoof=0.003 replay=0.0017 clog_send=0.0135 \
                   clog_receive=0.0021 flap=0.0046 no_buffers=0.0168 slow_consumer=0.0387 \
                   clients=1 delay_us=0 in_flight_max=262144 jitter_us=0 name_delay_us=5000 \
                   receive_queue_max=125 stream_give_up_us=1000000";
    let faults = [
        "loss 19 10.1.0.1:30000>10.0.0.1:9000",
        "loss 20 10.0.0.1:9000>10.1.0.1:30000",
        "loss 24 10.0.0.1:9000>10.1.0.1:30000",
        "send_stall 15 10.1.0.1:30000",
        "loss_burst 0 10.1.0.1:30000>10.0.0.1:9000",
        "loss_burst 9 10.0.0.2:9000>10.1.0.1:30000",
        "loss_burst 9 10.1.0.1:30000>10.0.0.1:9000",
        "spoof 45 10.1.0.1:30000>10.0.0.1:9000",
        "clog_send 10 10.1.0.1",
        "clog_send 60 10.0.0.2",
        "clog_send 94 10.0.0.1",
        "clog_receive 28 10.1.0.1",
        "flap 76 10.0.0.1>10.1.0.1",
        "no_buffers 0 10.1.0.1:30000",
        "no_buffers 4 10.1.0.1:30000",
        "no_buffers 28 10.1.0.1:30000",
        "slow_consumer 51 10.0.0.2",
    ];
    keeps_its_promises(options, &faults);
}

/// As a sweep found it, with the faults that its rates draw.
#[track_caller]
fn keeps_its_promises_as_drawn(options: &str) {
    let case = Case { options: options.parse().unwrap(), faults: None };
    assert_eq!(PlannedCircuit.play(&case).broken, Vec::<String>::new());
}

#[test]
fn who_comes_from_another_address_hears_what_he_acknowledges() {
    keeps_its_promises_as_drawn(
        "seed=700 stream_reset=0.0242 half_open=0.0839 proxy_drop=0.0052 clients=2 delay_us=0 \
         in_flight_max=262144 jitter_us=0 name_delay_us=0 players_to_wrap=309 proxied=3 \
         receive_queue_max=10 regions_to_wrap=1217 stream_give_up_us=1000000",
    );
}

#[test]
fn packets_from_before_the_numbers_began_anew_may_be_late() {
    keeps_its_promises_as_drawn(
        "seed=1748 loss=0.002 duplicate=0.0023 reorder=0.0049 partition_pair=0.0066 \
         clog_send=0.0652 clog_receive=0.0132 flap=0.0028 clients=1 delay_us=1793 in_flight_max=85 \
         jitter_us=3516 name_delay_us=0 players_to_wrap=0 proxied=0 receive_queue_max=84 \
         regions_to_wrap=2 stream_give_up_us=5000000",
    );
}
