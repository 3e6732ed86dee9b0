//! Tests of the tests: each source of what no seed decides, planted in a process of its own, is
//! caught and named.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use twinspan_fence::{EXIT_STATUS, FenceError, guard};

/// Which leak the child plants.
const PLANT: &str = "TWINSPAN_PLANTED_LEAK";

/// A leak: its name, what it calls, what that is, and the code.
type Planted = (&'static str, &'static str, &'static str, fn());

const LEAKS: &[Planted] = &[
    ("map_order", "getrandom", "entropy", planted_map_order),
    ("instant", "rdtsc", "a clock", planted_instant),
    ("wall_clock", "rdtsc", "a clock", planted_wall_clock),
    ("clock_call", "clock_gettime", "a clock", planted_clock_call),
    ("entropy_file", "openat", "a file", planted_entropy_file),
    ("thread", "clone3", "a thread or process", planted_thread),
    ("process", "", "", planted_process),
    ("process_id", "getpid", "the process or its user", planted_process_id),
    ("sleep", "clock_nanosleep", "a sleep", planted_sleep),
    ("timed_wait", "", "", planted_timed_wait),
    ("socket", "socket", "the network", planted_socket),
    ("connection", "socket", "the network", planted_connection),
    ("cores", "", "", planted_cores),
    ("input", "read", "input from outside", planted_input),
];

fn planted_map_order() {
    let map: HashMap<u32, u32> = (0..100).map(|number| (number, number)).collect();
    println!("{:?}", map.values().next());
}

fn planted_instant() {
    println!("{:?}", Instant::now());
}

fn planted_wall_clock() {
    println!("{:?}", SystemTime::now());
}

fn planted_clock_call() {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // The processor's own time is not on the page that the C library reads clocks from.
    // SAFETY: the structure is there through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    println!("{result} {}", time.tv_nsec);
}

fn planted_entropy_file() {
    let mut bytes = [0; 8];
    if let Ok(mut file) = File::open("/dev/urandom") {
        let _ = file.read(&mut bytes);
    }
    println!("{bytes:?}");
}

fn planted_thread() {
    let thread = thread::Builder::new().spawn(|| 1);
    println!("{:?}", thread.map(|thread| thread.join().is_ok()));
}

fn planted_process() {
    println!("{:?}", Command::new("true").status());
}

fn planted_process_id() {
    println!("{}", std::process::id());
}

fn planted_sleep() {
    thread::sleep(Duration::from_micros(1));
    // Not the last call: that would leave no frame.
    println!("slept");
}

fn planted_timed_wait() {
    let (_sender, receiver) = mpsc::channel::<u8>();
    println!("{:?}", receiver.recv_timeout(Duration::from_micros(1)));
}

fn planted_socket() {
    println!("{:?}", UdpSocket::bind("127.0.0.1:0").map(|_| ()));
}

fn planted_connection() {
    println!("{:?}", TcpStream::connect("127.0.0.1:1").map(|_| ()));
}

fn planted_cores() {
    println!("{:?}", thread::available_parallelism());
}

fn planted_input() {
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    println!("{line}");
}

/// Run by the next test in processes of its own; alone it plants nothing.
#[test]
fn plants_a_leak() {
    let Ok(name) = std::env::var(PLANT) else { return };
    if name == "for_ever" {
        let _ = guard(|| {
            loop {
                println!("{}", std::process::id());
            }
        });
        return;
    }
    let (.., leak) = LEAKS.iter().find(|(known, ..)| *known == name).expect("a leak of that name");
    match guard(*leak) {
        Ok(()) => println!("the leak came through"),
        Err(FenceError::Leaked { leaks, count }) => {
            println!("caught {count}: {}", leaks[0]);
            println!("frames: {:?}", leaks[0].frames);
        }
        Err(error) => println!("{error}"),
    }
}

/// What a child that plants this prints, and how it ends.
fn planted(name: &str) -> (String, String, Option<i32>) {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--exact", "planted::plants_a_leak", "--nocapture"])
        .env(PLANT, name)
        .output()
        .expect("the child runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn every_planted_leak_is_caught_and_named() {
    for (name, call, what, _) in LEAKS {
        let (out, err, status) = planted(name);
        let found = out.lines().find(|line| line.contains("caught "));
        let found = found.unwrap_or_else(|| panic!("{name} came through: {status:?} {out} {err}"));
        assert!(found.contains(&format!("{call} (")), "{name}: {found}");
        assert!(found.contains(what), "{name}: {found}");
        // Whoever planted it is named, not only the library that it used; from the call that makes a
        // thread no stack leads back.
        let is_named = found.contains(&format!("planted_{name} at "));
        assert!(is_named || found.contains(" clone"), "{name}: {out}");
        assert!(err.contains("twinspan-fence: "), "{name} was not said at once: {err}");
    }
}

#[test]
fn a_closure_that_calls_out_for_ever_ends_the_process() {
    let (_, err, status) = planted("for_ever");
    assert_eq!(status, Some(EXIT_STATUS), "{err}");
    assert!(err.contains("getpid refused"), "{err}");
}
