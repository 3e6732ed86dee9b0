//! A client that is dropped leaves nothing behind: no task, no thread, no socket, in any status.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_sim::HostLoad;
use twinspan_sim::proxy::{SocksConfig, SocksProxy};
use twinspan_viewer::{NetworkStatus, ProxySettings, ReconnectPolicy, ViewerConfig};

use crate::rig::{
    GRID_IP, PROXY_IP, USER, VIEWER_IP, Viewer, World, credentials, grid_config, start_grid,
    start_viewer,
};

/// Brings a core to a status in the simulator and drops its handles; what the host had at that
/// status, and a while after.
fn dropped_at(seed: u64, wanted: NetworkStatus, proxied: bool) -> (HostLoad, HostLoad, usize) {
    let mut world = World::new(seed, Conditions::CLEAN);
    let reconnect =
        ReconnectPolicy { wait: Duration::from_secs(600), ..ReconnectPolicy::default() };
    let mut config = ViewerConfig { reconnect, ..ViewerConfig::default() };
    let proxy = SocksProxy::start(&world.sim.host("proxy", PROXY_IP), SocksConfig::default());
    if proxied {
        config.proxies = ProxySettings::parse(&format!("socks5://{}", proxy.address())).unwrap();
    }
    let before = world.sim.load(VIEWER_IP);
    let streams = world.sim.stream_ends();
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let (server, core) = world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        (server, start_viewer(&viewer, config))
    });
    let Viewer { handle, events, task } = core;
    if wanted != NetworkStatus::Idle {
        let url = server.login_url().to_owned();
        let manager = handle.network_manager.clone();
        if wanted == NetworkStatus::Authenticating {
            world.sim.partition(GRID_IP, VIEWER_IP);
            world.sim.partition(GRID_IP, PROXY_IP);
        }
        let connecting =
            twinspan_provider::TaskProvider::spawn(&world.viewer.clone(), "connect", async move {
                // It may not come to its end.
                let _ = manager.connect(credentials(USER, &url)).await;
            });
        world.sim.run_for(Duration::from_secs(10));
        drop(connecting);
        if wanted == NetworkStatus::Reconnecting {
            world.sim.stop_host(GRID_IP);
            world.sim.run_for(Duration::from_secs(120));
        }
    }
    assert_eq!(handle.network_manager.status(), wanted);
    let during = world.sim.load(VIEWER_IP);
    drop((handle, events));
    world.sim.run_for(Duration::from_secs(10));
    // The task that the core was ran to its end; what is left of it is its place in the table.
    assert!(task.is_finished(), "{wanted:?}");
    drop(task);
    let after = world.sim.load(VIEWER_IP);
    assert_eq!(after, before, "{wanted:?}");
    drop((server, proxy));
    world.sim.run_for(Duration::from_secs(120));
    (during, after, world.sim.stream_ends() - streams)
}

#[test]
fn a_core_without_handles_ends_all_its_tasks_timers_and_sockets_in_every_status() {
    for (seed, status) in [
        (101, NetworkStatus::Idle),
        (102, NetworkStatus::Authenticating),
        (103, NetworkStatus::Connected),
        (104, NetworkStatus::Reconnecting),
    ] {
        for proxied in [false, true] {
            let (during, after, streams) = dropped_at(seed, status, proxied);
            assert!(during.tasks > after.tasks, "{status:?}: it had tasks");
            let has_socket = status == NetworkStatus::Connected;
            assert_eq!(during.sockets > after.sockets, has_socket, "{status:?}");
            assert_eq!(streams, 0, "{status:?}: connections are left");
        }
    }
}

#[cfg(target_os = "linux")]
mod process {
    //! The same with threads and descriptors of a real process: one of its own, since other tests
    //! have some as well.

    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use twinspan_provider::TokioEnv;
    use twinspan_viewer::{Client, NetworkStatus, ReconnectPolicy, ViewerConfig};

    use crate::rig::{USER, credentials, grid_config, start_grid};

    /// Says that this process is the one in which clients are dropped.
    const VARIABLE: &str = "TWINSPAN_TEST_CLIENTS_END";
    const NAME: &str = "ends::process::a_client_ends_its_threads_and_descriptors_in_every_status";

    /// Threads and open descriptors of this process.
    fn count() -> (usize, usize) {
        let entries = |path: &str| std::fs::read_dir(Path::new(path)).unwrap().count();
        (entries("/proc/self/task"), entries("/proc/self/fd"))
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    fn config() -> ViewerConfig {
        let reconnect =
            ReconnectPolicy { wait: Duration::from_secs(600), ..ReconnectPolicy::default() };
        let mut config = ViewerConfig { reconnect, ..ViewerConfig::default() };
        config.agent.circuits.silence_max = Duration::from_secs(4);
        config.agent.circuits.ping_interval = Duration::from_millis(200);
        config.agent.lost_after = Duration::from_secs(2);
        config.agent.logout_timeout = Duration::from_secs(1);
        config
    }

    /// A grid on a thread of its own, which ends when told to: its address and how to end it.
    fn grid() -> (String, mpsc::Sender<()>, thread::JoinHandle<()>) {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let env = TokioEnv::new(None).unwrap();
            let grid_env = env.clone();
            env.block_on(async move {
                let server = start_grid(&grid_env, grid_config([127, 0, 0, 1].into())).await;
                tell.send(server.login_url().to_owned()).unwrap();
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    crate::rig::sleep(&grid_env, Duration::from_millis(5)).await;
                }
            });
        });
        (told.recv().unwrap(), stop, thread)
    }

    /// Drops a client at a status; threads and descriptors before it, with it, and after it.
    fn dropped_at(wanted: NetworkStatus) -> [(usize, usize); 3] {
        let before = count();
        let mut client = Client::with_config(config());
        block_on(client.initialize()).unwrap();
        // It answers nobody.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent_url = format!("http://{}/", silent.local_addr().unwrap());
        let grid =
            (wanted != NetworkStatus::Idle && wanted != NetworkStatus::Authenticating).then(grid);
        let url = grid.as_ref().map_or(silent_url, |(url, ..)| url.clone());
        let manager = client.network_manager.clone();
        let connecting = (wanted != NetworkStatus::Idle).then(|| {
            let manager = manager.clone();
            thread::spawn(move || {
                // It may be given up.
                let _ = block_on(manager.connect(credentials(USER, &url)));
            })
        });
        let reach = |status| {
            while manager.status() != status {
                thread::yield_now();
            }
        };
        if wanted == NetworkStatus::Reconnecting {
            reach(NetworkStatus::Connected);
            let Some((_, stop, thread)) = grid else { panic!("there is a grid") };
            stop.send(()).unwrap();
            thread.join().unwrap();
            reach(wanted);
            let during = count();
            drop(client);
            connecting.into_iter().for_each(|thread| thread.join().unwrap());
            drop(silent);
            return [before, during, count()];
        }
        reach(wanted);
        let during = count();
        drop(client);
        connecting.into_iter().for_each(|thread| thread.join().unwrap());
        if let Some((_, stop, thread)) = grid {
            stop.send(()).unwrap();
            thread.join().unwrap();
        }
        drop(silent);
        [before, during, count()]
    }

    #[test]
    fn a_client_ends_its_threads_and_descriptors_in_every_status() {
        if std::env::var_os(VARIABLE).is_none() {
            let program = std::env::current_exe().unwrap();
            let arguments = ["--exact", NAME, "--test-threads=1", "--nocapture"];
            let child = std::process::Command::new(program)
                .args(arguments)
                .env(VARIABLE, "1")
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&child.stdout).into_owned()
                + &String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        // What the library of the system keeps for good is there after the first one.
        dropped_at(NetworkStatus::Connected);
        for status in [
            NetworkStatus::Idle,
            NetworkStatus::Authenticating,
            NetworkStatus::Connected,
            NetworkStatus::Reconnecting,
        ] {
            let [before, during, after] = dropped_at(status);
            assert!(during.0 > before.0 && during.1 > before.1, "{status:?}: it had some");
            assert_eq!(after, before, "{status:?}");
        }
    }
}
