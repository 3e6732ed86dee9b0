//! Aeron over its own shared memory and over UDP: exclusive publications, claimed buffers, both ends
//! look again and again. In memory there is one driver, in the measuring process, which no message
//! passes. Over UDP each process drives a driver of its own with the thread that looks: on two cores
//! its own threads would stand in the way of the ends.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rusteron_media_driver::bindings::aeron_threading_mode_t;
use rusteron_media_driver::testing::EmbeddedDriver;
use rusteron_media_driver::{
    Aeron, AeronContext, AeronDriver, AeronDriverContext, AeronExclusivePublication,
    AeronSubscription, Handlers, IntoCString,
};

use crate::measure::{Counted, End, Figures, LAST, WORD, answer, drive, read, write};
use crate::process::Other;
use crate::{Library, Plan, Touch};

const STREAM: i32 = 1_001;
/// The longest message that is claimed and written in place: what fits one datagram.
const CLAIM_BYTES_MAX: usize = 1_300;
/// Fragments that are taken at a time.
const FRAGMENTS: usize = 64;
const CONNECT_MAX: Duration = Duration::from_secs(10);

fn failed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("Aeron: {error:?}")
}

/// The channel to the other end and the one back, and their streams.
fn ways(plan: &Plan, is_first: bool) -> [(String, i32); 2] {
    let channel = |offset: u16| match plan.library {
        Library::AeronUdp => format!("aeron:udp?endpoint=127.0.0.1:{}", plan.port + offset),
        _ => "aeron:ipc".to_owned(),
    };
    let (there, back) = ((channel(0), STREAM), (channel(1), STREAM + 1));
    if is_first { [there, back] } else { [back, there] }
}

/// A driver that whoever waits drives, in a folder of its own.
fn own_driver(plan: &Plan, end: &str) -> Result<(AeronDriver, String)> {
    let directory = format!("/dev/shm/{}-{end}", plan.name);
    let context = AeronDriverContext::new().map_err(failed)?;
    context.set_dir(&directory.as_str().into_c_string()).map_err(failed)?;
    context.set_dir_delete_on_start(true).map_err(failed)?;
    context.set_dir_delete_on_shutdown(true).map_err(failed)?;
    let invoked = aeron_threading_mode_t::AERON_THREADING_MODE_INVOKER;
    context.set_threading_mode(invoked).map_err(failed)?;
    let driver = AeronDriver::new(&context).map_err(failed)?;
    driver.start(true).map_err(failed)?;
    driver.main_do_work().map_err(failed)?;
    Ok((driver, directory))
}

struct Here {
    publication: AeronExclusivePublication,
    subscription: AeronSubscription,
    message: Vec<u8>,
    touch: Touch,
    arrived: VecDeque<u64>,
    /// Bytes of a message whose other fragments are still to come, and its number.
    gathered: (usize, u64),
    _aeron: Aeron,
    /// Driven by this end.
    driver: Option<AeronDriver>,
}

/// Drives a driver of one's own.
fn turn(driver: Option<&AeronDriver>) -> Result<()> {
    if let Some(driver) = driver {
        driver.main_do_work().map_err(failed)?;
    }
    Ok(())
}

/// Waits for what `poll` looks for.
fn patiently<T>(
    driver: Option<&AeronDriver>,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        turn(driver)?;
        if let Some(found) = poll()? {
            return Ok(found);
        }
        if began.elapsed() > CONNECT_MAX {
            bail!("Aeron: the other end did not connect");
        }
        thread::sleep(Duration::from_micros(100));
    }
}

impl Here {
    fn new(
        plan: &Plan,
        directory: &str,
        driver: Option<AeronDriver>,
        is_first: bool,
    ) -> Result<Self> {
        let context = AeronContext::new().map_err(failed)?;
        context.set_dir(&directory.into_c_string()).map_err(failed)?;
        context.set_pre_touch_mapped_memory(true).map_err(failed)?;
        let aeron = Aeron::new(&context).map_err(failed)?;
        aeron.start().map_err(failed)?;
        let [(to, to_stream), (from, from_stream)] = ways(plan, is_first);
        let from = from.as_str().into_c_string();
        let adding = aeron
            .async_add_subscription(&from, from_stream, Handlers::NONE, Handlers::NONE)
            .map_err(failed)?;
        let subscription = patiently(driver.as_ref(), || adding.poll().map_err(failed))?;
        let to = to.as_str().into_c_string();
        let adding = aeron.async_add_exclusive_publication(&to, to_stream).map_err(failed)?;
        let publication = patiently(driver.as_ref(), || adding.poll().map_err(failed))?;
        let (message, touch) = (vec![0; plan.size], plan.touch);
        let (arrived, gathered) = (VecDeque::with_capacity(FRAGMENTS), (0, 0));
        let _aeron = aeron;
        Ok(Self { publication, subscription, message, touch, arrived, gathered, _aeron, driver })
    }

    fn wait_until_connected(&self) -> Result<()> {
        patiently(self.driver.as_ref(), || {
            let is_heard = self.subscription.image_at_index(0).is_some();
            Ok((self.publication.is_connected() && is_heard).then_some(()))
        })
    }

    fn claim(&self, length: usize, fill: impl Fn(&mut [u8])) -> Result<()> {
        loop {
            match self.publication.try_claim_owned(length) {
                Ok(mut claim) => {
                    fill(claim.data());
                    claim.commit().map_err(failed)?;
                    return Ok(());
                }
                Err(error) if error.is_retryable() => turn(self.driver.as_ref())?,
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl End for Here {
    fn send(&mut self, number: u64) -> Result<()> {
        if number == LAST {
            return self.claim(WORD, |bytes| bytes.copy_from_slice(&LAST.to_le_bytes()));
        }
        if self.message.len() <= CLAIM_BYTES_MAX {
            let touch = self.touch;
            return self.claim(self.message.len(), |bytes| write(bytes, number, touch));
        }
        write(&mut self.message, number, self.touch);
        loop {
            match self.publication.offer(&self.message) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => turn(self.driver.as_ref())?,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(number) = self.arrived.pop_front() {
                return Ok(number);
            }
            let (arrived, gathered) = (&mut self.arrived, &mut self.gathered);
            let (size, touch) = (self.message.len(), self.touch);
            let taken = self.subscription.poll_fn(
                |fragment, _header| {
                    let number = read(fragment, touch);
                    if gathered.0 == 0 {
                        gathered.1 = number;
                    }
                    gathered.0 += fragment.len();
                    let is_last = number == LAST && fragment.len() == WORD;
                    if gathered.0 >= size || is_last {
                        arrived.push_back(gathered.1);
                        gathered.0 = 0;
                    }
                },
                FRAGMENTS,
            );
            if taken.map_err(failed)? == 0 {
                turn(self.driver.as_ref())?;
                spin_loop();
            }
        }
    }
}

pub fn run(plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    if plan.library == Library::AeronUdp {
        let (driver, directory) = own_driver(plan, "here")?;
        return measure(Here::new(plan, &directory, Some(driver), true)?, plan, figures);
    }
    let driver = EmbeddedDriver::launch_with(|context| {
        context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_SHARED)?;
        context.set_term_buffer_sparse_file(false)?;
        Ok(())
    });
    let driver = driver.map_err(failed)?;
    let plan = Plan { name: driver.dir().to_owned(), ..plan.clone() };
    measure(Here::new(&plan, driver.dir(), None, true)?, &plan, figures)
}

fn measure(mut here: Here, plan: &Plan, figures: &mut Figures) -> Result<Counted> {
    let mut other = Other::start(&plan.to_args())?;
    other.expect("ready")?;
    here.wait_until_connected()?;
    drive(&mut here, plan, figures)?;
    // What was sent last leaves, and is sent again where it was lost, while the other end counts.
    let (driver, is_done) = (here.driver.as_ref(), AtomicBool::new(false));
    thread::scope(|scope| {
        let driving = scope.spawn(|| {
            while driver.is_some() && !is_done.load(Ordering::Relaxed) {
                turn(driver)?;
            }
            anyhow::Ok(())
        });
        let counted = other.counted();
        is_done.store(true, Ordering::Relaxed);
        driving.join().map_err(failed)??;
        counted
    })
}

pub fn serve(plan: &Plan) -> Result<Counted> {
    let mut here = if plan.library == Library::AeronUdp {
        let (driver, directory) = own_driver(plan, "there")?;
        Here::new(plan, &directory, Some(driver), false)?
    } else {
        Here::new(plan, &plan.name, None, false)?
    };
    println!("ready");
    here.wait_until_connected()?;
    answer(&mut here, plan)
}
