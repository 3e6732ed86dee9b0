//! What users want to know of grids: a task for each question, beside any session.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;
use twinspan_http::{ClientError, HttpClient};
use twinspan_provider::Env;

use super::fetches::Fetches;
use crate::grid::Grid;
use crate::grid_info::{GridInfo, GridInfoError, GridInfoService};

/// Who waits for what a grid tells.
pub(crate) type InfoReply = oneshot::Sender<Result<Arc<GridInfo>, GridInfoError>>;

/// Asks grids, and keeps what they told for as long as the client is there.
pub(super) struct Infos<E: Env> {
    service: Rc<GridInfoService<E>>,
    fetches: Fetches<E>,
}

impl<E: Env> Infos<E> {
    pub(super) fn new(env: E) -> Self {
        Self { service: Rc::new(GridInfoService::new(env.clone())), fetches: Fetches::new(env) }
    }

    /// Asks a grid by way of `http`, and tells `reply` what it said.
    pub(super) fn ask(
        &mut self,
        http: Result<HttpClient<E>, ClientError>,
        grid: Grid,
        reply: InfoReply,
    ) {
        let http = match http {
            Ok(http) if self.fetches.has_room() => http,
            refused => {
                let error = refused.map_or_else(GridInfoError::from, |_| GridInfoError::Busy);
                // Who asked may have gone.
                let _ = reply.send(Err(error));
                return;
            }
        };
        let service = Rc::clone(&self.service);
        self.fetches.begin("viewer.grid_info", async move {
            let told = service.get(&http, &grid).await;
            // Who asked may have gone.
            let _ = reply.send(told);
        });
    }
}
