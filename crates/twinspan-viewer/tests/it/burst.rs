//! A burst of 5,000 datagrams at the entry of a region: nothing of it is lost on the way through
//! the client.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_circuit::{CircuitStats, Config};
use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::{GridConfig, GridServer, GridServerConfig};
use twinspan_provider::{Env, SocketReport};
use twinspan_viewer::{NetworkEvent, ViewerConfig};

use crate::rig::{
    GRID_IP, USER, Viewer, World, credentials, grid_config, sleep, start_grid, start_viewer,
};

/// Things of the region, each in a datagram of its own.
const THINGS: usize = 5_000;
/// Bytes of the kernel's books that a short datagram takes at most.
const KERNEL_BYTES_PER_DATAGRAM: usize = 1_280;

/// A grid whose regions send as fast as they can, all at once.
fn bursting(ip: IpAddr) -> GridServerConfig {
    let circuits = Config {
        queued_messages_max: 4 * THINGS,
        queued_bytes_max: 64 << 20,
        in_flight_bytes_max: 64 << 20,
        rate_total_max: 1e15,
        ..Config::simulator()
    };
    let grid = GridConfig {
        circuits,
        things: THINGS,
        things_per_message: 1,
        ignores_throttles: true,
        ..GridConfig::default()
    };
    GridServerConfig { grid, ..grid_config(ip) }
}

/// A client that tells nobody of each message.
fn quiet() -> ViewerConfig {
    ViewerConfig { message_events: false, ..ViewerConfig::default() }
}

/// What became of a burst.
struct Burst {
    socket: SocketReport,
    objects: usize,
    /// The circuit at the grid.
    sent: CircuitStats,
    /// The circuit at the viewer.
    got: CircuitStats,
}

async fn enter<E: Env>(grid: E, viewer: E, ip: IpAddr) -> Burst {
    let server: GridServer<E> = start_grid(&grid, bursting(ip)).await;
    let Viewer { handle, mut events, task } = start_viewer(&viewer, quiet());
    let manager = handle.network_manager.clone();
    manager.connect(credentials(USER, server.login_url())).await.expect("let in");
    let (_, socket) = next_socket(&mut events).await;
    let bot = handle.bot();
    let count = || async { bot.objects_within(4_096.0).await.expect("connected").len() };
    let mut objects = count().await;
    for _ in 0..600 {
        if objects >= THINGS + 3 {
            break;
        }
        sleep(&viewer, Duration::from_millis(100)).await;
        objects = count().await;
    }
    let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
    let sent = server.with_grid(|grid| grid.stats_of(code)).expect("a circuit");
    let got = handle.core().main_circuit().stats().await.expect("a circuit");
    manager.disconnect().await;
    drop(task);
    Burst { socket, objects, sent, got }
}

#[test]
fn a_burst_at_the_entry_of_a_region_loses_nothing_and_nothing_leaves_twice() {
    let conditions = Conditions { delay: Duration::from_millis(30), ..Conditions::CLEAN };
    let mut world = World::new(81, conditions);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let burst = world.run(enter(grid, viewer, GRID_IP));
    assert_eq!(burst.objects, THINGS + 3);
    assert!(burst.sent.packets_out > THINGS as u64);
    assert_eq!((burst.sent.resends_out, burst.got.duplicates_in), (0, 0));
    assert!(burst.socket.receive_buffer_bytes > 0);
    // Acks go by the hundreds.
    assert!(burst.got.packet_acks_out < 200, "{:?}", burst.got);
}

#[test]
fn a_burst_on_a_poor_line_arrives_and_each_loss_costs_about_one_resend() {
    let poor = Conditions { loss: 0.1, delay: Duration::from_millis(30), ..Conditions::CLEAN };
    let mut world = World::new(82, poor);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let burst = world.run(enter(grid, viewer, GRID_IP));
    assert_eq!(burst.objects, THINGS + 3);
    assert!(world.sim.faults().effect(FaultKind::Loss) > 300);
    // A tenth is lost, and a tenth of what leaves again; acks are lost as well.
    let resends = burst.sent.resends_out;
    assert!((300..1_500).contains(&resends), "{resends}");
}

/// Datagrams that the kernel dropped in front of a socket, by its port; `None` where it does not
/// tell.
#[cfg(target_os = "linux")]
fn kernel_drops(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").ok()?;
    let line = table.lines().find(|line| {
        let local = line.split_whitespace().nth(1).unwrap_or_default();
        local.rsplit(':').next() == Some(format!("{port:04X}").as_str())
    })?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(target_os = "linux")]
#[test]
fn a_burst_over_real_sockets_loses_nothing_where_the_kernel_grants_the_room() {
    use std::sync::mpsc;
    use std::thread;

    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (tell, told) = mpsc::channel();
    // The whole grid on a thread of its own: it sends while the viewer reads.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let grid = thread::spawn(move || {
        let env = twinspan_provider::TokioEnv::new(None).unwrap();
        let grid_env = env.clone();
        env.block_on(async move {
            let server = start_grid(&grid_env, bursting(ip)).await;
            tell.send(server.login_url().to_owned()).unwrap();
            let _ = stopped.await;
            let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
            server.with_grid(|grid| grid.stats_of(code)).expect("a circuit")
        })
    });
    let url = told.recv().unwrap();
    let (objects, socket, drops, got) = twinspan_provider::run(move |env| async move {
        let Viewer { handle, mut events, task } = start_viewer(&env, quiet());
        let manager = handle.network_manager.clone();
        manager.connect(credentials(USER, &url)).await.expect("let in");
        let socket = next_socket(&mut events).await;
        let bot = handle.bot();
        // Whatever is lost comes again within the time of a message; nobody waits for ever.
        let mut objects = 0;
        for _ in 0..600 {
            objects = bot.objects_within(4_096.0).await.expect("connected").len();
            if objects >= THINGS + 3 {
                break;
            }
            sleep(&env, Duration::from_millis(50)).await;
        }
        let drops = kernel_drops(socket.0);
        let got = handle.core().main_circuit().stats().await.expect("a circuit");
        drop(task);
        (objects, socket.1, drops, got)
    })
    .unwrap();
    let _ = stop.send(());
    let sent = grid.join().unwrap();
    let granted = socket.receive_buffer_bytes;
    eprintln!(
        "granted {granted} bytes; dropped by the kernel {drops:?}, resent {}, twice {}",
        sent.resends_out, got.duplicates_in
    );
    assert_eq!(objects, THINGS + 3);
    assert!(granted > 0, "what the kernel granted is told");
    let drops = drops.expect("the kernel tells what it dropped");
    if granted >= THINGS * KERNEL_BYTES_PER_DATAGRAM {
        assert_eq!(drops, 0, "all of it has room");
    } else {
        eprintln!("not all of the burst has room here: set net.core.rmem_max to 4194304 or more");
    }
}

/// The port and the report of the first socket.
async fn next_socket(
    events: &mut twinspan_viewer::Subscription<NetworkEvent>,
) -> (u16, SocketReport) {
    loop {
        // Some of the many others may be missed.
        let event = events.recv().await.expect("the client is there");
        if let NetworkEvent::SocketOpened { local, socket } = event {
            return (local.port(), socket);
        }
    }
}
