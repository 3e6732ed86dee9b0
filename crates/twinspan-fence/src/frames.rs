//! Runs a closure behind the fence and turns what the handlers noted into names.

use std::ffi::c_void;
use std::panic::resume_unwind;

use crate::calls::{describe, filter};
use crate::sys::{Ledger, RawLeak, within};
use crate::{FenceError, Leak, STACK_BYTES};

/// The file whose frames are the outermost of interest: below them is the thread's own.
const OUTERMOST: &str = "twinspan-fence/src/sys.rs";

pub(crate) fn guard<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, FenceError> {
    let refused = |error: seccompiler::Error| FenceError::Refused(error.to_string());
    let filter = filter().map_err(refused)?;
    let ledger = Ledger::new();
    let ended = within(&ledger, &filter, STACK_BYTES, body).map_err(FenceError::Thread)?;
    let (leaks, count) = ledger.read();
    if count > 0 {
        // What it returned, or why it panicked, is void.
        drop(ended);
        return Err(FenceError::Leaked { leaks: leaks.iter().map(named).collect(), count });
    }
    match ended {
        Ok(outcome) => outcome.map_err(FenceError::Refused),
        Err(panic) => resume_unwind(panic),
    }
}

/// A leak with names for numbers.
fn named(leak: &RawLeak) -> Leak {
    let (name, what) = describe(leak.call);
    let call = name.map_or_else(|| format!("call {}", leak.call), str::to_owned);
    let all = leak.frames.get(..leak.frames_len).unwrap_or_default();
    // Those before it are the handler's own.
    let from = all.iter().position(|address| *address == leak.at).unwrap_or(0);
    let mut frames = Vec::new();
    let mut by = None;
    for address in all.iter().skip(from) {
        if !resolve(*address, &mut frames, &mut by) {
            break;
        }
    }
    Leak { call, what, by, frames }
}

/// Adds the functions at an address, more than one where some were inlined; false at the outermost
/// that is of interest.
fn resolve(address: usize, frames: &mut Vec<String>, by: &mut Option<String>) -> bool {
    let mut goes_on = true;
    // The address is where the call returns to: the call is before it.
    backtrace::resolve(address.saturating_sub(1) as *mut c_void, |symbol| {
        let Some(name) = symbol.name() else { return };
        // Without the hash at the end.
        let name = format!("{name:#}");
        let file = symbol.filename().map(|file| file.display().to_string());
        goes_on &= !file.as_ref().is_some_and(|file| file.ends_with(OUTERMOST));
        if !goes_on {
            return;
        }
        let is_own = file.as_ref().is_some_and(|file| is_own(file));
        let frame = match file.zip(symbol.lineno()) {
            Some((file, line)) => format!("{name} at {file}:{line}"),
            None => name,
        };
        if is_own && by.is_none() {
            *by = Some(frame.clone());
        }
        frames.push(frame);
    });
    goes_on
}

/// Whether a source file is neither the standard library's, nor the system's, nor a registry's.
fn is_own(file: &str) -> bool {
    let foreign = ["/rustc/", "./", "../"].iter().any(|start| file.starts_with(start));
    !foreign && !file.contains("/registry/src/") && !file.contains("/rustlib/src/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_known() {
        assert!(is_own("/somewhere/crates/game/src/tick.rs"));
        assert!(is_own("src/tick.rs"));
        assert!(!is_own("/rustc/59807616/library/std/src/time.rs"));
        assert!(!is_own("./malloc/arena.c"));
        assert!(!is_own("/x/.cargo/registry/src/index/rustix-1.1.6/src/lib.rs"));
    }
}
