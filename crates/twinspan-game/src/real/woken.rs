//! A socket whose reader is woken by other threads too.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_provider::{SocketReport, UdpError, UdpSocket};

use super::tap::{Served, Tap};

/// A socket that gives its machine an empty batch when another thread has said something to it.
pub(super) struct Woken<U, S> {
    socket: U,
    machine: Rc<RefCell<Tap<S>>>,
}

impl<U, S> Woken<U, S> {
    pub(super) const fn new(socket: U, machine: Rc<RefCell<Tap<S>>>) -> Self {
        Self { socket, machine }
    }
}

impl<U: UdpSocket, S: Served + 'static> UdpSocket for Woken<U, S> {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.socket.pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        match self.socket.poll_recv(cx, batch) {
            // The machine is not at work: its driver waits here.
            Poll::Pending => self.machine.borrow_mut().poll_ready(cx).map(|()| Ok(0)),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        self.socket.poll_send(cx, batch)
    }

    fn report(&self) -> SocketReport {
        self.socket.report()
    }
}
