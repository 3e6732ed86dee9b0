//! Requests and responses, as users of the client and services of the server have them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

/// How long an exchange may take, unless its request says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that the body of a response may have, unless its request says otherwise.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method; not CONNECT.
    pub method: Method,
    /// Whom, and for what; `http` or `https`, without a user in it. What follows `#` stays here.
    pub url: Url,
    /// Headers. Host, User-Agent and the length of the body are added where they are not there.
    pub headers: HeaderMap,
    /// The body, perhaps empty.
    pub body: Bytes,
    /// How long the whole exchange may take, [`REQUEST_TIMEOUT`] at first.
    pub timeout: Duration,
    /// Bytes that the response's body may have, [`RESPONSE_BYTES_MAX`] at first.
    pub response_bytes_max: usize,
}

impl Request {
    /// A request without headers and with no body.
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: REQUEST_TIMEOUT,
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }

    /// Asks for what is there.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// Asks for it to be removed.
    pub fn delete(url: Url) -> Self {
        Self::new(Method::DELETE, url)
    }

    /// Hands something over. A content type that no header can hold is left out.
    pub fn post(url: Url, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::with_body(Method::POST, url, content_type, body.into())
    }

    /// Puts something there. A content type that no header can hold is left out.
    pub fn put(url: Url, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::with_body(Method::PUT, url, content_type, body.into())
    }

    fn with_body(method: Method, url: Url, content_type: &str, body: Bytes) -> Self {
        let mut request = Self { body, ..Self::new(method, url) };
        if let Ok(value) = HeaderValue::from_str(content_type) {
            request.headers.insert(header::CONTENT_TYPE, value);
        }
        request
    }

    /// With another limit of time.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With another limit of the response's size.
    #[must_use]
    pub fn with_response_bytes_max(self, response_bytes_max: usize) -> Self {
        Self { response_bytes_max, ..self }
    }

    /// With a header, in place of what it was.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Asks for a part: the bytes from `from` on, to the one at `to` or to the end.
    #[must_use]
    pub fn with_range(self, from: u64, to: Option<u64>) -> Self {
        let text = match to {
            Some(to) => format!("bytes={from}-{to}"),
            None => format!("bytes={from}-"),
        };
        match HeaderValue::try_from(text) {
            Ok(value) => self.with_header(header::RANGE, value),
            // Digits and a hyphen always are a value.
            Err(_) => self,
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status, whichever it is.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The content type without its parameters, as the server wrote it.
    pub fn content_type(&self) -> Option<&str> {
        let text = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        text.split(';').next().map(str::trim).filter(|kind| !kind.is_empty())
    }
}

/// What came to a server.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// The method.
    pub method: Method,
    /// The path, with the query behind `?` where there is one.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

/// What a service answers.
#[derive(Clone, Debug)]
pub struct ServerResponse {
    /// The status.
    pub status: StatusCode,
    /// Headers. The date and the length of the body are added where they are not there.
    pub headers: HeaderMap,
    /// The body, perhaps empty.
    pub body: Bytes,
}

impl ServerResponse {
    /// A response with a body. A content type that no header can hold is left out.
    pub fn new(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut response = Self { body: body.into(), ..Self::status(status) };
        if let Ok(value) = HeaderValue::from_str(content_type) {
            response.headers.insert(header::CONTENT_TYPE, value);
        }
        response
    }

    /// A response without a body.
    pub fn status(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// With a header, in place of what it was.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_headers() {
        let url = Url::parse("http://a/").unwrap();
        let range = |to| {
            let request = Request::get(url.clone()).with_range(5, to);
            request.headers.get(header::RANGE).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!((range(Some(9)).as_str(), range(None).as_str()), ("bytes=5-9", "bytes=5-"));
    }

    #[test]
    fn a_content_type_is_told_without_its_parameters() {
        let response = |value: &'static str| Response {
            status: StatusCode::OK,
            headers: [(header::CONTENT_TYPE, HeaderValue::from_static(value))]
                .into_iter()
                .collect(),
            body: Bytes::new(),
        };
        let told = response("text/html; charset=utf-8");
        assert_eq!(told.content_type(), Some("text/html"));
        assert_eq!(response(" ;x").content_type(), None);
    }
}
