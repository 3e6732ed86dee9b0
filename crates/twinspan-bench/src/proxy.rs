//! The project's own proxy beside a measurement, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::error::BenchError;

/// The proxy, and the file that it reads; both go when this does.
pub(crate) struct Proxy {
    process: Child,
    file: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and a file that is gone not removed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Proxy {
    /// Starts one with these conditions, which describe so many `ways`, and waits until all are open.
    /// Its file has a `name` of its own on this machine.
    pub(crate) fn start(name: &str, conditions: &str, ways: usize) -> Result<Self, BenchError> {
        let failed = |error| BenchError::Child { name: "proxy", error };
        let file = std::env::temp_dir().join(format!("{name}.toml"));
        std::fs::write(&file, conditions)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["proxy", "--conditions"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let process = command.spawn().map_err(failed)?;
        let mut proxy = Self { process, file };
        let ended = || BenchError::Ended { name: "proxy" };
        let mut out = BufReader::new(proxy.process.stdout.take().ok_or_else(ended)?);
        for _ in 0..ways {
            let mut line = String::new();
            out.read_line(&mut line)?;
            if !line.contains(" leads to ") {
                return Err(ended());
            }
        }
        Ok(proxy)
    }
}
