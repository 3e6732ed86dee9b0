//! The guide's examples, as they stand there, against a grid on this machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use twinspan_grid::{Activity, AvatarBody};
use twinspan_lludp::Uuid;
use twinspan_provider::TokioEnv;

use crate::rig::{OTHER, PASSWORD, USER, grid_config, sleep, start_grid};

#[path = "../../examples/bot.rs"]
mod bot;

type Look = Box<dyn FnOnce(&twinspan_grid::Grid) + Send>;

/// A grid on a thread of its own, which is looked at from others.
struct GridThread {
    url: String,
    looks: mpsc::Sender<Look>,
    thread: Option<thread::JoinHandle<()>>,
}

impl GridThread {
    fn start() -> Self {
        let (tell, told) = mpsc::channel();
        let (looks, asked) = mpsc::channel::<Look>();
        let thread = thread::spawn(move || {
            let env = TokioEnv::new(None).unwrap();
            let grid_env = env.clone();
            env.block_on(async move {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let server = start_grid(&grid_env, grid_config(ip)).await;
                tell.send(server.login_url().to_owned()).unwrap();
                loop {
                    match asked.try_recv() {
                        Ok(look) => server.with_grid(look),
                        Err(mpsc::TryRecvError::Empty) => {
                            sleep(&grid_env, Duration::from_millis(5)).await;
                        }
                        Err(mpsc::TryRecvError::Disconnected) => return,
                    }
                }
            });
        });
        Self { url: told.recv().unwrap(), looks, thread: Some(thread) }
    }

    fn body(&self, id: Uuid) -> AvatarBody {
        let (tell, told) = mpsc::channel();
        let look = move |grid: &twinspan_grid::Grid| {
            let body = grid.code_of(id).and_then(|code| grid.body(code));
            tell.send(body).unwrap();
        };
        self.looks.send(Box::new(look)).unwrap();
        told.recv().unwrap().expect("the avatar is in a region")
    }

    async fn until(&self, id: Uuid, is_so: impl Fn(&AvatarBody) -> bool) -> AvatarBody {
        loop {
            let body = self.body(id);
            if is_so(&body) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn end(mut self) {
        drop(self.looks);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn every_example_does_what_it_says() {
    let grid = GridThread::start();
    block_on(async {
        let client = bot::log_in(&grid.url, USER, PASSWORD).await.unwrap();
        let other = bot::log_in(&grid.url, OTHER, PASSWORD).await.unwrap();
        let (one, two) = (client.bot(), other.bot());
        let id = |client: &twinspan_viewer::Client| {
            client.network_manager.session().expect("a session").agent_id
        };
        let (one_id, two_id) = (id(&client), id(&other));
        // Both see each other, and the things of the region, with their names.
        loop {
            let (avatars, things) = bot::look_around(&one).await.unwrap();
            let named = one.avatars().await.unwrap().iter().all(|avatar| !avatar.name.is_empty());
            if (avatars, things) == (2, 3) && named {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(grid.until(one_id, |body| body.far == 128.0).await.far, 128.0);

        assert_eq!(bot::chat(&one).await.unwrap(), "hello, everybody");
        let mut heard = two.listen();
        bot::instant_message(&one).await.unwrap();
        loop {
            if let twinspan_viewer::WorldEvent::InstantMessage(word) = heard.recv().await.unwrap() {
                assert_eq!((word.text.as_str(), word.from), ("psst", one_id));
                break;
            }
        }

        bot::sit(&one).await.unwrap();
        grid.until(one_id, |body| body.activity == Activity::Stand).await;
        let there = bot::walk(&one).await.unwrap();
        let near = |body: &AvatarBody| (body.position.x - there.x).abs() < 3.0;
        grid.until(one_id, near).await;
        bot::turn(&one).await.unwrap();
        let south = -core::f32::consts::FRAC_1_SQRT_2;
        grid.until(one_id, |body| (body.rotation.z - south).abs() < 0.01).await;

        bot::teleport(&one).await.unwrap();
        let home = grid.body(one_id);
        assert!((home.position.x - 128.0).abs() < 0.5, "{home:?}");

        // One offers, the other comes.
        one.teleport_to("Gamma", twinspan_lludp::Vector3::new(30.0, 40.0, 22.0)).await.unwrap();
        let (offered, accepted) = (one.offer_teleport(two_id, "come"), bot::accept_teleports(&two));
        let mut accepted = std::pin::pin!(accepted);
        // It listens before the offer is made.
        assert!(futures_poll_once(accepted.as_mut()).await.is_none());
        offered.await.unwrap();
        accepted.await.unwrap();
        assert_eq!(grid.body(two_id).region, grid.body(one_id).region);

        let far = grid.body(two_id).position;
        let away = twinspan_lludp::Vector3::new(far.x + 20.0, far.y, far.z);
        while bot::follow(&one, OTHER).await.is_err() {
            // It has just arrived.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        two.walk_to(away, Duration::from_secs(60)).await.unwrap();
        grid.until(one_id, |body| (body.position.x - away.x).abs() < 6.0).await;
        client.disconnect().await;
        other.disconnect().await;
    });
    grid.end();
}

/// What a future gives when it is asked once; `None` when it waits.
async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[test]
fn the_guide_shows_the_examples_as_they_are() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/VIEWER.md");
    let guide = std::fs::read_to_string(root).unwrap();
    let program = include_str!("../../examples/bot.rs");
    let mut shown = 0;
    for part in program.split("\npub async fn ").skip(1) {
        let end = part.find("\n}\n").expect("a function ends") + 3;
        let function = format!("pub async fn {}", &part[..end]);
        let lines = function.lines().count();
        assert!(lines <= 13, "{lines} lines, ten and its braces are enough:\n{function}");
        assert!(guide.contains(&function), "the guide does not show this:\n{function}");
        shown += 1;
    }
    assert_eq!(shown, 10);
}
