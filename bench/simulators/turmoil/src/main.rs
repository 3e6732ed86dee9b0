//! The echo on turmoil: `turmoil-echo SECONDS [HOSTS]`.
//!
//! Each host of turmoil is a runtime of its own that is ticked each virtual millisecond, so the fewer
//! hosts, the faster: HOSTS says over how many the 100 clients are spread, each on its own unless given.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use meter::{
    CLIENTS, Count, DELAY_MAX, DELAY_MIN, MESSAGE_BYTES, Meter, Outcome, PORT, SEED, WARM_UP,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};

/// Takes connections and sends back what they say, each in a task of its own.
async fn serve() -> turmoil::Result {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let mut message = [0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).await.is_ok()
                && stream.write_all(&message).await.is_ok()
            {}
        });
    }
}

/// Says something and waits until it is back, for ever.
async fn talk(count: Count) -> turmoil::Result {
    let mut stream = TcpStream::connect(("server", PORT)).await?;
    let mut message = [7; MESSAGE_BYTES];
    loop {
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        count.add_round_trip();
    }
}

fn main() -> Outcome {
    let seconds = meter::seconds()?;
    let hosts: u8 = std::env::args().nth(2).map_or(Ok(CLIENTS), |given| given.parse())?;
    let hosts = hosts.clamp(1, CLIENTS);
    let mut sim = turmoil::Builder::new()
        .simulation_duration(WARM_UP + seconds * 2)
        .min_message_latency(DELAY_MIN)
        .max_message_latency(DELAY_MAX)
        .rng_seed(SEED)
        .build();
    sim.host("server", serve);
    let count = Count::default();
    for host in 0..hosts {
        let here = (host..CLIENTS).step_by(usize::from(hosts)).count();
        let count = count.clone();
        sim.client(format!("client-{host}"), async move {
            let tasks: Vec<_> =
                (0..here).map(|_| tokio::task::spawn_local(talk(count.clone()))).collect();
            for task in tasks {
                task.await??;
            }
            Ok(())
        });
    }
    while sim.elapsed() < WARM_UP {
        sim.step()?;
    }
    let (meter, began) = (Meter::begin(&count), sim.elapsed());
    while sim.elapsed() < began + seconds {
        sim.step()?;
    }
    let name =
        if hosts == CLIENTS { "turmoil 0.7.2" } else { "turmoil 0.7.2, clients on few hosts" };
    meter.end(name, seconds)
}
