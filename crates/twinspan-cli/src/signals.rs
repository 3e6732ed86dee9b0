//! Signals as flags: what asks for a good end, what ends at once, what asks for a new look at files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::error::CommandError;

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
