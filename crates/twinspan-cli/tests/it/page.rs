//! The page in a real browser: against a made-up world here, and against the demo by the same
//! function.

use std::f32::consts::TAU;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use twinspan_cli::http::{
    Board, EntityDot, HttpServer, InterestRow, MetricsFrame, SessionRow, WorldFrame,
};
use twinspan_core::link::Conditions;

use crate::webdriver::Browser;

/// WebDriver's code points for keys.
const PAGE_UP: &str = "\u{e00e}";
const ESCAPE: &str = "\u{e00c}";

/// Everything that must hold for the page of any running demo whose players send and receive.
///
/// `base` is the address of its web side, like `http://127.0.0.1:7777`. Leaves the demo under
/// clean conditions.
pub(crate) fn check(browser: &Browser, base: &str) {
    loads_without_a_complaint(browser, base);
    shows_as_many_entities_as_the_server_has(browser);
    draws_entities_where_they_are(browser);
    click_shows_the_area_of_interest(browser);
    changed_condition_changes_the_plotted_loss(browser);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn loads_without_a_complaint(browser: &Browser, base: &str) {
    browser.go(&format!("{base}/"));
    browser.wait("the feed is live", "return document.body.dataset.state === 'live'");
    browser.wait("a frame came", "return Number(document.querySelector('#map').dataset.entities)");
    browser.wait(
        "every number of the head is there",
        "return ['players', 'entities', 'tick', 'cipher'].every((id) =>
           document.getElementById(id).dataset.value)",
    );
    browser.wait(
        "every plot has points",
        "const plots = [...document.querySelectorAll('.plot')];
         return plots.length === 6 && plots.every((plot) => Number(plot.dataset.points) > 1)",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn shows_as_many_entities_as_the_server_has(browser: &Browser) {
    browser.wait(
        "the map has as many entities as the server, of each kind",
        "const server = await (await fetch('/api/snapshot')).json();
         const map = document.querySelector('#map');
         const kinds = [0, 1, 2].map((kind) =>
           window.twinspan.entities().filter((entity) => entity.kind === kind).length);
         return server.entities > 0 && Number(map.dataset.entities) === server.entities &&
           Number(document.querySelector('#entities').dataset.value) === server.entities &&
           `${kinds}` === `${[server.players, server.npcs, server.projectiles]}`",
    );
}

/// A player far from every other entity, by where they are drawn: `{ id, x, y, alone }`.
const LONELY_PLAYER: &str = "
    const all = window.twinspan.entities();
    const alone = (one) => Math.min(...all.filter((other) => other.id !== one.id)
      .map((other) => Math.hypot(other.x - one.x, other.y - one.y)));
    const player = all.filter((one) => one.kind === 0)
      .map((one) => ({ ...one, alone: alone(one) }))
      .sort((a, b) => b.alone - a.alone)[0];";

fn draws_entities_where_they_are(browser: &Browser) {
    browser.wait(
        "the colour of players lies where a player is",
        &format!(
            "{LONELY_PLAYER}
             const map = document.querySelector('#map');
             const box = map.getBoundingClientRect();
             const ratio = map.width / box.width;
             const [r, g, b, a] = map.getContext('2d').getImageData(
               Math.round((player.x - box.left) * ratio),
               Math.round((player.y - box.top) * ratio), 1, 1).data;
             return a === 255 && b > 150 && b > r + 80"
        ),
    );
}

fn click_shows_the_area_of_interest(browser: &Browser) {
    // Entities move between the look and the click, so a click may meet a neighbour: again then.
    let mut chosen = Value::Null;
    for _ in 0..20 {
        let player = browser.run(&format!("{LONELY_PLAYER} return player"));
        let (x, y) = (player["x"].as_f64(), player["y"].as_f64());
        browser.click_at(x.expect("a place"), y.expect("a place"));
        let selected = browser.run("return Number(document.body.dataset.selected || -1)");
        if selected == player["id"] {
            chosen = selected;
            break;
        }
    }
    assert!(!chosen.is_null(), "no click selected the player under it");
    shows_the_area_of(browser, &chosen);
    browser.wait(
        "the panel beside the map speaks of the player",
        &format!(
            "const text = document.querySelector('#details').innerText;
             return text.includes('Player {chosen}') && text.includes('cells')"
        ),
    );
    let first = browser.run("return document.body.dataset.aoiTick");
    browser.wait(
        "the area is kept up to date",
        &format!("return Number(document.body.dataset.aoiTick) > {}", first.as_str().unwrap()),
    );
    browser.keys("#map", ESCAPE);
    browser.wait("escape clears the choice", "return !document.body.dataset.selected");
}

fn shows_the_area_of(browser: &Browser, player: &Value) {
    browser.wait(
        "the area on the page is the server's",
        &format!(
            "const wanted = await (await fetch('/api/aoi/{player}')).json();
             const shown = document.body.dataset;
             return shown.aoiEntity === '{player}' && wanted.cells.length > 0 &&
               shown.aoiCells === wanted.cells.map((cell) => cell.join(',')).join(' ') &&
               Number(shown.aoiVisible) === wanted.visible.length &&
               `${{window.twinspan.visible()}}` === `${{wanted.visible}}`"
        ),
    );
}

fn changed_condition_changes_the_plotted_loss(browser: &Browser) {
    browser.click("#preset-mobile");
    browser.wait(
        "the preset is in force and shown",
        "const button = document.querySelector('#preset-mobile');
         return document.querySelector('#conditions').dataset.preset === 'mobile' &&
           button.getAttribute('aria-pressed') === 'true' &&
           Number(document.querySelector('#condition-loss').value) > 0",
    );
    browser.click("#preset-clean");
    browser.wait(
        "the clean network is plotted",
        "const { up, down } = document.querySelector('#loss-now').dataset;
         return document.querySelector('#conditions').dataset.preset === 'clean' &&
           Number(up) < 0.02 && Number(down) < 0.02",
    );
    // A page up is a tenth of the slider's span of 50 %.
    browser.keys("#condition-loss", &PAGE_UP.repeat(4));
    browser.wait(
        "the server has the slider's loss",
        "const server = await (await fetch('/api/snapshot')).json();
         return server.conditions.now.loss === 0.2 &&
           document.querySelector('#conditions').dataset.loss === '0.2'",
    );
    browser.wait(
        "the plotted loss follows",
        "const { up, down } = document.querySelector('#loss-now').dataset;
         const text = document.querySelector('#loss-now').innerText;
         return [up, down].every((loss) => Number(loss) > 0.1 && Number(loss) < 0.3) &&
           /up \\d+(\\.\\d+)? %/.test(text.replace(/\\s+/g, ' '))",
    );
    browser.click("#preset-clean");
    browser.wait(
        "the plotted loss is gone again",
        "const { up, down } = document.querySelector('#loss-now').dataset;
         return Number(up) < 0.02 && Number(down) < 0.02",
    );
}

/// A made-up world behind a real web side.
pub(crate) struct Fake {
    server: Option<HttpServer>,
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(addr: SocketAddr, players: u32) -> Self {
        let board = Arc::new(Board::new());
        let asked = Arc::new(Mutex::new(Conditions::CLEAN));
        let told = Arc::clone(&asked);
        let server = HttpServer::start(
            addr,
            Arc::clone(&board),
            Box::new(move |conditions| *told.lock().unwrap() = conditions),
        )
        .expect("a free port");
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut world = Walk::new(players);
            for step in 0u32.. {
                world.step();
                board.publish_world(world.frame(step * 6));
                if step % 5 == 0 {
                    board.publish_metrics(world.metrics(step / 5, &asked.lock().unwrap()));
                    board.publish_sessions(world.sessions(step));
                }
                if stopped.recv_timeout(Duration::from_millis(100))
                    != Err(RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
        });
        Self { server: Some(server), stop, thread: Some(thread) }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.addr())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.as_ref().expect("running").local_addr()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // The thread may have ended with the test's failure already.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        drop(self.server.take());
    }
}

/// Entities that walk with random turns, but for [`CORNERED`] and the last one: they stand at the
/// world's far corner, the last one on its edge.
struct Walk {
    draws: u64,
    dots: Vec<EntityDot>,
}

const SIDE: f32 = 512.0;
const CELL: f32 = 32.0;
const CORNERED: usize = 7;

impl Walk {
    fn new(players: u32) -> Self {
        let mut this = Self { draws: 0x9e37_79b9_7f4a_7c15, dots: Vec::new() };
        let extra = players.div_ceil(10);
        for number in 0..players + 2 * extra {
            let kind = match number {
                n if n < players => 0,
                n if n < players + extra => 1,
                _ => 2,
            };
            let (x, z, yaw) = (this.unit() * SIDE, this.unit() * SIDE, this.unit() * 360.0);
            // Ids with a generation in the high bits, as the world's are.
            let id = 1 << 20 | number;
            this.dots.push(EntityDot { id, kind, x, z, yaw, flags: 0, health: 100 });
        }
        let last = this.dots.len() - 1;
        for (index, at) in [(CORNERED, SIDE - 4.0), (last, SIDE)] {
            if let Some(dot) = this.dots.get_mut(index) {
                (dot.x, dot.z) = (at, at);
            }
        }
        this
    }

    /// A xorshift generator's next number from 0 to 1: the same walk in every run.
    fn unit(&mut self) -> f32 {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        (self.draws >> 40) as f32 / (1u32 << 24) as f32
    }

    fn step(&mut self) {
        for index in (0..self.dots.len() - 1).filter(|&index| index != CORNERED) {
            let (turn, luck) = (self.unit() - 0.5, self.unit());
            let dot = &mut self.dots[index];
            dot.yaw = (dot.yaw + turn * 40.0).rem_euclid(360.0);
            if luck < 0.02 && dot.kind == 0 {
                dot.flags ^= 1;
            }
            let pace = [0.5, 0.2, 2.0][usize::from(dot.kind)];
            let (sin, cos) = (dot.yaw / 360.0 * TAU).sin_cos();
            let to = (dot.x + sin * pace, dot.z + cos * pace);
            if to.0.clamp(0.0, SIDE - 0.1) != to.0 || to.1.clamp(0.0, SIDE - 0.1) != to.1 {
                dot.yaw = (dot.yaw + 180.0).rem_euclid(360.0);
            } else {
                (dot.x, dot.z) = to;
            }
        }
    }

    fn frame(&self, tick: u32) -> WorldFrame {
        let players = self.dots.iter().filter(|dot| dot.kind == 0);
        let interests = players.map(|dot| {
            let own = ((dot.x / CELL) as i32, (dot.z / CELL) as i32);
            let mut row = InterestRow { id: dot.id, base_x: own.0 - 3, base_z: own.1 - 3, mask: 0 };
            for bit in 0..49u32 {
                let (x, z) = ((bit % 7) as i32 - 3, (bit / 7) as i32 - 3);
                let cells = (SIDE / CELL) as i32;
                let inside = |at: i32| (0..cells).contains(&at);
                if x * x + z * z <= 5 && inside(own.0 + x) && inside(own.1 + z) {
                    row.mask |= 1 << bit;
                }
            }
            row
        });
        let interests = interests.collect();
        let (side, cell) = (f64::from(SIDE), f64::from(CELL));
        WorldFrame { tick, side, cell, entities: self.dots.clone(), interests }
    }

    fn metrics(&mut self, second: u32, now: &Conditions) -> MetricsFrame {
        let players = self.dots.iter().filter(|dot| dot.kind == 0).count() as u32;
        let mut near =
            |value: f64, share: f64| value * (1.0 + (f64::from(self.unit()) - 0.5) * share);
        let wire = 1e3 * (now.delay + now.jitter / 2).as_secs_f64();
        let worst = 1e3 * (now.delay + now.jitter).as_secs_f64();
        let kept = 1.0 - now.loss;
        MetricsFrame {
            second,
            tick_p50_us: near(310.0, 0.2),
            tick_p99_us: near(720.0, 0.6),
            packets_in: near(f64::from(players) * 60.0 * kept, 0.02),
            packets_out: near(f64::from(players) * 20.0, 0.02),
            bytes_per_player_in: near(60.0 * 90.0 * kept, 0.05),
            bytes_per_player_out: near(20.0 * 560.0, 0.08),
            up_p50_ms: near(0.6, 0.3) + wire,
            up_p99_ms: near(2.1, 0.9) + worst,
            down_p50_ms: near(0.4, 0.3) + wire,
            down_p99_ms: near(1.4, 0.9) + worst,
            loss_up: near(now.loss, 0.2),
            loss_down: near(now.loss, 0.2),
            players,
            entities: self.dots.len() as u32,
        }
    }

    fn sessions(&self, step: u32) -> Vec<SessionRow> {
        let players = self.dots.iter().filter(|dot| dot.kind == 0);
        let row = |(slot, dot): (usize, &EntityDot)| {
            let slot = slot as u32;
            SessionRow {
                id: slot,
                entity: dot.id,
                user: u64::MAX - u64::from(slot),
                peer: format!("127.0.0.1:{}", 40_000 + slot),
                cipher: "ChaCha20-Poly1305",
                // Of one value each, in an order that is not the slots'.
                rtt_ms: 1.0 + f64::from(slot * 7_919 % 1_009) / 100.0,
                loss: 0.0,
                packets_in: u64::from(step) * 6,
                packets_out: u64::from(step) * 2,
                bytes_in: u64::from(step) * 540,
                bytes_out: u64::from(step) * 1_120,
                unacknowledged: slot % 4,
            }
        };
        players.enumerate().map(row).collect()
    }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn the_page_shows_the_world_and_acts_on_it() {
    let Some(browser) = Browser::open() else { return };
    let fake = Fake::start(any_port(), 60);
    check(&browser, &fake.base());
}

#[test]
fn the_table_of_sessions_is_sorted_paged_and_filtered() {
    let Some(browser) = Browser::open() else { return };
    let fake = Fake::start(any_port(), 60);
    browser.go(&fake.base());
    browser.wait(
        "the first page",
        "return document.querySelector('#sessions').dataset.rows === '60' &&
           document.querySelectorAll('#sessions-body tr').length === 25 &&
           document.querySelector('#page-text').textContent === '1–25 of 60'",
    );
    browser.click("#page-next");
    browser.click("#page-next");
    browser.wait(
        "the last page",
        "return document.querySelectorAll('#sessions-body tr').length === 10 &&
           document.querySelector('#page-next').disabled",
    );
    browser.click("#sessions-head [data-key=rtt_ms] button");
    browser.wait(
        "the longest round trip is first",
        "const all = [...Array(60).keys()].map((slot) => [slot * 7919 % 1009, slot]);
         const slots = all.sort((a, b) => b[0] - a[0]).map((pair) => `${pair[1]}`).slice(0, 25);
         const head = document.querySelector('#sessions-head [data-key=rtt_ms]');
         const rows = [...document.querySelectorAll('#sessions-body tr')];
         return head.getAttribute('aria-sort') === 'descending' &&
           `${rows.map((row) => row.dataset.session)}` === `${slots}`",
    );
    browser.keys("#sessions-filter", ":40007");
    browser.wait(
        "one row is left, and its user is whole",
        "const rows = [...document.querySelectorAll('#sessions-body tr')];
         return rows.length === 1 && rows[0].dataset.session === '7' &&
           rows[0].innerText.includes('18446744073709551608')",
    );
    browser.click("#sessions-body tr button");
    browser.wait(
        "the row's entity is chosen on the map",
        "const row = document.querySelector('#sessions-body tr');
         return document.body.dataset.selected === row.dataset.entity &&
           row.dataset.selected === 'true' && document.body.dataset.aoiCells",
    );
    let chosen = browser.run("return Number(document.body.dataset.selected)");
    shows_the_area_of(&browser, &chosen);
    let edge = browser.run(
        "const far = Math.max(...window.twinspan.entities().map((entity) => entity.id));
         return window.twinspan.visible().includes(far)",
    );
    assert_eq!(edge, true, "who stands on the edge of the world is in its last cell");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_comes_back_after_the_server_does() {
    let Some(browser) = Browser::open() else { return };
    let fake = Fake::start(any_port(), 20);
    let addr = fake.addr();
    browser.go(&fake.base());
    browser.wait("the feed is live", "return document.body.dataset.state === 'live'");
    drop(fake);
    browser.wait(
        "the page says that the connection is lost",
        "return document.body.dataset.state === 'lost' &&
           document.querySelector('#banner').innerText.includes('is lost')",
    );
    let fake = Fake::start(addr, 30);
    browser.wait(
        "the page shows the new world",
        "return document.body.dataset.state === 'live' &&
           document.querySelector('#banner').hidden &&
           document.querySelector('#players').dataset.value === '30'",
    );
    drop(fake);
}

#[test]
fn a_refused_condition_is_explained_on_the_page() {
    let Some(browser) = Browser::open() else { return };
    let fake = Fake::start(any_port(), 5);
    browser.go(&fake.base());
    browser.wait("the feed is live", "return document.body.dataset.state === 'live'");
    browser.run("document.querySelector('#condition-loss-number').value = ''");
    browser.keys("#condition-loss-number", "120");
    browser.wait(
        "the page says what is right",
        "const note = document.querySelector('#conditions-note');
         return note.dataset.kind === 'bad' && note.innerText.includes('from 0 to 100 %')",
    );
    // The server judges by itself and answers in words the page can show.
    let said = browser.wait(
        "the server's refusal",
        "const reply = await fetch('/api/conditions', {
           method: 'POST', headers: { 'content-type': 'application/json' },
           body: JSON.stringify({ preset: 'moon' }) });
         return reply.status === 400 && (await reply.json()).error",
    );
    assert_eq!(said, "unknown preset \"moon\": there are clean, wifi, mobile");
}

/// Pictures for a person to look at: run with `TWINSPAN_PICTURES` naming a folder.
#[test]
fn pictures_of_the_page() {
    let Some(folder) = std::env::var_os("TWINSPAN_PICTURES") else {
        println!("skipped: TWINSPAN_PICTURES names no folder");
        return;
    };
    let Some(browser) = Browser::open() else { return };
    let fake = Fake::start(any_port(), 200);
    picture_all(&browser, &fake.base(), Path::new(&folder));
}

/// Writes `page-SCHEME-WIDTHxHEIGHT.png` files of any running demo's page.
pub(crate) fn picture_all(browser: &Browser, base: &str, folder: &Path) {
    browser.look(1280, 900, "dark");
    browser.go(base);
    browser.wait(
        "forty seconds are plotted",
        "return Number(document.querySelector('#plot-loss').dataset.points) > 40",
    );
    browser.click("#preset-mobile");
    browser.click("#sessions-body tr:nth-child(17) button");
    browser.wait(
        "twenty more seconds are plotted",
        "return Number(document.querySelector('#plot-loss').dataset.points) > 60",
    );
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)");
    browser.wait("the area is there", "return document.body.dataset.aoiCells");
    for (width, height) in [(1280, 900), (1280, 1160), (800, 2200), (390, 3200)] {
        for scheme in ["dark", "light"] {
            browser.look(width, height, scheme);
            browser.wait(
                "two more frames are drawn",
                "const tick = () => Number(document.querySelector('#map').dataset.tick);
                 const first = tick();
                 while (tick() < first + 12) await new Promise(requestAnimationFrame);
                 return true",
            );
            browser.picture(&folder.join(format!("page-{scheme}-{width}x{height}.png")));
        }
    }
    browser.click("#preset-clean");
}
