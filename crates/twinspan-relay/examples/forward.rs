//! Prints what the relay and a bare forwarder cost for each datagram, turn by turn.

use twinspan_relay::bench::{BenchError, BenchOptions, run};

fn main() -> Result<(), BenchError> {
    // Datagrams offered a second; without it as many as can be sent.
    let offered_per_second = std::env::args().nth(1).and_then(|rate| rate.parse().ok());
    let options = BenchOptions { offered_per_second, ..BenchOptions::default() };
    let report = run(options, &mut |name, one| {
        println!(
            "{name}: {:.0} ns of processor time a datagram, {:.0} datagrams a second at {:.2} of a core",
            one.cpu_ns, one.per_second, one.core_share
        );
    })?;
    println!("{report:#?}");
    Ok(())
}
