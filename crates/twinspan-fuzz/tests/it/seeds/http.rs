//! What proxies and servers say.

/// Answers to a greeting and to a login, and replies of each kind.
pub(super) fn replies() -> Vec<Vec<u8>> {
    let six = [&[5, 0, 0, 4][..], &[0x20, 1, 0xd, 0xb8], &[0; 11], &[7, 0, 80]].concat();
    vec![
        vec![5, 2],
        vec![1, 0],
        vec![5, 0, 0, 1, 10, 0, 0, 1, 4, 56],
        six,
        [&[5, 0, 0, 3, 9][..], b"a.example", &[0, 80]].concat(),
        vec![5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
    ]
}

/// Datagrams that a proxy relays.
pub(super) fn datagrams() -> Vec<Vec<u8>> {
    let six = [&[0, 0, 0, 4, 0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7, 0, 80], b"payload"].concat();
    vec![
        [&[0, 0, 0, 1, 10, 0, 0, 1, 4, 56][..], b"payload"].concat(),
        six,
        [&[0, 0, 0, 3, 9][..], b"a.example", &[0, 80], b"payload"].concat(),
        [&[0, 0, 1, 1, 10, 0, 0, 1, 4, 56][..], b"piece"].concat(),
    ]
}

/// Answers to CONNECT.
pub(super) fn connects() -> Vec<Vec<u8>> {
    [
        &b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n\x16\x03\x01"[..],
        b"HTTP/1.0 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// Responses.
pub(super) fn responses() -> Vec<Vec<u8>> {
    [
        &b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 6\r\n\r\n<a/>\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n10;x=y\r\n0123456789abcdef\
          \r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 502 Bad Gateway\r\nServer: x\r\n\r\n<html>until the end</html>",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}
