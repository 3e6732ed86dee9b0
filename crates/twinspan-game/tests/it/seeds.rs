//! Seeds that broke a promise once, with the few faults that it took.

use twinspan_game::scenario::PlannedWorld;
use twinspan_sim::scenario::{Case, Scenario};

#[track_caller]
fn keeps_its_promises(options: &str, faults: &[&str]) {
    let case = Case::listed(options, faults).unwrap();
    assert_eq!(PlannedWorld.play(&case).broken, Vec::<String>::new());
}

#[test]
fn a_server_that_could_not_send_for_moments_goes_on() {
    let options = "seed=1707 send_stall=0.0496 no_buffers=0.0281 clients=9 delay_us=555 \
                   in_flight_max=262144 jitter_us=9438 name_delay_us=5000 receive_queue_max=79 \
                   stream_give_up_us=4771785";
    keeps_its_promises(
        options,
        &[
            "send_stall 3 10.0.0.1:7000",
            "send_stall 9 10.0.0.1:7000",
            "send_stall 34 10.0.0.1:7000",
        ],
    );
}

#[test]
fn who_lies_is_caught_however_late_it_came_in() {
    let options = "seed=1518 duplicate=0.0388 short_send=0.058 loss_burst=0.0205 \
                   duplicate_late=0.0107 bit_flip=0.005 unreachable=0.0843 replay=0.0013 \
                   spurious_wake=0.0074 clients=1 delay_us=923 in_flight_max=64 jitter_us=1715 \
                   name_delay_us=0 receive_queue_max=1 stream_give_up_us=1000000";
    let faults = [
        "unreachable 2 10.1.0.2:5000>10.0.0.1:7000",
        "unreachable 2 10.0.0.1:7000>10.1.0.2:5000",
        "unreachable 1 10.0.0.1:7000>10.1.0.2:5000",
    ];
    keeps_its_promises(options, &faults);
}

#[test]
fn a_client_is_told_on_though_its_path_stood_still_for_seconds() {
    let options = "seed=737 duplicate=0.01 send_stall=0.015 loss_burst=0.0022 \
                   delay_spike=0.0857 spurious_wake=0.0119 clients=9 delay_us=663 \
                   in_flight_max=64 jitter_us=14 name_delay_us=0 receive_queue_max=4096 \
                   stream_give_up_us=1000014";
    let faults = [
        "delay_spike 0 10.1.0.6:5000>10.0.0.1:7000",
        "delay_spike 1 10.1.0.3:5000>10.0.0.1:7000",
        "delay_spike 2 10.0.0.1:7000>10.1.0.7:5000",
        "delay_spike 5 10.0.0.1:7000>10.1.0.7:5000",
        "delay_spike 12 10.1.0.7:5000>10.0.0.1:7000",
    ];
    keeps_its_promises(options, &faults);
}

#[test]
fn states_that_are_held_on_their_way_are_waited_for() {
    let options = "seed=3378 duplicate=0.0025 reorder=0.0121 short_send=0.0036 \
                   duplicate_late=0.003 delay_spike=0.0026 bit_flip=0.0017 truncate=0.007 \
                   replay=0.0762 no_buffers=0.0142 spurious_wake=0.0028 clients=10 delay_us=0 \
                   in_flight_max=227744 jitter_us=0 name_delay_us=5000 receive_queue_max=68 \
                   stream_give_up_us=5000000";
    let faults = [
        "reorder 0 10.0.0.1:7000>10.1.0.6:5000",
        "reorder 100 10.1.0.6:5000>10.0.0.1:7000",
        "delay_spike 55 10.1.0.6:5000>10.0.0.1:7000",
        "delay_spike 77 10.0.0.1:7000>10.1.0.6:5000",
        "bit_flip 2 10.1.0.1:5000>10.0.0.1:7000",
        "truncate 2 10.1.0.4:5000>10.0.0.1:7000",
        "truncate 104 10.1.0.6:5000>10.0.0.1:7000",
    ];
    keeps_its_promises(options, &faults);
}
