//! `twinspan decode lludp` and `twinspan bench lludp` as a user runs them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// The login's datagrams, and whether each goes to the simulator.
fn login() -> Vec<(bool, Vec<u8>)> {
    let text = include_str!("../../../twinspan-lludp/testdata/login.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let digits = line.as_bytes()[2..].chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            (line.starts_with('>'), digits.map(byte).collect())
        })
        .collect()
}

/// A datagram in IPv4 in Ethernet, between 10.0.0.2 and 10.0.0.1.
fn framed(protocol: u8, ports: [u16; 2], outward: bool, payload: &[u8]) -> Vec<u8> {
    let hosts = if outward { [2, 1] } else { [1, 2] };
    let ports = if outward { ports } else { [ports[1], ports[0]] };
    let [from, to] = ports.map(u16::to_be_bytes);
    let transport = match protocol {
        17 => {
            let len = (8 + payload.len() as u16).to_be_bytes();
            [&from[..], &to, &len, &[0, 0], payload].concat()
        }
        _ => [&from[..], &to, &[0; 8], &[0x50, 0x18, 1, 0, 0, 0, 0, 0], payload].concat(),
    };
    let len = (20 + transport.len() as u16).to_be_bytes();
    let ip = [
        &[0x45, 0][..],
        &len,
        &[0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, hosts[0], 10, 0, 0, hosts[1]],
    ];
    [&[2; 12][..], &[8, 0], &ip.concat(), &transport].concat()
}

/// A file of the older format, captured from Ethernet.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    pcap_of(1, packets)
}

/// A file of the older format.
fn pcap_of(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let head = [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, link];
    let mut file = head.map(u32::to_le_bytes).concat();
    for (number, packet) in (0_u32..).zip(packets) {
        let len = packet.len() as u32;
        file.extend([1_700_000_000 + number, 500_000, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

/// A file of the newer format.
fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let len = (12 + padded as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &vec![0; padded - body.len()], &len].concat()
    };
    let section = [0x1A2B_3C4D_u32, 1, u32::MAX, u32::MAX].map(u32::to_le_bytes).concat();
    let mut file = block(0x0A0D_0D0A, &section);
    file.extend(block(1, &[1, 0, 0, 0, 0xFF, 0xFF, 0, 0]));
    for packet in packets {
        let len = packet.len() as u32;
        let head = [0, 0, 1_500_000, len, len].map(u32::to_le_bytes).concat();
        file.extend(block(6, &[head, packet.clone()].concat()));
    }
    file
}

struct Capture(PathBuf);

impl Capture {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("twinspan-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn decode(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinspan"));
        command.args(["decode", "lludp"]).arg(&self.0).args(args).output().unwrap()
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.decode(&[args, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // What is left lies in the folder for such things.
        let _ = fs::remove_file(&self.0);
    }
}

fn packets() -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = login()
        .iter()
        .map(|(outward, payload)| framed(17, [5_000, 9_000], *outward, payload))
        .collect();
    // A name server, and a page.
    packets.push(framed(17, [5_001, 53], true, b"not a packet"));
    packets.push(framed(6, [5_002, 80], true, b"GET /"));
    packets
}

#[test]
fn a_login_is_told_with_all_its_fields_from_both_formats() {
    for (name, bytes) in [("a.pcap", pcap(&packets())), ("a.pcapng", pcapng(&packets()))] {
        let lines = Capture::new(name, &bytes).lines(&["--port", "9000"]);
        assert_eq!(lines.len(), 141);
        assert_eq!(lines[0]["message"], "UseCircuitCode");
        assert_eq!(lines[0]["blocks"]["CircuitCode"][0]["Code"], 43_608_812);
        assert_eq!((&lines[0]["from"], &lines[0]["flags"]), (&"10.0.0.2:5000".into(), &"R".into()));
        assert_eq!(lines[3]["blocks"]["RegionInfo"][0]["SimName"], "Alpha");
        assert!(lines[0]["time"].as_f64().unwrap().fract() == 0.5, "{}", lines[0]);
        let end = serde_json::json!({
            "packets": 140, "errors": 0, "skipped_tcp": 1, "skipped_ports": 1, "skipped_others": 0
        });
        assert_eq!(lines[140], end);
    }
}

#[test]
fn a_check_names_what_is_not_the_same() {
    let capture = Capture::new("b.pcap", &pcap(&packets()));
    let output = capture.decode(&["--port", "9000", "--check", "--json"]);
    let end: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&end["packets"], &end["identical"]), (&140.into(), &140.into()));
    assert_eq!((&end["errors"], output.status.code()), (&0.into(), Some(0)));
    // With the name server's there is one that is no packet.
    let lines = capture.lines(&["--check"]);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["number"], 141);
    assert!(lines[0]["error"].is_string());
    assert_eq!((&lines[1]["identical"], &lines[1]["errors"]), (&140.into(), &1.into()));
    assert_eq!(capture.decode(&["--check"]).status.code(), Some(1));
}

#[test]
fn packets_of_any_device_are_seen_in_both_forms() {
    // In place of the addresses of Ethernet: "any device" as the kernel wrote it once, and writes
    // it now.
    let first = |packet: &Vec<u8>| [&[0, 0, 0, 1][..], &[0, 6], &[2; 8], &packet[12..]].concat();
    let second = |packet: &Vec<u8>| {
        let device = [0, 0, 0, 0, 0, 2, 0, 1, 0, 6];
        [&packet[12..14], &device[..], &[2; 8], &packet[14..]].concat()
    };
    let [first, second]: [Vec<Vec<u8>>; 2] =
        [packets().iter().map(first).collect(), packets().iter().map(second).collect()];
    for (name, link, packets) in [("f.pcap", 113, first), ("g.pcap", 276, second)] {
        let capture = Capture::new(name, &pcap_of(link, &packets));
        let end = capture.lines(&["--port", "9000"]).pop().unwrap();
        let wanted = serde_json::json!({
            "packets": 140, "errors": 0, "skipped_tcp": 1, "skipped_ports": 1, "skipped_others": 0
        });
        assert_eq!(end, wanted, "link {link}");
        assert_eq!(capture.decode(&["--port", "9000", "--check"]).status.code(), Some(0));
    }
    // One that is cut within its head is passed over.
    let cut = Capture::new("h.pcap", &pcap_of(276, &[vec![8, 0, 0]]));
    assert_eq!(cut.lines(&[])[0]["skipped_others"], 1);
}

#[test]
fn a_check_of_no_packet_is_no_success() {
    let every = pcap(&packets());
    let unknown = pcap_of(147, &packets());
    for (name, bytes, args, words) in [
        ("i.pcap", &every, &["--check", "--port", "4"][..], "1 of TCP, 141 of other ports"),
        ("j.pcap", &unknown, &["--check"][..], "142 others were passed over"),
        ("k.pcap", &pcap(&[]), &["--check"][..], "no packet was checked"),
    ] {
        let output = Capture::new(name, bytes).decode(args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(words), "{told}");
        // Without a check there is nothing wrong with it.
        let output = Capture::new(name, bytes).decode(&args[1..]);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn packets_behind_a_socks5_relay_are_seen() {
    let mut packets = vec![
        framed(6, [5_100, 1_080], true, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]),
        framed(6, [5_100, 1_080], false, &[5, 0, 0, 1, 0, 0, 0, 0, 0x1B, 0x58]),
    ];
    for (outward, payload) in login() {
        let relayed = [&[0, 0, 0, 1, 192, 0, 2, 7, 0x23, 0x28][..], &payload].concat();
        packets.push(framed(17, [5_101, 7_000], outward, &relayed));
    }
    let lines = Capture::new("c.pcap", &pcap(&packets)).lines(&["--port", "9000"]);
    assert_eq!(lines.len(), 141);
    assert_eq!(lines[0]["to"], "192.0.2.7:9000");
    assert_eq!(lines[0]["socks5"], true);
    assert_eq!((&lines[140]["errors"], &lines[140]["skipped_tcp"]), (&0.into(), &2.into()));
}

#[test]
fn what_is_no_capture_is_refused() {
    let output = Capture::new("d.pcap", b"what is this, and why?").decode(&[]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("neither pcap nor pcapng"), "{told}");
    let whole = pcap(&packets());
    let output = Capture::new("e.pcap", &whole[..whole.len() - 3]).decode(&["--port", "9000"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("it ends within a packet"), "{told}");
}

#[test]
fn the_codec_is_measured() {
    let output = Command::new(env!("CARGO_BIN_EXE_twinspan"))
        .args(["bench", "lludp", "--window", "10", "--json"])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["decode_messages_per_second", "encode_messages_per_second"] {
        assert!(told[key].as_f64().unwrap() > 0.0, "{told}");
    }
    assert_eq!(told["messages"], 140);
}
