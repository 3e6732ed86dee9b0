//! One application, here and in simulation:
//! `cargo run -p twinspan --features real,sim --example both_worlds`.

use twinspan::provider::{AsyncReadExt, AsyncWriteExt, Env, TcpListener, TcpOptions};

async fn hello<E: Env>(env: E) -> Result<String, Box<dyn std::error::Error>> {
    let mut listener = env.listen("127.0.0.1:0".parse()?, &TcpOptions::default()).await?;
    let mut client = env.connect(listener.local_addr(), &TcpOptions::default()).await?;
    client.write_all(b"hello").await?;
    client.shutdown().await?;
    let mut text = String::new();
    listener.accept().await?.read_to_string(&mut text).await?;
    Ok(text)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!(twinspan::real::run(hello)??, "hello");
    assert_eq!(twinspan::sim::run(7, hello)??, "hello");
    Ok(())
}
