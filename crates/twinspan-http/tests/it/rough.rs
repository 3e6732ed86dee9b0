//! The same exchanges over networks that lose, delay, cut and fail, in virtual time.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_http::{ClientConfig, HttpClient, HttpError, Phase, Request, ServerConfig};
use twinspan_provider::{ConnectError, ResolveError, TaskProvider, TimeProvider};
use twinspan_sim::{NameFailure, Sim, SimConfig, SimEnv, SimTask, TcpMode};

use crate::tools::{MS, SECOND, get, pass, start};

const HOUR: Duration = Duration::from_secs(3_600);
const PORT: u16 = 80;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// A server (2) with a name, and a client (1).
fn world(config: SimConfig) -> (Sim, SimEnv, SimTask) {
    let mut sim = Sim::new(config);
    let env = sim.host("server", ip(2));
    let inner = env.clone();
    let task = env.spawn("server", async move {
        let local = SocketAddr::new(ip(2), PORT);
        let _server = start(&inner, local, ServerConfig::default()).await;
        std::future::pending::<()>().await;
    });
    sim.set_name("server.example", &[ip(2)], HOUR);
    let client = sim.host("client", ip(1));
    sim.run_for(MS);
    (sim, client, task)
}

fn ask(path: &str) -> Request {
    Request::get(format!("http://server.example{path}").parse().unwrap())
}

fn client(env: &SimEnv) -> HttpClient<SimEnv> {
    HttpClient::new(env.clone(), ClientConfig::default()).unwrap()
}

#[test]
fn loss_and_latency_delay_and_break_nothing() {
    for tcp in [TcpMode::Streams, TcpMode::Segments] {
        let conditions = Conditions { delay: 30 * MS, loss: 0.1, ..Conditions::CLEAN };
        let config =
            SimConfig { seed: 5, conditions, tcp, short_stream: 0.3, ..SimConfig::default() };
        let (mut sim, env, _task) = world(config);
        let inner = env.clone();
        let outcome = sim.block_on(&env, HOUR, async move {
            let client = client(&inner);
            for number in 0..50 {
                let path = format!("/{number}");
                let text = get(&client, ask(&path).url).await;
                assert_eq!(text, format!("GET /{number} of server.example by Twinspan: "));
                let large = client.send(ask("/large/50000")).await.unwrap();
                assert_eq!(large.body.len(), 50_000);
            }
            client.connections()
        });
        assert_eq!(outcome, Some(1));
        assert!(sim.faults().effect(FaultKind::Loss) > 10);
    }
}

#[test]
fn whatever_cuts_connections_each_request_has_a_response_or_a_reason() {
    let (mut answered, mut broken) = (0, 0);
    for seed in 0..20 {
        let config = SimConfig {
            seed,
            stream_reset: 0.02,
            connect_refuse: 0.1,
            name_failure: 0.1,
            ..SimConfig::default()
        };
        let (mut sim, env, _task) = world(config);
        let inner = env.clone();
        let outcomes = sim.block_on(&env, HOUR, async move {
            let client = client(&inner);
            let mut outcomes = Vec::new();
            for number in 0..30 {
                let path = format!("/large/{}", number * 5_000);
                let outcome = client.send(ask(&path)).await;
                outcomes.push(outcome.map(|response| response.body.len() == number * 5_000));
            }
            outcomes
        });
        for outcome in outcomes.unwrap() {
            match outcome {
                Ok(is_whole) => {
                    assert!(is_whole, "seed {seed}");
                    answered += 1;
                }
                Err(
                    HttpError::Closed { .. }
                    | HttpError::Connect(ConnectError::Refused(_) | ConnectError::Reset(_))
                    | HttpError::Resolve(_),
                ) => broken += 1,
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
        }
    }
    assert!(answered > 300 && broken > 20, "{answered} answered, {broken} broken");
}

#[test]
fn each_limit_of_time_is_kept_to_the_moment() {
    let (mut sim, env, _task) = world(SimConfig { seed: 1, ..SimConfig::default() });
    let inner = env.clone();
    let took = sim.block_on(&env, HOUR, async move {
        let config = ClientConfig { head_timeout: Some(20 * SECOND), ..ClientConfig::default() };
        let client = HttpClient::new(inner.clone(), config).unwrap();
        let mut took = Vec::new();
        for timeout in [7, 60] {
            let began = inner.now();
            let request = ask("/slow/100000").with_timeout(timeout * SECOND);
            let error = client.send(request).await.err().unwrap();
            assert!(matches!(error, HttpError::TimedOut { phase: Phase::Head }), "{error:?}");
            took.push(inner.now().since(began));
        }
        took
    });
    // The head's time begins when the name was found and the connection made.
    let [whole, head] = took.unwrap()[..] else { panic!() };
    assert_eq!(whole, 7 * SECOND);
    assert!((20 * SECOND..20 * SECOND + 10 * MS).contains(&head), "{head:?}");
}

#[test]
fn a_long_poll_is_answered_when_its_time_has_come() {
    let (mut sim, env, _task) = world(SimConfig { seed: 1, ..SimConfig::default() });
    let inner = env.clone();
    let took = sim.block_on(&env, HOUR, async move {
        let began = inner.now();
        let request = ask("/slow/58000").with_timeout(90 * SECOND);
        client(&inner).send(request).await.unwrap();
        inner.now().since(began)
    });
    let took = took.unwrap();
    assert!((58 * SECOND..59 * SECOND).contains(&took), "{took:?}");
}

#[test]
fn a_server_that_cannot_be_reached_is_given_up_in_time() {
    let (mut sim, env, _task) = world(SimConfig { seed: 1, ..SimConfig::default() });
    sim.partition(ip(1), ip(2));
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        let began = inner.now();
        let error = client(&inner).send(ask("/")).await.err().unwrap();
        (error, inner.now().since(began))
    });
    let (error, took) = outcome.unwrap();
    assert!(error.is_timeout() && !error.may_have_been_sent(), "{error:?}");
    assert!((14 * SECOND..=15 * SECOND).contains(&took), "{took:?}");
}

#[test]
fn an_address_that_is_silent_leaves_time_for_the_next() {
    let (mut sim, env, _task) = world(SimConfig { seed: 1, ..SimConfig::default() });
    sim.host("silent", ip(3));
    sim.partition(ip(1), ip(3));
    sim.set_name("server.example", &[ip(3), ip(2)], HOUR);
    let inner = env.clone();
    let outcome = sim.block_on(&env, HOUR, async move {
        let began = inner.now();
        client(&inner).send(ask("/")).await.unwrap();
        inner.now().since(began)
    });
    let took = outcome.unwrap();
    assert!((7 * SECOND..8 * SECOND).contains(&took), "{took:?}");
}

#[test]
fn names_fail_as_they_fail() {
    let (mut sim, env, _task) = world(SimConfig { seed: 1, ..SimConfig::default() });
    sim.fail_name("server.example", NameFailure::ServerFailure);
    let inner = env.clone();
    let error = sim.block_on(&env, HOUR, async move { client(&inner).send(ask("/")).await.err() });
    let error = error.unwrap().unwrap();
    assert!(matches!(error, HttpError::Resolve(ResolveError::ServerFailure { .. })), "{error:?}");
}

#[test]
fn a_partition_in_the_middle_of_an_answer_ends_in_time() {
    let conditions = Conditions { rate_bytes_per_s: 100_000, ..Conditions::CLEAN };
    let (mut sim, env, _task) = world(SimConfig { seed: 1, conditions, ..SimConfig::default() });
    let outcome = Rc::new(RefCell::new(None));
    let (inner, told) = (env.clone(), Rc::clone(&outcome));
    let _asking = env.spawn("client", async move {
        let request = ask("/large/1000000").with_timeout(30 * SECOND);
        let result = client(&inner).send(request).await;
        *told.borrow_mut() = Some((result.err(), inner.now()));
    });
    sim.run_for(5 * SECOND);
    sim.partition(ip(1), ip(2));
    sim.run_for(HOUR);
    let (error, at) = outcome.borrow_mut().take().unwrap();
    assert!(matches!(error, Some(HttpError::TimedOut { phase: Phase::Body })), "{error:?}");
    assert_eq!(at.since(twinspan_core::time::Timestamp::START), 30 * SECOND + MS);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let conditions = Conditions { loss: 0.05, ..Conditions::WIFI };
        let (mut sim, env, _task) =
            world(SimConfig { seed, conditions, stream_reset: 0.01, ..SimConfig::default() });
        let inner = env.clone();
        let outcome = sim.block_on(&env, HOUR, async move {
            let client = client(&inner);
            for _ in 0..20 {
                let _ = client.send(ask("/large/30000")).await;
                pass(&inner, 100 * MS).await;
            }
        });
        assert!(outcome.is_some());
        sim.trace_hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
