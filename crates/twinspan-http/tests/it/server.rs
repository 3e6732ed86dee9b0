//! The server against clients that are slow, wrong or many.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use twinspan_http::{
    ClientConfig, HttpClient, Request, ServerConfig, ServerRequest, ServerResponse, Service,
    StatusCode, serve,
};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, Env, NetworkProvider, TcpListener, TcpOptions,
};

use crate::tools::{MS, SECOND, client, get, in_both_worlds, loopback, pass, start, url};

/// Sends these bytes; the status line of the answer, or nothing where there is none.
async fn said<E: Env>(env: &E, address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = env.connect(address, &TcpOptions::default()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    // What it did not read makes it a reset.
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn what_is_no_request_has_its_status() {
    async fn run<E: Env>(env: E) {
        let config =
            ServerConfig { head_bytes_max: 256, body_bytes_max: 4, ..ServerConfig::default() };
        let server = start(&env, loopback(), config).await;
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(300));
        let cases: [(&[u8], &str); 5] = [
            (b"nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            (long.as_bytes(), "HTTP/1.1 431 Request Header Fields Too Large"),
            (
                b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n12345",
                "HTTP/1.1 413 Payload Too Large",
            ),
            (
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
                "HTTP/1.1 413 Payload Too Large",
            ),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(said(&env, server.address, bytes).await, wanted);
        }
        assert!(server.mirror.peers().is_empty(), "the service saw none of them");
        let old = said(&env, server.address, b"GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(old, "HTTP/1.0 200 OK");
    }
    in_both_worlds!(run);
}

#[test]
fn who_is_slow_is_cut_off_in_each_part() {
    async fn run<E: Env>(env: E) {
        let config = ServerConfig {
            head_timeout: 100 * MS,
            body_timeout: 100 * MS,
            idle_timeout: 100 * MS,
            ..ServerConfig::default()
        };
        let server = start(&env, loopback(), config).await;
        let cases: [(&[u8], &str); 4] = [
            (b"", ""),
            (b"GET / HTTP/1.1\r\n", ""),
            (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n123", ""),
            (b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        ];
        for (bytes, wanted) in cases {
            let began = env.now();
            assert_eq!(said(&env, server.address, bytes).await, wanted);
            assert!(env.now().since(began) >= 100 * MS);
        }
        // A service has its time.
        let text = get(&client(&env), url("http", server.address, "/slow/300")).await;
        assert!(text.starts_with("GET /slow/300"));
    }
    in_both_worlds!(run);
}

#[test]
fn a_response_that_nobody_takes_ends_its_connection() {
    let outcome = twinspan_sim::run(3, |env| async move {
        let config = ServerConfig { response_timeout: 5 * SECOND, ..ServerConfig::default() };
        let server = start(&env, loopback(), config).await;
        let mut stream = env.connect(server.address, &TcpOptions::default()).await.unwrap();
        stream.write_all(b"GET /large/9000000 HTTP/1.1\r\n\r\n").await.unwrap();
        pass(&env, 4 * SECOND).await;
        let mut part = vec![0; 10_000];
        stream.read_exact(&mut part).await.unwrap();
        pass(&env, 2 * SECOND).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest.len()
    });
    assert!(outcome.unwrap() < 9_000_000 - 10_000);
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    async fn run<E: Env>(env: E) {
        let config = ServerConfig { connections_max: 1, ..ServerConfig::default() };
        let server = start(&env, loopback(), config).await;
        let first = client(&env);
        get(&first, url("http", server.address, "/")).await;
        let second = client(&env);
        let request = || Request::get(url("http", server.address, "/")).with_timeout(100 * MS);
        let error = second.send(request()).await.err().unwrap();
        assert!(error.is_timeout(), "{error:?}");
        drop(first);
        let response = second.send(request().with_timeout(10 * SECOND)).await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
    }
    in_both_worlds!(run);
}

#[test]
fn dropping_the_server_closes_its_connections() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), ServerConfig::default()).await;
        let config = ClientConfig { idle_timeout: 3_600 * SECOND, ..ClientConfig::default() };
        let client = HttpClient::new(env.clone(), config).unwrap();
        get(&client, url("http", server.address, "/")).await;
        drop(server);
        while client.connections() > 0 {
            pass(&env, MS).await;
        }
    }
    in_both_worlds!(run);
}

/// A service that takes for ever, and counts its calls that are under way.
struct Endless(Cell<usize>);

impl Service for Endless {
    async fn call(self: Rc<Self>, _request: ServerRequest) -> ServerResponse {
        /// Counts one while it is there.
        struct UnderWay(Rc<Endless>);
        impl Drop for UnderWay {
            fn drop(&mut self) {
                self.0.0.set(self.0.0.get() - 1);
            }
        }
        self.0.set(self.0.get() + 1);
        let _counted = UnderWay(self);
        std::future::pending().await
    }
}

#[test]
fn a_call_ends_when_its_client_has_gone() {
    async fn run<E: Env>(env: E) {
        let listener = env.listen(loopback(), &TcpOptions::default()).await.unwrap();
        let address = listener.local_addr();
        let service = Rc::new(Endless(Cell::new(0)));
        let serving = serve(env.clone(), listener, Rc::clone(&service), ServerConfig::default());
        let _task = env.spawn("server", async move {
            let _ = serving.await;
        });
        let client = client(&env);
        let request = Request::get(url("http", address, "/")).with_timeout(200 * MS);
        let error = client.send(request).await.err().unwrap();
        assert!(error.is_timeout(), "{error:?}");
        while service.0.get() > 0 {
            pass(&env, MS).await;
        }
    }
    in_both_worlds!(run);
}

#[test]
fn a_connection_that_ended_while_nobody_used_it_costs_no_request() {
    async fn run<E: Env>(env: E) {
        let config = ServerConfig { idle_timeout: 50 * MS, ..ServerConfig::default() };
        let server = start(&env, loopback(), config).await;
        let client = client(&env);
        for _ in 0..3 {
            // One that may not be sent twice.
            let post = Request::post(url("http", server.address, "/"), "text/plain", "");
            assert_eq!(client.send(post).await.unwrap().status, StatusCode::OK);
            while client.connections() > 0 {
                pass(&env, MS).await;
            }
        }
        assert_eq!(server.mirror.peers().len(), 3);
    }
    in_both_worlds!(run);
}
