//! What a request looks like on its way.

use super::*;

fn route(url: &str, proxy: Option<&str>) -> Result<Route, UrlError> {
    let proxy = proxy.map(|text| text.parse().unwrap());
    Route::of(&Request::get(Url::parse(url).unwrap()), proxy.as_ref())
}

#[test]
fn a_request_line_has_the_path_and_for_a_proxy_all() {
    let cases = [
        ("http://a.example/b?c=d#e", None, "/b?c=d", "a.example"),
        ("http://a.example:8080", None, "/", "a.example:8080"),
        ("http://a.example:80/", None, "/", "a.example"),
        ("https://[::1]:9/x", None, "/x", "[::1]:9"),
        ("http://a.example/b?c", Some("http://p"), "http://a.example/b?c", "a.example"),
        ("https://a.example/b", Some("http://p"), "/b", "a.example"),
        ("http://a.example/b", Some("socks5://p"), "/b", "a.example"),
    ];
    for (url, proxy, uri, host) in cases {
        let route = route(url, proxy).unwrap();
        assert_eq!((route.uri.to_string().as_str(), route.host.to_str().unwrap()), (uri, host));
    }
}

#[test]
fn plain_requests_share_the_connections_to_an_http_proxy() {
    let key = |url, proxy| route(url, proxy).unwrap().key;
    let http = Some("http://p");
    assert_eq!(key("http://a/", http), key("http://b/", http));
    assert_ne!(key("https://a/", http), key("https://b/", http));
    assert_ne!(key("http://a/", None), key("http://a:81/", None));
    assert_ne!(key("http://a:443/", None), key("https://a/", None));
    assert_eq!(key("http://a/b", None), key("http://A/c", None));
}

#[test]
fn what_cannot_be_asked_for_is_named() {
    let error = |url: &str| route(url, None).err().unwrap();
    assert_eq!(error("ftp://a/"), UrlError::Scheme("ftp".into()));
    assert_eq!(error("http://user@a/"), UrlError::Credentials);
    assert_eq!(error("http://:pass@a/"), UrlError::Credentials);
    let long = format!("http://a/{}", "b".repeat(70_000));
    assert!(matches!(error(&long), UrlError::Unusable(_)));
    let tunnel = Request::new(Method::CONNECT, Url::parse("http://a/").unwrap());
    assert_eq!(Route::of(&tunnel, None).err(), Some(UrlError::Tunnel));
}

#[test]
fn what_cannot_be_in_a_configuration_is_named() {
    let of = |config: ClientConfig| config.check().err().unwrap();
    let config = ClientConfig { connections_max: 0, ..ClientConfig::default() };
    assert!(matches!(of(config), ClientError::Range { name: "connections_max", .. }));
    let config = ClientConfig { head_bytes_max: 10, ..ClientConfig::default() };
    assert!(matches!(of(config), ClientError::Range { name: "head_bytes_max", .. }));
    let config = ClientConfig { user_agent: "a\nb".into(), ..ClientConfig::default() };
    assert_eq!(of(config), ClientError::UserAgent("a\nb".into()));
    let server = Target::new("p", 0);
    let proxy = Some(Proxy::Http { server, auth: None });
    assert_eq!(
        of(ClientConfig { proxy, ..ClientConfig::default() }),
        ClientError::Proxy(ProxyUrlError::NoPort)
    );
}

#[test]
fn only_what_may_be_done_twice_is_sent_twice() {
    let failed = |was_sent, was_answered, error| Failure { error, was_sent, was_answered };
    let closed = || HttpError::Closed { request_sent: true };
    assert!(may_repeat(&failed(true, false, closed()), &Method::GET));
    assert!(may_repeat(&failed(true, false, closed()), &Method::PUT));
    assert!(!may_repeat(&failed(true, false, closed()), &Method::POST));
    assert!(may_repeat(&failed(false, false, closed()), &Method::POST));
    assert!(!may_repeat(&failed(true, true, closed()), &Method::GET));
    let other = HttpError::Protocol(String::new());
    assert!(!may_repeat(&failed(true, false, other), &Method::GET));
}

#[test]
fn a_connection_is_kept_as_long_as_both_ends_want() {
    let minute = Duration::from_mins(1);
    let kept = |text: &'static str| {
        let value = HeaderValue::from_static(text);
        kept_for(
            &[(header::HeaderName::from_static("keep-alive"), value)].into_iter().collect(),
            minute,
        )
    };
    assert_eq!(kept_for(&HeaderMap::new(), minute), minute);
    for (text, wanted) in [
        ("timeout=5", 4),
        ("max=100, timeout=5", 4),
        ("timeout=0", 0),
        ("timeout=900", 60),
        ("timeout=99999999999", 60),
        ("timeout=x", 60),
        ("", 60),
    ] {
        assert_eq!(kept(text), Duration::from_secs(wanted), "{text}");
    }
}

#[test]
fn without_a_logger_standard_error_is_told_that_certificates_are_not_checked() {
    let mut stderr = Vec::new();
    warn_unchecked(&mut stderr);
    let told = String::from_utf8(stderr).unwrap();
    assert_eq!(told, format!("warning: {UNCHECKED}\n"));
}
