//! The figures of a server: one address that Prometheus scrapes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::routes::{Guard, guard, refuse};

/// Makes the figures' text.
pub type Figures = Box<dyn Fn() -> String + Send + Sync>;

/// The routes for figures that are served at `addr`.
pub(super) fn router(addr: SocketAddr, hosts: Vec<String>, figures: Figures) -> Router {
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    let keeper = Arc::new(Guard { bound: addr.ip(), hosts, policy });
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "the figures are at /metrics"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(middleware::from_fn_with_state(keeper, guard))
        .with_state(Arc::new(figures))
}

async fn scrape(State(figures): State<Arc<Figures>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, figures()).into_response()
}
