//! Light ends of a session for load generators and floors: the real packets at a fraction of the work.
//!
//! A [`LoadClient`] continues a session that a real [`ClientSession`] set up. It seals what it is
//! given, acknowledges what arrives by the numbers in clear headers, and opens only what it is asked
//! to. It resends nothing and grants no further credit, so a server can send it 262,144 bytes of
//! reliable messages (128 of them for each message's overhead) and no more.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use twinspan_core::aead::{AeadSuite, Cipher, TAG_BYTES};
use twinspan_core::number::{ReplayWindow, Sighting, widen};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, StreamId};

use crate::client::ClientSession;
use crate::config::{Common, SessionConfig};
use crate::connection::{LoadParts, SKIP_LEAST, SKIP_SPREAD};
use crate::frames::{CONTROL_ONCE, Control, Text};
use crate::header::{Form, HEADER_BYTES, Header, flag, parse};
use crate::identity::sha256;
use crate::keys::Keys;
use crate::noise::{Secret, Split};
use crate::protection::{DirectionKey, Role};
use crate::reason::CloseReason;

/// Bytes of the ack blocks that a light client writes: largest, delay, count, one byte of bitmap.
const ACK_BYTES: usize = 8;

/// The bits of a channel byte that name its stream.
const STREAM_BITS: u8 = 0x3f;

/// Bytes that a packet has beside its message and ack block.
pub const LOAD_OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// What a light client made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadNote {
    /// It is noted by its header alone; its one frame is in this channel.
    Noted(Channel),
    /// It was opened: it is a bundle, or of a channel that matters.
    Opened,
    /// It belongs to another session, came before, or does not authenticate.
    Dropped,
    /// It says that the session is over.
    Closed(CloseReason),
}

/// The client's end of a session, with as little behind it as the server can bear.
pub struct LoadClient {
    common: Arc<Common>,
    keys: Keys,
    /// The id by which the server addresses this client.
    id: u32,
    /// The server's id for the session.
    server_id: u32,
    next_number: u64,
    skip_at: u64,
    skips: Option<Stream>,
    /// The largest number received; 0 before the first.
    largest: u64,
    /// Bit `i`: number `largest - 1 - i` was received.
    before: u64,
    /// When the largest number was received.
    largest_at: Timestamp,
    ack_wanted: bool,
    /// One past the largest number of the reliable messages seen, per stream 0 to 3.
    reliable: [u16; 4],
}

impl LoadClient {
    /// Takes over a session that is up.
    ///
    /// # Errors
    /// The session itself while it is not connected.
    pub fn take_over(now: Timestamp, session: ClientSession) -> Result<Self, Box<ClientSession>> {
        let id = session.connection_id();
        let parts = session.into_load_parts()?;
        let LoadParts { common, keys, peer_id, next_number, skip_at, skips, replay } = parts;
        let largest = replay.largest().unwrap_or(0);
        let before = (0..64_u64).filter(|back| {
            let number = largest.checked_sub(1 + back).filter(|number| *number > 0);
            number.is_some_and(|number| replay.contains(number))
        });
        Ok(Self {
            before: before.fold(0, |bits, back| bits | 1 << back),
            common,
            keys,
            id,
            server_id: peer_id,
            next_number,
            skip_at,
            skips,
            largest,
            largest_at: now,
            ack_wanted: largest > 0,
            // The session that was taken over had the server's welcome.
            reliable: [0; 4],
        })
    }

    /// A client whose keys come from a `secret` that a [`BareConnection`] knows too, without a
    /// handshake; `None` when the suite has no such cipher.
    pub fn with_secret(
        suites: &Arc<dyn AeadSuite>,
        cipher: Cipher,
        secret: &[u8; 32],
        id: u32,
        server_id: u32,
    ) -> Option<Self> {
        let common = Common::new(SessionConfig::default(), Arc::clone(suites));
        let now = Timestamp::START;
        Some(Self {
            keys: Keys::new(now, common.means(), cipher, &split(secret), Role::Client)?,
            common,
            id,
            server_id,
            next_number: 1,
            skip_at: 0,
            skips: None,
            largest: 0,
            before: 0,
            largest_at: Timestamp::START,
            ack_wanted: false,
            reliable: [0; 4],
        })
    }

    /// Writes and seals one packet at the front of `room`, with an ack block when one is wanted and
    /// `message`, in `channel`, which has no numbers. Returns its length; `None` without room or
    /// key.
    pub fn seal(
        &mut self,
        now: Timestamp,
        channel: Channel,
        message: &[u8],
        room: &mut [u8],
    ) -> Option<usize> {
        debug_assert!(!channel.delivery.is_numbered(), "its frames would need numbers");
        let ack_bytes = if self.ack_wanted { ACK_BYTES } else { 0 };
        let len = HEADER_BYTES + ack_bytes + message.len() + TAG_BYTES;
        let packet = room.get_mut(..len)?;
        let number = self.take_number();
        let means = self.common.means();
        let phase = self.keys.advance(means, now, number);
        let flags = if self.ack_wanted { flag::ACK | phase } else { phase };
        let header =
            Header { connection: self.server_id, channel: channel.to_byte(), flags, number };
        let (head, text) = packet.split_first_chunk_mut::<HEADER_BYTES>()?;
        *head = header.to_bytes();
        let text = if self.ack_wanted {
            let (ack, text) = text.split_first_chunk_mut::<ACK_BYTES>()?;
            *ack = self.ack_block(now);
            self.ack_wanted = false;
            text
        } else {
            text
        };
        text.get_mut(..message.len())?.copy_from_slice(message);
        self.keys.seal(self.common.means(), number, packet)?;
        Some(len)
    }

    /// Wishes for the memory that [`seal`](Self::seal) needs beside this value itself.
    pub fn prefetch_to_seal(&self) {
        self.keys.prefetch_to_seal();
    }

    fn ack_block(&self, now: Timestamp) -> [u8; ACK_BYTES] {
        let [l0, l1, l2, l3] = (self.largest as u32).to_le_bytes();
        let units = now.since(self.largest_at).as_micros() / 16;
        let [d0, d1] = u16::try_from(units).unwrap_or(u16::MAX).to_le_bytes();
        [l0, l1, l2, l3, d0, d1, 1, self.before as u8]
    }

    fn take_number(&mut self) -> u64 {
        if let Some(skips) = self.skips.as_mut().filter(|_| self.next_number == self.skip_at) {
            self.next_number += 1;
            self.skip_at = self.next_number + SKIP_LEAST + skips.below(SKIP_SPREAD);
        }
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Notes a packet from the server. One that holds a single unnumbered message is not opened
    /// unless `open` or the keys call for it; all others are, so that a CLOSE and reliable messages
    /// are seen. `on_message` is told of the messages of packets that were opened, whole ones and
    /// pieces, repeated ones too.
    pub fn handle(
        &mut self,
        now: Timestamp,
        bytes: &mut [u8],
        open: bool,
        on_message: &mut dyn FnMut(Channel, &[u8]),
    ) -> LoadNote {
        let Ok(Form::Sealed(header)) = parse(bytes) else { return LoadNote::Dropped };
        if header.connection != self.id || self.has(header.number) {
            return LoadNote::Dropped;
        }
        let channel = Channel::from_byte(header.channel);
        let alone = header.flags & (flag::BUNDLE | flag::FRAG) == 0
            && header.channel != 0
            && !channel.delivery.is_numbered();
        if alone && !open && !self.keys.wants_open(header.flags) {
            self.note(now, header.number);
            return LoadNote::Noted(channel);
        }
        let means = self.common.means();
        let Ok(text) = self.keys.open(means, now, || Duration::ZERO, &header, bytes) else {
            return LoadNote::Dropped;
        };
        let (closed, acked) = look_into(&header, text, &mut self.reliable, on_message);
        if let Some(low) = acked {
            let largest = widen(u64::from(low), 32, self.next_number);
            self.keys.on_acked(largest);
        }
        self.note(now, header.number);
        closed.map_or(LoadNote::Opened, LoadNote::Closed)
    }

    fn has(&self, number: u64) -> bool {
        match self.largest.checked_sub(number) {
            None => false,
            Some(0) => true,
            // What is too old to tell is taken for a repeat.
            Some(back) => back > 64 || self.before >> (back - 1) & 1 == 1,
        }
    }

    fn note(&mut self, now: Timestamp, number: u64) {
        if number > self.largest {
            let ahead = number - self.largest;
            let known = if self.largest == 0 { 0 } else { 1_u64 };
            self.before = match ahead {
                1..64 => (self.before << ahead) | known << (ahead - 1),
                64 => known << 63,
                _ => 0,
            };
            self.largest = number;
            self.largest_at = now;
        } else if let Some(back) = self.largest.checked_sub(number + 1).filter(|back| *back < 64) {
            self.before |= 1 << back;
        }
        self.ack_wanted = true;
    }

    /// Messages on the reliable `channel`, of streams 0 to 3, that the server has sent so far, by the
    /// largest number seen: all of them when nothing is under way.
    pub fn reliable_seen(&self, channel: Channel) -> u64 {
        let stream = usize::from(channel.to_byte() & STREAM_BITS);
        self.reliable.get(stream).copied().map_or(0, u64::from)
    }
}

/// Looks through a packet for a CLOSE, the largest number that it acknowledges (its low bits), and
/// the numbers of reliable messages.
fn look_into(
    header: &Header,
    text: &[u8],
    reliable: &mut [u16; 4],
    on_message: &mut dyn FnMut(Channel, &[u8]),
) -> (Option<CloseReason>, Option<u32>) {
    let Ok((ack, mut text)) = Text::parse(header, text) else {
        return (Some(CloseReason::ProtocolViolation), None);
    };
    let acked = ack.map(|block| block.largest_low);
    loop {
        let frame = match text.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return (None, acked),
            Err(_) => return (Some(CloseReason::ProtocolViolation), acked),
        };
        if frame.channel == CONTROL_ONCE
            && let Ok(Control::Close { reason }) = Control::parse(frame.channel, frame.body)
        {
            return (Some(CloseReason::from_wire(reason)), acked);
        }
        let stream = usize::from(frame.channel.to_byte() & STREAM_BITS);
        if frame.channel.delivery.is_reliable()
            && let Some(seen) = reliable.get_mut(stream)
        {
            *seen = (*seen).max(frame.number.saturating_add(1));
        }
        if frame.channel.stream != StreamId::CONTROL {
            on_message(frame.channel, frame.body);
        }
    }
}

impl fmt::Debug for LoadClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The server's end of a [`LoadClient`] with a shared secret: keys, replay window, numbers, and
/// nothing else. What a server cannot do without, to compare one with.
pub struct BareConnection {
    seal: DirectionKey,
    open: DirectionKey,
    client_id: u32,
    replay: ReplayWindow,
    next_number: u64,
}

impl BareConnection {
    /// The other end of [`LoadClient::with_secret`] with the same cipher and secret, for the client
    /// that is addressed by `client_id`.
    pub fn with_secret(
        suite: &dyn AeadSuite,
        cipher: Cipher,
        secret: &[u8; 32],
        client_id: u32,
    ) -> Option<Self> {
        let Split { client_to_server, server_to_client } = split(secret);
        Some(Self {
            seal: DirectionKey::new(suite, cipher, &server_to_client)?,
            open: DirectionKey::new(suite, cipher, &client_to_server)?,
            client_id,
            replay: ReplayWindow::default(),
            next_number: 1,
        })
    }

    /// Wishes for the memory that [`open`](Self::open) needs, as the real server does.
    pub fn prefetch_to_open(&self) {
        self.open.prefetch();
    }

    /// Wishes for the memory that [`seal`](Self::seal) needs.
    pub fn prefetch_to_seal(&self) {
        self.seal.prefetch();
    }

    /// Opens a packet in place: window, tag, window again. `None` when it is dropped.
    pub fn open<'a>(&mut self, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let Ok(Form::Sealed(header)) = parse(bytes) else { return None };
        if self.replay.look(header.number) != Sighting::Fresh {
            return None;
        }
        let text = self.open.open(header.number, bytes)?;
        self.replay.commit(header.number);
        Some(text)
    }

    /// Seals what stands behind the place of the header in `packet`, whose last bytes are the tag's;
    /// the packet's one frame is in `channel`.
    pub fn seal(&mut self, channel: Channel, packet: &mut [u8]) {
        let number = self.next_number;
        self.next_number += 1;
        let channel = channel.to_byte();
        let header = Header { connection: self.client_id, channel, flags: 0, number };
        if let Some(head) = packet.first_chunk_mut() {
            *head = header.to_bytes();
            self.seal.seal(number, packet);
        }
    }
}

impl fmt::Debug for BareConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareConnection").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

fn split(secret: &[u8; 32]) -> Split {
    Split {
        client_to_server: Secret::new(sha256(&[b"twinspan load up", secret])),
        server_to_client: Secret::new(sha256(&[b"twinspan load down", secret])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::CryptoSuite;
    use twinspan_reliable::Delivery;

    const STATE: Channel = Channel::new(Delivery::Unreliable, StreamId::STATE);
    const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);

    fn ends() -> (LoadClient, BareConnection) {
        let suite: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::AES_FIRST);
        let client = LoadClient::with_secret(&suite, Cipher::Aes128Gcm, &[7; 32], 5, 9);
        let server = BareConnection::with_secret(suite.as_ref(), Cipher::Aes128Gcm, &[7; 32], 5);
        (client.unwrap(), server.unwrap())
    }

    fn state(server: &mut BareConnection) -> Vec<u8> {
        let mut packet = vec![1; LOAD_OVERHEAD_BYTES + 20];
        server.seal(STATE, &mut packet);
        packet
    }

    #[test]
    fn acks_name_what_arrived_and_nothing_else() {
        let (mut client, mut server) = ends();
        let mut states: Vec<_> = (0..5).map(|_| state(&mut server)).collect();
        let now = Timestamp::START.after(Duration::from_millis(1));
        // Number 3 is lost, number 2 comes last and twice.
        for index in [0, 3, 4, 1] {
            let note = client.handle(now, &mut states[index], false, &mut |_, _| {});
            assert_eq!(note, LoadNote::Noted(STATE));
        }
        assert_eq!(client.handle(now, &mut states[1], false, &mut |_, _| {}), LoadNote::Dropped);
        let mut room = [0; 100];
        let later = now.after(Duration::from_micros(160));
        let len = client.seal(later, INPUT, b"input", &mut room).unwrap();
        let text = server.open(&mut room[..len]).unwrap();
        // Largest 5, 10 units of delay; 4 is bit 0, 3 is missing, 2 and 1 follow.
        assert_eq!(text, [5, 0, 0, 0, 10, 0, 1, 0b1101, b'i', b'n', b'p', b'u', b't']);
        let len = client.seal(later, INPUT, b"input", &mut room).unwrap();
        assert_eq!(server.open(&mut room[..len]).unwrap(), b"input");
        assert!(server.open(&mut room[..len]).is_none(), "it came before");
    }

    #[test]
    fn a_packet_is_opened_when_asked_and_then_must_authenticate() {
        let (mut client, mut server) = ends();
        let mut packet = state(&mut server);
        assert_eq!(
            client.handle(Timestamp::START, &mut packet.clone(), true, &mut |_, _| {}),
            LoadNote::Opened
        );
        let mut forged = state(&mut server);
        forged[20] ^= 1;
        assert_eq!(
            client.handle(Timestamp::START, &mut forged, true, &mut |_, _| {}),
            LoadNote::Dropped
        );
        assert_eq!(
            client.handle(Timestamp::START, &mut packet, true, &mut |_, _| {}),
            LoadNote::Dropped
        );
    }

    #[test]
    fn a_packet_of_another_session_is_dropped() {
        let (mut client, _) = ends();
        let suite = CryptoSuite::AES_FIRST;
        let other = BareConnection::with_secret(&suite, Cipher::Aes128Gcm, &[7; 32], 6);
        let mut packet = state(&mut other.unwrap());
        assert_eq!(
            client.handle(Timestamp::START, &mut packet, false, &mut |_, _| {}),
            LoadNote::Dropped
        );
    }
}
