//! The conformance tests on tokio's side of the seam, plain and under a clean link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_provider::{ConditionedEnv, FolderDisk, LinkControl, TokioEnv, conformance};

#[test]
fn tokio_conforms_over_ipv4() {
    let env = TokioEnv::new(Some(1)).unwrap();
    env.block_on(conformance::all(&env, IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn a_folder_conforms_as_a_disk() {
    let folder = std::env::temp_dir().join(format!("twinspan-it-disk-{}", std::process::id()));
    let env = TokioEnv::new(Some(1)).unwrap();
    env.block_on(async {
        let disk = FolderDisk::new(&env, &folder).await.unwrap();
        conformance::disk::all(&disk).await;
    });
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tokio_conforms_over_ipv6() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let env = TokioEnv::new(Some(1)).unwrap();
    env.block_on(conformance::all(&env, IpAddr::V6(Ipv6Addr::LOCALHOST)));
}

/// All but the tests that count a pool's buffers: a conditioned socket has more, for datagrams on
/// the way.
#[test]
fn a_clean_conditioned_environment_conforms() {
    let tokio = TokioEnv::new(Some(1)).unwrap();
    let env = ConditionedEnv::new(tokio.clone(), LinkControl::new());
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    tokio.block_on(async {
        conformance::a_taken_port_is_refused(&env, ip).await;
        conformance::a_foreign_address_is_refused(&env).await;
        conformance::a_dropped_socket_frees_its_port(&env, ip).await;
        conformance::batches_are_echoed(&env, ip).await;
        conformance::what_cannot_be_sent_is_counted(&env, ip).await;
        conformance::a_late_machine_hears_what_came(&env, ip).await;
        conformance::a_late_machine_leaves_turns_to_other_tasks(&env, ip).await;
        conformance::a_machine_that_always_sends_hears_what_came(&env, ip).await;
        conformance::timers_expire_in_the_order_of_their_deadlines(&env).await;
        conformance::a_timer_can_be_moved_and_taken_away(&env).await;
        conformance::a_task_runs_and_its_handle_outlives_it(&env).await;
        conformance::a_dropped_task_stops(&env).await;
        conformance::streams_repeat_and_secrets_do_not(&env);
    });
}

/// Datagrams on the way leave their link while the driver looks for some: a busy machine must let it.
#[test]
fn a_busy_machine_on_a_slow_link_hears_what_came() {
    let tokio = TokioEnv::new(Some(1)).unwrap();
    let control = LinkControl::new();
    let delay = Duration::from_millis(1);
    control.set(Conditions { delay, ..Conditions::CLEAN }).unwrap();
    let env = ConditionedEnv::new(tokio.clone(), control);
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    tokio.block_on(async {
        conformance::a_late_machine_hears_what_came(&env, ip).await;
        conformance::a_machine_that_always_sends_hears_what_came(&env, ip).await;
    });
}
