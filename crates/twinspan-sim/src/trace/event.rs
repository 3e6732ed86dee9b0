//! One event of a trace, as it is shown to who watches.

use std::fmt;

use twinspan_core::time::Timestamp;

use super::TraceKind;

/// What happened, in words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventKind(pub(super) TraceKind);

/// One event, with all that the trace hash is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent<'a> {
    /// Its number, counted from 0.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To what, by [`EventKind::fields`].
    pub ids: [u64; 4],
    /// Further values, where the kind has any.
    pub values: &'a [u64],
    /// The trace hash with this event.
    pub hash: u64,
}

impl EventKind {
    /// What the [`ids`](TraceEvent::ids) of such an event are; empty for one that says nothing.
    pub const fn fields(self) -> [&'static str; 4] {
        match self.0 {
            TraceKind::HostStart => ["host", "ip_high", "ip_low", "name"],
            TraceKind::HostStop => ["host", "", "", ""],
            TraceKind::Spawn => ["host", "name", "ordinal", "task"],
            TraceKind::Poll | TraceKind::TaskEnd | TraceKind::Abort => ["task", "", "", ""],
            TraceKind::TimerFired => ["timer", "host", "", ""],
            TraceKind::Bind
            | TraceKind::BindRefused
            | TraceKind::Listen
            | TraceKind::ListenRefused => ["host", "ip_high", "ip_low", "port"],
            TraceKind::Unbind | TraceKind::SendReady | TraceKind::ReceiveRetry => {
                ["socket", "", "", ""]
            }
            TraceKind::Send => ["flow", "number", "bytes", "payload"],
            TraceKind::Deliver => ["flow", "number", "socket", "payload"],
            TraceKind::Drop => ["flow", "number", "cause", "payload"],
            TraceKind::Partition => ["from_high", "from_low", "to_high", "to_low"],
            TraceKind::Heal => ["", "", "", ""],
            TraceKind::Conditions => ["link", "values", "origin", ""],
            TraceKind::Note => ["note", "values", "origin", ""],
            TraceKind::SendRefused => ["socket", "values", "origin", ""],
            TraceKind::Unlisten => ["listener", "", "", ""],
            TraceKind::Connect => ["stream", "ip_high", "ip_low", "ports"],
            TraceKind::Accept => ["stream", "end", "", ""],
            TraceKind::Piece => ["stream", "number_and_kind", "first", "second"],
            TraceKind::PieceArrived => ["stream", "number", "payload", ""],
            TraceKind::PieceLost => ["stream", "number", "cause", ""],
            TraceKind::StreamRead | TraceKind::StreamWrite => ["stream", "bytes", "", ""],
            TraceKind::StreamShut | TraceKind::StreamClosed => ["stream", "", "", ""],
            TraceKind::StreamTimer => ["stream", "resends", "", ""],
            TraceKind::Resolve => ["name", "host", "lookup", ""],
            TraceKind::Offload => ["host", "name", "", ""],
            TraceKind::WallStep => ["host", "by_ns", "", ""],
            TraceKind::Hop => ["link_name", "flow", "number", ""],
            TraceKind::HopSend => ["link", "flow", "number", "bytes"],
            TraceKind::HopDrop => ["link_and_cause", "flow", "number", ""],
            TraceKind::Topology => ["change", "name", "", ""],
            TraceKind::Segment => ["stream", "number", "bytes", "payload"],
            TraceKind::SegmentArrived => ["stream", "number", "payload", "marked"],
            TraceKind::SegmentLost => ["stream", "number", "cause", ""],
            TraceKind::SegmentTimer => ["stream", "state", "", ""],
            TraceKind::TcpMode => ["ends", "mode", "", ""],
            TraceKind::Disk => ["host", "file", "call_and_failed", "what"],
            TraceKind::Topic => ["topic", "member", "number", "payload"],
            TraceKind::Marked => ["flow", "number", "socket", ""],
            TraceKind::RunRefused => ["socket", "number", "", ""],
            #[allow(unreachable_patterns, reason = "kinds that are added later")]
            _ => ["a", "b", "c", "d"],
        }
    }
}

/// As words: `timer fired`.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.0);
        let mut words = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !words.is_empty() {
                words.push(' ');
            }
            words.extend(letter.to_lowercase());
        }
        f.pad(&words)
    }
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// On one line, complete: two events are equal when these lines are.
impl fmt::Display for TraceEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, kind, ids, values, hash } = self;
        write!(f, "{number} at {} ns {hash:016x} {kind}", at.as_nanos())?;
        for (field, id) in kind.fields().iter().zip(ids).filter(|(field, _)| !field.is_empty()) {
            write!(f, " {field}={id:x}")?;
        }
        for value in *values {
            write!(f, " {value:x}")?;
        }
        Ok(())
    }
}
