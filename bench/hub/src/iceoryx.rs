//! iceoryx2: samples are loaned, written in place and sent; the other end looks, or sleeps at an event.

use anyhow::{Result, anyhow};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::measure::{Counted, End, Figures, answer, drive, read, write};
use crate::{Mode, Plan, Touch, start_other};

/// Samples that wait for a subscriber in a stream.
const DEPTH: usize = 256;

type Service = ipc::Service;

fn failed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("iceoryx2: {error:?}")
}

/// The topics of this end: the one that it sends to first.
fn topics(plan: &Plan, is_first: bool) -> [String; 2] {
    let (there, back) = (format!("{}/there", plan.name), format!("{}/back", plan.name));
    if is_first { [there, back] } else { [back, there] }
}

/// An end of either way.
pub trait Meet: End + Sized {
    fn new(plan: &Plan, is_first: bool) -> Result<Self>;
}

/// The measuring process.
pub fn run<E: Meet>(plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    let mut end = E::new(plan, true)?;
    let mut other = start_other(plan)?;
    drive(&mut end, plan, figures)?;
    other.counted()
}

/// The other process.
pub fn serve<E: Meet>(plan: &Plan) -> Result<Counted> {
    let mut end = E::new(plan, false)?;
    println!("ready");
    answer(&mut end, plan)
}

/// Both ends look again and again, the fastest way that iceoryx2 has.
pub struct Polled {
    publisher: Publisher<Service, [u8], ()>,
    subscriber: Subscriber<Service, [u8], ()>,
    size: usize,
    touch: Touch,
    _node: Node<Service>,
}

impl Meet for Polled {
    fn new(plan: &Plan, is_first: bool) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new().create::<Service>().map_err(failed)?;
        let topic = |name: &str| {
            let name: ServiceName = name.try_into().map_err(failed)?;
            let builder = node.service_builder(&name).publish_subscribe::<[u8]>();
            // One sample at a time is what its own latency benchmark has; a stream loses nothing.
            let (depth, may_overflow) = match plan.mode {
                Mode::Latency => (1, true),
                Mode::Throughput => (DEPTH, false),
            };
            let builder = builder.max_publishers(1).max_subscribers(1).history_size(0);
            let builder = builder.subscriber_max_buffer_size(depth);
            builder.enable_safe_overflow(may_overflow).open_or_create().map_err(failed)
        };
        let [to, from] = topics(plan, is_first);
        let subscriber = topic(&from)?.subscriber_builder().create().map_err(failed)?;
        let publisher = topic(&to)?
            .publisher_builder()
            .initial_max_slice_len(plan.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(failed)?;
        Ok(Self { publisher, subscriber, size: plan.size, touch: plan.touch, _node: node })
    }
}

impl Polled {
    fn try_receive(&mut self) -> Result<Option<u64>> {
        let sample = self.subscriber.receive().map_err(failed)?;
        Ok(sample.map(|sample| read(sample.payload(), self.touch)))
    }
}

impl End for Polled {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(self.size).map_err(failed)?;
        // SAFETY: a byte has no wrong value, and the memory was there from the start: its pages came
        // from the kernel as zeroes. The library's own benchmark does the same.
        let mut sample = unsafe { sample.assume_init() };
        write(sample.payload_mut(), number, self.touch);
        sample.send().map_err(failed)?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(number) = self.try_receive()? {
                return Ok(number);
            }
        }
    }
}

/// Both ends sleep: an event goes beside each sample.
pub struct Sleeping {
    data: Polled,
    notifier: Notifier<Service>,
    listener: Listener<Service>,
}

impl Meet for Sleeping {
    fn new(plan: &Plan, is_first: bool) -> Result<Self> {
        let data = Polled::new(plan, is_first)?;
        let event = |name: &str| {
            let name: ServiceName = name.try_into().map_err(failed)?;
            let builder = data._node.service_builder(&name).event();
            builder.max_notifiers(1).max_listeners(1).open_or_create().map_err(failed)
        };
        let [to, from] = topics(plan, is_first).map(|topic| format!("{topic}/event"));
        let listener = event(&from)?.listener_builder().create().map_err(failed)?;
        let notifier = event(&to)?.notifier_builder().create().map_err(failed)?;
        Ok(Self { data, notifier, listener })
    }
}

impl End for Sleeping {
    fn send(&mut self, number: u64) -> Result<()> {
        self.data.send(number)?;
        self.notifier.notify().map_err(failed)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(number) = self.data.try_receive()? {
                return Ok(number);
            }
            self.listener.blocking_wait(|_| {}).map_err(failed)?;
        }
    }
}
