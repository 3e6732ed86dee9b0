//! What became of a road's settings, and whether they helped: figures of what was done so far, and of a
//! short measurement where one says more.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use twinspan_net::shm::wake_costs_on;
use twinspan_net::{TrainReport, allowed_cores, pin_to_core};

use crate::road::NetOptions;
use crate::system::{network_counters, usual_receive_buffer};

/// Whether a setting helped so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Helped {
    /// It did.
    Yes,
    /// It did not.
    No,
    /// Nothing was done yet that would tell, or nothing tells.
    Unknown,
}

/// A setting of a road, asked for or usual, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingReport {
    /// The option's name.
    pub name: &'static str,
    /// What was asked for, or is usual.
    pub asked: String,
    /// What is in effect.
    pub effective: String,
    /// Whether it helped so far.
    pub helped: Helped,
    /// What says so.
    pub figure: String,
}

impl fmt::Display for SettingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, asked, effective, helped, figure } = self;
        let helped = match helped {
            Helped::Yes => "it helped",
            Helped::No => "it did not help",
            Helped::Unknown => "it cannot be told whether it helped",
        };
        write!(f, "{name}: {asked} asked for, {effective} in effect; {helped}: {figure}")
    }
}

/// What was asked of a socket for trains.
pub(crate) struct Asked {
    batch_size: usize,
    buffer_bytes: usize,
    busy_poll: Option<Duration>,
    /// Datagrams that busy polling had brought in this namespace before.
    polled_before: Option<u64>,
}

impl Asked {
    pub(crate) fn new(net: &NetOptions, batch_size: usize) -> Self {
        let polled_before = net.busy_poll.and_then(|_| busy_polled());
        let (buffer_bytes, busy_poll) = (net.socket_buffer_bytes, net.busy_poll);
        Self { batch_size, buffer_bytes, busy_poll, polled_before }
    }

    /// What came of it.
    pub(crate) fn settings(&self, report: &TrainReport) -> Vec<SettingReport> {
        let polled = self.polled_before.zip(busy_polled());
        let polled = polled.map(|(before, now)| now.saturating_sub(before));
        vec![
            batches(self.batch_size, report),
            buffers(self.buffer_bytes, report, usual_receive_buffer()),
            busy_poll(self.busy_poll, report, polled),
        ]
    }
}

fn batches(asked: usize, report: &TrainReport) -> SettingReport {
    let TrainReport { datagrams_in, datagrams_out, finds, calls_out, .. } = *report;
    let mean = |datagrams: u64, calls: u64| datagrams as f64 / calls.max(1) as f64;
    let helped = match (finds + calls_out, datagrams_in + datagrams_out) {
        (0, _) => Helped::Unknown,
        (calls, datagrams) if datagrams > calls => Helped::Yes,
        _ => Helped::No,
    };
    let (out, back) = (mean(datagrams_out, calls_out), mean(datagrams_in, finds));
    SettingReport {
        name: "batch_size",
        asked: asked.to_string(),
        effective: asked.to_string(),
        helped,
        figure: format!(
            "{out:.1} datagrams a call that sends, {back:.1} a call that receives some"
        ),
    }
}

fn buffers(asked: usize, report: &TrainReport, usual: Option<usize>) -> SettingReport {
    let TrainReport { receive_buffer_bytes, send_buffer_bytes, queued_bytes_max, .. } = *report;
    let helped = match usual {
        Some(usual) if queued_bytes_max > usual => Helped::Yes,
        Some(_) if report.finds > 0 => Helped::No,
        _ => Helped::Unknown,
    };
    let usual = usual.map_or("of unknown size".to_owned(), |usual| format!("of {usual} bytes"));
    SettingReport {
        name: "socket_buffer_bytes",
        asked: asked.to_string(),
        effective: format!("{receive_buffer_bytes} to receive and {send_buffer_bytes} to send"),
        helped,
        figure: format!(
            "{queued_bytes_max} bytes were seen to wait at most, where one that asks for nothing has a \
             buffer {usual}; {} datagrams found no room, {} calls none to send",
            report.dropped, report.full_sends
        ),
    }
}

fn busy_poll(asked: Option<Duration>, report: &TrainReport, polled: Option<u64>) -> SettingReport {
    let said = |time: Option<Duration>| time.map_or("none".to_owned(), |time| format!("{time:?}"));
    let of = |effective: String, helped, figure: String| SettingReport {
        name: "busy_poll",
        asked: said(asked),
        effective,
        helped,
        figure,
    };
    if let Some(errno) = report.busy_poll_errno {
        let error = io::Error::from_raw_os_error(errno);
        let why = format!("the system refuses it without CAP_NET_ADMIN: {error}");
        return of("none".to_owned(), Helped::No, why);
    }
    let (helped, figure) = match (asked, report.napi_id, polled) {
        (None, ..) => (Helped::No, "it is off".to_owned()),
        (_, _, _) if report.datagrams_in == 0 => {
            (Helped::Unknown, "no datagram came yet, of which the device is known".to_owned())
        }
        (_, 0, _) => {
            let why = "what came is of a device without a queue to poll, as loopback is";
            (Helped::No, why.to_owned())
        }
        (_, id, None) => (Helped::Unknown, format!("the device's queue {id} can be polled")),
        (_, id, Some(count)) => {
            let helped = if count > 0 { Helped::Yes } else { Helped::No };
            let figure = format!(
                "it brought {count} datagrams to this network namespace, last by queue {id}"
            );
            (helped, figure)
        }
    };
    of(said(asked), helped, figure)
}

/// Datagrams that busy polling brought in this network namespace so far.
fn busy_polled() -> Option<u64> {
    busy_polled_of(&network_counters()?)
}

/// The same as the kernel's counters say it: a line of names, and below it one of values.
fn busy_polled_of(counters: &str) -> Option<u64> {
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let (_, value) = names.zip(values).find(|(name, _)| *name == "BusyPollRxPackets")?;
    value.parse().ok()
}

/// Where a road's own thread was to run, and does.
pub(crate) struct OwnThread {
    asked: Option<usize>,
    /// Where it may run, as it found.
    cores: OnceLock<Result<Vec<usize>, String>>,
    /// What a wake-up costs there, and anywhere.
    wakes: Option<[Duration; 2]>,
}

impl OwnThread {
    /// Measures what a core that is asked for brings, for less than a millisecond.
    pub(crate) fn new(asked: Option<usize>) -> Self {
        let wakes = asked.and_then(|core| wake_costs_on(core).ok());
        Self { asked, cores: OnceLock::new(), wakes }
    }

    /// The thread that calls is it.
    pub(crate) fn settle(&self) {
        let pinned = self.asked.map_or(Ok(()), pin_to_core);
        let cores = pinned.and_then(|()| allowed_cores()).map_err(|error| error.to_string());
        // It settles once.
        let _ = self.cores.set(cores);
    }

    pub(crate) fn setting(&self) -> SettingReport {
        let effective = match self.cores.get() {
            None => "none yet".to_owned(),
            Some(Err(error)) => format!("none ({error})"),
            Some(Ok(cores)) => match &cores[..] {
                [core] => core.to_string(),
                cores => format!("any of {}", cores.len()),
            },
        };
        let (helped, figure) = match (self.asked, self.wakes) {
            (None, _) => (Helped::No, "no core was named".to_owned()),
            (Some(_), None) => (Helped::Unknown, "it could not be measured".to_owned()),
            (Some(_), Some([there, anywhere])) => {
                let helped = if there < anywhere { Helped::Yes } else { Helped::No };
                let [there, anywhere] = [there, anywhere].map(|it| it.as_secs_f64() * 1e6);
                (helped, format!("a wake-up there took {there:.1} us, on any core {anywhere:.1}"))
            }
        };
        let asked = self.asked.map_or("any".to_owned(), |core| core.to_string());
        SettingReport { name: "core", asked, effective, helped, figure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_help_where_a_call_moves_several() {
        for (datagrams, calls, helped) in
            [(0, 0, Helped::Unknown), (7, 7, Helped::No), (64, 2, Helped::Yes)]
        {
            let report =
                TrainReport { datagrams_out: datagrams, calls_out: calls, ..Default::default() };
            assert_eq!(batches(64, &report).helped, helped);
            let report = TrainReport { datagrams_in: datagrams, finds: calls, ..report };
            assert_eq!(batches(64, &report).helped, helped);
        }
        let report = TrainReport { datagrams_out: 64, calls_out: 2, ..Default::default() };
        let text = batches(64, &report).to_string();
        assert!(text.contains("64 asked for, 64 in effect; it helped: 32.0 datagrams"), "{text}");
    }

    #[test]
    fn buffers_help_where_more_waited_than_the_usual_ones_hold() {
        let report = TrainReport {
            receive_buffer_bytes: 400,
            send_buffer_bytes: 300,
            queued_bytes_max: 101,
            finds: 1,
            dropped: 5,
            full_sends: 6,
            ..Default::default()
        };
        let told = buffers(200, &report, Some(100));
        assert_eq!(told.helped, Helped::Yes);
        let text = told.to_string();
        assert!(text.contains("200 asked for, 400 to receive and 300 to send in effect"), "{text}");
        assert!(text.contains("5 datagrams found no room, 6 calls none to send"), "{text}");
        assert_eq!(buffers(200, &report, Some(101)).helped, Helped::No);
        assert_eq!(buffers(200, &report, None).helped, Helped::Unknown);
        let idle = TrainReport { finds: 0, queued_bytes_max: 0, ..report };
        assert_eq!(buffers(200, &idle, Some(100)).helped, Helped::Unknown);
    }

    #[test]
    fn busy_polling_helps_where_it_brought_something() {
        let time = Some(Duration::from_micros(50));
        let came = TrainReport { datagrams_in: 1, ..Default::default() };
        let device = TrainReport { napi_id: 7, ..came };
        for (report, polled, helped, part) in [
            (TrainReport::default(), Some(0), Helped::Unknown, "no datagram came yet"),
            (came, Some(9), Helped::No, "a device without a queue to poll"),
            (device, Some(0), Helped::No, "it brought 0 datagrams"),
            (device, Some(9), Helped::Yes, "it brought 9 datagrams"),
            (device, None, Helped::Unknown, "queue 7 can be polled"),
        ] {
            let told = busy_poll(time, &report, polled);
            assert_eq!((told.helped, &*told.effective), (helped, "50µs"), "{told}");
            assert!(told.to_string().contains(part), "{told}");
        }
        let refused = TrainReport { busy_poll_errno: Some(1), ..device };
        let told = busy_poll(time, &refused, Some(9));
        assert_eq!((told.helped, &*told.effective), (Helped::No, "none"));
        assert!(told.figure.contains("without CAP_NET_ADMIN: Operation not permitted"), "{told}");
        assert_eq!(busy_poll(None, &device, Some(9)).figure, "it is off");
    }

    #[test]
    fn the_kernel_s_counters_are_found_by_name() {
        let counters = "TcpExt: A BusyPollRxPackets B\nTcpExt: 1 42 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(busy_polled_of(counters), Some(42));
        assert_eq!(busy_polled_of("TcpExt: A\nTcpExt: 1\n"), None);
        assert_eq!(busy_polled_of("TcpExt: BusyPollRxPackets"), None);
        assert_eq!(busy_polled_of("TcpExt: BusyPollRxPackets\nTcpExt: x\n"), None);
    }

    #[test]
    fn a_core_of_one_s_own_is_told_with_what_a_wake_up_takes_there() {
        let cores = allowed_cores().unwrap();
        let own = OwnThread::new(cores.last().copied());
        assert_eq!(own.setting().effective, "none yet");
        std::thread::scope(|scope| scope.spawn(|| own.settle()).join().unwrap());
        let told = own.setting();
        assert_eq!(told.effective, cores.last().unwrap().to_string());
        assert!(told.figure.contains("a wake-up there took "), "{told}");
        let free = OwnThread::new(None);
        std::thread::scope(|scope| scope.spawn(|| free.settle()).join().unwrap());
        assert_eq!((&*free.setting().asked, free.setting().helped), ("any", Helped::No));
    }
}
