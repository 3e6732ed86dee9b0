//! What is served where, and who is turned away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, uri::Authority};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use twinspan_core::link::Conditions;

use super::board::Board;
use super::conditions;
use super::events::{self, EVENT_READERS_MAX, Rendered};
use super::page;

/// Largest body of a request.
pub const BODY_BYTES_MAX: usize = 4_096;

/// How long a request's body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// What every handler shares.
struct Shared {
    board: Arc<Board>,
    on_conditions: Box<dyn Fn(Conditions) + Send + Sync>,
    stopped: watch::Receiver<bool>,
    rendered: Arc<Rendered>,
    readers: Arc<Semaphore>,
}

/// Who may ask, and what every reply is marked with.
pub(super) struct Guard {
    /// Where the server listens.
    pub(super) bound: IpAddr,
    /// Further names that mean this server.
    pub(super) hosts: Vec<String>,
    /// What a browser may do with the replies.
    pub(super) policy: HeaderValue,
}

/// The routes for a server that listens on `addr`.
pub(super) fn router(
    addr: SocketAddr,
    board: Arc<Board>,
    on_conditions: Box<dyn Fn(Conditions) + Send + Sync>,
    stopped: watch::Receiver<bool>,
) -> Router {
    // The policy is plain ASCII; should it ever not be, nothing at all is allowed.
    let policy = HeaderValue::from_str(&page::policy())
        .unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let keeper = Arc::new(Guard { bound: addr.ip(), hosts: Vec::new(), policy });
    let shared = Arc::new(Shared {
        board,
        on_conditions,
        stopped,
        rendered: Arc::default(),
        readers: Arc::new(Semaphore::new(EVENT_READERS_MAX)),
    });
    Router::new()
        .route("/", get(document))
        .route("/events", get(feed))
        .route("/healthz", get(async || "ok\n"))
        .route("/api/snapshot", get(snapshot))
        .route("/api/aoi/{entity}", get(interest))
        .route("/api/conditions", post(set_conditions))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(middleware::from_fn_with_state(keeper, guard))
        .with_state(shared)
}

/// Turns foreign requests away and puts the protective headers on every reply.
pub(super) async fn guard(
    State(keeper): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&request, &keeper) {
        Ok(()) => next.run(request).await,
        Err((status, reason)) => refuse(status, &reason),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, keeper.policy.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Lets a request in if it names this server and, should it change something, comes from its page.
///
/// A page elsewhere can point its own name at this machine (DNS rebinding) and would then be of
/// one origin with this server; the name in `Host` gives it away. A port is not compared: a
/// tunnel may change it, and no attacker gains by it.
fn admit(request: &Request, keeper: &Guard) -> Result<(), (StatusCode, String)> {
    let headers = request.headers();
    let Some(host) = single(headers, &header::HOST) else {
        return Err((StatusCode::BAD_REQUEST, "send exactly one host header".to_owned()));
    };
    if !is_own_name(host, keeper) {
        return Err((
            StatusCode::FORBIDDEN,
            "this host name is not served here: use localhost or the address itself".to_owned(),
        ));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    match single(headers, &header::ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        None if !headers.contains_key(header::ORIGIN) => Ok(()),
        _ => Err((StatusCode::FORBIDDEN, "only this server's own page may do that".to_owned())),
    }
}

/// The text of a header that is there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether `host` (a name or address, with or without a port) means this server.
fn is_own_name(host: &str, keeper: &Guard) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let is_name = |known: &String| name.eq_ignore_ascii_case(known);
    if name.eq_ignore_ascii_case("localhost") || keeper.hosts.iter().any(is_name) {
        return true;
    }
    let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return false;
    };
    // On "any address" the machine's own addresses are all right, and an address, unlike a name,
    // cannot be pointed elsewhere.
    ip == keeper.bound || ip.is_loopback() || keeper.bound.is_unspecified()
}

pub(super) fn refuse(status: StatusCode, reason: &str) -> Response {
    reply(status, &json!({ "error": reason }))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page::DOCUMENT).into_response()
}

async fn feed(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    if method == Method::HEAD {
        return (kind, Body::empty()).into_response();
    }
    let Ok(place) = Arc::clone(&shared.readers).try_acquire_owned() else {
        let reason = format!("{EVENT_READERS_MAX} pages are open already: close one of them");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &reason);
    };
    let rendered = Arc::clone(&shared.rendered);
    let body = events::feed(&shared.board, rendered, shared.stopped.clone(), place);
    (kind, body).into_response()
}

/// What the server has at this moment, for scripts and tests.
async fn snapshot(State(shared): State<Arc<Shared>>) -> Response {
    let world = shared.board.world();
    let sessions = shared.board.sessions();
    let readers = EVENT_READERS_MAX - shared.readers.available_permits();
    reply(
        StatusCode::OK,
        &json!({
            "tick": world.tick,
            "side": world.side,
            "cell": world.cell,
            "entities": world.entities.len(),
            "players": world.count_of(0),
            "npcs": world.count_of(1),
            "projectiles": world.count_of(2),
            "sessions": sessions.len(),
            "cipher": sessions.first().map(|row| row.cipher),
            "conditions": conditions::to_json(&shared.board.conditions()),
            "metrics": shared.board.last_metrics(),
            "event_readers": readers,
        }),
    )
}

/// The cells that a player is subscribed to, and every other entity in them.
async fn interest(State(shared): State<Arc<Shared>>, Path(word): Path<String>) -> Response {
    let Ok(id) = word.parse::<u32>() else {
        return refuse(StatusCode::BAD_REQUEST, "an entity's id is a number below 2^32");
    };
    let world = shared.board.world();
    let Some(dot) = world.entities.iter().find(|dot| dot.id == id) else {
        return refuse(StatusCode::NOT_FOUND, &format!("there is no entity {id}"));
    };
    let Some(row) = world.interests.iter().find(|row| row.id == id) else {
        let reason = format!("entity {id} has no area of interest: only players have one");
        return refuse(StatusCode::NOT_FOUND, &reason);
    };
    // At most 49 cells in row order, so a walk along them is as good as a set.
    let cells: Vec<[i32; 2]> = row.cells().map(|(x, z)| [x, z]).collect();
    let visible: Vec<u32> = world
        .entities
        .iter()
        .filter(|other| {
            let (x, z) = world.cell_of(other);
            other.id != id && cells.contains(&[x, z])
        })
        .map(|other| other.id)
        .collect();
    let body = json!({
        "id": id, "kind": dot.kind, "tick": world.tick, "cells": cells, "visible": visible,
    });
    reply(StatusCode::OK, &body)
}

async fn set_conditions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        let reason = "send the body as content-type application/json";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err((status, reason)) => return refuse(status, &reason),
    };
    let wanted = match conditions::parse(&body) {
        Ok(wanted) => wanted,
        Err(refused) => return refuse(StatusCode::BAD_REQUEST, &refused.to_string()),
    };
    (shared.on_conditions)(wanted);
    shared.board.conditions.send_replace(wanted);
    reply(StatusCode::OK, &conditions::to_json(&wanted))
}

/// Pages elsewhere cannot send this type without asking first, and nobody here says yes.
fn is_json(headers: &HeaderMap) -> bool {
    single(headers, &header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or(value);
        kind.trim().eq_ignore_ascii_case("application/json")
    })
}

/// The whole body, unless it is too large or too slow.
async fn read(body: Body) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body must be whole and at most {BODY_BYTES_MAX} bytes"),
        )),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(bound: &str, hosts: &[&str]) -> Guard {
        Guard {
            bound: bound.parse().unwrap(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            policy: HeaderValue::from_static(""),
        }
    }

    #[test]
    fn configured_names_are_own_and_no_others() {
        let keeper = keeper("0.0.0.0", &["game-1.internal"]);
        assert!(is_own_name("game-1.internal:9100", &keeper));
        assert!(is_own_name("GAME-1.internal", &keeper));
        assert!(!is_own_name("game-2.internal", &keeper));
    }

    #[test]
    fn own_names_are_the_address_and_the_loopback() {
        let keeper = keeper("127.0.0.1", &[]);
        for host in ["127.0.0.1", "127.0.0.1:7777", "localhost", "LocalHost:80", "[::1]:7777"] {
            assert!(is_own_name(host, &keeper), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7777",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.1:7777",
            "user@localhost",
            "localhost:7777:7777",
            "::1",
            "localhost/",
        ] {
            assert!(!is_own_name(host, &keeper), "{host}");
        }
    }

    #[test]
    fn on_any_address_every_literal_address_is_own() {
        let keeper = keeper("0.0.0.0", &[]);
        assert!(is_own_name("192.0.2.1:7777", &keeper));
        assert!(!is_own_name("evil.example", &keeper));
    }

    #[test]
    fn json_is_json_with_or_without_a_charset() {
        let mut headers = HeaderMap::new();
        assert!(!is_json(&headers));
        for (value, wanted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-patch", false),
        ] {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_json(&headers), wanted, "{value}");
        }
    }
}
