//! Debian's `dante-server` and `tinyproxy` on loopback. A machine without them skips, unless
//! `TWINSPAN_REQUIRE_PEERS` is 1.

use twinspan_http::socks5::{Socks5Config, Socks5Error, Socks5Udp, connect};
use twinspan_http::{
    ClientConfig, Credentials, HttpClient, HttpError, ProxyError, Request, ServerConfig, ServerTls,
    StatusCode, Target, Trust,
};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TokioEnv, UdpOptions, UdpSocket,
};

use crate::daemons::{DANTE, Peer, TINYPROXY, end, has, library};
use crate::datagrams::{receive, send};
use crate::tools::{SECOND, get, loopback, raw, start};

/// Requests with TLS and without by way of a proxy, to servers of our own.
async fn requests(env: &TokioEnv, proxy: &str) {
    let certificate = include_bytes!("certificates/server.pem");
    let key = include_bytes!("certificates/server.key");
    let tls = Some(ServerTls::from_pem(certificate, key).unwrap());
    let plain = start(env, loopback(), ServerConfig::default()).await;
    let secure = start(env, loopback(), ServerConfig { tls, ..ServerConfig::default() }).await;
    let client = client(env, proxy);
    for _ in 0..2 {
        for (scheme, server) in [("http", &plain), ("https", &secure)] {
            for host in ["127.0.0.1", "localhost"] {
                let text = format!("{scheme}://{host}:{}/a", server.address.port());
                let text = get(&client, text.parse().unwrap()).await;
                assert_eq!(text, format!("GET /a of {host} by Twinspan: "));
            }
        }
    }
    let large = format!("https://127.0.0.1:{}/large/2000000", secure.address.port());
    let response = client.send(Request::get(large.parse().unwrap())).await.unwrap();
    assert_eq!(response.body.len(), 2_000_000);
}

fn client(env: &TokioEnv, proxy: &str) -> HttpClient<TokioEnv> {
    let authority = include_bytes!("certificates/ca.pem");
    let config = ClientConfig {
        proxy: Some(proxy.parse().unwrap()),
        trust: Trust::nobody().with_certificates(authority).unwrap(),
        ..ClientConfig::default()
    };
    HttpClient::new(env.clone(), config).unwrap()
}

/// Streams and datagrams by way of a SOCKS5 proxy.
async fn socks5(env: &TokioEnv, config: &Socks5Config) {
    let (echo, _task) = raw(env, |_, mut stream| async move {
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    for host in ["127.0.0.1", "localhost"] {
        let target = Target::new(host, echo.port());
        let mut stream = connect(env, config, target).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    let options = UdpOptions { pool_packets: 16, ..UdpOptions::default() };
    let mut far = env.bind_udp(loopback(), &options).await.unwrap();
    let mut socket = Socks5Udp::associate(env.clone(), config, loopback(), &options).await.unwrap();
    for len in [1, 1_200] {
        let bytes = vec![7; len];
        let peer = far.local_addr();
        send(&mut socket, peer, &bytes).await;
        let (proxy, came) = receive(env, &mut far, 10 * SECOND).await.unwrap().unwrap();
        assert_eq!(came, bytes);
        send(&mut far, proxy, &came).await;
        let back = receive(env, &mut socket, 10 * SECOND).await.unwrap();
        assert_eq!(back, Some((peer, bytes)));
    }
}

#[test]
fn dante_carries_streams_and_datagrams_until_it_ends() {
    if !has(DANTE, "dante-server") {
        return;
    }
    let peer = Peer::dante("dante", "none", false);
    let address = peer.address;
    let config = Socks5Config::new(address.into());
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        socks5(&env, &config).await;
        requests(&env, &format!("socks5h://{address}")).await;
        requests(&env, &format!("socks5://{address}")).await;
        let nobody = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(nobody, Socks5Error::Refused(_)), "{nobody:?}");
        let options = UdpOptions { pool_packets: 4, ..UdpOptions::default() };
        let socket = Socks5Udp::associate(env.clone(), &config, loopback(), &options).await;
        let mut socket = socket.unwrap();
        assert!(!socket.is_lost());
        end(&peer.process);
        let end = receive(&env, &mut socket, 20 * SECOND).await;
        assert!(end.is_err() && socket.is_lost(), "{end:?}");
    });
}

#[test]
fn dante_takes_user_and_password() {
    if !has(DANTE, "dante-server") || !has(&library(), "libnss-wrapper") {
        return;
    }
    let peer = Peer::dante("dante-auth", "username", true);
    let mut config = Socks5Config::new(peer.address.into());
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        let none = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(none, Socks5Error::NoMethod), "{none:?}");
        config.auth = Some(Credentials::new("tester", "wrong"));
        let wrong = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(wrong, Socks5Error::Credentials), "{wrong:?}");
        config.auth = Some(Credentials::new("tester", "secret"));
        socks5(&env, &config).await;
        requests(&env, &format!("socks5h://tester:secret@{}", peer.address)).await;
    });
}

#[test]
fn tinyproxy_carries_requests_and_tunnels() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    let peer = Peer::tinyproxy("tinyproxy", "");
    let env = TokioEnv::new(None).unwrap();
    env.block_on(requests(&env, &format!("http://{}", peer.address)));
}

#[test]
fn tinyproxy_takes_user_and_password() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    let peer = Peer::tinyproxy("tinyproxy-auth", "BasicAuth tester secret");
    let address = peer.address;
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        requests(&env, &format!("http://tester:secret@{address}")).await;
        for proxy in [format!("http://{address}"), format!("http://tester:wrong@{address}")] {
            for far in ["http://127.0.0.1:1/", "https://127.0.0.1:1/"] {
                let request = Request::get(far.parse().unwrap());
                match client(&env, &proxy).send(request).await {
                    Err(HttpError::Proxy(ProxyError::Credentials)) => {}
                    // It answers wrong ones as if it were the server.
                    Ok(response) => {
                        let told = (response.status, proxy.contains("wrong"), &far[..5]);
                        assert_eq!(told, (StatusCode::UNAUTHORIZED, true, "http:"));
                    }
                    other => panic!("{proxy} {far}: {other:?}"),
                }
            }
        }
    });
}
