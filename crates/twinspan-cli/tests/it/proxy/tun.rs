//! `twinspan proxy` between two network namespaces, over tun devices.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Conditions, PATIENCE, stop};
use crate::command::Running;

/// A network namespace, for as long as a process holds it open.
struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new one, or why there is none.
    fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo here; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let mut out = BufReader::new(holder.stdout.take().expect("a pipe"));
        out.read_line(&mut said).expect("text");
        if said != "here\n" {
            let mut why = String::new();
            holder.stderr.take().expect("a pipe").read_to_string(&mut why).expect("text");
            holder.wait().expect("it ended");
            return Err(format!("unshare: {}", why.trim()));
        }
        Ok(Self { holder })
    }

    /// Does something on a thread that is in the namespace; sockets made there stay in it.
    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(path).expect("the holder runs");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("it may be entered");
                work()
            });
            inside.join().expect("the work ends well")
        })
    }

    /// Takes a device from outside and gives it an address.
    fn take(&self, device: &str, address: &str) {
        ip(&["link", "set", device, "netns", &self.holder.id().to_string()]);
        self.within(|| {
            ip(&["addr", "add", &format!("{address}/30"), "dev", device]);
            ip(&["link", "set", device, "up"]);
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its end is that of the namespace; a test may be failing here.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("iproute2 is there");
    assert!(output.status.success(), "ip {words:?}: {output:?}");
}

/// Two namespaces, or nothing where this machine cannot have them. A machine that has the device
/// and lacks the rest fails where peers are required.
fn namespaces() -> Option<[Namespace; 2]> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let device = device.map_err(|error| format!("/dev/net/tun: {error}"));
    let is_required = std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() == Ok("1");
    let is_strict = is_required && device.is_ok();
    match device.and_then(|_| Ok([Namespace::new()?, Namespace::new()?])) {
        Ok(both) => Some(both),
        Err(reason) => {
            assert!(!is_strict, "{reason}");
            println!("skipped: {reason}");
            None
        }
    }
}

const NEAR: &str = "10.231.7.1";
const FAR: &str = "10.231.7.2";
/// What the file says of the two ways together.
const ROUND_TRIP: Duration = Duration::from_millis(25);

#[test]
fn packets_between_two_namespaces_meet_the_conditions_of_the_file() {
    let Some([near, far]) = namespaces() else { return };
    let [one, other] = ["a", "b"].map(|end| format!("tw{end}{}", std::process::id()));
    let conditions = Conditions::new(
        "tun",
        &format!(
            "seed = 5\n[[tun]]\none = \"{one}\"\nother = \"{other}\"\n\
             up = {{ loss = 0.25, delay_ms = 15 }}\ndown = {{ delay_ms = 10 }}\n"
        ),
    );
    let mut proxy = Running::start(&["proxy", "--conditions", conditions.path(), "--json"]);
    proxy.error_line(|line| line.starts_with("tun ") && line.contains(" leads to "));
    near.take(&one, NEAR);
    far.take(&other, FAR);
    let got = echo_numbers(&near, &far);
    // Three quarters of them, and six standard deviations on either side.
    assert!((100..200).contains(&got), "{got} of {SENT}");
    let came = stream_back(&near, &far);
    assert_eq!(came, STREAM_BYTES);
    let way = stop(proxy);
    assert_eq!(way["protocol"], "tun", "{way}");
    let faults = way["up"]["faults"].as_array().unwrap();
    let loss = faults.iter().find(|fault| fault[0] == "loss").expect("losses are counted");
    assert!(loss[2].as_u64().unwrap() >= SENT - got, "{way}");
    assert!(way["down"]["passed"].as_u64().unwrap() > got, "{way}");
    let lost_back =
        way["down"]["faults"].as_array().unwrap().iter().any(|fault| fault[0] == "loss");
    assert!(!lost_back, "{way}");
}

const SENT: u64 = 200;

/// Sends numbers there, each of which comes back unless it is lost. Returns how many arrived.
fn echo_numbers(near: &Namespace, far: &Namespace) -> u64 {
    let bind = |place: &Namespace, ip: &str| {
        let socket = place.within(|| UdpSocket::bind((ip, 0)).expect("an address of ours"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (client, server) = (bind(near, NEAR), bind(far, FAR));
    let to = server.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut bytes, mut got) = ([0; 8], 0);
        loop {
            let (len, from) = server.recv_from(&mut bytes).unwrap();
            server.send_to(&bytes[..len], from).unwrap();
            if u64::from_le_bytes(bytes) >= SENT {
                return got;
            }
            got += 1;
        }
    });
    let mut sent_at = Vec::new();
    for number in 0..SENT {
        sent_at.push(Instant::now());
        client.send_to(&number.to_le_bytes(), to).unwrap();
    }
    // The end is said again and again, until one of it is through.
    client.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    let mut bytes = [0; 8];
    loop {
        sent_at.push(Instant::now());
        client.send_to(&(sent_at.len() as u64 - 1).to_le_bytes(), to).unwrap();
        while let Ok(len) = client.recv(&mut bytes) {
            assert_eq!(len, 8);
            let number = u64::from_le_bytes(bytes);
            let took = sent_at[usize::try_from(number).unwrap()].elapsed();
            assert!(took >= ROUND_TRIP, "number {number} was back after {took:?}");
            if number >= SENT {
                return echo.join().unwrap();
            }
        }
    }
}

const STREAM_BYTES: usize = 200_000;

/// A stream from there, whose acknowledgements may be lost. Returns how many bytes came.
fn stream_back(near: &Namespace, far: &Namespace) -> usize {
    let listener = far.within(|| TcpListener::bind((FAR, 0)).expect("an address of ours"));
    let to = listener.local_addr().unwrap();
    let giving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&vec![7; STREAM_BYTES]).unwrap();
    });
    let mut stream = near.within(|| TcpStream::connect(to).expect("it listens"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    giving.join().unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
    all.len()
}
