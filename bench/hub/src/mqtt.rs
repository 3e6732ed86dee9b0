//! MQTT through mosquitto: quality of service 0, with a window of credit, for a broker drops or cuts off else.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, QoS};
use tokio::runtime::{Builder, Runtime};

use crate::measure::{Counted, Counter, End, Figures, LAST, WORD, drive, read, write};
use crate::process::Broker;
use crate::{Mode, Plan, Touch, start_other};

/// Bytes that are on the way at a time, and messages, in a stream.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_MESSAGES: std::ops::RangeInclusive<usize> = 8..=512;
/// Messages that are given to the client before it is driven.
const BATCH: usize = 32;
/// How long the broker may take to start.
const START_MAX: Duration = Duration::from_secs(10);

fn window(plan: &Plan) -> u64 {
    let messages = WINDOW_BYTES / plan.size.max(1);
    messages.clamp(*WINDOW_MESSAGES.start(), *WINDOW_MESSAGES.end()) as u64
}

struct Mosquitto {
    _broker: Broker,
    config: PathBuf,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

fn start_broker(plan: &Plan) -> Result<Mosquitto> {
    let config = std::env::temp_dir().join(format!("{}.conf", plan.name));
    let mut file = std::fs::File::create(&config)?;
    writeln!(file, "listener {} 127.0.0.1", plan.port)?;
    // It must stay ours to be ended with us: another user's process is not.
    writeln!(file, "user root\nallow_anonymous true\nset_tcp_nodelay true")?;
    writeln!(file, "max_queued_messages 0\nmax_inflight_messages 0\nlog_type none")?;
    let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = program.into_iter().find(|path| std::path::Path::new(path).exists());
    let program = program.context("mosquitto is missing (Debian: apt-get install mosquitto)")?;
    let path = config.to_string_lossy().into_owned();
    let mut broker = Broker::start(program, &["-c", &path])?;
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", plan.port)).is_err() {
        if broker.is_over() || began.elapsed() > START_MAX {
            bail!("mosquitto did not start");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(Mosquitto { _broker: broker, config })
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
    runtime: Runtime,
    topic: String,
    size: usize,
    touch: Touch,
    /// Messages that the client was given and has not written.
    pending: usize,
    /// Messages that may be sent before the other end says something; none in latency mode.
    window: Option<u64>,
    sent: u64,
    granted: u64,
}

impl Client {
    fn new(plan: &Plan, ways: [&str; 2]) -> Result<Self> {
        let [to, from] = ways.map(|way| format!("{}/{way}", plan.name));
        let mut options = MqttOptions::new(to.replace('/', "-"), "127.0.0.1", plan.port);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(2 * plan.size + 1_024, 2 * plan.size + 1_024);
        let (client, mut events) = AsyncClient::new(options, 2 * BATCH);
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        client.try_subscribe(from, QoS::AtMostOnce)?;
        let (window, granted) = match plan.mode {
            Mode::Latency => (None, 0),
            Mode::Throughput => (Some(window(plan)), window(plan)),
        };
        let (size, touch) = (plan.size, plan.touch);
        let (pending, sent) = (0, 0);
        let mut made = Self {
            client,
            events,
            runtime,
            topic: to,
            size,
            touch,
            pending,
            window,
            sent,
            granted,
        };
        while !matches!(made.poll()?, Event::Incoming(Incoming::SubAck(_))) {}
        Ok(made)
    }

    fn poll(&mut self) -> Result<Event> {
        let event = self.runtime.block_on(self.events.poll())?;
        if matches!(event, Event::Outgoing(Outgoing::Publish(_))) {
            self.pending = self.pending.saturating_sub(1);
        }
        Ok(event)
    }

    /// Waits for a message.
    fn message(&mut self) -> Result<u64> {
        loop {
            if let Event::Incoming(Incoming::Publish(message)) = self.poll()? {
                return Ok(match (read(&message.payload, self.touch), message.payload.len()) {
                    (LAST, length) if length != WORD => 0,
                    (number, _) => number,
                });
            }
        }
    }

    fn give(&mut self, message: Vec<u8>) -> Result<()> {
        self.client.try_publish(&self.topic, QoS::AtMostOnce, false, message)?;
        self.pending += 1;
        Ok(())
    }

    /// Writes what the client was given.
    fn flush(&mut self) -> Result<()> {
        while self.pending > 0 {
            if let Event::Incoming(Incoming::Publish(_)) = self.poll()? {
                self.grant();
            }
        }
        Ok(())
    }

    fn grant(&mut self) {
        self.granted += self.window.unwrap_or(0) / 2;
    }
}

impl End for Client {
    fn send(&mut self, number: u64) -> Result<()> {
        if number == LAST {
            self.give(LAST.to_le_bytes().to_vec())?;
            return self.flush();
        }
        let mut message = vec![0; self.size];
        write(&mut message, number, self.touch);
        self.give(message)?;
        if self.window.is_none() {
            return Ok(());
        }
        self.sent += 1;
        if self.pending >= BATCH || self.sent >= self.granted {
            self.flush()?;
        }
        while self.sent >= self.granted {
            self.message()?;
            self.grant();
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        self.message()
    }
}

pub fn run(plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    let _mosquitto = start_broker(plan)?;
    let mut client = Client::new(plan, ["there", "back"])?;
    let mut other = start_other(plan)?;
    drive(&mut client, plan, figures)?;
    other.counted()
}

pub fn serve(plan: &Plan) -> Result<Counted> {
    let mut client = Client::new(plan, ["back", "there"])?;
    println!("ready");
    if plan.mode == Mode::Latency {
        return crate::measure::answer(&mut client, plan);
    }
    let (mut counter, half) = (Counter::new(), window(plan) / 2);
    loop {
        if !counter.count(client.message()?) {
            return Ok(counter.into_counted());
        }
        if counter.messages() % half == 0 {
            client.give(vec![0; WORD])?;
        }
    }
}
