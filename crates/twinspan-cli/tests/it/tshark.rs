//! What another program reads in the captures of `twinspan sim trace`.

use std::process::Command;

use crate::command::run;

/// What tshark says of a file.
fn tshark(arguments: &[&str]) -> String {
    let output = Command::new("tshark").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_capture_is_what_tshark_takes_it_for() {
    if let Err(error) = Command::new("tshark").arg("--version").output() {
        let is_required = std::env::var_os("TWINSPAN_REQUIRE_PEERS").is_some();
        assert!(!is_required, "tshark: {error}");
        println!("skipped: tshark: {error}");
        return;
    }
    let file = std::env::temp_dir().join(format!("twinspan-{}-tshark.pcapng", std::process::id()));
    let path = file.to_str().unwrap();
    let options = "seed=7 loss=0.1";
    let ended = run(&["sim", "trace", "--scenario", "echo", "--options", options, "--pcap", path]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    let sent: usize = words[words.len() - 2].parse().unwrap();
    assert!(sent > 20, "{ended:?}");
    let fields =
        ["frame.time_epoch", "ip.src", "ip.dst", "udp.srcport", "udp.dstport", "udp.length"];
    let mut asked = vec!["-r", path, "-T", "fields"];
    fields.iter().for_each(|field| asked.extend(["-e", field]));
    let told = tshark(&asked);
    let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), sent);
    // The first of January 2026, when the clocks of the simulator begin.
    assert!(lines.iter().all(|line| line[0].starts_with("17672256")), "{told}");
    let is_asked = |line: &&Vec<&str>| line[2] == "10.0.0.1" && line[4] == "7";
    assert!(lines.iter().filter(is_asked).count() > 10, "{told}");
    // 0 is for one that is there and wrong.
    let wrong = "ip.checksum.status == 0 || udp.checksum.status == 0";
    let checks = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"];
    assert_eq!(tshark(&[&checks[..], &["-r", path, "-Y", wrong]].concat()), "");
    std::fs::remove_file(&file).unwrap();
}
