//! A bot that answers: `cargo run -p twinspan --features viewer --example chat_bot -- GRID NAME`, the
//! password in the environment (`TWINSPAN_PASSWORD`).

use twinspan::viewer::{Client, Grid, LoginCredentials, PASSWORD_VARIABLE, WorldEvent};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let grid = Grid::parse(&args.next().ok_or("give a grid")?)?;
    let name = args.next().ok_or("give a name")?;
    let mut client = Client::new();
    client.initialize().await?;
    let password = std::env::var(PASSWORD_VARIABLE)?;
    let session = client.connect(LoginCredentials::new(name, password).with_grid(grid)).await?;
    let (bot, mut heard) = (client.bot(), client.event_bus.subscribe());
    while let Ok(event) = heard.recv().await {
        match event {
            WorldEvent::Chat(chat) if chat.source_id == session.agent_id => {}
            WorldEvent::Chat(chat) if chat.text == "come" => {
                bot.follow(chat.source_id, 3.0).await?;
            }
            WorldEvent::Chat(chat) if chat.text == "stay" => bot.stop().await?,
            WorldEvent::Chat(chat) if !chat.text.is_empty() => bot.say("come, or stay?").await?,
            WorldEvent::InstantMessage(message) => {
                bot.instant_message(message.from, "hello").await?;
            }
            _ => {}
        }
    }
    Ok(())
}
