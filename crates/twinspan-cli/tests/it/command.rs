//! The built command as a child of the test, with its output line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for any machine; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a command ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The one JSON object that standard output is.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "not one line: {self:?}");
        let value: serde_json::Value = serde_json::from_str(&self.stdout).expect("JSON");
        assert!(value.is_object(), "{value}");
        value
    }

    /// Asserts the manners of a refusal: status 2, nothing on standard output, and one line on
    /// standard error that has all of `words`.
    pub(crate) fn assert_refusal(&self, words: &[&str]) {
        assert_eq!(self.code(), Some(2), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("twinspan: ") && self.stderr.ends_with('\n'), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {:?}", self.stderr);
        }
    }
}

/// One stream of a command, read by a thread of its own so that the command never waits for it.
struct Stream {
    lines: Receiver<String>,
    seen: String,
}

impl Stream {
    fn new(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                // A receiver that is gone ends the reading, which closes the pipe.
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { lines, seen: String::new() }
    }

    /// The next line; nothing at the end, when every process that holds the other end is gone.
    fn next(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push_str(&line);
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("silence after {:?}", self.seen),
        }
    }

    fn find(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        while let Some(line) = self.next() {
            if wanted(&line) {
                return line;
            }
        }
        panic!("the line never came: {:?}", self.seen);
    }

    fn rest(mut self) -> String {
        while self.next().is_some() {}
        self.seen
    }
}

/// A command that runs. A test that fails ends it.
pub(crate) struct Running {
    child: Child,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with_input(args, Stdio::null())
    }

    fn start_with_input(args: &[&str], input: Stdio) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_twinspan")).args(args), input)
    }

    fn start_by(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stdout = child.stdout.take().map(Stream::new);
        let stderr = child.stderr.take().map(Stream::new);
        Self { child, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output that `wanted` wants.
    pub(crate) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.stdout.as_mut().expect("a pipe").find(wanted)
    }

    /// The next line of standard error that `wanted` wants.
    pub(crate) fn error_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.stderr.as_mut().expect("a pipe").find(wanted)
    }

    /// Stops reading standard output, so that the next write to it finds nobody.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.id(), signal);
    }

    /// Waits until the command and everything that shares its streams has ended.
    pub(crate) fn end(mut self) -> Ended {
        let text = |stream: Option<Stream>| stream.map_or_else(String::new, Stream::rest);
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        Ended { status: self.child.wait().expect("a child"), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, and been waited for, long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal_to(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process's id");
    kill_process(process, signal).expect("a process of ours");
}

/// Runs the command to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Running::start(args).end()
}

/// The same with a variable of its environment, or without it.
pub(crate) fn run_in(variable: (&str, Option<&str>), args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinspan"));
    match variable {
        (name, Some(value)) => command.env(name, value),
        (name, None) => command.env_remove(name),
    };
    Running::start_by(command.args(args), Stdio::null()).end()
}

/// The same with bytes on its standard input, which then ends.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Ended {
    let mut running = Running::start_with_input(args, Stdio::piped());
    let mut pipe = running.child.stdin.take().expect("a pipe");
    // A command that has read enough may leave the rest.
    let _ = pipe.write_all(input);
    drop(pipe);
    running.end()
}

/// The second of a demo that a line tells of.
pub(crate) fn second_of(line: &str) -> Option<u32> {
    let (second, rest) = line.trim_start().split_once(' ')?;
    rest.starts_with("s ").then(|| second.parse().ok())?
}

/// Whether a line tells of this second of a demo or, on a machine that left it out, a later one.
pub(crate) fn tells_second(second: u32) -> impl Fn(&str) -> bool {
    move |line| second_of(line) >= Some(second)
}

#[test]
fn a_flag_that_would_change_nothing_is_refused() {
    for (args, flag) in [
        (&["sim", "run", "--scenario", "hostile", "--cores", "2"][..], "--cores"),
        (&["sim", "run", "--scenario", "hostile", "--seconds", "1"], "--seconds"),
        (&["sim", "run", "--scenario", "circuit", "--record", "file"], "--record"),
        (&["sim", "run", "--scenario", "circuit", "--cores", "2"], "--cores"),
        (&["sim", "run", "--datagrams", "1000"], "--datagrams"),
        (&["sim", "run", "--real-ciphers"], "--real-ciphers"),
        (&["bench", "world", "--scenario", "loss", "--relay"], "--relay"),
        (&["bench", "world", "--scenario", "loss", "--flows", "2"], "--flows"),
        (&["bench", "world", "--scenario", "loss", "--cipher", "aes128"], "--cipher"),
        (&["bench", "world", "--scenario", "loss", "--world", "off"], "--world off"),
        (&["bench", "world", "--scenario", "loss", "--no-floor"], "--no-floor"),
        (&["bench", "world", "--scenario", "loss", "--players", "101"], "--players 100"),
        (&["bench", "world", "--state-bytes", "100"], "--state-bytes"),
        (&["bench", "world", "--seed", "2"], "--seed"),
        (&["bench", "world", "--relay", "--flows", "65"], "--flows 64"),
    ] {
        run(args).assert_refusal(&[flag]);
    }
}
