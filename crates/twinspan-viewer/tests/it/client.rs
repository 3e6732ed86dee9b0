//! The client with its threads, on this machine's loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::thread;

use twinspan_grid::GridEvent;
use twinspan_lludp::messages::{ChatFromSimulator, TestMessage};
use twinspan_provider::TokioEnv;
use twinspan_viewer::{
    Client, ConnectError, HandlerContext, HandlerError, NetworkEvent, NetworkStatus,
    TypedPacketHandler,
};

use crate::rig::{USER, credentials, grid_config, start_grid};

/// Passes on what it hears.
struct PrintChat(std::sync::Mutex<mpsc::Sender<String>>);

impl TypedPacketHandler<ChatFromSimulator> for PrintChat {
    async fn handle(
        &self,
        packet: &ChatFromSimulator,
        context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        assert!(context.client().network_manager.status() == NetworkStatus::Connected);
        // Its circuit is that of the region that sent it, and asks and sends by the core.
        let core = context.core();
        let heard = context.circuit().stats().await.is_some_and(|stats| stats.messages_in > 0);
        let all = core.circuit_stats().await.is_some_and(|stats| stats.messages_in > 0);
        let sent = context.circuit().send_reliable([TestMessage::default()]).await;
        let nobody = core.circuit(([127, 0, 0, 1], 1).into()).stats().await;
        let text = packet.chat_data.message.to_text();
        let region = context.region().map(|region| region.name.as_str());
        let is_well = heard && all && sent.is_ok() && nobody.is_none() && region == Some("Alpha");
        let word = if is_well {
            text
        } else {
            format!("not well: {heard} {all} {sent:?} {nobody:?} {region:?}")
        };
        self.0.lock().unwrap().send(word)?;
        Ok(())
    }
}

/// A grid on a thread of its own; it tells its address, and ends when somebody left.
fn grid_thread() -> (String, thread::JoinHandle<bool>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let env = TokioEnv::new(None).unwrap();
        env.block_on({
            let env = env.clone();
            async move {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let server = start_grid(&env, grid_config(ip)).await;
                tell.send(server.login_url().to_owned()).unwrap();
                loop {
                    while let Some(event) = server.poll_event() {
                        if let GridEvent::Left { asked, .. } = event {
                            return asked;
                        }
                    }
                    crate::rig::sleep(&env, std::time::Duration::from_millis(5)).await;
                }
            }
        })
    });
    (told.recv().unwrap(), thread)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_client_hears_and_says_goodbye_when_it_is_dropped() {
    let (url, grid) = grid_thread();
    let (pass_on, heard) = mpsc::channel();
    let mut client = Client::new();
    let mut events = client.network_manager.subscribe();
    block_on(async {
        client.initialize().await.unwrap();
        client.initialize().await.unwrap();
        let handler = PrintChat(pass_on.into());
        client.handler_registry.register_handler::<ChatFromSimulator, _>(handler).await;
        let session = client.connect(credentials(USER, &url)).await.unwrap();
        assert_eq!(session.first_name, "Ruth");
        let twice = client.connect(credentials(USER, &url)).await;
        assert!(matches!(twice, Err(ConnectError::Busy(NetworkStatus::Connected))));
        client.bot().say("hello").await.unwrap();
    });
    let told = |word: &String| word == "hello" || word.starts_with("not well");
    assert_eq!(heard.iter().find(told).unwrap(), "hello");
    let manager = client.network_manager.clone();
    drop(client);
    assert_eq!(manager.status(), NetworkStatus::Disconnected);
    assert!(grid.join().unwrap(), "the grid was told");
    block_on(async {
        let gone = manager.connect(credentials(USER, &url)).await;
        assert!(matches!(gone, Err(ConnectError::NotRunning)), "{gone:?}");
        drop(manager);
        let mut last = None;
        while let Ok(event) = events.recv().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(NetworkEvent::Disconnected { .. })), "{last:?}");
    });
}

#[test]
fn a_client_that_was_not_started_says_so() {
    block_on(async {
        let client = Client::new();
        let refused = client.connect(credentials(USER, "http://127.0.0.1:1/")).await;
        assert!(matches!(refused, Err(ConnectError::NotRunning)));
        client.disconnect().await;
        assert_eq!(client.network_manager.status(), NetworkStatus::Idle);
    });
}

#[test]
fn nobody_listens_and_the_client_says_so() {
    let mut client = Client::new();
    block_on(async {
        client.initialize().await.unwrap();
        let refused = client.connect(credentials(USER, "http://127.0.0.1:1/")).await;
        let Err(ConnectError::Login(error)) = refused else { panic!("{refused:?}") };
        assert!(error.is_passing(), "{error}");
    });
}
