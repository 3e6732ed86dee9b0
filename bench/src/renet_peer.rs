//! renet with netcode: secure tokens, the unreliable channel, as its documentation sets them up.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use renet::{ConnectionConfig, DefaultChannel, RenetClient, RenetServer};
use renet_netcode::{
    ClientAuthentication, ConnectToken, NetcodeClientTransport, NetcodeServerTransport,
    ServerAuthentication, ServerConfig,
};

use crate::polled::{self, Clients, Server};
use crate::{Plan, process};

const PROTOCOL: u64 = 7;
const KEY: [u8; 32] = [7; 32];

struct Serving {
    server: RenetServer,
    transport: NetcodeServerTransport,
    players: usize,
}

/// A socket with the room in the kernel that all libraries get.
fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let raw = socket2::SockRef::from(&socket);
    // What the machine does not grant is left at its limit.
    let _ = raw.set_recv_buffer_size(32 << 20);
    let _ = raw.set_send_buffer_size(32 << 20);
    Ok(socket)
}

fn unix_time() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

/// The server's end.
pub fn serve(plan: &Plan) -> Result<()> {
    let socket = socket()?;
    let address = socket.local_addr()?;
    let config = ServerConfig {
        current_time: unix_time()?,
        max_clients: plan.players,
        protocol_id: PROTOCOL,
        public_addresses: vec![address],
        authentication: ServerAuthentication::Secure { private_key: KEY },
    };
    let transport = NetcodeServerTransport::new(config, socket)?;
    println!("{}", address.port());
    let server = RenetServer::new(ConnectionConfig::default());
    polled::serve(plan, &mut Serving { server, transport, players: plan.players })
}

impl Server for Serving {
    fn poll(&mut self, elapsed_ns: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<()> {
        let elapsed = Duration::from_nanos(elapsed_ns);
        self.server.update(elapsed);
        self.transport.update(elapsed, &mut self.server).map_err(|error| anyhow!("{error}"))?;
        for player in 0..self.players as u64 {
            while let Some(bytes) = self.server.receive_message(player, DefaultChannel::Unreliable)
            {
                on_message(&bytes);
            }
        }
        Ok(())
    }

    fn send(&mut self, player: usize, bytes: &[u8]) -> bool {
        let player = player as u64;
        if !self.server.is_connected(player) {
            return false;
        }
        self.server.send_message(player, DefaultChannel::Unreliable, bytes.to_vec());
        true
    }

    fn flush(&mut self) {
        self.transport.send_packets(&mut self.server);
    }
}

struct Player {
    client: RenetClient,
    transport: NetcodeClientTransport,
    owed_ns: u64,
}

struct Playing {
    players: Vec<Player>,
    connected: usize,
}

/// The clients' end.
pub fn play(plan: &Plan) -> Result<()> {
    let server = SocketAddr::from(([127, 0, 0, 1], plan.port));
    let mut players = Vec::with_capacity(plan.players);
    for id in 0..plan.players as u64 {
        let now = unix_time()?;
        let token = ConnectToken::generate(now, PROTOCOL, 600, id, 30, vec![server], None, &KEY)?;
        let authentication = ClientAuthentication::Secure { connect_token: token };
        let transport =
            NetcodeClientTransport::new(now, authentication, UdpSocket::bind("127.0.0.1:0")?)?;
        let client = RenetClient::new(ConnectionConfig::default());
        players.push(Player { client, transport, owed_ns: 0 });
    }
    let _ = process::resident_bytes();
    polled::play(plan, &mut Playing { players, connected: 0 })
}

impl Player {
    fn update(&mut self, on_message: &mut dyn FnMut(&[u8])) -> Result<()> {
        let elapsed = Duration::from_nanos(core::mem::take(&mut self.owed_ns));
        self.client.update(elapsed);
        self.transport
            .update(elapsed, &mut self.client)
            .map_err(|error| anyhow!("a client lost its server: {error}"))?;
        while let Some(bytes) = self.client.receive_message(DefaultChannel::Unreliable) {
            on_message(&bytes);
        }
        Ok(())
    }
}

impl Clients for Playing {
    fn poll(&mut self, elapsed_ns: u64, on_message: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let is_playing = self.connected == self.players.len();
        for player in &mut self.players {
            player.owed_ns += elapsed_ns;
            // Once all play, a client is updated at 4 ms at most: its process has one core for all.
            if !is_playing || player.owed_ns >= 4_000_000 {
                player.update(on_message)?;
                if !is_playing {
                    let _ = player.transport.send_packets(&mut player.client);
                }
            }
        }
        if !is_playing {
            self.connected = self.players.iter().filter(|p| p.client.is_connected()).count();
        }
        Ok(self.connected)
    }

    fn send(&mut self, player: usize, bytes: &[u8]) -> Result<()> {
        let Some(player) = self.players.get_mut(player) else { return Ok(()) };
        player.client.send_message(DefaultChannel::Unreliable, bytes.to_vec());
        player.transport.send_packets(&mut player.client).map_err(|error| anyhow!("{error}"))
    }

    fn flush(&mut self) {}
}
