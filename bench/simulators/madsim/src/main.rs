//! The echo on madsim: `madsim-echo SECONDS`, to be built with `--cfg madsim`.

#![forbid(unsafe_code)]

#[cfg(madsim)]
mod echo {
    use std::net::{IpAddr, SocketAddr};

    use madsim::net::{TcpListener, TcpStream};
    use madsim::runtime::Runtime;
    use madsim::{Config, task, time};
    use meter::{
        CLIENTS, Count, DELAY_MAX, DELAY_MIN, MESSAGE_BYTES, Meter, Outcome, PORT, SEED, WARM_UP,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SERVER: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 0)), PORT);

    /// Takes connections and sends back what they say, each in a task of its own.
    async fn serve() -> std::io::Result<()> {
        let listener = TcpListener::bind(SERVER).await?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            // What is written travels when it is flushed.
            drop(task::spawn(async move {
                let mut message = [0; MESSAGE_BYTES];
                while stream.read_exact(&mut message).await.is_ok()
                    && stream.write_all(&message).await.is_ok()
                    && stream.flush().await.is_ok()
                {}
            }));
        }
    }

    /// Says something and waits until it is back, for ever.
    async fn talk(count: Count) -> std::io::Result<()> {
        let mut stream = loop {
            // The first ones may come before the server listens.
            match TcpStream::connect(SERVER).await {
                Ok(stream) => break stream,
                Err(_) => time::sleep(DELAY_MAX).await,
            }
        };
        let mut message = [7; MESSAGE_BYTES];
        loop {
            stream.write_all(&message).await?;
            stream.flush().await?;
            stream.read_exact(&mut message).await?;
            count.add_round_trip();
        }
    }

    pub(super) fn run() -> Outcome {
        let seconds = meter::seconds()?;
        let mut config = Config::default();
        config.net.send_latency = DELAY_MIN..DELAY_MAX;
        let runtime = Runtime::with_seed_and_config(SEED, config);
        let count = Count::default();
        let server = runtime.create_node().name("server").ip(SERVER.ip()).build();
        let mut tasks = vec![server.spawn(serve())];
        for number in 1..=CLIENTS {
            let ip = IpAddr::from([10, 0, 0, number]);
            let client = runtime.create_node().name(format!("client {number}")).ip(ip).build();
            tasks.push(client.spawn(talk(count.clone())));
        }
        runtime.block_on(async { time::sleep(WARM_UP).await });
        let meter = Meter::begin(&count);
        runtime.block_on(async { time::sleep(seconds).await });
        let told = meter.end("madsim 0.2.34", seconds);
        drop(tasks);
        told
    }
}

#[cfg(madsim)]
fn main() -> meter::Outcome {
    echo::run()
}

#[cfg(not(madsim))]
fn main() -> meter::Outcome {
    Err("built without its simulator: build it with RUSTFLAGS=\"--cfg madsim\"".into())
}
