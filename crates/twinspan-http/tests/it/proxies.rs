//! Requests by way of HTTP and SOCKS5 proxies.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_http::socks5::{Reply, Socks5Config, Socks5Error, connect};
use twinspan_http::{
    ClientConfig, Credentials, HttpClient, HttpError, Proxy, ProxyError, Request, ServerConfig,
    ServerTls, Target, Trust,
};
use twinspan_provider::{AsyncReadExt, AsyncWriteExt, Env, TaskProvider, TcpOptions};
use twinspan_sim::proxy::{SocksConfig, SocksProxy, SocksReply};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::tools::{MS, get, head, in_both_worlds, loopback, raw, start};

const HOUR: Duration = Duration::from_secs(3_600);

fn secure() -> ServerConfig {
    let certificate = include_bytes!("certificates/server.pem");
    let tls = ServerTls::from_pem(certificate, include_bytes!("certificates/server.key")).unwrap();
    ServerConfig { tls: Some(tls), ..ServerConfig::default() }
}

fn by_way_of<E: Env>(env: &E, proxy: &str) -> HttpClient<E> {
    let authority = include_bytes!("certificates/ca.pem");
    let config = ClientConfig {
        proxy: Some(proxy.parse().unwrap()),
        trust: Trust::nobody().with_certificates(authority).unwrap(),
        ..ClientConfig::default()
    };
    HttpClient::new(env.clone(), config).unwrap()
}

/// An HTTP proxy that answers CONNECT with `answer` and then echoes; what it was asked.
async fn scripted<E: Env>(
    env: &E,
    answer: &'static [u8],
) -> (SocketAddr, E::Task, Rc<RefCell<Vec<String>>>) {
    let asked: Rc<RefCell<Vec<String>>> = Rc::default();
    let notes = Rc::clone(&asked);
    let (address, task) = raw(env, move |_, mut stream| {
        let notes = Rc::clone(&notes);
        async move {
            let asked = head(&mut stream).await;
            notes.borrow_mut().push(asked);
            stream.write_all(answer).await.unwrap();
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    (address, task, asked)
}

#[test]
fn plain_requests_are_handed_to_the_proxy_whole_and_with_credentials() {
    async fn run<E: Env>(env: E) {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (address, _task, asked) = scripted(&env, answer).await;
        let client = by_way_of(&env, &format!("http://user:secret@{address}"));
        let text = get(&client, "http://far.example:81/a?b".parse().unwrap()).await;
        assert_eq!(text, "ok");
        let asked = asked.borrow_mut().pop().unwrap();
        assert!(asked.starts_with("GET http://far.example:81/a?b HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("host: far.example:81\r\n"), "{asked}");
        assert!(asked.contains("proxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{asked}");
    }
    in_both_worlds!(run);
}

#[test]
fn a_proxy_that_wants_credentials_or_refuses_is_told_apart() {
    async fn run<E: Env>(env: E) {
        let wants: &[u8] = b"HTTP/1.1 407 Auth\r\ncontent-length: 0\r\n\r\n";
        for scheme in ["http", "https"] {
            let (address, _task, _) = scripted(&env, wants).await;
            let client = by_way_of(&env, &format!("http://{address}"));
            let far = format!("{scheme}://far.example/").parse().unwrap();
            let error = client.send(Request::get(far)).await.err().unwrap();
            assert!(matches!(error, HttpError::Proxy(ProxyError::Credentials)), "{error:?}");
            assert!(!error.may_have_been_sent());
        }
        let far = || Request::get("https://far.example/".parse().unwrap());
        let refuses = b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>";
        let (address, _task, _) = scripted(&env, refuses).await;
        let error = by_way_of(&env, &format!("http://{address}")).send(far()).await.err().unwrap();
        assert!(
            matches!(error, HttpError::Proxy(ProxyError::Refused { status: 502 })),
            "{error:?}"
        );
        for (answer, wanted) in [(&b"SSH-2.0-x\r\n"[..], "Garbled"), (b"HTTP/1.1 200 OK", "Closed")]
        {
            let (address, _task) = raw(&env, move |_, mut stream| async move {
                head(&mut stream).await;
                stream.write_all(answer).await.unwrap();
            })
            .await;
            let client = by_way_of(&env, &format!("http://{address}"));
            let error = client.send(far()).await.err().unwrap();
            assert!(format!("{error:?}").contains(wanted), "{error:?}");
        }
        let endless = [&b"HTTP/1.1 200 OK\r\na: "[..], &[b'a'; 9_000]].concat().leak();
        let (address, _task, _) = scripted(&env, endless).await;
        let error = by_way_of(&env, &format!("http://{address}")).send(far()).await.err().unwrap();
        let wanted = ProxyError::HeadTooLarge { limit: 8_192 };
        assert_eq!(format!("{error:?}"), format!("{:?}", HttpError::Proxy(wanted)));
    }
    in_both_worlds!(run);
}

#[test]
fn a_tunnel_carries_tls_and_what_came_behind_the_answer() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), secure()).await;
        let asked: Rc<RefCell<Vec<String>>> = Rc::default();
        let (far, inner, notes) = (server.address, env.clone(), Rc::clone(&asked));
        let (address, _task) = raw(&env, move |_, mut near| {
            let (env, notes) = (inner.clone(), Rc::clone(&notes));
            async move {
                let asked = head(&mut near).await;
                notes.borrow_mut().push(asked);
                let mut far = env.connect(far, &TcpOptions::default()).await.unwrap();
                near.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Yes\r\n\r\n")
                    .await
                    .unwrap();
                loop {
                    let (mut out, mut back) = ([0; 4_096], [0; 4_096]);
                    let mut reads = std::pin::pin!(near.read(&mut out));
                    let mut answers = std::pin::pin!(far.read(&mut back));
                    let moved = std::future::poll_fn(|cx| {
                        if let std::task::Poll::Ready(len) = reads.as_mut().poll(cx) {
                            return std::task::Poll::Ready((true, len));
                        }
                        answers.as_mut().poll(cx).map(|len| (false, len))
                    })
                    .await;
                    let written = match moved {
                        (true, Ok(len @ 1..)) => far.write_all(&out[..len]).await,
                        (false, Ok(len @ 1..)) => near.write_all(&back[..len]).await,
                        _ => return,
                    };
                    if written.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let client = by_way_of(&env, &format!("http://user:secret@{address}"));
        let port = server.address.port();
        for _ in 0..2 {
            let url = format!("https://localhost:{port}/x").parse().unwrap();
            let text = get(&client, url).await;
            assert_eq!(text, "GET /x of localhost by Twinspan: ");
        }
        let asked = asked.borrow();
        assert_eq!(asked.len(), 1, "one tunnel for both");
        assert!(asked[0].starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")));
        assert!(asked[0].contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"));
    }
    in_both_worlds!(run);
}

#[test]
fn bytes_behind_an_answer_belong_to_whom_was_asked_for() {
    async fn run<E: Env>(env: E) {
        // A TLS server that speaks first, and wrongly: the client must see it and not lose it.
        let (address, _task, _) =
            scripted(&env, b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 No TLS here\r\n\r\n").await;
        let client = by_way_of(&env, &format!("http://{address}"));
        let far = "https://far.example/".parse().unwrap();
        let error = client.send(Request::get(far)).await.err().unwrap();
        assert!(format!("{error:?}").contains("Handshake"), "{error:?}");
    }
    in_both_worlds!(run);
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Servers without (80) and with TLS (443) on host 2, a SOCKS5 proxy on host 9, a client on 1. Only
/// the proxy knows the name.
fn socks_world(config: SocksConfig) -> (Sim, SimEnv, SocksProxy, SimTask) {
    let mut sim = Sim::new(SimConfig { seed: 4, ..SimConfig::default() });
    let env = sim.host("server", ip(2));
    let inner = env.clone();
    let task = env.spawn("servers", async move {
        let at = |port| SocketAddr::new(ip(2), port);
        let _plain = start(&inner, at(80), ServerConfig::default()).await;
        let _secure = start(&inner, at(443), secure()).await;
        std::future::pending::<()>().await;
    });
    sim.set_name("server.example", &[ip(2)], HOUR);
    sim.partition(ip(1), ip(2));
    let proxy = SocksProxy::start(&sim.host("proxy", ip(9)), config);
    let client = sim.host("client", ip(1));
    sim.run_for(MS);
    (sim, client, proxy, task)
}

#[test]
fn requests_go_through_a_socks5_proxy_by_name_and_by_address() {
    let credentials = Some(("user".to_owned(), "secret".to_owned()));
    let config = SocksConfig { credentials, ..SocksConfig::default() };
    let (mut sim, env, proxy, _task) = socks_world(config);
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        for proxy in ["socks5://user:secret@10.0.0.9", "socks5h://user:secret@10.0.0.9:1080"] {
            let client = by_way_of(&inner, proxy);
            for scheme in ["http", "https"] {
                for host in ["server.example", "10.0.0.2"] {
                    let url = format!("{scheme}://{host}/").parse().unwrap();
                    assert_eq!(get(&client, url).await, format!("GET / of {host} by Twinspan: "));
                }
            }
        }
        let wrong = by_way_of(&inner, "socks5h://user:wrong@10.0.0.9");
        let far = || Request::get("http://server.example/".parse().unwrap());
        let error = wrong.send(far()).await.err().unwrap();
        let credentials =
            matches!(error, HttpError::Proxy(ProxyError::Socks5(Socks5Error::Credentials)));
        assert!(credentials, "{error:?}");
        let none = by_way_of(&inner, "socks5h://10.0.0.9");
        let error = none.send(far()).await.err().unwrap();
        let refused = matches!(error, HttpError::Proxy(ProxyError::Socks5(Socks5Error::NoMethod)));
        assert!(refused, "{error:?}");
    });
    assert!(outcome.is_some());
    assert_eq!((proxy.report().connected, proxy.report().unauthorized), (8, 2));
}

#[test]
fn each_refusal_of_a_socks5_proxy_has_its_name() {
    let (mut sim, env, proxy, _task) = socks_world(SocksConfig::default());
    let config = Socks5Config::new(Target::new("10.0.0.9", 1_080));
    for (code, wanted) in [
        (SocksReply::GeneralFailure, Reply::GeneralFailure),
        (SocksReply::NotAllowed, Reply::NotAllowed),
        (SocksReply::NetworkUnreachable, Reply::NetworkUnreachable),
        (SocksReply::HostUnreachable, Reply::HostUnreachable),
        (SocksReply::ConnectionRefused, Reply::ConnectionRefused),
        (SocksReply::TtlExpired, Reply::TtlExpired),
        (SocksReply::CommandNotSupported, Reply::CommandNotSupported),
        (SocksReply::AddressNotSupported, Reply::AddressNotSupported),
    ] {
        proxy.refuse(Some(code));
        let (inner, config) = (env.clone(), config.clone());
        let outcome = sim.block_on(&env, HOUR, async move {
            connect(&inner, &config, Target::new("server.example", 80)).await.err()
        });
        let Some(Some(Socks5Error::Refused(reply))) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reply, wanted);
    }
}

#[test]
fn a_socks5_proxy_that_is_none_or_silent_is_named() {
    async fn run<E: Env>(env: E) {
        let cases: [(&'static [u8], &str); 6] = [
            (b"HTTP/1.1 400\r\n", "Version(72)"),
            (b"\x05", "Closed"),
            (b"\x05\x09", "Method(9)"),
            (b"\x05\x02\x01\x01", "Credentials"),
            (b"\x05\x00\x05\x00\x00\x07\x01", "AddressKind(7)"),
            (b"\x05\x00\x05\x00\x00\x01\x01", "Closed"),
        ];
        for (answer, wanted) in cases {
            let (address, _task) = raw(&env, move |_, mut stream| async move {
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            })
            .await;
            let mut config = Socks5Config::new(address.into());
            config.auth = Some(Credentials::new("user", "secret"));
            let error = connect(&env, &config, Target::new("a", 1)).await.err().unwrap();
            assert_eq!(format!("{error:?}"), wanted);
        }
        let (address, _task) = raw(&env, |_, mut stream| async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let config = Socks5Config { timeout: 50 * MS, ..Socks5Config::new(address.into()) };
        let error = connect(&env, &config, Target::new("a", 1)).await.err().unwrap();
        assert!(error.is_timeout(), "{error:?}");
    }
    in_both_worlds!(run);
}

#[test]
fn a_stream_begins_with_the_byte_behind_the_reply() {
    async fn run<E: Env>(env: E) -> Vec<u8> {
        let (address, _task) = raw(&env, |_, mut stream| async move {
            stream.write_all(b"\x05\x00\x05\x00\x00\x03\x02ab\x00\x50first").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let config = Socks5Config::new(address.into());
        let mut stream = connect(&env, &config, Target::new("a", 1)).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        text
    }
    assert_eq!(in_both_worlds!(run), b"first");
}

#[test]
fn no_error_shows_a_password() {
    let proxy: Proxy = "http://user:secret@a".parse().unwrap();
    let config = ClientConfig { proxy: Some(proxy), ..ClientConfig::default() };
    assert!(!format!("{config:?}").contains("secret"));
}
