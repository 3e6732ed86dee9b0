//! Zenoh between two peers that know each other's address: no scouting, and nothing between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use zenoh::bytes::ZBytes;
use zenoh::handlers::FifoChannelHandler;
use zenoh::pubsub::{Publisher, Subscriber};
use zenoh::qos::{CongestionControl, Priority};
use zenoh::sample::Sample;
use zenoh::shm::{
    BlockOn, GarbageCollect, PosixShmProviderBackend, ShmProvider, ShmProviderBuilder,
};
use zenoh::{Config, Session, Wait};

use crate::measure::{Counted, Counter, End, Figures, LAST, WORD, drive, read, write};
use crate::{Library, Mode, Plan, Touch, start_other};

/// How long declarations may take to arrive at the other side.
const DECLARED_AFTER: Duration = Duration::from_millis(500);
/// How long after the last message it is said again.
const SAID_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Memory for messages, where it is shared.
const POOL_BYTES: usize = 64 << 20;

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("zenoh: {error}")
}

fn open(plan: &Plan, listens: bool) -> Result<Session> {
    let protocol = if plan.library == Library::ZenohUdp { "udp" } else { "tcp" };
    let endpoint = format!("[\"{protocol}/127.0.0.1:{}\"]", plan.port);
    let shared = (plan.library == Library::ZenohShm).to_string();
    let mut config = Config::default();
    let (one, other) = if listens { ("listen", "connect") } else { ("connect", "listen") };
    for (key, value) in [
        ("mode", "\"peer\""),
        (&format!("{one}/endpoints"), &endpoint),
        (&format!("{other}/endpoints"), "[]"),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
        ("transport/shared_memory/enabled", &shared),
    ] {
        config.insert_json5(key, value).map_err(failed)?;
    }
    zenoh::open(config).wait().map_err(failed)
}

/// What makes messages.
struct Maker {
    size: usize,
    touch: Touch,
    /// A message that is sent again and again where only a first word is asked for.
    ready: ZBytes,
    pool: Option<ShmProvider<PosixShmProviderBackend>>,
}

impl Maker {
    fn new(plan: &Plan) -> Result<Self> {
        let (size, touch) = (plan.size, plan.touch);
        let pool = if plan.library == Library::ZenohShm {
            let backend = PosixShmProviderBackend::builder(POOL_BYTES).wait().map_err(failed)?;
            Some(ShmProviderBuilder::backend(backend).wait())
        } else {
            None
        };
        let mut maker = Self { size, touch, ready: ZBytes::default(), pool };
        maker.ready = maker.fresh(0)?;
        Ok(maker)
    }

    fn fresh(&self, number: u64) -> Result<ZBytes> {
        let Some(pool) = &self.pool else {
            let mut message = vec![0; self.size];
            write(&mut message, number, self.touch);
            return Ok(message.into());
        };
        let message = pool.alloc(self.size).with_policy::<BlockOn<GarbageCollect>>().wait();
        let mut message = message.map_err(|error| anyhow!("zenoh: {error:?}"))?;
        write(&mut message, number, self.touch);
        Ok(message.into())
    }

    fn message(&self, number: u64) -> Result<ZBytes> {
        match (number, self.touch) {
            // The last message is told by its length.
            (LAST, _) => Ok(LAST.to_le_bytes().to_vec().into()),
            (_, Touch::First) => Ok(self.ready.clone()),
            _ => self.fresh(number),
        }
    }
}

fn number_of(sample: &Sample, touch: Touch) -> u64 {
    let payload = sample.payload();
    if payload.len() != WORD && touch == Touch::First {
        return 0;
    }
    match read(&payload.to_bytes(), touch) {
        LAST if payload.len() != WORD => 0,
        number => number,
    }
}

fn publisher(session: &Session, plan: &Plan, way: &str) -> Result<Publisher<'static>> {
    // Latency: at once and before all else. A stream: batches, and a sender that waits.
    let is_latency = plan.mode == Mode::Latency;
    let priority = if is_latency { Priority::RealTime } else { Priority::default() };
    session
        .declare_publisher(format!("{}/{way}", plan.name))
        .congestion_control(CongestionControl::Block)
        .express(is_latency)
        .priority(priority)
        .wait()
        .map_err(failed)
}

struct Here {
    publisher: Publisher<'static>,
    subscriber: Subscriber<FifoChannelHandler<Sample>>,
    maker: Maker,
    _session: Session,
}

impl End for Here {
    fn send(&mut self, number: u64) -> Result<()> {
        self.publisher.put(self.maker.message(number)?).wait().map_err(failed)
    }

    fn receive(&mut self) -> Result<u64> {
        let sample = self.subscriber.recv().map_err(failed)?;
        Ok(number_of(&sample, self.maker.touch))
    }
}

pub fn run(plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    let session = open(plan, true)?;
    let publisher = publisher(&session, plan, "there")?;
    let subscriber =
        session.declare_subscriber(format!("{}/back", plan.name)).wait().map_err(failed)?;
    let maker = Maker::new(plan)?;
    let mut other = start_other(plan)?;
    thread::sleep(DECLARED_AFTER);
    let mut here = Here { publisher, subscriber, maker, _session: session };
    drive(&mut here, plan, figures)?;
    // Datagrams are not sent again: the last message is, until it was heard.
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let counted = other.counted();
            is_done.store(true, Ordering::Relaxed);
            counted
        });
        while !is_done.load(Ordering::Relaxed) {
            thread::sleep(SAID_AGAIN_AFTER);
            here.send(LAST)?;
        }
        counting.join().map_err(|_| anyhow!("zenoh: the other process could not be read"))?
    })
}

/// Answers where the message arrives, in the library's own thread.
pub fn serve(plan: &Plan) -> Result<Counted> {
    let session = open(plan, false)?;
    let publisher = publisher(&session, plan, "back")?;
    let maker = Maker::new(plan)?;
    let (done, is_done) = mpsc::channel();
    let (is_latency, touch) = (plan.mode == Mode::Latency, plan.touch);
    let mut counter = Some(Counter::new());
    let mut arrived = move |sample: Sample| -> Result<()> {
        let Some(counted) = &mut counter else { return Ok(()) };
        let number = number_of(&sample, touch);
        if !counted.count(number) {
            if let Some(counter) = counter.take() {
                done.send(Ok(counter.into_counted()))?;
            }
        } else if is_latency {
            publisher.put(maker.message(number)?).wait().map_err(failed)?;
        }
        Ok(())
    };
    let _subscriber = session
        .declare_subscriber(format!("{}/there", plan.name))
        .callback_mut(move |sample| {
            if let Err(error) = arrived(sample) {
                eprintln!("{error}");
            }
        })
        .wait()
        .map_err(failed)?;
    println!("ready");
    is_done.recv()?
}
