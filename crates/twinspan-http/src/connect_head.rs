//! The head of an HTTP proxy's answer to CONNECT, out of whatever bytes came.

use http::StatusCode;

use crate::ProxyError;

/// Headers that it may have.
const HEADERS_MAX: usize = 64;

/// What has come of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not all of it.
    Part,
    /// All of it: what it says, and how many bytes it has.
    Whole { status: StatusCode, bytes: usize },
}

/// Reads the head at the beginning of `came`, which may have at most `limit` bytes.
pub(crate) fn connect_head(came: &[u8], limit: usize) -> Result<Head, ProxyError> {
    let looked_at = came.get(..limit).unwrap_or(came);
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(looked_at) {
        Ok(httparse::Status::Complete(bytes)) => {
            let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.ok_or_else(|| ProxyError::Garbled("a wrong status".to_owned()))?;
            Ok(Head::Whole { status, bytes })
        }
        Ok(httparse::Status::Partial) if came.len() >= limit => {
            Err(ProxyError::HeadTooLarge { limit })
        }
        Ok(httparse::Status::Partial) => Ok(Head::Part),
        Err(httparse::Error::TooManyHeaders) => Err(ProxyError::HeadTooLarge { limit }),
        Err(error) => Err(ProxyError::Garbled(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 p\r\n\r\n";

    #[test]
    fn a_head_ends_where_it_ends() {
        let behind = [ANSWER, b"\x16\x03\x01"].concat();
        for came in [ANSWER, &behind] {
            let Head::Whole { status, bytes } = connect_head(came, 100).unwrap() else { panic!() };
            assert_eq!((status, bytes), (StatusCode::OK, ANSWER.len()));
        }
        for len in 0..ANSWER.len() {
            assert_eq!(connect_head(&ANSWER[..len], 100).unwrap(), Head::Part);
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let limit = ANSWER.len() - 1;
        let outcome = connect_head(ANSWER, limit);
        assert!(matches!(outcome, Err(ProxyError::HeadTooLarge { .. })), "{outcome:?}");
        assert!(connect_head(ANSWER, limit + 1).is_ok());
        let many = [b"HTTP/1.0 200 OK\r\n".to_vec(), b"a:b\r\n".repeat(65)].concat();
        assert!(matches!(connect_head(&many, 8_000), Err(ProxyError::HeadTooLarge { .. })));
    }

    #[test]
    fn another_protocol_is_named() {
        for came in [&b"SSH-2.0-x\r\n"[..], b"\x05\x00", b"HTTP/1.1 2000 OK\r\n\r\n"] {
            assert!(matches!(connect_head(came, 100), Err(ProxyError::Garbled(_))), "{came:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_name_a_reason(bytes: Vec<u8>, limit in 0_usize..64) {
            if let Ok(Head::Whole { bytes: len, .. }) = connect_head(&bytes, limit) {
                prop_assert!(len <= bytes.len() && len <= limit);
            }
        }
    }
}
