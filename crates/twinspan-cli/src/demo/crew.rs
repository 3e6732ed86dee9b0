//! The bots' process as its parent sees it: orders down its standard input, reports up its output.

use std::io::{self, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::plan::{Order, Plan, Report, read_line};

/// A way to give the bots orders, from any thread; orders go nowhere while there are no bots.
#[derive(Clone, Default)]
pub(super) struct Orders {
    input: Arc<Mutex<Option<ChildStdin>>>,
}

impl Orders {
    /// Sends one order. Bots that have ended need none, so a closed pipe is no error.
    pub(super) fn send(&self, order: Order) {
        let mut input = self.input();
        if let Some(pipe) = input.as_mut()
            && write_line(pipe, &order).is_err()
        {
            *input = None;
        }
    }

    fn input(&self) -> MutexGuard<'_, Option<ChildStdin>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bots' process.
pub(super) struct Crew {
    child: Child,
    orders: Orders,
    latest: Arc<Mutex<Latest>>,
    reader: Option<JoinHandle<()>>,
}

/// The newest report, and how many there were.
#[derive(Clone, Copy, Default)]
pub(super) struct Latest {
    pub(super) report: Report,
    pub(super) count: u64,
}

impl Crew {
    /// Starts the process and gives it its plan; from then on it takes `orders`.
    pub(super) fn start(plan: &Plan, orders: Orders) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bots").stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C on the terminal is the parent's to handle, so that the bots
        // are there until the drain has ended.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // Made before anything can fail, so that the process is ended and waited for whatever does.
        let mut crew = Self { child, orders, latest: Arc::default(), reader: None };
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err(io::Error::other("it has no standard streams"));
        };
        crew.reader = Some(thread::Builder::new().name("bots-reports".into()).spawn({
            let latest = Arc::clone(&crew.latest);
            move || read_reports(output, &latest)
        })?);
        write_line(&mut input, plan)?;
        *crew.orders.input() = Some(input);
        Ok(crew)
    }

    pub(super) const fn orders(&self) -> &Orders {
        &self.orders
    }

    pub(super) fn latest(&self) -> Latest {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.latest().report
    }

    fn end(&mut self) {
        *self.orders.input() = None;
        // A process that has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

fn read_reports(output: ChildStdout, latest: &Mutex<Latest>) {
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while let Ok(true) = read_line(&mut output, &mut line) {
        if let Ok(report) = serde_json::from_str(&line) {
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Latest { report, count: latest.count + 1 };
        }
    }
}
