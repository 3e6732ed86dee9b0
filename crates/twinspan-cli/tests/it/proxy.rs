//! `twinspan proxy` between real sockets.

#[cfg(target_os = "linux")]
mod tun;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::command::{Running, run};

/// Long enough for any machine; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file of conditions that is removed when it goes.
struct Conditions(PathBuf);

impl Conditions {
    fn new(name: &str, text: &str) -> Self {
        let file = format!("twinspan-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(file);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Conditions {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Starts a proxy; returns it and where it listens.
fn start(conditions: &Conditions) -> (Running, SocketAddr) {
    let mut proxy = Running::start(&["proxy", "--conditions", conditions.path(), "--json"]);
    let line = proxy.error_line(|line| line.contains(" leads to "));
    let address = line.split(' ').nth(1).unwrap().parse().unwrap();
    (proxy, address)
}

fn stop(proxy: Running) -> serde_json::Value {
    proxy.signal(Signal::INT);
    let ended = proxy.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    ended.json()["ways"][0].clone()
}

#[test]
fn datagrams_are_lost_doubled_and_carried_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = server.local_addr().unwrap();
    let conditions = Conditions::new(
        "udp",
        &format!(
            "seed = 3\n[[udp]]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n\
             up = {{ loss = 0.5, delay_ms = 1 }}\ndown = {{ duplicate = 1.0 }}\n"
        ),
    );
    let (proxy, front) = start(&conditions);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(front).unwrap();
    const SENT: u64 = 200;
    // The last ones are sent again and again until one is through: whatever is lost, it ends.
    for number in 0_u64..SENT {
        client.send(&number.to_le_bytes()).unwrap();
    }
    let mut bytes = [0; 64];
    let mut got = 0_u64;
    let last = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            // Says the end until the server has it.
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut answer = [0; 64];
            loop {
                client.send(&u64::MAX.to_le_bytes()).unwrap();
                if let Ok(len) = client.recv(&mut answer) {
                    return answer[..len].to_vec();
                }
            }
        });
        loop {
            let (len, from) = server.recv_from(&mut bytes).unwrap();
            assert_ne!(from, client.local_addr().unwrap(), "it came past the proxy");
            assert_eq!(len, 8);
            if bytes[..8] == u64::MAX.to_le_bytes() {
                server.send_to(b"answer", from).unwrap();
                break;
            }
            got += 1;
        }
        asker.join().unwrap()
    });
    assert_eq!(last, b"answer");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.recv(&mut bytes).unwrap(), 6, "the second copy comes as well");
    assert!((60..140).contains(&got), "{got} of {SENT} came through a loss of a half");
    let way = stop(proxy);
    assert_eq!(way["begun"], 1, "{way}");
    let faults = way["up"]["faults"].as_array().unwrap();
    let loss = faults.iter().find(|fault| fault[0] == "loss").expect("losses are counted");
    assert!(loss[1].as_u64().unwrap() >= SENT - got, "{way}");
    assert_eq!(way["down"]["passed"], 2, "{way}");
}

#[test]
fn streams_come_through_whole_to_their_ends() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let conditions = Conditions::new(
        "tcp",
        &format!(
            "[[tcp]]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n\
             [tcp.up]\nloss = 0.05\ndelay_ms = 1\njitter_ms = 2\n[tcp.down]\ndelay_ms = 1\n"
        ),
    );
    let (proxy, front) = start(&conditions);
    let wanted: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let echo = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&wanted).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == wanted, "{} of {} bytes", back.len(), wanted.len());
    echo.join().unwrap();
    let way = stop(proxy);
    assert_eq!((&way["begun"], &way["refused"]), (&1.into(), &0.into()), "{way}");
    assert!(way["up"]["passed"].as_u64().unwrap() > 300_000 / (16 << 10), "{way}");
}

#[test]
fn a_connection_that_leads_nowhere_ends() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("[[tcp]]\nlisten = \"127.0.0.1:0\"\nto = \"{nobody}\"\n");
    let conditions = Conditions::new("nowhere", &text);
    let (proxy, front) = start(&conditions);
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut back = Vec::new();
    // Reset or closed: nothing comes, and it is over.
    let _ = stream.read_to_end(&mut back);
    assert!(back.is_empty());
    assert_eq!(stop(proxy)["begun"], 1);
}

#[test]
fn bad_conditions_are_refused_with_their_line() {
    let file = Conditions::new("bad", "[[udp]]\nlisten = \"127.0.0.1:0\"\ntwo = \"127.0.0.1:1\"\n");
    run(&["proxy", "--conditions", file.path()]).assert_refusal(&["line 3", "two", "to"]);
    run(&["proxy", "--conditions", "no/such/file"]).assert_refusal(&["no/such/file"]);
    run(&["proxy"]).assert_refusal(&["--conditions"]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("[[udp]]\nlisten = \"{address}\"\nto = \"127.0.0.1:1\"\n");
    let file = Conditions::new("taken", &text);
    run(&["proxy", "--conditions", file.path()]).assert_refusal(&["cannot listen", "listen"]);
}
