//! Signals as flags: what asks for a good end, what ends at once, what asks for a new look at files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::error::CommandError;

/// How long what was read again may take to be in use before that is said.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until something new is in use, and says in how far: who reads the line goes on with the next
/// step, so it must not come first.
pub(crate) fn when_taken(is_taken: impl Fn() -> bool) -> &'static str {
    let until = Instant::now() + TAKEN_WITHIN;
    while !is_taken() {
        if Instant::now() > until {
            return "read, and in use once a busy thread takes it";
        }
        thread::sleep(LOOK);
    }
    "in use"
}

/// Interrupts: the first one asks for a drain, a second one ends the program at once.
pub(crate) struct Signals {
    caught: Arc<AtomicBool>,
}

impl Signals {
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let caught = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the second registration sets what the first one looks at.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&caught))
                .and_then(|_| flag::register(signal, Arc::clone(&caught)))
                .map_err(CommandError::Signals)?;
        }
        Ok(Self { caught })
    }

    pub(crate) fn caught(&self) -> bool {
        self.caught.load(Ordering::Relaxed)
    }
}

/// A signal that asks a running server for something.
pub(crate) struct Request {
    asked: Arc<AtomicBool>,
}

impl Request {
    /// To read its files again: SIGHUP.
    pub(crate) fn reload() -> Result<Self, CommandError> {
        Self::catch(SIGHUP)
    }

    /// To let go of the keys before the present ones: SIGUSR1.
    pub(crate) fn retire() -> Result<Self, CommandError> {
        Self::catch(SIGUSR1)
    }

    fn catch(signal: i32) -> Result<Self, CommandError> {
        let asked = Arc::new(AtomicBool::new(false));
        flag::register(signal, Arc::clone(&asked)).map_err(CommandError::Signals)?;
        Ok(Self { asked })
    }

    /// Whether it came since the last call.
    pub(crate) fn take(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}
