//! Two handles throw a message to and fro: `cargo run --release -p twinspan-hub --example ping_pong`.
//! For figures beside a floor there is `twinspan bench hub`.

use std::error::Error;
use std::thread;
use std::time::Instant;

use twinspan_hub::{Hub, Wait};

const TRIPS: usize = 400_000;

type Message = [u64; 6];

fn main() -> Result<(), Box<dyn Error>> {
    let topic = format!("example/ping-pong/{}", std::process::id());
    let hub = || Hub::<Message>::builder(&topic).wait(Wait::Spin).build();
    let (here, there) = (hub()?, hub()?);
    let cores = twinspan_net::allowed_cores()?;
    let far = cores.last().copied().unwrap_or(0);
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            // Where it cannot be bound it runs where it may.
            let _ = twinspan_net::pin_to_core(far);
            for _ in 0..TRIPS {
                let message = there.recv().map_err(|error| error.to_string())?;
                there.publish(&message).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
        twinspan_net::pin_to_core(cores.first().copied().unwrap_or(0))?;
        let mut times = Vec::with_capacity(TRIPS);
        for number in 0..TRIPS as u64 {
            let sent = Instant::now();
            here.publish(&[number; 6])?;
            let back = here.recv()?;
            times.push(sent.elapsed().as_nanos() / 2);
            assert_eq!(back, [number; 6], "the same message comes back");
        }
        echo.join().map_err(|_| "the other thread panicked")??;
        times.sort_unstable();
        let at = |part: usize| times.get(TRIPS * part / 1_000).copied().unwrap_or(0);
        println!("48 bytes, one way: p50 {} ns, p99 {} ns, p99.9 {} ns", at(500), at(990), at(999));
        Ok(())
    })
}
