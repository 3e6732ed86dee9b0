//! Another implementation: that of Hippolyzer 0.15, in a Python environment that `.ci/run` makes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value as Json;

/// The peer's process; it ends with this.
pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    /// Starts the peer with a script that lies beside these tests. Without a peer the caller's test
    /// is over, unless `TWINSPAN_REQUIRE_PEERS` is 1: then the test fails.
    pub(crate) fn open(script: &str) -> Option<Self> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or(home.join("../../target"), PathBuf::from);
        let python = std::env::var_os("TWINSPAN_HIPPOLYZER")
            .map_or(target.join("peers/hippolyzer/bin/python"), PathBuf::from);
        if !python.exists() {
            let reason = "skipped: this test needs hippolyzer 0.15.6 from PyPI in the environment \
                          target/peers/hippolyzer, as .ci/run puts it there";
            assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
            println!("{reason}");
            return None;
        }
        let mut process = Command::new(python)
            .arg(home.join("tests/it").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It writes of what it takes for odd.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Some(Self { process, requests, answers })
    }

    /// What the peer says to a line.
    pub(crate) fn ask(&mut self, request: &str) -> Json {
        writeln!(self.requests, "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Json = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{request}: {answer}");
        answer
    }
}
