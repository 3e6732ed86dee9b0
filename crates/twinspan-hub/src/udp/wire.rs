//! What a UDP road moves its datagrams with: a socket of this machine, or one of a simulation.

use std::io;
use std::net::SocketAddr;

use twinspan_core::time::Timestamp;
use twinspan_net::TrainSocket;

/// A socket for trains of datagrams, and the clock beside it. It never waits.
pub(crate) trait Wire {
    /// The time of the machine above.
    fn now(&self) -> Timestamp;

    /// Whether no more datagrams can be pushed before some are sent.
    fn is_full(&self) -> bool;

    /// Datagrams that wait to be sent.
    fn waiting(&self) -> usize;

    /// Where the next datagram is written.
    fn room(&mut self) -> &mut [u8];

    /// Appends the datagram whose bytes were written there.
    fn push(&mut self, to: SocketAddr, bytes: usize);

    /// Sends what waits; false when there is no room for the rest.
    fn send(&mut self) -> io::Result<bool>;

    /// Looks once for what came; whether anything did.
    fn receive(&mut self) -> io::Result<bool>;

    /// Whether what the last look brought has been taken.
    fn is_taken(&self) -> bool;

    /// Whether it is told of whatever comes from now on, and nothing is left that came.
    fn may_wait(&mut self) -> io::Result<bool>;

    /// The next datagram of those that came, and whom it came from.
    fn take_next(&mut self) -> Option<(SocketAddr, &[u8])>;
}

impl Wire for TrainSocket {
    #[inline]
    fn now(&self) -> Timestamp {
        super::core::now()
    }

    #[inline]
    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    #[inline]
    fn waiting(&self) -> usize {
        Self::waiting(self)
    }

    #[inline]
    fn room(&mut self) -> &mut [u8] {
        Self::room(self)
    }

    #[inline]
    fn push(&mut self, to: SocketAddr, bytes: usize) {
        Self::push(self, to, bytes);
    }

    #[inline]
    fn send(&mut self) -> io::Result<bool> {
        Self::send(self)
    }

    #[inline]
    fn receive(&mut self) -> io::Result<bool> {
        Self::receive(self)
    }

    #[inline]
    fn is_taken(&self) -> bool {
        Self::is_taken(self)
    }

    fn may_wait(&mut self) -> io::Result<bool> {
        Self::may_wait(self)
    }

    #[inline]
    fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        Self::take_next(self)
    }
}
