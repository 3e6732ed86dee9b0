//! What a bot does, ten lines each: `cargo run -p twinspan-viewer --example bot -- GRID NAME WHAT..`,
//! the password in the environment (`TWINSPAN_PASSWORD`). `WHAT` is the name of one of the functions
//! below. Tests run all of them against a grid, and [the guide](../../../docs/VIEWER.md) shows them.

#![allow(unreachable_pub, reason = "tests take these functions into a module of theirs")]

use std::time::Duration;

use twinspan_viewer::lludp::Vector3;
use twinspan_viewer::lludp::content::Dialog;
use twinspan_viewer::{Bot, Client, Grid, LoginCredentials, PASSWORD_VARIABLE, WorldEvent};

/// What an example gives, or any error.
pub type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Logs in.
pub async fn log_in(grid: &str, name: &str, password: &str) -> Done<Client> {
    let mut client = Client::new();
    client.initialize().await?;
    let credentials = LoginCredentials::new(name, password).with_grid(Grid::parse(grid)?);
    let session = client.connect(credentials).await?;
    println!("Welcome, {}!", session.first_name);
    Ok(client)
}

/// Says something, and hears what is said.
pub async fn chat(bot: &Bot) -> Done<String> {
    let mut heard = bot.listen();
    bot.say("hello, everybody").await?;
    loop {
        if let WorldEvent::Chat(chat) = heard.recv().await? {
            println!("{}: {}", chat.from_name, chat.text);
            return Ok(chat.text);
        }
    }
}

/// Writes to all avatars around.
pub async fn instant_message(bot: &Bot) -> Done {
    let everybody = bot.avatars().await?;
    for avatar in everybody.iter().filter(|avatar| !avatar.name.is_empty()) {
        bot.instant_message(avatar.id, "psst").await?;
        println!("wrote to {}", avatar.name);
    }
    Ok(())
}

/// Walks some metres, and jumps.
pub async fn walk(bot: &Bot) -> Done<Vector3> {
    let here = bot.position().await?;
    let there = Vector3::new(here.x + 5.0, here.y + 5.0, here.z);
    bot.walk_to(there, Duration::from_secs(30)).await?;
    bot.jump().await?;
    println!("from {here:?} to {:?}", bot.position().await?);
    Ok(there)
}

/// Turns to the east, north, west and south.
pub async fn turn(bot: &Bot) -> Done {
    let here = bot.position().await?;
    for (x, y) in [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)] {
        bot.turn_to(Vector3::new(here.x + x, here.y + y, here.z)).await?;
    }
    Ok(())
}

/// Sits down on a bench, and stands up.
pub async fn sit(bot: &Bot) -> Done {
    let things = bot.objects_within(50.0).await?;
    let bench = things.iter().find(|thing| thing.text == "Bench").ok_or("no bench around")?;
    bot.sit_on(bench.id).await?;
    println!("sits on {} at {:?}", bench.text, bench.position);
    bot.stand().await?;
    Ok(())
}

/// Teleports far away, and home.
pub async fn teleport(bot: &Bot) -> Done {
    let arrived = bot.teleport_to("Gamma", Vector3::new(128.0, 128.0, 25.0)).await?;
    println!("at {} {:?}", arrived.address, arrived.position);
    bot.teleport_home().await?;
    println!("at home");
    Ok(())
}

/// Waits for an offer of a teleport, and takes it.
pub async fn accept_teleports(bot: &Bot) -> Done {
    let mut heard = bot.listen();
    loop {
        match heard.recv().await? {
            WorldEvent::InstantMessage(word) if word.dialog == Dialog::TeleportOffered => {
                println!("{} offers: {}", word.from_name, word.text);
                bot.accept_teleport(word.session).await?;
                return Ok(());
            }
            _ => {}
        }
    }
}

/// Follows an avatar.
pub async fn follow(bot: &Bot, name: &str) -> Done {
    let everybody = bot.avatars().await?;
    let whom = everybody.iter().find(|avatar| avatar.name == name).ok_or("nobody of that name")?;
    bot.follow(whom.id, 3.0).await?;
    println!("follows {name} until told otherwise: bot.stop()");
    Ok(())
}

/// Tells of objects and avatars around.
pub async fn look_around(bot: &Bot) -> Done<(usize, usize)> {
    bot.see(128.0).await?;
    let (avatars, things) = (bot.avatars().await?, bot.objects_within(128.0).await?);
    for avatar in &avatars {
        println!("{} at {:?}", avatar.name, avatar.position);
    }
    for thing in &things {
        println!("{} ({}) at {:?}", thing.text, thing.id, thing.position);
    }
    Ok((avatars.len(), things.len()))
}

#[cfg_attr(test, allow(dead_code, reason = "tests call the functions themselves"))]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [grid, name, what, more @ ..] = args.as_slice() else {
        return Err("give GRID NAME WHAT".into());
    };
    let client = log_in(grid, name, &std::env::var(PASSWORD_VARIABLE)?).await?;
    let bot = client.bot();
    // A region tells what is around within a few seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    match what.as_str() {
        "log_in" => {}
        "chat" => drop(chat(&bot).await?),
        "instant_message" => instant_message(&bot).await?,
        "walk" => {
            walk(&bot).await?;
        }
        "turn" => turn(&bot).await?,
        "sit" => sit(&bot).await?,
        "teleport" => teleport(&bot).await?,
        "accept_teleports" => accept_teleports(&bot).await?,
        "follow" => {
            follow(&bot, more.first().ok_or("give a name")?).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        "look_around" => {
            look_around(&bot).await?;
        }
        other => return Err(format!("nothing is called {other}").into()),
    }
    client.disconnect().await;
    Ok(())
}
