//! Prints what the relay and a bare forwarder cost for each datagram, turn by turn.

use twinspan_relay::bench::{BenchError, BenchOptions, run};

fn main() -> Result<(), BenchError> {
    let report = run(BenchOptions::default(), &mut |name, one| {
        println!(
            "{name}: {:.0} ns of processor time a datagram, {:.0} datagrams a second at {:.2} of a core",
            one.cpu_ns, one.per_second, one.core_share
        );
    })?;
    println!("{report:#?}");
    Ok(())
}
