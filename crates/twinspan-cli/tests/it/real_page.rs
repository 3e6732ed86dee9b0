//! The page of a real demo in a real browser: the page tests' promises over real sockets.

use std::path::Path;

use rustix::process::Signal;

use crate::command::Running;
use crate::page;
use crate::webdriver::Browser;

/// Starts a demo and finds its page.
fn start(bots: &str) -> (Running, String) {
    let arguments = ["demo", "--bots", bots, "--http", "127.0.0.1:0", "--seconds", "600"];
    let mut demo = Running::start(&arguments);
    let line = demo.line(|line| line.starts_with("live page"));
    let base = line.split_whitespace().last().expect("an address").to_owned();
    assert!(base.starts_with("http://127.0.0.1:"), "{line}");
    (demo, base)
}

#[test]
fn the_page_shows_the_running_demo_and_acts_on_it() {
    let Some(browser) = Browser::open() else { return };
    let (demo, base) = start("30");
    page::check(&browser, &base);
    demo.signal(Signal::INT);
    let ended = demo.end();
    // What the page did to the network must break no promise either.
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("promises   all kept"), "{ended:?}");
}

/// Pictures for a person to look at: run with `TWINSPAN_PICTURES` naming a folder.
#[test]
fn pictures_of_a_running_demo() {
    let Some(folder) = std::env::var_os("TWINSPAN_PICTURES") else {
        println!("skipped: TWINSPAN_PICTURES names no folder");
        return;
    };
    let Some(browser) = Browser::open() else { return };
    let (demo, base) = start("200");
    page::picture_all(&browser, &base, Path::new(&folder));
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0));
}
