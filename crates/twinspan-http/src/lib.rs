//! HTTP/1.1 and SOCKS5 over the seam: the same client and server on sockets and in the simulator.
//!
//! [`HttpClient`] keeps connections, goes through proxies and speaks TLS; [`serve`] answers
//! requests; [`socks5`] connects and sends datagrams through a proxy. All time, names, sockets and
//! randomness come from an [`Env`](twinspan_provider::Env), TLS included: its clock is the node's
//! wall clock, and its keys are drawn from the node's secrets.
//!
//! ```
//! use std::rc::Rc;
//! use twinspan_http::{
//!     ClientConfig, HttpClient, Request, ServerConfig, ServerRequest, ServerResponse, Service,
//!     StatusCode, Url, serve,
//! };
//! use twinspan_provider::{Env, TcpListener, TcpOptions};
//!
//! struct Hello;
//!
//! impl Service for Hello {
//!     async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
//!         let text = format!("you asked for {}", request.path);
//!         ServerResponse::new(StatusCode::OK, "text/plain", text)
//!     }
//! }
//!
//! async fn ask<E: Env>(env: E) -> Result<String, Box<dyn std::error::Error>> {
//!     let local = ([127, 0, 0, 1], 0).into();
//!     let listener = env.listen(local, &TcpOptions::default()).await?;
//!     let url = Url::parse(&format!("http://{}/a?b=c", listener.local_addr()))?;
//!     let serving = serve(env.clone(), listener, Rc::new(Hello), ServerConfig::default());
//!     let _server = env.spawn("http", async move {
//!         // It ends when the task is dropped.
//!         let _ = serving.await;
//!     });
//!     let client = HttpClient::new(env, ClientConfig::default())?;
//!     let response = client.send(Request::get(url)).await?;
//!     assert_eq!(response.status, StatusCode::OK);
//!     Ok(String::from_utf8(response.body.to_vec())?)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! assert_eq!(twinspan_sim::run(7, ask)??, "you asked for /a?b=c");
//! assert_eq!(twinspan_provider::run(ask)??, "you asked for /a?b=c"); // on this machine
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod client;
mod connect_head;
mod dial;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod link;
mod message;
mod proxy;
mod server;
pub mod socks5;
mod target;
mod tls;
mod transport;
mod until;

pub use bytes::Bytes;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use url::Url;

pub use client::{ClientConfig, ClientError, HttpClient, IDLE_PER_HOST_MAX, REQUESTS_WAITING_MAX};
pub use error::{HttpError, Part, Phase, ProxyError, UrlError};
pub use message::{
    REQUEST_TIMEOUT, RESPONSE_BYTES_MAX, Request, Response, ServerRequest, ServerResponse,
};
pub use proxy::{Names, PROXY_HEAD_BYTES_MAX, Proxy, ProxyUrlError};
pub use server::{ServeError, ServerConfig, Service, serve};
pub use target::{Credentials, Target};
pub use tls::{ServerTls, TlsError, Trust};
