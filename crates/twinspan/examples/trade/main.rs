//! Two players talk and trade by typed messages: `cargo run -p twinspan --example trade`.
//!
//! `messages.rs` was made of `market.fbs` by `twinspan-messages-build`; see its documentation for the
//! build script that does it.

use std::sync::Arc;
use std::time::Duration;

use twinspan::game::{
    ClientConfig, ServeOptions, ServerConfig, ServerMessages, UserId, connect_with, serve_with,
};
use twinspan::messages::channel::{Channel, Delivery, StreamId};
use twinspan::messages::{Limits, MessageId, Registry};

#[rustfmt::skip]
#[allow(dead_code, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
#[allow(clippy::redundant_closure_for_method_calls, clippy::undocumented_unsafe_blocks)]
mod messages;

use messages::market::{Answer, Heard, Offer, Say};

/// What both ends know: the types, their numbers, and how each travels.
fn registry() -> Result<Arc<Registry>, Box<dyn std::error::Error>> {
    let stream = |number| StreamId::new(number).ok_or("there are 64 streams");
    // Talk is resent and may overtake; trade is resent and keeps its order.
    let talk = Channel::new(Delivery::Unordered, stream(5)?);
    let trade = Channel::new(Delivery::Ordered, stream(6)?);
    let mut registry = Registry::new(Limits::default());
    registry
        .register::<Say>(MessageId(1), talk)?
        .register::<Heard>(MessageId(2), talk)?
        .register::<Offer>(MessageId(10), trade)?
        .register::<Answer>(MessageId(11), trade)?;
    Ok(Arc::new(registry))
}

/// What the server does with each type. A handler runs on the server's thread, so it is short.
fn handlers(registry: Arc<Registry>) -> Result<ServerMessages, Box<dyn std::error::Error>> {
    Ok(ServerMessages::new(registry)
        .on::<Say>(|context, say| {
            let (user, Ok(text)) = (context.user().0, say.text()) else { return };
            if context.send_all(&Heard { user, text: text.to_owned() }).is_err() {
                eprintln!("too much is being said at once");
            }
        })?
        .on::<Offer>(|context, offer| {
            let from = context.user().0;
            let (Ok(to), Ok(item), Ok(gold)) = (offer.user(), offer.item(), offer.gold()) else {
                return;
            };
            let told = Offer { user: from, item: item.to_owned(), gold };
            if context.send(UserId(to), &told).is_err() {
                // Nobody of that name: the server answers itself.
                let _ = context.reply(&Answer { user: to, accepted: false });
            }
        })?
        .on::<Answer>(|context, answer| {
            let user = context.user().0;
            if let (Ok(to), Ok(accepted)) = (answer.user(), answer.accepted()) {
                // Whoever asked may have left; then nobody waits for the answer.
                let _ = context.send(UserId(to), &Answer { user, accepted });
            }
        })?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let registry = registry()?;
    let server = serve_with(ServeOptions {
        messages: Some(handlers(Arc::clone(&registry))?),
        ..ServeOptions::new("127.0.0.1:0".parse()?, ServerConfig::for_players(2))
    })?;
    let config = ClientConfig { messages: Some(registry), ..ClientConfig::default() };
    let alice = connect_with(&server.token(UserId(1)), config.clone())?;
    let bob = connect_with(&server.token(UserId(2)), config)?;

    alice.send_message(&Say { text: "a sword for sale!".into() })?;
    let heard = bob.wait_message(PATIENCE).ok_or("bob hears nothing")?;
    let said = heard.read::<Heard>().ok_or("bob expected words")?;
    println!("bob hears user {}: {}", said.user()?, said.text()?);

    alice.send_message(&Offer { user: 2, item: "sword".into(), gold: 30 })?;
    let offered = bob.wait_message(PATIENCE).ok_or("bob gets no offer")?;
    let offer = offered.read::<Offer>().ok_or("bob expected an offer")?;
    println!("bob may have the {} for {} gold", offer.item()?, offer.gold()?);
    bob.send_message(&Answer { user: offer.user()?, accepted: offer.gold()? <= 30 })?;

    // Alice hears her own words too.
    let answer = loop {
        let message = alice.wait_message(PATIENCE).ok_or("alice gets no answer")?;
        if let Some(answer) = message.read::<Answer>() {
            break answer.accepted()?;
        }
    };
    println!("bob {}", if answer { "takes it" } else { "declines" });
    if !answer {
        return Err("the price was right".into());
    }
    bob.leave()?;
    alice.leave()?;
    server.drain()?;
    Ok(())
}
