//! The demo's web side: one page, its live feed and the small API that the page uses.
//!
//! The demo writes a [`Board`]; [`HttpServer`] shows it from a thread of its own, so that no page,
//! however slow or hostile, can delay a tick.
//!
//! ```no_run
//! use std::sync::Arc;
//! use twinspan_cli::http::{Board, HttpServer, WorldFrame};
//!
//! # fn main() -> Result<(), twinspan_cli::http::HttpError> {
//! let board = Arc::new(Board::new());
//! let address = "127.0.0.1:7777".parse().expect("a literal address");
//! let server = HttpServer::start(address, Arc::clone(&board), Box::new(|conditions| {
//!     println!("the person at the page asks for {conditions:?}");
//! }))?;
//! board.publish_world(WorldFrame::default());
//! println!("open http://{}", server.local_addr());
//! server.stop();
//! # Ok(())
//! # }
//! ```

mod board;
mod conditions;
mod events;
mod metrics;
mod page;
mod patience;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use board::{Board, EntityDot, InterestRow, MetricsFrame, SessionRow, WorldFrame};
pub use board::{INTEREST_SPAN, METRICS_SECONDS_MAX};
pub use events::EVENT_READERS_MAX;
pub use metrics::Figures;
pub use routes::BODY_BYTES_MAX;
pub use server::{CONNECTIONS_MAX, HttpError, HttpServer};
