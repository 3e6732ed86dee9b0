//! Requests and responses: the same in the simulator and on this machine.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use twinspan_http::{
    ClientConfig, HeaderValue, HttpClient, HttpError, Method, Part, Phase, Request, ServerConfig,
    StatusCode, UrlError, header,
};
use twinspan_provider::{AsyncReadExt, AsyncWriteExt, Env};

use crate::tools::{MS, client, get, head, in_both_worlds, loopback, pass, raw, start, url};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_request_arrives_as_it_was_made_and_its_response_comes_whole() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), ServerConfig::default()).await;
        let client = client(&env);
        let at = |path| url("http", server.address, path);
        let text = get(&client, at("/a/b?c=d&e")).await;
        assert_eq!(text, "GET /a/b?c=d&e of 127.0.0.1 by Twinspan: ");
        let post = Request::post(at("/p"), "text/plain", "body");
        let response = client.send(post).await.unwrap();
        assert_eq!(&*response.body, b"POST /p of 127.0.0.1 by Twinspan: body");
        assert_eq!(response.content_type(), Some("text/plain"));
        assert!(response.headers.contains_key(header::DATE));
        let named = Request::put(at("/p"), "text/plain", "")
            .with_header(header::HOST, HeaderValue::from_static("other.example"))
            .with_header(header::USER_AGENT, HeaderValue::from_static("me/1"));
        let response = client.send(named).await.unwrap();
        assert_eq!(&*response.body, b"PUT /p of other.example by me: ");
        let response = client.send(Request::delete(at("/none"))).await.unwrap();
        assert_eq!((response.status, response.body.len()), (StatusCode::NO_CONTENT, 0));
        let response = client.send(Request::new(Method::HEAD, at("/h"))).await.unwrap();
        assert_eq!((response.status, response.body.len()), (StatusCode::OK, 0));
        let response = client.send(Request::get(at("/large/3000000"))).await.unwrap();
        assert!(response.body.len() == 3_000_000 && response.body.iter().all(|byte| *byte == b'x'));
    }
    in_both_worlds!(run);
}

#[test]
fn a_connection_is_used_again_and_several_when_there_is_need() {
    async fn run<E: Env>(env: E) -> usize {
        let server = start(&env, loopback(), ServerConfig::default()).await;
        let client = client(&env);
        for _ in 0..3 {
            get(&client, url("http", server.address, "/")).await;
        }
        assert_eq!(client.connections(), 1);
        let peers = server.mirror.peers();
        assert!(peers.iter().all(|peer| *peer == peers[0]));
        let (mut one, mut other) = (
            pin!(get(&client, url("http", server.address, "/slow/20"))),
            pin!(get(&client, url("http", server.address, "/slow/20"))),
        );
        let (mut first, mut second) = (false, false);
        poll_fn(|cx| {
            first = first || one.as_mut().poll(cx).is_ready();
            second = second || other.as_mut().poll(cx).is_ready();
            if first && second { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        client.connections()
    }
    assert_eq!(in_both_worlds!(run), 2);
}

/// A raw peer that ends each connection at its second request, and how many requests it read.
async fn forgetful<E: Env>(env: &E) -> (std::net::SocketAddr, E::Task, Rc<Cell<usize>>) {
    let requests = Rc::new(Cell::new(0));
    let count = Rc::clone(&requests);
    let (address, task) = raw(env, move |_, mut stream| {
        let count = Rc::clone(&count);
        async move {
            head(&mut stream).await;
            count.set(count.get() + 1);
            stream.write_all(OK).await.unwrap();
            if !head(&mut stream).await.is_empty() {
                count.set(count.get() + 1);
            }
        }
    })
    .await;
    (address, task, requests)
}

#[test]
fn a_used_connection_that_ends_without_an_answer_costs_a_second_attempt_where_that_is_safe() {
    async fn run<E: Env>(env: E) {
        let (address, _task, requests) = forgetful(&env).await;
        let client = client(&env);
        assert_eq!(get(&client, url("http", address, "/")).await, "ok");
        assert_eq!(get(&client, url("http", address, "/")).await, "ok");
        assert_eq!(requests.get(), 3, "the second was sent twice");
        let post = Request::post(url("http", address, "/"), "text/plain", "");
        let error = client.send(post).await.err().unwrap();
        assert!(matches!(error, HttpError::Closed { request_sent: true }), "{error:?}");
        assert!(error.may_have_been_sent() && !error.is_timeout());
        assert_eq!(requests.get(), 4, "a POST was sent once");
    }
    in_both_worlds!(run);
}

#[test]
fn a_fresh_connection_that_ends_costs_no_second_attempt() {
    async fn run<E: Env>(env: E) {
        let seen = Rc::new(Cell::new(0));
        let count = Rc::clone(&seen);
        let (address, _task) = raw(&env, move |_, mut stream| {
            let count = Rc::clone(&count);
            async move {
                head(&mut stream).await;
                count.set(count.get() + 1);
            }
        })
        .await;
        let error = client(&env).send(Request::get(url("http", address, "/"))).await.err().unwrap();
        assert!(matches!(error, HttpError::Closed { request_sent: true }), "{error:?}");
        assert_eq!(seen.get(), 1);
    }
    in_both_worlds!(run);
}

/// What comes of an answer that is these bytes and then the end.
async fn answered<E: Env>(env: &E, bytes: &'static [u8]) -> Result<Vec<u8>, HttpError> {
    let (address, _task) = raw(env, move |_, mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
    })
    .await;
    let request = Request::get(url("http", address, "/")).with_response_bytes_max(8);
    let config = ClientConfig { head_bytes_max: 256, ..ClientConfig::default() };
    let client = HttpClient::new(env.clone(), config).unwrap();
    client.send(request).await.map(|response| response.body.to_vec())
}

#[test]
fn answers_that_are_none_are_named() {
    async fn run<E: Env>(env: E) {
        let good: [(&[u8], &[u8]); 4] = [
            (OK, b"ok"),
            (b"HTTP/1.0 200 OK\r\n\r\nto the", b"to the"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!", b"!"),
        ];
        for (bytes, wanted) in good {
            assert_eq!(answered(&env, bytes).await.unwrap(), wanted);
        }
        for bytes in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let error = answered(&env, bytes).await.err().unwrap();
            assert!(matches!(error, HttpError::Protocol(_)), "{bytes:?}: {error:?}");
        }
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        ] {
            let error = answered(&env, bytes).await.err().unwrap();
            assert!(matches!(error, HttpError::Closed { .. }), "{bytes:?}: {error:?}");
        }
    }
    in_both_worlds!(run);
}

#[test]
fn heads_and_bodies_are_bounded() {
    async fn run<E: Env>(env: E) {
        let large_head: &[u8] = concat!(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: ",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "\r\n\r\n"
        )
        .as_bytes();
        let cases: [(&'static [u8], Part); 4] = [
            (large_head, Part::Head),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789", Part::Body),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n",
                Part::Body,
            ),
            (b"HTTP/1.0 200 OK\r\n\r\n123456789", Part::Body),
        ];
        for (bytes, wanted) in cases {
            let error = answered(&env, bytes).await.err().unwrap();
            let HttpError::TooLarge { part, limit } = error else { panic!("{error:?}") };
            assert_eq!((part, limit), (wanted, if part == Part::Head { 256 } else { 8 }));
        }
    }
    in_both_worlds!(run);
}

#[test]
fn time_runs_out_where_it_does() {
    async fn run<E: Env>(env: E) {
        let (address, _task) = raw(&env, |number, mut stream| async move {
            head(&mut stream).await;
            if number == 1 {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab").await.unwrap();
            }
            // Until the client goes.
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let client = client(&env);
        for wanted in [Phase::Head, Phase::Body] {
            let request = Request::get(url("http", address, "/")).with_timeout(400 * MS);
            let error = client.send(request).await.err().unwrap();
            let HttpError::TimedOut { phase } = error else { panic!("{error:?}") };
            assert_eq!(phase, wanted);
            assert!(error.is_timeout() && error.may_have_been_sent());
            assert_eq!(client.connections(), 0, "its connection is closed");
        }
        let config = ClientConfig { head_timeout: Some(100 * MS), ..ClientConfig::default() };
        let client = HttpClient::new(env.clone(), config).unwrap();
        let error = client.send(Request::get(url("http", address, "/"))).await.err().unwrap();
        assert!(matches!(error, HttpError::TimedOut { phase: Phase::Head }), "{error:?}");
    }
    in_both_worlds!(run);
}

#[test]
fn dropping_a_request_closes_its_connection() {
    async fn run<E: Env>(env: E) -> bool {
        let closed = Rc::new(Cell::new(false));
        let told = Rc::clone(&closed);
        let (address, _task) = raw(&env, move |_, mut stream| {
            let told = Rc::clone(&told);
            async move {
                head(&mut stream).await;
                let end = stream.read(&mut [0]).await;
                told.set(matches!(end, Ok(0) | Err(_)));
            }
        })
        .await;
        let client = client(&env);
        {
            let mut sending = pin!(client.send(Request::get(url("http", address, "/"))));
            let mut timer = pin!(pass(&env, 50 * MS));
            poll_fn(|cx| {
                assert!(sending.as_mut().poll(cx).is_pending());
                timer.as_mut().poll(cx)
            })
            .await;
        }
        assert_eq!(client.connections(), 0);
        while !closed.get() {
            pass(&env, MS).await;
        }
        true
    }
    assert!(in_both_worlds!(run));
}

#[test]
fn requests_wait_for_a_place_and_not_too_many_do() {
    async fn run<E: Env>(env: E) {
        let server = start(&env, loopback(), ServerConfig::default()).await;
        let config =
            ClientConfig { connections_max: 1, requests_waiting_max: 1, ..ClientConfig::default() };
        let client = HttpClient::new(env.clone(), config).unwrap();
        let slow = || client.send(Request::get(url("http", server.address, "/slow/50")));
        let (mut one, mut two) = (pin!(slow()), pin!(slow()));
        let mut three = pin!(slow());
        let mut outcomes = [const { None }; 3];
        poll_fn(|cx| {
            for (index, sending) in
                [one.as_mut(), two.as_mut(), three.as_mut()].into_iter().enumerate()
            {
                if outcomes[index].is_none()
                    && let Poll::Ready(outcome) = sending.poll(cx)
                {
                    outcomes[index] = Some(outcome.map(|response| response.status));
                }
            }
            let ended = outcomes.iter().all(Option::is_some);
            if ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let [one, two, three] = outcomes.map(Option::unwrap);
        for served in [one, two] {
            assert_eq!(served.unwrap(), StatusCode::OK);
        }
        assert!(matches!(three, Err(HttpError::Busy { limit: 1 })), "{three:?}");
        assert_eq!(client.connections(), 1);
        // Another server's connection makes room.
        let other = start(&env, loopback(), ServerConfig::default()).await;
        get(&client, url("http", other.address, "/")).await;
        assert_eq!(client.connections(), 1);
    }
    in_both_worlds!(run);
}

#[test]
fn connections_that_nobody_needs_are_closed_at_either_end() {
    async fn run<E: Env>(env: E) {
        let quick = ServerConfig { idle_timeout: 50 * MS, ..ServerConfig::default() };
        let server = start(&env, loopback(), quick).await;
        let patient = client(&env);
        get(&patient, url("http", server.address, "/")).await;
        assert_eq!(patient.connections(), 1);
        while patient.connections() > 0 {
            pass(&env, MS).await;
        }
        let server = start(&env, loopback(), ServerConfig::default()).await;
        let config = ClientConfig { idle_timeout: 50 * MS, ..ClientConfig::default() };
        let quick = HttpClient::new(env.clone(), config).unwrap();
        get(&quick, url("http", server.address, "/")).await;
        assert_eq!(quick.connections(), 1);
        while quick.connections() > 0 {
            pass(&env, MS).await;
        }
        // Another time it works as ever.
        get(&quick, url("http", server.address, "/")).await;
        let none = ClientConfig { idle_per_host_max: 0, ..ClientConfig::default() };
        let none = HttpClient::new(env.clone(), none).unwrap();
        get(&none, url("http", server.address, "/")).await;
        assert_eq!(none.connections(), 0);
    }
    in_both_worlds!(run);
}

#[test]
fn what_nobody_serves_is_told_before_anything_was_sent() {
    async fn run<E: Env>(env: E) {
        let client = client(&env);
        let (address, task) = raw(&env, |_, _| async {}).await;
        drop(task);
        let error = client.send(Request::get(url("http", address, "/"))).await.err().unwrap();
        assert!(matches!(error, HttpError::Connect(_)), "{error:?}");
        assert!(!error.may_have_been_sent());
        let nowhere = "http://a.invalid/".parse().unwrap();
        let error = client.send(Request::get(nowhere)).await.err().unwrap();
        assert!(matches!(error, HttpError::Resolve(_)), "{error:?}");
        let wrong = "ftp://a/".parse().unwrap();
        let error = client.send(Request::get(wrong)).await.err().unwrap();
        assert!(matches!(error, HttpError::Url(UrlError::Scheme(_))), "{error:?}");
    }
    in_both_worlds!(run);
}
