//! The bots' process as its parent sees it: orders down its standard input, reports up its output.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Order, Plan, Report};

/// A way to give the bots orders, from any thread.
#[derive(Clone)]
pub(super) struct Orders {
    input: Arc<Mutex<Option<ChildStdin>>>,
}

impl Orders {
    /// Sends one order. Bots that have ended need none, so a closed pipe is no error.
    pub(super) fn send(&self, order: Order) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = input.as_mut()
            && write_line(pipe, &order).is_err()
        {
            *input = None;
        }
    }
}

/// The bots' process.
pub(super) struct Crew {
    child: Child,
    orders: Orders,
    report: Arc<Mutex<Report>>,
    reader: Option<JoinHandle<()>>,
}

impl Crew {
    /// Starts the process and gives it its plan.
    pub(super) fn start(plan: &Plan) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bots").stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C on the terminal is the parent's to handle, so that the bots
        // are there until the drain has ended.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let report = Arc::new(Mutex::new(Report::default()));
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the process has no standard streams"));
        };
        write_line(&mut input, plan)?;
        let reader = thread::Builder::new().name("bots-reports".into()).spawn({
            let report = Arc::clone(&report);
            move || read_reports(output, &report)
        })?;
        let orders = Orders { input: Arc::new(Mutex::new(Some(input))) };
        Ok(Self { child, orders, report, reader: Some(reader) })
    }

    pub(super) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// The newest report.
    pub(super) fn report(&self) -> Report {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the process to end by itself, ends it when it takes too long, and returns its last
    /// report.
    pub(super) fn finish(&mut self, time_max: Duration) -> Report {
        let until = Instant::now() + time_max;
        while !self.has_ended() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        self.end();
        self.report()
    }

    fn end(&mut self) {
        *self.orders.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.reader.is_some() {
            // A process that has ended already cannot be killed, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(reader) = self.reader.take() {
            // The reader ends with the pipe; had it panicked, the report is as it left it.
            let _ = reader.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
    }
}

fn write_line(out: &mut ChildStdin, line: &impl serde::Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()
}

fn read_reports(output: ChildStdout, newest: &Mutex<Report>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        if let Ok(report) = serde_json::from_str(&line) {
            *newest.lock().unwrap_or_else(PoisonError::into_inner) = report;
        }
    }
}
