//! How `twinspan viewer` gets to a grid: by proxies, with passwords, and past certificates.
#![cfg(unix)]

use serde_json::Value;

use crate::command::{Ended, run};
use crate::daemons::{DANTE, Peer, TINYPROXY, has, library};
use crate::tls_front::{AUTHORITY, TlsFront};
use crate::viewer::{PasswordFile, grid, lines};

/// A short session of Ruth.
fn login(uri: &str, file: &PasswordFile, more: &[&str]) -> Ended {
    let args = ["viewer", "login", "--grid", uri, "--user", "Ruth Tester", "--json", "--for", "1"];
    run(&[&args[..], &["--password-file", file.path()], more].concat())
}

/// The summary of who was in, and of who was not.
fn summary(ended: &Ended, is_in: bool) -> Value {
    assert_eq!(ended.code(), Some(i32::from(!is_in)), "{ended:?}");
    let told = lines(&ended.stdout);
    assert_eq!(told.iter().any(|line| line["event"] == "connected"), is_in, "{ended:?}");
    told.last().unwrap().clone()
}

#[test]
fn a_session_goes_by_the_socks5_proxy_that_it_is_told() {
    if !has(DANTE, "dante-server") || !has(&library(), "libnss-wrapper") {
        return;
    }
    let ((_grid, uri), password) = (grid(), PasswordFile::new("road-a", "sesame"));
    let proxy = Peer::dante("cli-dante", "username", true);
    for scheme in ["socks5", "socks5h"] {
        let url = |word| format!("{scheme}://tester:{word}@{}", proxy.address);
        let told = summary(&login(&uri, &password, &["--proxy", &url("secret")]), true);
        assert!(told["messages_in"].as_u64().unwrap() > 0, "{told}");
        // Without the flag it would come in all the same.
        let ended = login(&uri, &password, &["--proxy", &url("wrong")]);
        let reason = summary(&ended, false)["disconnect_reason"].clone();
        assert!(reason.as_str().unwrap().contains("proxy"), "{reason}");
        assert!(!ended.stdout.contains("wrong"), "a password is told: {ended:?}");
    }
}

#[test]
fn requests_go_by_the_http_proxy_that_they_are_told() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    let ((_grid, uri), password) = (grid(), PasswordFile::new("road-b", "sesame"));
    let proxy = Peer::tinyproxy("cli-tinyproxy", "BasicAuth tester secret");
    let url = |word| format!("http://tester:{word}@{}", proxy.address);
    let told = summary(&login(&uri, &password, &["--proxy", &url("secret")]), true);
    assert!(told["caps"].as_u64().unwrap() > 0, "{told}");
    // It hangs up on what it has not read of a login.
    summary(&login(&uri, &password, &["--proxy", &url("wrong")]), false);

    let info = |more: &[&str]| run(&[&["viewer", "info", "--grid", &uri][..], more].concat());
    let ended = info(&["--proxy", &url("secret"), "--json"]);
    assert_eq!((ended.code(), &ended.json()["platform"]), (Some(0), &"Twinspan".into()));
    let ended = info(&["--proxy", &url("wrong")]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("401") && !ended.stderr.contains("wrong"), "{ended:?}");
    info(&["--proxy", "gopher://a"]).assert_refusal(&["--proxy", "gopher"]);
}

#[test]
fn a_certificate_is_checked_against_the_authority_that_is_given_unless_told_not_to() {
    let ((_grid, uri), password) = (grid(), PasswordFile::new("road-c", "sesame"));
    let door = TlsFront::open(&uri);
    let uri = door.uri();
    let reason = summary(&login(&uri, &password, &[]), false)["disconnect_reason"].clone();
    assert!(reason.as_str().unwrap().contains("certificate"), "{reason}");
    let ended = login(&uri, &password, &["--ca", AUTHORITY]);
    summary(&ended, true);
    assert_eq!(ended.stderr, "", "{ended:?}");
    let ended = login(&uri, &password, &["--no-certificate-checks"]);
    summary(&ended, true);
    assert!(ended.stderr.contains("certificate"), "it is said aloud: {ended:?}");
    assert!(ended.stdout.contains("\"certificates_unchecked\""), "{ended:?}");

    let info = |more: &[&str]| run(&[&["viewer", "info", "--grid", &uri][..], more].concat());
    let ended = info(&[]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("certificate"), "{ended:?}");
    for flag in [&["--ca", AUTHORITY][..], &["--no-certificate-checks"]] {
        let ended = info(flag);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("platform   Twinspan"), "{ended:?}");
    }
    info(&["--ca", "/nowhere"]).assert_refusal(&["--ca"]);
    let both = ["--ca", AUTHORITY, "--no-certificate-checks"];
    info(&both).assert_refusal(&["--ca", "--no-certificate-checks"]);
    run(&["viewer", "info", "--grid", "ftp://a"]).assert_refusal(&["--grid"]);
}
