//! Signals as flags: what asks for a good end, what ends at once, what asks for a new look at files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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

/// The signal that asks a server to read its files again.
pub(crate) struct Reloads {
    asked: Arc<AtomicBool>,
}

impl Reloads {
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let asked = Arc::new(AtomicBool::new(false));
        flag::register(SIGHUP, Arc::clone(&asked)).map_err(CommandError::Signals)?;
        Ok(Self { asked })
    }

    /// Whether it came since the last call.
    pub(crate) fn take(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}
