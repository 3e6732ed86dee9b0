//! The real world: two network namespaces with two tun devices between that `twinspan proxy` carries.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use twinspan_core::link::Conditions;
use twinspan_net::ReactorEnv;

use super::{CLIENT, Measured, RealismOptions, SERVER, ends};
use crate::child::Child;
use crate::error::BenchError;
use crate::lines::{Parent, write_line};
use crate::proxy::Proxy;

/// What a process in a namespace is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    /// The device that was moved to its namespace.
    device: String,
    ip: Ipv4Addr,
    /// Loss that iptables makes of what comes.
    loss: Option<f64>,
    /// How long it measures; it serves where none.
    seconds: Option<u64>,
}

/// What it says first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Hello {
    pid: u32,
}

/// That it is set up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ready {}

/// Why there can be no namespaces here, if so.
pub(super) fn unavailable() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["--net", "--", "ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Err(error) => Some(format!("no namespaces: unshare: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("no namespaces: {}", said.lines().next().unwrap_or("not permitted")))
        }
        Ok(_) => std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .err()
            .map(|error| format!("no tun devices: /dev/net/tun: {error}")),
    }
}

/// Why iptables can make no loss here, if so.
pub(super) fn control_unavailable() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["--net", "--", "iptables"])
        .args(loss_rule(0.5))
        .stdin(Stdio::null())
        .output();
    match tried {
        Err(error) => Some(format!("iptables: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("iptables: {}", said.lines().next().unwrap_or("not permitted")))
        }
        Ok(_) => None,
    }
}

fn loss_rule(loss: f64) -> Vec<String> {
    let rule = "-A INPUT -p udp -m statistic --mode random --probability";
    let mut words: Vec<_> = rule.split(' ').map(str::to_owned).collect();
    words.extend([format!("{loss}"), "-j".to_owned(), "DROP".to_owned()]);
    words
}

/// The project's proxy, which carries two devices; both are there then.
fn link(devices: &[String; 2], conditions: Conditions) -> Result<Proxy, BenchError> {
    let Conditions { loss, delay, jitter, rate_bytes_per_s, queue_bytes_max, .. } = conditions;
    let way = format!(
        "{{ loss = {loss}, delay_ms = {}, jitter_ms = {}, rate_bytes_per_s = {rate_bytes_per_s}, \
         queue_bytes_max = {queue_bytes_max} }}",
        delay.as_secs_f64() * 1e3,
        jitter.as_secs_f64() * 1e3,
    );
    let [one, other] = devices;
    let text = format!("[[tun]]\none = \"{one}\"\nother = \"{other}\"\nup = {way}\ndown = {way}\n");
    Proxy::start(one, &text, 1)
}

/// Runs a program of the system; what it says is told when it fails.
fn system(program: &str, words: &[&str]) -> Result<(), BenchError> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it failed").to_owned();
    Err(io::Error::other(format!("{program} {}: {said}", words.join(" "))).into())
}

/// Measures between two namespaces.
pub(super) fn measure(
    options: RealismOptions,
    conditions: Conditions,
    loss: Option<f64>,
) -> Result<Measured, BenchError> {
    let pid = std::process::id();
    let devices = ["a", "b"].map(|end| format!("ts{end}{pid}"));
    let proxy = link(&devices, conditions)?;
    let [server, client] = &devices;
    let place = |device: &String, ip: [u8; 4], seconds| -> Result<Child, BenchError> {
        let mut child = Child::start_in("realism-part", &["unshare", "--net", "--"])?;
        let Hello { pid } = child.hear()?;
        system("ip", &["link", "set", device, "netns", &pid.to_string()])?;
        child.tell(&Part { device: device.clone(), ip: ip.into(), loss, seconds })?;
        let Ready {} = child.hear()?;
        Ok(child)
    };
    let server = place(server, SERVER, None)?;
    let mut client = place(client, CLIENT, Some(options.seconds))?;
    let measured = client.hear()?;
    drop((client, server, proxy));
    Ok(measured)
}

/// One end, in a namespace of its own, as the parent says.
///
/// # Errors
/// [`BenchError`] when it cannot be set up or the parent is not to be understood.
pub fn run_part() -> Result<(), BenchError> {
    write_line(&mut io::stdout().lock(), &Hello { pid: std::process::id() })?;
    let Part { device, ip, loss, seconds } = Parent::default().hear()?;
    system("ip", &["addr", "add", &format!("{ip}/30"), "dev", &device])?;
    system("ip", &["link", "set", &device, "up"])?;
    if let Some(loss) = loss {
        let rule = loss_rule(loss);
        let rule: Vec<_> = rule.iter().map(String::as_str).collect();
        system("iptables", &rule)?;
    }
    write_line(&mut io::stdout().lock(), &Ready {})?;
    let ip = ip.into();
    let application = async |env: ReactorEnv| match seconds {
        Some(seconds) => ends::ask(&env, ip, SERVER.into(), seconds).await.map(Some),
        None => ends::serve(&env, ip).await.map(|()| None),
    };
    if let Some(measured) = twinspan_net::run(application)?? {
        write_line(&mut io::stdout().lock(), &measured)?;
    }
    Ok(())
}
