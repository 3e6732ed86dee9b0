//! Debian's `dante-server` and `tinyproxy` on loopback. A machine without them skips, unless
//! `TWINSPAN_REQUIRE_PEERS` is 1.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use twinspan_http::socks5::{Socks5Config, Socks5Error, Socks5Udp, connect};
use twinspan_http::{
    ClientConfig, Credentials, HttpClient, HttpError, ProxyError, Request, ServerConfig, ServerTls,
    StatusCode, Target, Trust,
};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TokioEnv, UdpOptions, UdpSocket,
};

use crate::datagrams::{receive, send};
use crate::tools::{SECOND, get, loopback, raw, start};

/// Where Debian's packages put programs and libraries.
const DANTE: &str = "/usr/sbin/danted";
const TINYPROXY: &str = "/usr/bin/tinyproxy";
const USERS: &str = "libnss_wrapper.so";

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
fn has(program: &str, package: &str) -> bool {
    if Path::new(program).exists() {
        return true;
    }
    let reason = format!("skipped: this test needs {program} of Debian's package {package}");
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("{reason}");
    false
}

/// Ends a process and its children, which are a group of their own.
fn end(process: &Child) {
    let group = format!("-{}", process.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}

/// A proxy at work in a folder of its own; both end with this.
struct Peer {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
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
    /// Starts `command` with a configuration that `config` makes of a folder and a free port, and
    /// waits until it listens.
    fn start(
        name: &str,
        config: impl Fn(&Path, u16) -> String,
        command: impl Fn(&Path) -> Command,
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("twinspan-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Another process may take a port between finding and using it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            fs::write(folder.join("config"), config(&folder, port)).unwrap();
            let log = fs::File::create(folder.join("log")).unwrap();
            let mut process = command(&folder)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .process_group(0)
                .spawn()
                .unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
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

    fn dante(name: &str, method: &str, wrapped: bool) -> Self {
        let config = |folder: &Path, port: u16| {
            format!(
                "errorlog: {log}\nlogoutput: {log}\n\
                 internal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n\
                 clientmethod: none\nsocksmethod: {method}\n\
                 {users}\
                 client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0\n\
                 command: connect udpassociate udpreply }}\n",
                log = folder.join("dante.log").display(),
                // Only root can be somebody else.
                users = match fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
                    true => "user.privileged: root\nuser.unprivileged: nobody\n",
                    false => "",
                }
            )
        };
        Self::start(name, config, |folder| {
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

    fn tinyproxy(name: &str, auth: &str) -> Self {
        let config = |_: &Path, port: u16| {
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nMaxClients 20\n\
                 LogLevel Info\n{auth}\n"
            )
        };
        Self::start(name, config, |folder| {
            let mut command = Command::new(TINYPROXY);
            command.arg("-d").arg("-c").arg(folder.join("config"));
            command
        })
    }
}

/// "secret" with the salt "twinspan", as `openssl passwd -6 -salt twinspan secret` has it.
const HASH: &str = "$6$twinspan$zkt1tKekV83VPNHWZM2F0xdb.hB63M.CG1KM2Rq86zWRNHVZP7kLeceh05MEGFiB9OfCJwBx0TUzNMU0A/IgL1";

/// Requests with TLS and without by way of a proxy, to servers of our own.
async fn requests(env: &TokioEnv, proxy: &str) {
    let certificate = include_bytes!("certificates/server.pem");
    let key = include_bytes!("certificates/server.key");
    let tls = Some(ServerTls::from_pem(certificate, key).unwrap());
    let plain = start(env, loopback(), ServerConfig::default()).await;
    let secure = start(env, loopback(), ServerConfig { tls, ..ServerConfig::default() }).await;
    let client = client(env, proxy);
    for _ in 0..2 {
        for (scheme, server) in [("http", &plain), ("https", &secure)] {
            for host in ["127.0.0.1", "localhost"] {
                let text = format!("{scheme}://{host}:{}/a", server.address.port());
                let text = get(&client, text.parse().unwrap()).await;
                assert_eq!(text, format!("GET /a of {host} by Twinspan: "));
            }
        }
    }
    let large = format!("https://127.0.0.1:{}/large/2000000", secure.address.port());
    let response = client.send(Request::get(large.parse().unwrap())).await.unwrap();
    assert_eq!(response.body.len(), 2_000_000);
}

fn client(env: &TokioEnv, proxy: &str) -> HttpClient<TokioEnv> {
    let authority = include_bytes!("certificates/ca.pem");
    let config = ClientConfig {
        proxy: Some(proxy.parse().unwrap()),
        trust: Trust::nobody().with_certificates(authority).unwrap(),
        ..ClientConfig::default()
    };
    HttpClient::new(env.clone(), config).unwrap()
}

/// Streams and datagrams by way of a SOCKS5 proxy.
async fn socks5(env: &TokioEnv, config: &Socks5Config) {
    let (echo, _task) = raw(env, |_, mut stream| async move {
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    for host in ["127.0.0.1", "localhost"] {
        let target = Target::new(host, echo.port());
        let mut stream = connect(env, config, target).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    let options = UdpOptions { pool_packets: 16, ..UdpOptions::default() };
    let mut far = env.bind_udp(loopback(), &options).await.unwrap();
    let mut socket = Socks5Udp::associate(env.clone(), config, loopback(), &options).await.unwrap();
    for len in [1, 1_200] {
        let bytes = vec![7; len];
        let peer = far.local_addr();
        send(&mut socket, peer, &bytes).await;
        let (proxy, came) = receive(env, &mut far, 10 * SECOND).await.unwrap().unwrap();
        assert_eq!(came, bytes);
        send(&mut far, proxy, &came).await;
        let back = receive(env, &mut socket, 10 * SECOND).await.unwrap();
        assert_eq!(back, Some((peer, bytes)));
    }
}

#[test]
fn dante_carries_streams_and_datagrams_until_it_ends() {
    if !has(DANTE, "dante-server") {
        return;
    }
    let peer = Peer::dante("dante", "none", false);
    let address = peer.address;
    let config = Socks5Config::new(address.into());
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        socks5(&env, &config).await;
        requests(&env, &format!("socks5h://{address}")).await;
        requests(&env, &format!("socks5://{address}")).await;
        let nobody = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(nobody, Socks5Error::Refused(_)), "{nobody:?}");
        let options = UdpOptions { pool_packets: 4, ..UdpOptions::default() };
        let socket = Socks5Udp::associate(env.clone(), &config, loopback(), &options).await;
        let mut socket = socket.unwrap();
        assert!(!socket.is_lost());
        end(&peer.process);
        let end = receive(&env, &mut socket, 20 * SECOND).await;
        assert!(end.is_err() && socket.is_lost(), "{end:?}");
    });
}

#[test]
fn dante_takes_user_and_password() {
    if !has(DANTE, "dante-server") || !has(&library(), "libnss-wrapper") {
        return;
    }
    let peer = Peer::dante("dante-auth", "username", true);
    let mut config = Socks5Config::new(peer.address.into());
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        let none = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(none, Socks5Error::NoMethod), "{none:?}");
        config.auth = Some(Credentials::new("tester", "wrong"));
        let wrong = connect(&env, &config, Target::new("127.0.0.1", 1)).await.err().unwrap();
        assert!(matches!(wrong, Socks5Error::Credentials), "{wrong:?}");
        config.auth = Some(Credentials::new("tester", "secret"));
        socks5(&env, &config).await;
        requests(&env, &format!("socks5h://tester:secret@{}", peer.address)).await;
    });
}

/// Where the wrapper of users is, in the folder of this machine's kind.
fn library() -> String {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join(USERS)).find(|path| path.exists());
    found.map_or(format!("/usr/lib/{USERS}"), |path| path.display().to_string())
}

#[test]
fn tinyproxy_carries_requests_and_tunnels() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    let peer = Peer::tinyproxy("tinyproxy", "");
    let env = TokioEnv::new(None).unwrap();
    env.block_on(requests(&env, &format!("http://{}", peer.address)));
}

#[test]
fn tinyproxy_takes_user_and_password() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    let peer = Peer::tinyproxy("tinyproxy-auth", "BasicAuth tester secret");
    let address = peer.address;
    let env = TokioEnv::new(None).unwrap();
    env.block_on(async {
        requests(&env, &format!("http://tester:secret@{address}")).await;
        for proxy in [format!("http://{address}"), format!("http://tester:wrong@{address}")] {
            for far in ["http://127.0.0.1:1/", "https://127.0.0.1:1/"] {
                let request = Request::get(far.parse().unwrap());
                match client(&env, &proxy).send(request).await {
                    Err(HttpError::Proxy(ProxyError::Credentials)) => {}
                    // It answers wrong ones as if it were the server.
                    Ok(response) => {
                        let told = (response.status, proxy.contains("wrong"), &far[..5]);
                        assert_eq!(told, (StatusCode::UNAUTHORIZED, true, "http:"));
                    }
                    other => panic!("{proxy} {far}: {other:?}"),
                }
            }
        }
    });
}
