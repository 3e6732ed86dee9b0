//! What each flag of `twinspan grid` changes.

use serde_json::Value;

use crate::command::{Running, run};
use crate::viewer::PasswordFile;
use crate::viewer_flags::Scratch;

/// A grid's file with all that flags can say as well.
const FILE: &str = "listen = \"127.0.0.1:0\"\npublic_ip = \"127.0.0.4\"\n\
                    [[region]]\nname = \"Filed\"\nx = 5\ny = 6\n\
                    [[user]]\nname = \"Ruth Tester\"\npassword = \"sesame\"\n";

/// Starts a grid; returns it and its first line.
fn start(args: &[&str]) -> (Running, Value) {
    let mut grid = Running::start(&[&["grid", "--json"], args].concat());
    let line = grid.line(|line| line.contains("\"ready\""));
    (grid, serde_json::from_str(&line).unwrap())
}

/// Lets Ruth in where a grid says that she may.
fn visit(ready: &Value, name: &str) {
    let password = PasswordFile::new(name, "sesame");
    let uri = ready["login_uri"].as_str().unwrap();
    let args = ["viewer", "login", "--grid", uri, "--user", "Ruth Tester", "--json", "--for", "1"];
    let ended = run(&[&args[..], &["--password-file", password.path()]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn it_listens_where_it_is_told_and_so_do_its_regions() {
    let (_grid, ready) = start(&["--listen", "127.0.0.2:0", "--user", "Ruth Tester:sesame"]);
    assert!(ready["login_uri"].as_str().unwrap().starts_with("http://127.0.0.2:"), "{ready}");
    let heard = ready["regions"][0]["addr"].as_str().unwrap();
    assert!(heard.starts_with("127.0.0.2:"), "{ready}");
    visit(&ready, "grid-a");
}

#[test]
fn viewers_are_told_the_public_address() {
    for ip in ["127.0.0.3", "127.0.0.1"] {
        let args = ["--listen", "0.0.0.0:0", "--public-ip", ip, "--user", "Ruth Tester:sesame"];
        let (_grid, ready) = start(&args);
        let uri = ready["login_uri"].as_str().unwrap();
        assert!(uri.starts_with(&format!("http://{ip}:")), "{ready}");
        let heard = ready["regions"][0]["addr"].as_str().unwrap();
        assert!(heard.starts_with(&format!("{ip}:")), "{ready}");
        // Answers to the other would leave from this one: no router is in between.
        if ip == "127.0.0.1" {
            visit(&ready, "grid-b");
        }
    }
}

#[test]
fn flags_win_over_the_file_and_add_users_to_it() {
    let file = Scratch::with("grid-c.toml", FILE);
    let (grid, ready) = start(&["--config", file.path()]);
    assert!(ready["login_uri"].as_str().unwrap().starts_with("http://127.0.0.4:"), "{ready}");
    assert_eq!((&ready["regions"][0]["name"], &ready["users"]), (&"Filed".into(), &1.into()));
    drop(grid);
    let flags = ["--public-ip", "127.0.0.3", "--regions", "Given@1,2", "--user", "Max:sesame"];
    let (_grid, ready) = start(&[&["--config", file.path()], &flags[..]].concat());
    assert!(ready["login_uri"].as_str().unwrap().starts_with("http://127.0.0.3:"), "{ready}");
    assert_eq!(ready["regions"].as_array().unwrap().len(), 1, "{ready}");
    assert_eq!((&ready["regions"][0]["name"], &ready["users"]), (&"Given".into(), &2.into()));
}

#[test]
fn a_region_has_the_port_that_it_is_given() {
    // Another process may take a port between finding and using it.
    let free = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let port = free();
    let region = format!("One@7,8:{port}");
    let listen = ["--listen", "127.0.0.1:0"];
    let (_grid, ready) =
        start(&[&listen[..], &["--user", "Ruth:sesame", "--regions", &region]].concat());
    assert_eq!(ready["regions"][0]["addr"], format!("127.0.0.1:{port}"), "{ready}");
}

#[test]
fn people_are_told_in_words() {
    let args = ["grid", "--listen", "127.0.0.1:0", "--user", "Ruth Tester:sesame", "--for", "1"];
    let ended = run(&args);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for words in ["login at http://127.0.0.1:", "region Alpha at 1000,1000 hears at", "ended: 0"] {
        assert!(ended.stdout.contains(words), "no {words:?} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("{"), "{}", ended.stdout);
}

#[test]
fn it_runs_as_long_as_it_is_told_and_else_until_somebody_ends_it() {
    let args = ["grid", "--listen", "127.0.0.1:0", "--user", "Ruth:sesame"];
    let began = std::time::Instant::now();
    assert_eq!(run(&[&args[..], &["--for", "2"]].concat()).code(), Some(0));
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
    let mut grid = Running::start(&args);
    grid.line(|line| line.contains("login at"));
    grid.signal(rustix::process::Signal::INT);
    assert_eq!(grid.end().code(), Some(0));
}

#[test]
fn values_that_cannot_be_are_refused_with_their_flag() {
    let broken = Scratch::with("grid-d.toml", "listen = \"nowhere\"\n");
    let user = ["grid", "--user", "Ruth:sesame"];
    for (more, words) in [
        (&["--config", "/nowhere"][..], &["/nowhere"][..]),
        (&["--config", broken.path()], &[broken.path(), "line 1"]),
        (&["--listen", "nowhere"], &["--listen", "127.0.0.1:7777"]),
        (&["--public-ip", "::1"], &["--public-ip", "::1"]),
        (&["--regions", "One"], &["--regions", "Alpha@1000,1000"]),
        (&["--regions", "One@1,2", "One@3,4"], &["One"]),
        (&["--user", "Max"], &["--user number 2"]),
        (&["--for", "0"], &["--for", "1..=31536000"]),
    ] {
        run(&[&user[..], more].concat()).assert_refusal(words);
    }
}
