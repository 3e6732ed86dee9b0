//! UDP through a completion ring: when it is taken, and what became of what was asked for.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use twinspan_net::{
    RingError, RingOptions, RingPoller, RingSends, TrainCosts, TrainOptions, TrainSocket,
    allowed_cores, poller_costs, train_costs,
};

use crate::choose::Choice;
use crate::effect::{Helped, SettingReport};
use crate::error::BuildError;
use crate::report::Transport;
use crate::road::RoadConfig;

/// Cores below which a thread of the kernel would take one from the ends: these are two.
const POLLER_CORES_MIN: usize = 3;
/// How long a thread of the kernel looks for requests, if only its core was named.
const POLLER_IDLE: Duration = Duration::from_millis(10);

/// The way that UDP takes where none was named: what was measured here, once for the process.
pub(crate) fn of_this_machine(reason: &str) -> Choice {
    judge(reason, &train_costs())
}

fn judge(reason: &str, costs: &TrainCosts) -> Choice {
    let figures = figures(costs);
    if costs.ring_is_better() {
        let reason = format!("{reason}; io_uring costs less here: {figures}");
        return Choice { road: Transport::IoUring, reason };
    }
    let why = match costs.ring_errno {
        Some(_) => "there is no io_uring here",
        None => "batches, as io_uring does not cost less here",
    };
    Choice { road: Transport::BatchUdp, reason: format!("{reason}; {why}: {figures}") }
}

/// What was measured, for people.
fn figures(costs: &TrainCosts) -> String {
    let said = |ns: Option<u32>| ns.map_or("not measured".to_owned(), |ns| format!("{ns} ns"));
    if let Some(errno) = costs.ring_errno {
        return std::io::Error::from_raw_os_error(errno).to_string();
    }
    format!(
        "a lone datagram {} against {} by batches, one of a train {} against {} (measured in {} us)",
        said(costs.lone_ring_ns),
        said(costs.lone_calls_ns),
        said(costs.train_ring_ns),
        said(costs.train_calls_ns),
        costs.took.as_micros(),
    )
}

/// A socket, and what took effect.
pub(super) struct Bound {
    pub(super) socket: TrainSocket,
    pub(super) notes: Vec<String>,
    pub(super) chosen: Vec<SettingReport>,
}

/// A socket whose datagrams come by a ring, around one that was given or bound for it, and what took
/// effect.
pub(super) fn bind(
    config: &RoadConfig,
    (local, given): (SocketAddr, Option<UdpSocket>),
    options: &TrainOptions,
) -> Result<Bound, BuildError> {
    let costs = train_costs();
    let mut notes = vec![format!("the costs: {}", figures(&costs))];
    let mut chosen = Vec::new();
    let poller = poller(config, &mut notes, &mut chosen)?;
    let sends = match (poller, costs.best_sends()) {
        // What it looks for are requests to send: receiving needs one for all datagrams.
        (Some(_), RingSends::Calls) => RingSends::Requests,
        (_, sends) => sends,
    };
    let ring = RingOptions { poller, sends };
    let bound = match given {
        Some(socket) => TrainSocket::around_on_ring(socket, options, &ring),
        None => TrainSocket::bind_on_ring(local, options, &ring),
    };
    let socket = bound.map_err(|error| match error {
        RingError::Socket(source) => BuildError::Bind { address: local, source },
        RingError::Ring(source) => no_ring(source),
        error => no_ring(error.into()),
    })?;
    notes.push("multishot receive into provided buffers, with a registered file".to_owned());
    notes.push(sending(&costs, sends));
    Ok(Bound { socket, notes, chosen })
}

/// Who sends, and why nobody does so without a copy.
fn sending(costs: &TrainCosts, sends: RingSends) -> String {
    let who = match sends {
        RingSends::ZeroCopy => {
            return "long trains are sent by SendZc, which saves here".to_owned();
        }
        RingSends::Requests => "requests on the ring send",
        _ => "batched calls send",
    };
    let why = match (costs.train_zero_copy_ns, costs.is_copied) {
        (None, _) => "it cannot be had here".to_owned(),
        (Some(ns), true) => format!("the kernel copied nevertheless, at {ns} ns a datagram"),
        (Some(ns), false) => format!("it takes {ns} ns a datagram"),
    };
    format!("{who}; SendZc is declined: {why}")
}

/// The thread of the kernel that was asked for, if there is a core for it.
fn poller(
    config: &RoadConfig,
    notes: &mut Vec<String>,
    chosen: &mut Vec<SettingReport>,
) -> Result<Option<RingPoller>, BuildError> {
    let (idle, core) = (config.net.sqpoll, config.net.sqpoll_core);
    if idle.is_none() && core.is_none() {
        return Ok(None);
    }
    let idle = idle.unwrap_or(POLLER_IDLE);
    let cores = allowed_cores().unwrap_or_default();
    let wrong = |setting, value, range| Err(BuildError::Setting { setting, value, range });
    if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&idle) {
        return wrong("sqpoll", format!("{idle:?}"), "1 ms to 10 s");
    }
    if let Some(core) = core.filter(|core| !cores.contains(core)) {
        return wrong("sqpoll_core", core.to_string(), "one that this process may use");
    }
    let on = core.map_or("any core".to_owned(), |core| format!("core {core}"));
    let setting = |effective: String, helped, figure| {
        let asked = format!("{idle:?} on {on}");
        SettingReport { name: "sqpoll", asked, effective, helped, figure }
    };
    if cores.len() < POLLER_CORES_MIN {
        let why = format!(
            "its thread takes a core, and of {} that this process may use none is left beside the two ends",
            cores.len()
        );
        notes.push(format!("SQPOLL is declined: {why}"));
        chosen.push(setting("none".to_owned(), Helped::No, why));
        return Ok(None);
    }
    let poller = RingPoller { core, idle };
    let (helped, figure) = match poller_costs(poller) {
        Some([without, with]) => {
            let helped = if with < without { Helped::Yes } else { Helped::No };
            (helped, format!("a lone datagram took {with} ns, {without} without"))
        }
        None => (Helped::Unknown, "it could not be measured".to_owned()),
    };
    notes.push(format!("SQPOLL on {on}, which sleeps after {idle:?}; {figure}"));
    chosen.push(setting(format!("{idle:?} on {on}"), helped, figure));
    Ok(Some(poller))
}

/// Why there is no ring, and what to do.
fn no_ring(source: std::io::Error) -> BuildError {
    // The numbers are those of Linux on every processor that this runs on.
    let advice = match source.raw_os_error() {
        Some(1 | 13) => {
            "it is forbidden here: let the container's seccomp profile allow io_uring_setup and \
             io_uring_enter, set kernel.io_uring_disabled to 0"
        }
        Some(12) => "raise the limit of locked memory (ulimit -l)",
        Some(22 | 38 | 95) => "this kernel's is missing or too old: use Linux 6.1 or newer",
        _ => "see what the system says",
    };
    BuildError::NoRing { source, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurement_decides_and_says_so() {
        let costs = TrainCosts {
            lone_calls_ns: Some(2_000),
            lone_ring_ns: Some(1_000),
            train_calls_ns: Some(100),
            train_ring_ns: Some(100),
            ..TrainCosts::default()
        };
        let Choice { road, reason } = judge("asked", &costs);
        assert_eq!(road, Transport::IoUring);
        assert_eq!(
            reason,
            "asked; io_uring costs less here: a lone datagram 1000 ns against 2000 ns by batches, one \
             of a train 100 ns against 100 ns (measured in 0 us)"
        );
        let costs = TrainCosts { lone_ring_ns: Some(2_000), ..costs };
        let Choice { road, reason } = judge("asked", &costs);
        assert_eq!(road, Transport::BatchUdp);
        assert!(reason.starts_with("asked; batches, as io_uring does not cost less"), "{reason}");
        let costs = TrainCosts { ring_errno: Some(1), ..TrainCosts::default() };
        let Choice { road, reason } = judge("asked", &costs);
        assert_eq!(road, Transport::BatchUdp);
        assert!(reason.contains("there is no io_uring here: Operation not permitted"), "{reason}");
    }

    #[test]
    fn a_copy_that_is_not_saved_is_named() {
        let costs = TrainCosts::default();
        let text = sending(&costs, RingSends::Calls);
        assert_eq!(text, "batched calls send; SendZc is declined: it cannot be had here");
        let costs = TrainCosts { train_zero_copy_ns: Some(90), is_copied: true, ..costs };
        let text = sending(&costs, RingSends::Requests);
        assert!(text.ends_with("the kernel copied nevertheless, at 90 ns a datagram"), "{text}");
        let text = sending(&costs, RingSends::ZeroCopy);
        assert!(text.contains("which saves here"), "{text}");
    }

    #[test]
    fn who_has_no_ring_learns_what_to_do() {
        for (errno, part) in [
            (1, "seccomp profile"),
            (12, "ulimit -l"),
            (38, "use Linux 6.1 or newer"),
            (24, "see what the system says"),
        ] {
            let text = no_ring(std::io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(part) && text.contains("batched UDP"), "{text}");
        }
    }
}
