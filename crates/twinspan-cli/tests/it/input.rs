//! Bad input: one line that says what is wrong and what to do, and exit status 2.

use std::fs;
use std::net::{TcpListener, UdpSocket};

use crate::command::{run, run_with_input};

#[test]
fn unknown_words_are_named() {
    for (arguments, words) in [
        (&["dance"][..], &["'dance'", "--help"][..]),
        (&["demo", "--bogus"], &["'--bogus'", "--help"]),
        (&["demo", "extra"], &["'extra'"]),
        (&["sim", "run", "--scenario", "moon"], &["'moon'", "--scenario", "world"]),
        (&["demo", "--conditions", "moon"], &["'moon'", "clean, wifi, mobile"]),
        (&[], &["no command", "twinspan demo"]),
        (&["sim"], &["no command", "twinspan sim run"]),
    ] {
        run(arguments).assert_refusal(words);
    }
}

#[test]
fn numbers_out_of_range_are_named_with_their_range() {
    for (arguments, words) in [
        (&["demo", "--bots", "0"][..], &["'0'", "--bots", "1..=20000"][..]),
        (&["demo", "--bots", "20001"], &["'20001'", "--bots", "1..=20000"]),
        (&["demo", "--bots", "many"], &["'many'", "--bots"]),
        (&["demo", "--bots"], &["--bots"]),
        (&["demo", "--seconds", "0"], &["'0'", "--seconds", "1..=86400"]),
        (&["sim", "run", "--clients", "0"], &["'0'", "--clients"]),
        (&["sim", "run", "--seed", "-1"], &["'-1'", "--seed"]),
    ] {
        run(arguments).assert_refusal(words);
    }
}

#[test]
fn a_malformed_address_is_refused_with_an_example() {
    for flag in ["--http", "--listen"] {
        for address in ["nowhere", "127.0.0.1", "127.0.0.1:99999", "localhost:80", ""] {
            let ended = run(&["demo", flag, address]);
            ended.assert_refusal(&[flag, &format!("'{address}'"), "127.0.0.1:7777"]);
        }
    }
}

#[test]
fn flags_that_contradict_are_both_named() {
    let ended = run(&["demo", "--no-http", "--http", "127.0.0.1:0"]);
    ended.assert_refusal(&["--no-http", "--http"]);
}

#[test]
fn a_taken_port_of_the_page_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["demo", "--http", &address]);
    ended.assert_refusal(&[&address, "taken", "--http", "--no-http"]);
}

#[test]
fn a_taken_port_of_the_world_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["demo", "--no-http", "--listen", &address]);
    ended.assert_refusal(&[&address, "taken", "--listen"]);
}

#[test]
fn an_address_of_another_machine_is_named() {
    // From a block that is reserved for documentation, so no machine has it.
    let address = "192.0.2.1:0";
    run(&["demo", "--http", address]).assert_refusal(&[address, "this machine", "--http"]);
    let ended = run(&["demo", "--no-http", "--listen", address]);
    ended.assert_refusal(&[address, "this machine", "--listen"]);
}

/// The highest port that needs a privilege, by the kernel's setting.
fn privileged_port() -> Option<u16> {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    setting.trim().parse::<u16>().ok()?.checked_sub(1).filter(|port| *port > 0)
}

#[test]
fn a_port_one_may_not_bind_is_named() {
    let Some(port) = privileged_port() else {
        println!("skipped: this machine has no privileged ports, or does not name them");
        return;
    };
    let address = format!("127.0.0.1:{port}");
    let refused = TcpListener::bind(&address)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if !refused {
        println!("skipped: this user may bind {address}, or another program has");
        return;
    }
    run(&["demo", "--http", &address]).assert_refusal(&[&address, "permission", "--http"]);
    let ended = run(&["demo", "--no-http", "--listen", &address]);
    ended.assert_refusal(&[&address, "permitted", "--listen"]);
}

#[test]
fn a_plan_that_cannot_be_used_is_explained() {
    let network = r#"{"loss":0,"delay_ms":0,"jitter_ms":0,"duplicate":0,"reorder":0,"rate_bytes_per_s":0,"queue_bytes_max":0}"#;
    let plan = |tokens: &str| {
        format!(
            r#"{{"server":"127.0.0.1:9","epoch_nanos":0,"tokens":{tokens},"conditions":{network}}}"#
        ) + "\n"
    };
    let many = format!("[{}\"\"]", "\"\",".repeat(20_000));
    for (input, words) in [
        (String::new(), &["it is empty"][..]),
        ("\n".to_owned(), &["EOF"]),
        ("hello\n".to_owned(), &["expected value"]),
        ("{}\n".to_owned(), &["missing field `server`"]),
        (plan("[]"), &["0 tokens", "1 to 20000"]),
        (plan(&many), &["20001 tokens", "1 to 20000"]),
        (plan("[\"\"]"), &["token"]),
        (plan("[\"0123456789\"]"), &["token"]),
        (plan("[]").trim_end().to_owned(), &["breaks off"]),
    ] {
        let ended = run_with_input(&["bots"], input.as_bytes());
        ended.assert_refusal(&[&["the plan on standard input", "twinspan demo"], words].concat());
    }
    let ended = run_with_input(&["bots"], b"\xff\xfe\n");
    ended.assert_refusal(&["the plan on standard input", "UTF-8"]);
    let ended = run_with_input(&["bots"], &vec![b'x'; (64 << 20) + 1]);
    ended.assert_refusal(&["the plan on standard input", "longer than 64 MiB"]);
}
