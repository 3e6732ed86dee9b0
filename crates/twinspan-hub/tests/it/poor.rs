//! Systems that withhold something: rings, memory files, memory, `/dev/shm`, or the topic itself. Each is
//! an error that says what to do, or is not needed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use twinspan_hub::{BuildError, Bytes, Helped, Hub, JoinError, Namesakes, Transport, explain};

use crate::{free, met, there_and_back, topic, udp_endpoint};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;
/// Operation not permitted, and function not implemented.
const FORBIDDEN: u32 = 1;
const MISSING: u32 = 38;
/// Address family not supported.
const MISSING_FAMILY: u32 = 97;

/// Whether this is the test's own process, in which it may take something away; where not, that is
/// started by `command` and has to tell `told`.
fn is_alone(mut command: Command, test: &str, told: &str) -> bool {
    if std::env::var_os("TWINSPAN_TEST_ALONE").is_some() {
        return true;
    }
    let args = ["--exact", test, "--nocapture"];
    let ended = command.args(args).env("TWINSPAN_TEST_ALONE", "1").output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(ended.status.success() && text.contains(told), "{text}");
    false
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
fn skip(reason: &str) {
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("skipped: {reason}");
}

/// From now on these calls of this thread, and of those that it starts, end with an error.
fn forbid(calls: &[i64], errno: u32) {
    forbid_where(calls.iter().map(|call| (*call, Vec::new())).collect(), errno);
}

/// The same where their arguments are these.
fn forbid_where(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: u32) {
    let machine = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), machine);
    apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}

fn without_rings(errno: u32, advice: &str) {
    forbid(&[libc::SYS_io_uring_setup], errno);
    let named = Hub::<u64>::builder(udp_endpoint()).transport(Transport::IoUring).build();
    let error = named.unwrap_err();
    assert!(matches!(error, BuildError::NoRing { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(advice) && text.ends_with("or take batched UDP"), "{text}");
    // Who names no road is not bothered.
    let endpoint = udp_endpoint();
    let here = Hub::<u64>::builder(&endpoint).listen().build().unwrap();
    let there = Hub::<u64>::builder(&endpoint).connect().build().unwrap();
    assert_eq!(here.transport().transport, Transport::BatchUdp);
    let reason = here.transport().reason.clone();
    assert!(reason.contains("there is no io_uring here"), "{reason}");
    assert!(here.wait_for_subscribers(1, std::time::Duration::from_secs(30)));
    there_and_back(&here, there);
    println!("it goes without rings");
}

#[test]
fn a_container_that_forbids_rings_is_an_error_where_one_is_named_and_none_elsewhere() {
    let test =
        "poor::a_container_that_forbids_rings_is_an_error_where_one_is_named_and_none_elsewhere";
    if is_alone(this_program(), test, "it goes without rings") {
        without_rings(FORBIDDEN, "let the container's seccomp profile allow io_uring_setup");
    }
}

#[test]
fn a_kernel_without_rings_is_an_error_where_one_is_named_and_none_elsewhere() {
    let test = "poor::a_kernel_without_rings_is_an_error_where_one_is_named_and_none_elsewhere";
    if is_alone(this_program(), test, "it goes without rings") {
        without_rings(MISSING, "use Linux 6.1 or newer");
    }
}

/// A rule for calls with an argument of this place and value.
fn with(place: u8, value: i32) -> Vec<SeccompRule> {
    let (length, value) = (SeccompCmpArgLen::Dword, value.cast_unsigned().into());
    let it = SeccompCondition::new(place, length, SeccompCmpOp::Eq, value).unwrap();
    vec![SeccompRule::new(vec![it]).unwrap()]
}

#[test]
fn where_quic_has_no_part_in_the_port_of_udp_the_report_says_why() {
    let test = "poor::where_quic_has_no_part_in_the_port_of_udp_the_report_says_why";
    if !is_alone(this_program(), test, "it goes by two ports") {
        return;
    }
    forbid_where(
        [(libc::SYS_setsockopt, with(2, libc::SO_ATTACH_REUSEPORT_CBPF))].into(),
        FORBIDDEN,
    );
    let (address, topic) = (free(), topic());
    let endpoint = format!("hub://{address}/{topic}");
    let here = Hub::<u64>::builder(&endpoint).listen().build().unwrap();
    let text = here.transport().to_string();
    let why = "the kernel refuses the filter that tells them apart (Operation not permitted";
    assert!(text.contains(why), "{text}");
    assert!(text.contains("allow setsockopt(SO_ATTACH_REUSEPORT_CBPF)"), "{text}");
    let (_, port) = text.split_once("for TCP; it listens at 127.0.0.1:").unwrap();
    let port = port.split_once(" for QUIC").unwrap().0;
    assert_ne!(port, address.port().to_string());
    let explained = explain(&endpoint.parse().unwrap()).unwrap();
    let told = format!("QUIC has port {port} there, not that of UDP");
    assert!(explained.notes.iter().any(|note| note.starts_with(&told)), "{explained:?}");
    let there = Hub::<u64>::builder(&endpoint).connect().transport(Transport::Quic);
    let there = there.build().unwrap();
    met(&here, 1);
    met(&there, 1);
    there_and_back(&here, there);
    println!("it goes by two ports");
}

#[test]
fn a_port_is_not_shared_where_the_kernel_does_not_tell_topics_apart() {
    let test = "poor::a_port_is_not_shared_where_the_kernel_does_not_tell_topics_apart";
    if !is_alone(this_program(), test, "one port each") {
        return;
    }
    forbid_where(
        [(libc::SYS_setsockopt, with(2, libc::SO_ATTACH_REUSEPORT_CBPF))].into(),
        FORBIDDEN,
    );
    let address = free();
    let at = |topic: &str| Hub::<u64>::builder(format!("udp://{address}/{topic}"));
    let here = at("a").listen().build().unwrap();
    let error = at("b").listen().build().map(|_| ()).unwrap_err().to_string();
    for part in ["the kernel refuses the filter", "SO_ATTACH_REUSEPORT_CBPF", "a port of its own"] {
        assert!(error.contains(part), "{error}");
    }
    // The first one is as it was.
    let there = at("a").connect().build().unwrap();
    met(&here, 1);
    met(&there, 1);
    there_and_back(&here, there);
    println!("one port each");
}

#[test]
fn where_busy_polling_is_refused_the_settings_say_so() {
    let test = "poor::where_busy_polling_is_refused_the_settings_say_so";
    if !is_alone(this_program(), test, "it was told") {
        return;
    }
    forbid_where([(libc::SYS_setsockopt, with(2, libc::SO_BUSY_POLL))].into(), FORBIDDEN);
    let hub = Hub::<u64>::builder(udp_endpoint()).listen().build().unwrap();
    let settings = hub.settings();
    let it = settings.iter().find(|it| it.name == "busy_poll").unwrap();
    assert_eq!((&*it.asked, &*it.effective, it.helped), ("50µs", "none", Helped::No), "{it}");
    assert!(it.figure.contains("without CAP_NET_ADMIN: Operation not permitted"), "{it}");
    println!("it was told");
}

fn without_memory_files(errno: u32) {
    forbid(&[libc::SYS_memfd_create], errno);
    let error = Hub::<u64>::new(topic()).unwrap_err();
    assert!(matches!(error, BuildError::Join(JoinError::NotHere(_))), "{error}");
    let text = error.to_string();
    assert!(text.contains("allow memfd_create in the container"), "{text}");
    println!("it was told");
}

#[test]
fn a_container_that_forbids_memory_files_is_an_error() {
    let test = "poor::a_container_that_forbids_memory_files_is_an_error";
    if is_alone(this_program(), test, "it was told") {
        without_memory_files(FORBIDDEN);
    }
}

#[test]
fn a_kernel_without_memory_files_is_an_error() {
    let test = "poor::a_kernel_without_memory_files_is_an_error";
    if is_alone(this_program(), test, "it was told") {
        without_memory_files(MISSING);
    }
}

#[test]
fn memory_that_cannot_be_had_is_an_error_with_its_size() {
    let test = "poor::memory_that_cannot_be_had_is_an_error_with_its_size";
    if !is_alone(this_program(), test, "it was told") {
        return;
    }
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let most = pages * rustix::param::page_size() as u64 + (200 << 20);
    setrlimit(Resource::As, Rlimit { current: Some(most), ..getrlimit(Resource::As) }).unwrap();
    let hub = Hub::<Bytes>::builder(topic()).message_bytes_max(100 << 20).pool_blocks(4);
    let error = hub.build().unwrap_err();
    assert!(matches!(error, BuildError::Join(JoinError::Memory { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("choose fewer or shorter messages"), "{text}");
    let topic = topic();
    let (here, there) = (Hub::<u64>::new(&topic).unwrap(), Hub::<u64>::new(&topic).unwrap());
    there_and_back(&here, there);
    println!("it was told");
}

/// In a mount namespace of its own, in which `/dev/shm` was made as the shell's text says.
fn shared_memory_goes_on(test: &str, shell: &str) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    let program = std::env::current_exe().unwrap();
    command.arg(format!("{shell} && exec \"$0\" \"$@\"")).arg(program);
    let mut probe = Command::new("unshare");
    let probe = probe.args(["--mount", "mount", "-t", "tmpfs", "none", "/dev/shm"]);
    let is_in = std::env::var_os("TWINSPAN_TEST_ALONE").is_some();
    if !is_in && !probe.output().is_ok_and(|ended| ended.status.success()) {
        return skip("no mount namespace can be had here: run as root, with util-linux installed");
    }
    if is_alone(command, test, "it needs no such folder") {
        let is_refused = std::fs::write("/dev/shm/twinspan", [7; 8_192]).is_err();
        assert!(is_refused, "/dev/shm was to take nothing");
        let topic = topic();
        let (here, there) = (Hub::<u64>::new(&topic).unwrap(), Hub::<u64>::new(&topic).unwrap());
        assert_eq!(here.transport().transport, Transport::SharedMemory);
        there_and_back(&here, there);
        println!("it needs no such folder");
    }
}

#[test]
fn a_full_dev_shm_harms_no_topic() {
    let shell = "mount -t tmpfs -o size=4096 none /dev/shm && printf full > /dev/shm/full";
    shared_memory_goes_on("poor::a_full_dev_shm_harms_no_topic", shell);
}

#[test]
fn an_unwritable_dev_shm_harms_no_topic() {
    let shell = "mount -t tmpfs -o ro none /dev/shm";
    shared_memory_goes_on("poor::an_unwritable_dev_shm_harms_no_topic", shell);
}

/// In a network of its own, of which the shell's text says what it lacks.
fn without_ipv6(test: &str, shell: &str, own: impl FnOnce()) {
    let mut command = Command::new("unshare");
    let program = std::env::current_exe().unwrap();
    let shell = format!("ip link set lo up && {shell} && exec \"$0\" \"$@\"");
    command.args(["--net", "sh", "-c", &shell]).arg(program);
    let is_in = std::env::var_os("TWINSPAN_TEST_ALONE").is_some();
    let probe = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !is_in && !probe.is_ok_and(|ended| ended.status.success()) {
        return skip("no network can be had here: run as root, with util-linux and iproute2");
    }
    if is_alone(command, test, "it goes without IPv6") {
        own();
        println!("it goes without IPv6");
    }
}

const NETWORKS: [&str; 4] = ["udp", "tcp", "quic", "hub"];

/// Meets at the wildcard of IPv4, which every error here names.
fn go_by_ipv4() {
    for scheme in NETWORKS {
        let endpoint = format!("{scheme}://0.0.0.0:{}/family", free().port());
        let (here, there) = (Hub::new(&endpoint).unwrap(), Hub::new(&endpoint).unwrap());
        met(&here, 1);
        met(&there, 1);
        there_and_back(&here, there);
    }
}

#[test]
fn where_ipv6_is_switched_off_its_wildcard_has_ipv4_and_its_addresses_are_an_error() {
    let test =
        "poor::where_ipv6_is_switched_off_its_wildcard_has_ipv4_and_its_addresses_are_an_error";
    let off = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
    without_ipv6(test, off, || {
        for scheme in NETWORKS {
            let endpoint = format!("{scheme}://[::]:{}/family", free().port());
            let here = Hub::<u64>::new(&endpoint).unwrap();
            let text = here.transport().to_string();
            let told = "IPv6 is off on this machine, so that at [::] it has peers of IPv4 alone";
            assert!(text.contains(told), "{text}");
            let there = Hub::<u64>::new(&endpoint).unwrap();
            met(&here, 1);
            met(&there, 1);
            there_and_back(&here, there);
            let built = Hub::<u64>::builder(format!("{scheme}://[::1]:0/family")).listen().build();
            let text = built.unwrap_err().to_string();
            assert!(
                text.contains("IPv6 is off on this machine: choose an address of IPv4"),
                "{text}"
            );
        }
        go_by_ipv4();
    });
}

#[test]
fn a_kernel_without_ipv6_is_an_error_at_its_wildcard() {
    let test = "poor::a_kernel_without_ipv6_is_an_error_at_its_wildcard";
    if !is_alone(this_program(), test, "it goes without IPv6") {
        return;
    }
    forbid_where([(libc::SYS_socket, with(0, libc::AF_INET6))].into(), MISSING_FAMILY);
    for scheme in NETWORKS {
        let built = Hub::<u64>::builder(format!("{scheme}://[::]:0/family")).listen().build();
        let text = built.unwrap_err().to_string();
        assert!(text.contains("IPv6 is off on this machine: choose an address of IPv4"), "{text}");
    }
    go_by_ipv4();
    println!("it goes without IPv6");
}

/// A process of another user that has a place; it is ended when this is dropped.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Binds the socket with an abstract name, and keeps it.
const STRANGER: &str = "
import socket, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.bind('\\0' + sys.argv[1])
door.listen(64)
print('ready', flush=True)
sys.stdin.read()
";

/// `None` where this user may not become another one.
fn stranger(name: &str) -> Option<Stranger> {
    let reuid = format!("--reuid={NOBODY}");
    // The system's own first: what stands before it on the path may be open to its owner alone.
    let own = "/usr/bin/python3";
    let python = if std::path::Path::new(own).exists() { own } else { "python3" };
    let child = Command::new("setpriv")
        .args([&reuid, "--clear-groups", python, "-c", STRANGER, name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut stranger = Stranger(child.ok()?);
    let mut line = String::new();
    BufReader::new(stranger.0.stdout.take()?).read_line(&mut line).ok()?;
    line.starts_with("ready").then_some(stranger)
}

#[test]
fn a_topic_of_another_user_is_refused_with_that_user_on_every_road() {
    for (kind, transport) in [
        ("hub", Transport::SharedMemory),
        ("road", Transport::BatchUdp),
        ("road", Transport::Tcp),
        ("road", Transport::Quic),
    ] {
        let topic = topic();
        let Some(_stranger) = stranger(&format!("twinspan.{kind}/{topic}#0")) else {
            return skip("no process of another user can be started: run as root, with python3");
        };
        let hub = || Hub::<u64>::builder(&topic).transport(transport);
        let error = hub().build().unwrap_err();
        let is_right =
            matches!(&error, BuildError::Join(JoinError::AnotherUser { uid: NOBODY, .. }));
        assert!(is_right, "{transport}: {error}");
        assert!(error.to_string().contains("run as that user"), "{error}");
        // Beside it there is room, for those who say so.
        let here = hub().namesakes(Namesakes::Ignore).build().unwrap();
        let there = hub().namesakes(Namesakes::Ignore).build().unwrap();
        assert!(here.wait_for_subscribers(1, std::time::Duration::from_secs(30)), "{transport}");
        assert!(there.wait_for_subscribers(1, std::time::Duration::from_secs(30)), "{transport}");
        there_and_back(&here, there);
    }
}
