//! Async functions on streams: clients write a message and read it back, one after the other.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TaskProvider, TcpListener, TcpOptions,
};
use twinspan_sim::{Sim, SimConfig, SimEnv};

use super::{ECHO_CLIENTS, Measured, SEED, meter};

const MESSAGE_BYTES: usize = 1_024;
/// 1 to 10 ms each way.
const CONDITIONS: Conditions = Conditions {
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(9),
    ..Conditions::CLEAN
};
const PORT: u16 = 4_000;
/// Time before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Takes connections and sends back what they say, each in a task of its own.
async fn serve(env: SimEnv, local: SocketAddr) {
    let Ok(mut listener) = env.listen(local, &TcpOptions::default()).await else { return };
    let mut tasks = Vec::with_capacity(usize::from(ECHO_CLIENTS));
    while let Ok(mut stream) = listener.accept().await {
        tasks.push(env.spawn("connection", async move {
            let mut message = [0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).await.is_ok()
                && stream.write_all(&message).await.is_ok()
            {}
        }));
    }
}

/// Says something and waits until it is back, for ever; counts messages, there and back.
async fn talk(env: SimEnv, server: SocketAddr, count: Rc<Cell<u64>>) {
    let Ok(mut stream) = env.connect(server, &TcpOptions::default()).await else { return };
    let mut message = [7; MESSAGE_BYTES];
    while stream.write_all(&message).await.is_ok() && stream.read_exact(&mut message).await.is_ok()
    {
        count.set(count.get() + 2);
    }
}

pub(super) fn run(time: Duration) -> Measured {
    let config = SimConfig { seed: SEED, conditions: CONDITIONS, ..SimConfig::default() };
    let mut sim = Sim::new(config);
    let server = SocketAddr::new(IpAddr::from([10, 0, 1, 0]), PORT);
    let env = sim.host("server", server.ip());
    let mut tasks = vec![env.spawn("serve", serve(env.clone(), server))];
    // It listens before anybody connects.
    sim.run_until(sim.now());
    let count = Rc::new(Cell::new(0));
    for number in 0..ECHO_CLIENTS {
        let env = sim.host("client", IpAddr::from([10, 0, 0, number]));
        tasks.push(env.spawn("talk", talk(env.clone(), server, Rc::clone(&count))));
    }
    sim.run_for(WARM_UP);
    let before = count.get();
    let measured = Measured { count: 0, ..meter(&mut sim, time) };
    drop(tasks);
    Measured { count: count.get() - before, ..measured }
}
