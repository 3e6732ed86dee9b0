//! Frames as they pass between the engine and the protocol that puts them into packets.

use crate::Channel;

/// Which piece of a message a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Index of this piece, from 0.
    pub index: u8,
    /// Index of the last piece; at most 63.
    pub last: u8,
}

/// A frame that may travel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutFrame<'a> {
    /// Where it belongs.
    pub channel: Channel,
    /// Message number, of which the low 16 bits travel; `None` for the unreliable class.
    pub number: Option<u64>,
    /// Which piece this is; `None` when the frame is the whole message.
    pub fragment: Option<Fragment>,
    /// With [`ResendIdentity::SameNumber`](crate::ResendIdentity::SameNumber): the packet number
    /// under which the frame must travel again, alone in its packet.
    pub resend_of: Option<u64>,
    /// The payload.
    pub body: &'a [u8],
}

/// A frame that arrived in a packet that authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFrame<'a> {
    /// Where it belongs.
    pub channel: Channel,
    /// The 16 bits of the message number that travelled; 0 for the unreliable class.
    pub number: u16,
    /// Which piece this is; `None` when the frame is the whole message.
    pub fragment: Option<Fragment>,
    /// The payload.
    pub body: &'a [u8],
}
