//! Teleports, then tells who and what is around: `cargo run -p twinspan --features viewer --example
//! lookout -- GRID NAME REGION`, the password in the environment (`TWINSPAN_PASSWORD`).

use std::time::Duration;

use twinspan::viewer::lludp::Vector3;
use twinspan::viewer::{Client, Grid, LoginCredentials, PASSWORD_VARIABLE};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [grid, name, region] = args.as_slice() else { return Err("give GRID NAME REGION".into()) };
    let mut client = Client::new();
    client.initialize().await?;
    let login = LoginCredentials::new(name, std::env::var(PASSWORD_VARIABLE)?);
    client.connect(login.with_grid(Grid::parse(grid)?)).await?;
    let bot = client.bot();
    bot.teleport_to(region, Vector3::new(128.0, 128.0, 25.0)).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for avatar in bot.avatars().await? {
        println!("{} at {:?}", avatar.name, avatar.position);
    }
    println!("{} objects within 30 m", bot.objects_within(30.0).await?.len());
    client.disconnect().await;
    Ok(())
}
