//! A world server and two clients in one program: `cargo run -p twinspan --example quickstart`.

use std::time::Duration;
use twinspan::game::{ServerConfig, UserId, connect, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = serve("127.0.0.1:0".parse()?, ServerConfig::for_players(2))?;
    let alice = connect(&server.token(UserId(1)))?; // sealed: X25519, AEAD, a replay window
    let bob = connect(&server.token(UserId(2)))?;
    alice.walk(90.0); // the server decides where that leads
    let view = alice.wait_for(Duration::from_secs(5), |view| view.entities.len() > 1);
    println!("alice is {:?} and sees {} entities", view.own, view.entities.len());
    alice.apply_effect(view.own.ok_or("not in the world")?); // reliable, once, in order
    bob.leave()?;
    alice.leave()?;
    server.drain()?;
    Ok(())
}
