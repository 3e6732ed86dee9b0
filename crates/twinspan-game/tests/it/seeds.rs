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
