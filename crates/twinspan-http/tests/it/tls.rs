//! TLS: who is trusted, by which clock, and that it too follows the seed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_http::{
    ClientConfig, HttpClient, HttpError, Request, ServerConfig, ServerTls, StatusCode, TlsError,
    Trust,
};
use twinspan_provider::{AsyncWriteExt, Env, TaskProvider, TcpOptions, WallTime};
use twinspan_sim::{Sim, SimConfig};

use crate::tools::{MS, head, in_both_worlds, loopback, raw, start, url};

/// A certificate for `server.example`, `localhost`, 127.0.0.1 and 10.0.0.2, from 2020 to 2118; and
/// who signed it.
const AUTHORITY: &[u8] = include_bytes!("certificates/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("certificates/server.pem");
const KEY: &[u8] = include_bytes!("certificates/server.key");

fn secure() -> ServerConfig {
    let tls = ServerTls::from_pem(CERTIFICATE, KEY).unwrap();
    ServerConfig { tls: Some(tls), head_timeout: 500 * MS, ..ServerConfig::default() }
}

fn trusting<E: Env>(env: &E, trust: Trust) -> HttpClient<E> {
    let config = ClientConfig { trust, ..ClientConfig::default() };
    HttpClient::new(env.clone(), config).unwrap()
}

fn authority() -> Trust {
    Trust::nobody().with_certificates(AUTHORITY).unwrap()
}

#[test]
fn a_trusted_server_is_spoken_to_in_secret_and_again() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), secure()).await;
        let client = trusting(&env, authority());
        for path in ["/a", "/b", "/large/300000"] {
            let response = client.send(Request::get(url("https", server.address, path))).await;
            assert_eq!(response.unwrap().status, StatusCode::OK);
        }
        assert_eq!(client.connections(), 1);
        let named = format!("https://localhost:{}/", server.address.port()).parse().unwrap();
        let response = client.send(Request::post(named, "text/plain", "hi")).await.unwrap();
        assert_eq!(&*response.body, b"POST / of localhost by Twinspan: hi");
    }
    in_both_worlds!(run);
}

#[test]
fn a_servers_own_certificate_may_be_trusted_too() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), secure()).await;
        let ask = |address| Request::get(url("https", address, "/"));
        // Signed by somebody who is not trusted.
        let known = trusting(&env, Trust::nobody().with_certificates(CERTIFICATE).unwrap());
        assert_eq!(known.send(ask(server.address)).await.unwrap().status, StatusCode::OK);
        // Signed by itself, as if it were an authority.
        let own = include_bytes!("certificates/own.pem");
        let tls = ServerTls::from_pem(own, include_bytes!("certificates/own.key")).unwrap();
        let config = ServerConfig { tls: Some(tls), ..ServerConfig::default() };
        let server = start(&env, loopback(), config).await;
        let error = known.send(ask(server.address)).await.err().unwrap();
        assert!(matches!(error, HttpError::Tls(TlsError::Certificate { .. })), "{error:?}");
        let known = trusting(&env, Trust::nobody().with_certificates(own).unwrap());
        assert_eq!(known.send(ask(server.address)).await.unwrap().status, StatusCode::OK);
        // Under a name that it does not have.
        let named = format!("https://localhost:{}/", server.address.port()).parse().unwrap();
        let error = known.send(Request::get(named)).await.err().unwrap();
        assert!(matches!(error, HttpError::Tls(TlsError::Certificate { .. })), "{error:?}");
    }
    in_both_worlds!(run);
}

#[test]
fn a_stranger_is_refused_unless_nobody_looks() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), secure()).await;
        let ask = || Request::get(url("https", server.address, "/"));
        let nobody = trusting(&env, Trust::nobody());
        let error = nobody.send(ask()).await.err().unwrap();
        assert!(matches!(error, HttpError::Tls(TlsError::NoRoots { .. })), "{error:?}");
        let system = trusting(&env, Trust::system().with_certificates(AUTHORITY).unwrap());
        assert_eq!(system.send(ask()).await.unwrap().status, StatusCode::OK);
        // Another's certificate: this server has not signed itself.
        let other = Trust::system();
        let error = trusting(&env, other).send(ask()).await.err().unwrap();
        let HttpError::Tls(error) = error else { panic!("{error:?}") };
        let refused = matches!(error, TlsError::Certificate { .. } | TlsError::NoRoots { .. });
        assert!(refused, "{error:?}");
        let blind = trusting(&env, Trust::without_checks());
        assert_eq!(blind.send(ask()).await.unwrap().status, StatusCode::OK);
    }
    in_both_worlds!(run);
}

#[test]
fn who_speaks_no_tls_is_named() {
    async fn run<E: Env>(env: E) {
        let (address, _task) = raw(&env, |_, mut stream| async move {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            head(&mut stream).await;
        })
        .await;
        let client = trusting(&env, authority());
        let error = client.send(Request::get(url("https", address, "/"))).await.err().unwrap();
        assert!(matches!(error, HttpError::Tls(TlsError::Handshake { .. })), "{error:?}");
        assert!(!error.may_have_been_sent());
        let (address, _task) = raw(&env, |_, _| async {}).await;
        let error = client.send(Request::get(url("https", address, "/"))).await.err().unwrap();
        assert!(matches!(error, HttpError::Tls(TlsError::Interrupted { .. })), "{error:?}");
    }
    in_both_worlds!(run);
}

#[test]
fn a_server_survives_clients_without_tls() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), secure()).await;
        let silent = env.connect(server.address, &TcpOptions::default()).await.unwrap();
        let mut wrong = env.connect(server.address, &TcpOptions::default()).await.unwrap();
        wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let client = trusting(&env, authority());
        let response = client.send(Request::get(url("https", server.address, "/"))).await;
        assert_eq!(response.unwrap().status, StatusCode::OK);
        drop((silent, wrong));
    }
    in_both_worlds!(run);
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// What a request to `name` by a client comes to, and the trace of the run.
fn simulated(seed: u64, wall_start: WallTime, name: &str) -> (Result<StatusCode, HttpError>, u64) {
    simulated_with(seed, wall_start, name, authority())
}

fn simulated_with(
    seed: u64,
    wall_start: WallTime,
    name: &str,
    trust: Trust,
) -> (Result<StatusCode, HttpError>, u64) {
    let mut sim = Sim::new(SimConfig { seed, wall_start, ..SimConfig::default() });
    let env = sim.host("server", ip(2));
    let inner = env.clone();
    let _task = env.spawn("server", async move {
        let _server = start(&inner, SocketAddr::new(ip(2), 443), secure()).await;
        std::future::pending::<()>().await;
    });
    for name in ["server.example", "other.example"] {
        sim.set_name(name, &[ip(2)], Duration::from_secs(9));
    }
    let env = sim.host("client", ip(1));
    sim.run_for(MS);
    let (inner, url) = (env.clone(), format!("https://{name}/"));
    let outcome = sim.block_on(&env, Duration::from_secs(99), async move {
        let client = trusting(&inner, trust);
        client.send(Request::get(url.parse().unwrap())).await.map(|response| response.status)
    });
    (outcome.unwrap(), sim.trace_hash())
}

/// The first of January of a year, nearly.
fn year(year: u64) -> WallTime {
    WallTime::EPOCH.after(Duration::from_secs((year - 1_970) * 31_556_952))
}

#[test]
fn certificates_are_read_by_the_nodes_own_clock() {
    assert_eq!(simulated(1, year(2_050), "server.example").0.unwrap(), StatusCode::OK);
    for (year_now, wanted) in [(2_019, "not valid yet"), (2_121, "expired")] {
        let error = simulated(1, year(year_now), "server.example").0.err().unwrap();
        let HttpError::Tls(TlsError::Certificate { host, reason }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(host, "server.example");
        assert!(reason.contains(wanted), "{reason}");
        let own = Trust::nobody().with_certificates(CERTIFICATE).unwrap();
        let error = simulated_with(1, year(year_now), "server.example", own).0.err().unwrap();
        assert!(error.to_string().contains(wanted), "known, but {error}");
    }
}

#[test]
fn a_certificate_is_for_its_names_alone() {
    let error = simulated(1, year(2_050), "other.example").0.err().unwrap();
    assert!(matches!(error, HttpError::Tls(TlsError::Certificate { .. })), "{error:?}");
}

#[test]
fn a_handshake_is_a_function_of_the_seed() {
    let run = |seed| simulated(seed, year(2_050), "server.example").1;
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
