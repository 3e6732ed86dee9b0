//! Calls of XML-RPC over the seam.

use twinspan_http::{HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::{Limits, Value};
use twinspan_provider::{Env, OffloadError, TaskProvider};
use twinspan_xmlrpc::{Call, Fault, ReadError, XmlRpcWriteError, parse_response, write_call};

/// Bodies longer than this are read off the thread, where they hold up no datagrams.
pub(crate) const READ_HERE_BYTES_MAX: usize = 64 * 1_024;

/// Calls methods of servers.
#[derive(Debug)]
pub struct XmlRpcClient<E: Env> {
    env: E,
    http: HttpClient<E>,
    limits: Limits,
}

impl<E: Env> Clone for XmlRpcClient<E> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), http: self.http.clone(), limits: self.limits }
    }
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmlRpcError {
    /// The call cannot be written.
    #[error(transparent)]
    Write(#[from] XmlRpcWriteError),
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is none of success.
    #[error("the server answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no XML-RPC.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The server failed, and says why.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The answer could not be read off the thread.
    #[error("the answer could not be read: {0}")]
    Offload(#[from] OffloadError),
}

impl<E: Env> XmlRpcClient<E> {
    /// A client that shares the connections of `http`; answers keep to the limits.
    pub const fn new(env: E, http: HttpClient<E>, limits: Limits) -> Self {
        Self { env, http, limits }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`XmlRpcError`]
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the server may have done what it was asked.
    pub async fn call(
        &self,
        url: Url,
        method: impl Into<String>,
        params: Vec<Value>,
    ) -> Result<Value, XmlRpcError> {
        let body = write_call(&Call { method: method.into(), params })?;
        let request = Request::post(url, twinspan_xmlrpc::CONTENT_TYPE, body)
            .with_response_bytes_max(self.limits.bytes_max);
        let response = self.http.send(request).await?;
        if !response.status.is_success() {
            return Err(XmlRpcError::Status { status: response.status });
        }
        let limits = self.limits;
        let body = response.body;
        let bytes = body.len();
        let answer = read_off(&self.env, bytes, move || parse_response(&body, &limits)).await??;
        Ok(answer?)
    }
}

/// Reads a document of this length: a short one here, a long one off the thread.
pub(crate) async fn read_off<E: TaskProvider, T: Send + 'static>(
    env: &E,
    bytes: usize,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OffloadError> {
    if bytes <= READ_HERE_BYTES_MAX { Ok(read()) } else { env.offload("read", read).await }
}
