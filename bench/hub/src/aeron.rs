//! Aeron: exclusive publications to which messages are offered, subscriptions that look; a media driver in the measuring
//! process, shared by both.

use std::collections::VecDeque;
use std::ffi::CString;
use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rusteron_client::{
    Aeron, AeronContext, AeronExclusivePublication, AeronOfferError, AeronSubscription, Handlers,
};
use rusteron_media_driver::bindings::aeron_threading_mode_enum;
use rusteron_media_driver::testing::EmbeddedDriver;
use rusteron_media_driver::{AeronIdleStrategyKind, IntoCString};

use crate::measure::{Counted, End, Figures, answer, drive, read, write};
use crate::{Library, Mode, Plan, Touch, start_other};

/// What the driver and the other end may take to be there.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that one look takes: more make streams no faster.
const FRAGMENTS_MAX: usize = 64;
/// What goes to the other process, and what comes back.
const STREAMS: [i32; 2] = [1_001, 1_002];

fn failed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("Aeron: {error:?}")
}

/// Where the driver and its clients meet: in memory.
fn place(plan: &Plan) -> String {
    format!("/dev/shm/{}", plan.name)
}

/// The measuring process.
pub fn run(plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    // On two cores three threads share them over UDP: each lets the others run when it has nothing to do.
    let idle = if plan.library == Library::AeronUdp {
        AeronIdleStrategyKind::Yielding
    } else {
        AeronIdleStrategyKind::Backoff
    };
    let _driver = EmbeddedDriver::launch_with(|context| {
        context.set_dir(&place(plan).into_c_string())?;
        context.set_threading_mode(aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED)?;
        context.set_shared_idle_strategy_kind(idle)?;
        // Its pages are there before anything is measured.
        context.set_term_buffer_sparse_file(false)?;
        Ok(())
    })
    .map_err(failed)?;
    let mut other = start_other(plan)?;
    let mut end = Client::new(plan, true)?;
    drive(&mut end, plan, figures)?;
    other.counted()
}

/// The other process.
pub fn serve(plan: &Plan) -> Result<Counted> {
    let mut end = Client::new(plan, false)?;
    answer(&mut end, plan)
}

/// An end.
struct Client {
    publication: AeronExclusivePublication,
    subscription: AeronSubscription,
    /// Numbers of what the last look took and nobody asked for yet.
    heard: VecDeque<u64>,
    message: Vec<u8>,
    touch: Touch,
    is_stream: bool,
    is_yielding: bool,
    _aeron: Aeron,
}

impl Client {
    fn new(plan: &Plan, is_first: bool) -> Result<Self> {
        let context = AeronContext::new().map_err(failed)?;
        context.set_dir(&place(plan).into_c_string()).map_err(failed)?;
        context.set_pre_touch_mapped_memory(true).map_err(failed)?;
        let aeron = Aeron::new(&context).map_err(failed)?;
        aeron.start().map_err(failed)?;
        let is_udp = plan.library == Library::AeronUdp;
        let channel = if is_udp {
            CString::new(format!("aeron:udp?endpoint=127.0.0.1:{}", plan.port))?
        } else {
            c"aeron:ipc".to_owned()
        };
        let [to, from] = if is_first { STREAMS } else { [STREAMS[1], STREAMS[0]] };
        let subscription = aeron
            .async_add_subscription(&channel, from, Handlers::NONE, Handlers::NONE)
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(failed)?;
        let publication = aeron
            .async_add_exclusive_publication(&channel, to)
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(failed)?;
        if !is_first {
            println!("ready");
        }
        let longest = publication.max_payload_length().map_err(failed)?;
        if plan.size > longest {
            bail!("Aeron claims {longest} bytes in one piece at most, not {}", plan.size);
        }
        let since = Instant::now();
        while !publication.is_connected() {
            if since.elapsed() > PATIENCE {
                bail!("Aeron: the other end did not come within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        let heard = VecDeque::with_capacity(FRAGMENTS_MAX);
        let message = vec![0; plan.size];
        Ok(Self {
            publication,
            subscription,
            heard,
            message,
            touch: plan.touch,
            is_stream: plan.mode == Mode::Throughput,
            is_yielding: is_udp,
            _aeron: aeron,
        })
    }

    /// Writes a message in place.
    #[inline]
    fn claim(&self, number: u64) -> Result<(), AeronOfferError> {
        let mut claim = self.publication.try_claim_owned(self.message.len())?;
        write(claim.data(), number, self.touch);
        claim.commit().map(|_| ()).map_err(|_| AeronOfferError::Closed)
    }

    #[inline]
    fn idle(&self) {
        if self.is_yielding {
            thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

impl End for Client {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        if self.is_stream {
            write(&mut self.message, number, self.touch);
        }
        loop {
            // The faster of its two ways: a message that waits is soonest there written in place, many are offered.
            let sent = if self.is_stream {
                self.publication.offer(&self.message).map(|_| ())
            } else {
                self.claim(number)
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(error) if error.is_retryable() => self.idle(),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(number) = self.heard.pop_front() {
                return Ok(number);
            }
            let (heard, touch) = (&mut self.heard, self.touch);
            let taken = self
                .subscription
                .poll_fn(|message, _| heard.push_back(read(message, touch)), FRAGMENTS_MAX)
                .map_err(failed)
                .context("cannot look")?;
            if taken == 0 {
                self.idle();
            }
        }
    }
}
