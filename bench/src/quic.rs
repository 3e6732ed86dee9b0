//! QUIC datagrams over quinn, on one runtime thread each side.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use std::{cell::RefCell, rc::Rc};

use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::task::LocalSet;

use crate::clock::{Schedule, now};
use crate::measure::{Window, stamp};
use crate::{INPUT_BYTES, INPUTS_HZ, Plan, STATES_HZ, process};

/// Client endpoints, so that one socket does not carry all.
const FLOWS: usize = 16;

/// A window once there is one; both ends are single-threaded.
type Shared = Rc<RefCell<Option<Window>>>;

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.datagram_receive_buffer_size(Some(1 << 20));
    config.max_idle_timeout(None);
    Arc::new(config)
}

fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let raw = socket2::SockRef::from(&socket);
    // What the machine does not grant is left at its limit.
    let _ = raw.set_recv_buffer_size(32 << 20);
    let _ = raw.set_send_buffer_size(32 << 20);
    Ok(socket)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Reads a connection's datagrams until it ends.
async fn listen(connection: Connection, window: Shared) {
    while let Ok(bytes) = connection.read_datagram().await {
        if let Some(window) = window.borrow_mut().as_mut() {
            window.on_message(now(), &bytes);
        }
    }
}

/// Sends by the schedule each millisecond until the window is over, then reports.
async fn send_all(
    plan: &Plan,
    connections: &Rc<RefCell<Vec<Connection>>>,
    window: &Shared,
    hz: u64,
    bytes: usize,
) {
    let mut schedule = Schedule::new(now(), plan.players, hz);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut message = vec![0; bytes];
    loop {
        tick.tick().await;
        let at = now();
        let mut window = window.borrow_mut();
        let Some(window) = window.as_mut() else { return };
        let connections = connections.borrow();
        while let Some((player, slot)) = schedule.due(at) {
            let Some(connection) = connections.get(player) else { continue };
            stamp(&mut message, slot);
            if connection.send_datagram(Bytes::copy_from_slice(&message)).is_ok() {
                window.on_sent(slot);
            }
        }
        if window.is_over(at) {
            window.report();
            return;
        }
    }
}

/// The parent's word when to begin, read off the runtime.
async fn beginning() -> Result<u64> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    line.await??.trim().parse().context("no moment to begin at")
}

/// The server's end.
pub fn serve(plan: &Plan) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = quinn::ServerConfig::with_single_cert(vec![made.cert.into()], key.into())?;
    config.transport_config(transport());
    runtime()?.block_on(LocalSet::new().run_until(async {
        let socket = socket()?;
        println!("{}", socket.local_addr()?.port());
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)?;
        let resident = process::resident_bytes();
        let window = Shared::default();
        let connections = Rc::new(RefCell::new(Vec::new()));
        let (all, shared) = (Rc::clone(&connections), Rc::clone(&window));
        tokio::task::spawn_local(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (all, shared) = (Rc::clone(&all), Rc::clone(&shared));
                tokio::task::spawn_local(async move {
                    if let Ok(connection) = incoming.await {
                        all.borrow_mut().push(connection.clone());
                        listen(connection, shared).await;
                    }
                });
            }
        });
        let begin = beginning().await?;
        *window.borrow_mut() = Some(Window::new(plan, begin, resident)?);
        send_all(plan, &connections, &window, STATES_HZ, plan.state_bytes).await;
        Ok(())
    }))
}

/// Takes any certificate: the comparison measures packets, not trust.
#[derive(Debug)]
struct TakesAny(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client_config() -> Result<quinn::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny(provider)))
        .with_no_client_auth();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

/// The clients' end.
pub fn play(plan: &Plan) -> Result<()> {
    let config = client_config()?;
    let server = SocketAddr::from(([127, 0, 0, 1], plan.port));
    runtime()?.block_on(LocalSet::new().run_until(async {
        let mut endpoints = Vec::new();
        for _ in 0..FLOWS {
            let runtime = Arc::new(TokioRuntime);
            endpoints.push(Endpoint::new(EndpointConfig::default(), None, socket()?, runtime)?);
        }
        let window = Shared::default();
        let connections = Rc::new(RefCell::new(Vec::new()));
        for player in 0..plan.players {
            let Some(endpoint) = endpoints.get(player % FLOWS) else { continue };
            let connection = endpoint.connect_with(config.clone(), server, "localhost")?.await?;
            connections.borrow_mut().push(connection.clone());
            tokio::task::spawn_local(listen(connection, Rc::clone(&window)));
        }
        println!("ready");
        let begin = beginning().await?;
        *window.borrow_mut() = Some(Window::new(plan, begin, process::resident_bytes())?);
        send_all(plan, &connections, &window, INPUTS_HZ, INPUT_BYTES).await;
        Ok(())
    }))
}
