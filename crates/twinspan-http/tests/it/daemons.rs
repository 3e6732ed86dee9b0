//! Debian's `dante-server` and `tinyproxy`, started on loopback for tests.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Where Debian's packages put programs and libraries.
pub(crate) const DANTE: &str = "/usr/sbin/danted";
pub(crate) const TINYPROXY: &str = "/usr/bin/tinyproxy";
const USERS: &str = "libnss_wrapper.so";

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
pub(crate) fn has(program: &str, package: &str) -> bool {
    if Path::new(program).exists() {
        return true;
    }
    let reason = format!("skipped: this test needs {program} of Debian's package {package}");
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("{reason}");
    false
}

/// Ends a process and its children, which are a group of their own.
pub(crate) fn end(process: &Child) {
    let group = format!("-{}", process.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}

/// A proxy at work in a folder of its own; both end with this.
pub(crate) struct Peer {
    pub(crate) process: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // They may have ended by themselves.
        end(&self.process);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Peer {
    /// Starts `command` with a configuration that `config` makes of a folder and a free port of
    /// `ip`, and waits until it listens.
    fn start(
        name: &str,
        ip: IpAddr,
        config: impl Fn(&Path, u16) -> String,
        command: impl Fn(&Path) -> Command,
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("twinspan-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Another process may take a port between finding and using it.
        for _ in 0..5 {
            let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
            fs::write(folder.join("config"), config(&folder, port)).unwrap();
            let log = fs::File::create(folder.join("log")).unwrap();
            let mut process = command(&folder)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .process_group(0)
                .spawn()
                .unwrap();
            let address = SocketAddr::from((ip, port));
            for _ in 0..1_000 {
                if TcpStream::connect(address).is_ok() {
                    return Self { process, folder, address };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            end(&process);
            let _ = process.wait();
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("{name} does not listen: {log}");
    }

    /// Listens at an IPv4 address.
    pub(crate) fn dante(name: &str, method: &str, wrapped: bool) -> Self {
        Self::dante_at(Ipv4Addr::LOCALHOST.into(), name, method, wrapped)
    }

    /// Listens at `ip`, and goes on from an IPv4 address.
    pub(crate) fn dante_at(ip: IpAddr, name: &str, method: &str, wrapped: bool) -> Self {
        let near = if ip.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        // What comes back goes from the far side to the near one.
        let pass = |from: &str, to: &str| {
            let commands = "command: connect udpassociate udpreply";
            format!("socks pass {{ from: {from} to: {to}\n{commands} }}\n")
        };
        let far = "0.0.0.0/0";
        let passes = [(near, near), (near, far), (far, near)].map(|(from, to)| pass(from, to));
        let config = |folder: &Path, port: u16| {
            format!(
                "errorlog: {log}\nlogoutput: {log}\n\
                 internal: {ip} port = {port}\nexternal: 127.0.0.1\n\
                 clientmethod: none\nsocksmethod: {method}\n\
                 {users}\
                 client pass {{ from: {near} to: {near} }}\n{passes}",
                passes = passes.concat(),
                log = folder.join("dante.log").display(),
                // Only root can be somebody else.
                users = match fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
                    true => "user.privileged: root\nuser.unprivileged: nobody\n",
                    false => "",
                }
            )
        };
        Self::start(name, ip, config, |folder| {
            let mut command = Command::new(DANTE);
            command.arg("-f").arg(folder.join("config"));
            if wrapped {
                // Users of its own instead of the machine's; the hash is of "secret".
                let users = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n\
                             tester:x:1234:1234:tester:/:/bin/sh\n";
                let hash = HASH;
                let shadow = format!("root:*:19000::::::\ntester:{hash}:19000:0:99999:7:::\n");
                fs::write(folder.join("passwd"), users).unwrap();
                fs::write(folder.join("group"), "root:x:0:\nnogroup:x:65534:\ntester:x:1234:\n")
                    .unwrap();
                fs::write(folder.join("shadow"), shadow).unwrap();
                command
                    .env("LD_PRELOAD", USERS)
                    .env("NSS_WRAPPER_PASSWD", folder.join("passwd"))
                    .env("NSS_WRAPPER_GROUP", folder.join("group"))
                    .env("NSS_WRAPPER_SHADOW", folder.join("shadow"));
            }
            command
        })
    }

    pub(crate) fn tinyproxy(name: &str, auth: &str) -> Self {
        let config = |_: &Path, port: u16| {
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nMaxClients 20\n\
                 LogLevel Info\n{auth}\n"
            )
        };
        Self::start(name, Ipv4Addr::LOCALHOST.into(), config, |folder| {
            let mut command = Command::new(TINYPROXY);
            command.arg("-d").arg("-c").arg(folder.join("config"));
            command
        })
    }
}

/// "secret" with the salt "twinspan", as `openssl passwd -6 -salt twinspan secret` has it.
const HASH: &str = "$6$twinspan$zkt1tKekV83VPNHWZM2F0xdb.hB63M.CG1KM2Rq86zWRNHVZP7kLeceh05MEGFiB9OfCJwBx0TUzNMU0A/IgL1";

/// Where the wrapper of users is, in the folder of this machine's kind.
pub(crate) fn library() -> String {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join(USERS)).find(|path| path.exists());
    found.map_or(format!("/usr/lib/{USERS}"), |path| path.display().to_string())
}
