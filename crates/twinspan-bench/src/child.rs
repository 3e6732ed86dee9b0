//! A process of a measurement as its parent sees it.

use std::io::{self, BufReader};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BenchError;
use crate::lines::{read_line, write_line};

/// A process that runs a hidden command of this very program and speaks in lines.
///
/// It is ended when this is dropped.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
}

impl Child {
    /// Starts `twinspan bench NAME`.
    ///
    /// # Errors
    /// [`BenchError::Child`] with what the operating system says.
    pub fn start(name: &'static str) -> Result<Self, BenchError> {
        Self::start_in(name, &[])
    }

    /// The same by another program, such as one that makes a namespace: its words stand before.
    ///
    /// # Errors
    /// [`BenchError::Child`] with what the operating system says.
    pub fn start_in(name: &'static str, by: &[&str]) -> Result<Self, BenchError> {
        let failed = |error| BenchError::Child { name, error };
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = match by {
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            [] => Command::new(program),
        };
        command.args(["bench", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            // It was spawned with both.
            return Err(failed(io::Error::other("it has no standard streams")));
        };
        Ok(Self { name, process, input, output: BufReader::new(output), line: String::new() })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// [`BenchError::Child`] with what the operating system says.
    pub fn tell(&mut self, value: &impl Serialize) -> Result<(), BenchError> {
        let name = self.name;
        write_line(&mut self.input, value).map_err(|error| BenchError::Child { name, error })
    }

    /// Waits for its next word.
    ///
    /// # Errors
    /// [`BenchError::Ended`] when it has none, [`BenchError::Child`] when it is not to be understood.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        let name = self.name;
        let failed = |error| BenchError::Child { name, error };
        if !read_line(&mut self.output, &mut self.line).map_err(failed)? {
            return Err(BenchError::Ended { name });
        }
        serde_json::from_str(&self.line).map_err(|error| failed(error.into()))
    }

    /// Kills it, at once, and waits until it is gone. What it said before can still be heard.
    pub fn kill(&mut self) {
        // A process that has ended already cannot be killed, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
