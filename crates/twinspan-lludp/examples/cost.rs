//! What a message costs: `cargo run --release -p twinspan-lludp --features bench --example cost`.

use std::time::Instant;

use twinspan_lludp::bench::Traffic;

/// One pass over all packets.
type Part = fn(&mut Traffic) -> usize;

fn main() {
    let Some(mut traffic) = Traffic::login() else { return };
    let parts: [(&str, Part); 3] = [
        ("decode", Traffic::decode),
        ("decode without borrowing", Traffic::decode_owned),
        ("encode", Traffic::encode),
    ];
    for _ in 0..3 {
        for (name, part) in parts {
            let (began, mut messages) = (Instant::now(), 0);
            while began.elapsed().as_millis() < 300 {
                messages += part(&mut traffic);
            }
            let each = began.elapsed().as_nanos() as f64 / messages as f64;
            println!("{name}: {each:.0} ns a message");
        }
    }
}
