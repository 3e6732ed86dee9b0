//! Bare quinn: one connection, one stream both ways or datagrams, a runtime of one thread at each end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use twinspan_net::shm::End;

use super::{Bare, ByteCount, MEET_MAX, Plan, SILENCE, STREAM_BYTES, ends};
use crate::error::BenchError;
use crate::hub::peer::Counter;

/// How long a runtime is driven for what was written last.
const DRIVEN: Duration = Duration::from_millis(20);
/// The name that certificates are for.
const NAME: &str = "localhost";

/// A certificate signed by itself, and its key, both as DER.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::hub) struct Certificate {
    chain: Vec<u8>,
    key: Vec<u8>,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Quinn(error.to_string())
}

impl Certificate {
    pub(in crate::hub) fn new() -> Result<Self, BenchError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(failed)?;
        let chain = made.cert.der().to_vec();
        Ok(Self { chain, key: made.signing_key.serialize_der() })
    }

    /// A listener with it.
    pub(in crate::hub) fn server(&self) -> Result<ServerConfig, BenchError> {
        let chain = vec![CertificateDer::from(self.chain.clone())];
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        let mut config = ServerConfig::with_single_cert(chain, key.into()).map_err(failed)?;
        config.transport_config(transport());
        Ok(config)
    }

    /// A connector that believes it alone.
    pub(in crate::hub) fn client(&self) -> Result<ClientConfig, BenchError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.chain.clone())).map_err(failed)?;
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(failed)?;
        config.transport_config(transport());
        Ok(config)
    }
}

/// As quinn has it, but for connections that are not driven while the hub has its turn.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(None);
    Arc::new(transport)
}

pub(super) struct Quinn {
    runtime: Runtime,
    send: SendStream,
    receive: RecvStream,
    room: Vec<u8>,
    connection: Connection,
    _endpoint: Endpoint,
}

impl Quinn {
    pub(super) fn meet(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let certificate = plan.certificate.as_ref();
        let certificate = certificate.ok_or_else(|| failed("the plan has no certificate"))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let [a, b, ..] = plan.ports;
        let (own, other) = ends(plan, end, [a, b]);
        let met = runtime.block_on(async {
            let meeting = async {
                match end {
                    End::First => {
                        let endpoint = Endpoint::server(certificate.server()?, own)?;
                        let incoming = endpoint.accept().await;
                        let incoming = incoming.ok_or_else(|| failed("nobody came"))?;
                        let connection = incoming.await.map_err(failed)?;
                        let (send, mut receive) = connection.accept_bi().await.map_err(failed)?;
                        // The stream is there with its first byte.
                        receive.read_exact(&mut [0]).await.map_err(failed)?;
                        Ok((endpoint, connection, send, receive))
                    }
                    End::Second => {
                        let endpoint = Endpoint::client(own)?;
                        let config = certificate.client()?;
                        let connecting = endpoint.connect_with(config, other, NAME);
                        let connection = connecting.map_err(failed)?.await.map_err(failed)?;
                        let (mut send, receive) = connection.open_bi().await.map_err(failed)?;
                        send.write_all(&[0]).await.map_err(failed)?;
                        // It leaves while the runtime is driven, and the other end has it then.
                        tokio::time::sleep(DRIVEN).await;
                        Ok((endpoint, connection, send, receive))
                    }
                }
            };
            timeout(MEET_MAX, meeting).await
        });
        let met: Result<_, BenchError> = met.map_err(|_| failed("the other end did not come"))?;
        let (endpoint, connection, send, receive) = met?;
        let room = vec![0; STREAM_BYTES];
        Ok(Self { runtime, send, receive, room, connection, _endpoint: endpoint })
    }
}

impl Bare for Quinn {
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError> {
        let Self { runtime, send, .. } = self;
        // The runtime sends what was written when it is entered next, at the latest to receive.
        runtime.block_on(async {
            send.write_all(message).await.map_err(failed)?;
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError> {
        let Self { runtime, receive, .. } = self;
        runtime.block_on(receive.read_exact(room)).map_err(failed)?;
        Ok(true)
    }

    fn trip(&mut self, message: &[u8], room: &mut [u8]) -> Result<bool, BenchError> {
        let Self { runtime, send, receive, .. } = self;
        runtime.block_on(async {
            send.write_all(message).await.map_err(failed)?;
            receive.read_exact(room).await.map_err(failed)
        })?;
        Ok(true)
    }

    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let bytes = message.repeat(STREAM_BYTES.div_ceil(message.len().max(1)));
        let Self { runtime, send, .. } = self;
        runtime.block_on(async {
            let began = Instant::now();
            while began.elapsed() < time {
                send.write_all(&bytes).await.map_err(failed)?;
            }
            // Until the last of it has left, and was acknowledged, the connection wants to be driven.
            tokio::time::sleep(SILENCE).await;
            Ok(())
        })
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let Self { runtime, receive, room, .. } = self;
        let counted = runtime.block_on(async {
            let mut counted = ByteCount::new();
            while let Ok(came) = timeout(counted.patience(), receive.read(room)).await {
                match came.map_err(failed)? {
                    Some(count) => counted.came(count),
                    None => return Err(failed("the other end left")),
                }
            }
            Ok(counted)
        })?;
        counted.tell(size, counter);
        Ok(())
    }
}

/// The same connection, whose messages go in datagrams.
pub(super) struct QuinnDatagrams {
    quinn: Quinn,
    /// The longest datagram, in bytes.
    longest: usize,
}

impl QuinnDatagrams {
    pub(super) fn new(quinn: Quinn) -> Result<Self, BenchError> {
        let longest = quinn.connection.max_datagram_size();
        let longest = longest.ok_or_else(|| failed("the other end takes no datagrams"))?;
        Ok(Self { quinn, longest })
    }
}

/// What comes, and its length; `None` when nothing does for long.
async fn next_of(connection: &Connection, room: &mut [u8]) -> Result<Option<usize>, BenchError> {
    let Ok(came) = timeout(4 * SILENCE, connection.read_datagram()).await else { return Ok(None) };
    let came = came.map_err(failed)?;
    if let (Some(place), Some(bytes)) = (room.get_mut(..came.len()), came.get(..)) {
        place.copy_from_slice(bytes);
    }
    Ok(Some(came.len()))
}

impl Bare for QuinnDatagrams {
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError> {
        let Quinn { runtime, connection, .. } = &mut self.quinn;
        runtime.block_on(async {
            connection.send_datagram(message.to_vec().into()).map_err(failed)?;
            // It leaves while the runtime is driven.
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError> {
        let Quinn { runtime, connection, .. } = &mut self.quinn;
        Ok(runtime.block_on(next_of(connection, room))?.is_some())
    }

    fn trip(&mut self, message: &[u8], room: &mut [u8]) -> Result<bool, BenchError> {
        let Quinn { runtime, connection, .. } = &mut self.quinn;
        runtime.block_on(async {
            connection.send_datagram(message.to_vec().into()).map_err(failed)?;
            Ok(next_of(connection, room).await?.is_some())
        })
    }

    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        // As many messages as fit, and a copy for each datagram: what quinn is given is its own.
        let bytes = message.repeat((self.longest / message.len().max(1)).max(1));
        let Quinn { runtime, connection, .. } = &mut self.quinn;
        runtime.block_on(async {
            let began = Instant::now();
            while began.elapsed() < time {
                connection.send_datagram_wait(bytes.clone().into()).await.map_err(failed)?;
            }
            tokio::time::sleep(SILENCE).await;
            Ok(())
        })
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let Quinn { runtime, connection, .. } = &mut self.quinn;
        let counted = runtime.block_on(async {
            let mut counted = ByteCount::new();
            while let Ok(came) = timeout(counted.patience(), connection.read_datagram()).await {
                counted.came(came.map_err(failed)?.len());
            }
            Ok::<_, BenchError>(counted)
        })?;
        counted.tell(size, counter);
        Ok(())
    }
}
