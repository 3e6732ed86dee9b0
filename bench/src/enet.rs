//! ENet, the C library of the system, over the bridge in `enet/bridge.c`; its packets are in the clear.

use std::ffi::{c_int, c_void};

use anyhow::{Result, bail};

use crate::Plan;
use crate::polled::{self, Clients, Server};

/// Client hosts, so that one socket does not carry all.
const FLOWS: usize = 16;

type OnPacket = extern "C" fn(*mut c_void, usize, *const u8, usize);

#[repr(C)]
struct Host {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn bridge_listen(peers: usize, port: *mut u16) -> *mut Host;
    fn bridge_dial(peers: usize) -> *mut Host;
    fn bridge_connect(host: *mut Host, port: u16) -> c_int;
    fn bridge_service(host: *mut Host, callback: OnPacket, context: *mut c_void) -> c_int;
    fn bridge_send(host: *mut Host, peer: usize, bytes: *const u8, length: usize) -> c_int;
    fn bridge_flush(host: *mut Host);
}

/// What the bridge calls for each packet.
extern "C" fn hand_over(context: *mut c_void, _: usize, bytes: *const u8, length: usize) {
    // SAFETY: `service` passes a pointer to its callback, alive for the call, and ENet passes a packet
    // of `length` bytes.
    let (callback, bytes) = unsafe {
        (&mut *context.cast::<&mut dyn FnMut(&[u8])>(), std::slice::from_raw_parts(bytes, length))
    };
    callback(bytes);
}

struct EnetHost(*mut Host);

impl EnetHost {
    fn service(&mut self, mut on_message: &mut dyn FnMut(&[u8])) -> i32 {
        let context = (&raw mut on_message).cast();
        // SAFETY: the host lives as long as the process, and `context` outlives the call.
        unsafe { bridge_service(self.0, hand_over, context) }
    }

    fn send(&mut self, peer: usize, bytes: &[u8]) -> bool {
        // SAFETY: the host lives, its peers are as many as it was made for, `bytes` is a slice.
        unsafe { bridge_send(self.0, peer, bytes.as_ptr(), bytes.len()) == 0 }
    }

    fn flush(&mut self) {
        // SAFETY: the host lives as long as the process.
        unsafe { bridge_flush(self.0) }
    }
}

/// The server's end.
pub fn serve(plan: &Plan) -> Result<()> {
    let mut port = 0;
    // SAFETY: `port` is a place for two bytes.
    let host = unsafe { bridge_listen(plan.players, &raw mut port) };
    if host.is_null() {
        bail!("ENet makes no host for {} peers (its limit is 4,095)", plan.players);
    }
    println!("{port}");
    polled::serve(plan, &mut EnetHost(host))
}

impl Server for EnetHost {
    fn poll(&mut self, _: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.service(on_message);
        Ok(())
    }

    fn send(&mut self, player: usize, bytes: &[u8]) -> bool {
        Self::send(self, player, bytes)
    }

    fn flush(&mut self) {
        Self::flush(self);
    }
}

struct Playing {
    hosts: Vec<EnetHost>,
    connected: i32,
}

/// The clients' end.
pub fn play(plan: &Plan) -> Result<()> {
    let mut hosts = Vec::new();
    for flow in 0..FLOWS {
        let peers = plan.players / FLOWS + usize::from(flow < plan.players % FLOWS);
        // SAFETY: a plain call.
        let host = unsafe { bridge_dial(peers.max(1)) };
        if host.is_null() {
            bail!("ENet makes no host for {peers} peers");
        }
        for _ in 0..peers {
            // SAFETY: the host lives.
            if unsafe { bridge_connect(host, plan.port) } != 0 {
                bail!("ENet has no peer left");
            }
        }
        hosts.push(EnetHost(host));
    }
    polled::play(plan, &mut Playing { hosts, connected: 0 })
}

impl Clients for Playing {
    fn poll(&mut self, _: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<usize> {
        for host in &mut self.hosts {
            self.connected += host.service(on_message);
        }
        Ok(self.connected.max(0) as usize)
    }

    fn send(&mut self, player: usize, bytes: &[u8]) -> Result<()> {
        if let Some(host) = self.hosts.get_mut(player % FLOWS) {
            host.send(player / FLOWS, bytes);
        }
        Ok(())
    }

    fn flush(&mut self) {
        for host in &mut self.hosts {
            host.flush();
        }
    }
}
