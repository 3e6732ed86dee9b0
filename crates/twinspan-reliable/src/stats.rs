//! Counters of the two halves.

/// What a [`Sender`](crate::Sender) did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SenderStats {
    /// Packets that left, resends under the same number included.
    pub packets_sent: u64,
    /// Bytes of them.
    pub packet_bytes_sent: u64,
    /// Packets that the peer acknowledged.
    pub packets_acked: u64,
    /// Bytes of them.
    pub packet_bytes_acked: u64,
    /// Packets given up as lost: overtaken or timed out.
    pub packets_lost: u64,
    /// Reliable messages queued.
    pub messages_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Reliable messages that the peer has whole.
    pub messages_acked: u64,
    /// Messages of the unreliable classes queued.
    pub loose_sent: u64,
    /// Messages of the unreliable classes dropped because too many waited.
    pub loose_dropped: u64,
    /// Queued sequenced messages dropped because a newer one came before they left.
    pub loose_replaced: u64,
    /// Reliable frames that left for the first time.
    pub frames_sent: u64,
    /// Reliable frames that left again.
    pub frames_resent: u64,
    /// Packets given up as lost that were acknowledged after all.
    pub spurious: u64,
    /// Resend timeouts that fired.
    pub timeouts: u64,
}

/// What a [`Receiver`](crate::Receiver) did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Reliable messages delivered.
    pub reliable_delivered: u64,
    /// Bytes of them.
    pub reliable_bytes: u64,
    /// Messages of the unreliable classes delivered.
    pub loose_delivered: u64,
    /// Bytes of them.
    pub loose_bytes: u64,
    /// Reliable frames that had arrived before.
    pub duplicates: u64,
    /// Sequenced messages or fragments older than what was delivered, and repeats.
    pub stale: u64,
    /// Ordered messages that had to wait for an older one.
    pub held: u64,
    /// Incomplete sequenced messages whose deadline passed.
    pub partial_expired: u64,
    /// Incomplete sequenced messages dropped for newer ones or for want of memory.
    pub partial_evicted: u64,
    /// Frames refused because the peer broke the protocol.
    pub violations: u64,
}
