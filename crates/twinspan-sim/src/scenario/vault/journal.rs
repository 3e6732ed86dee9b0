//! The journal: what is in it is on the disk, and nothing is acknowledged that is not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use twinspan_provider::{Disk, DiskFile, OpenMode};

use super::super::echo::sleep;
use super::{ENTRY_BYTES, Entry, RETRY, Truth, Within};
use crate::disk::SimFile;
use crate::env::SimEnv;

/// How often a record that is not as it was written is read before it is taken for torn.
const READS_MAX: usize = 30;

/// What one start of the server knows.
#[derive(Default)]
pub(super) struct Journal {
    is_open: bool,
    /// What is on the disk.
    known: BTreeSet<Entry>,
    /// What is to be written; no more than clients have payments.
    queue: BTreeSet<Entry>,
    writer: Option<Waker>,
    /// Who waits that something is on the disk.
    askers: Vec<Waker>,
}

impl Journal {
    fn poll_known(&mut self, entries: &[Entry], cx: &Context<'_>) -> Poll<()> {
        let unknown = entries.iter().filter(|entry| !self.known.contains(entry));
        let unknown: Vec<_> = unknown.copied().collect();
        if self.is_open && unknown.is_empty() {
            return Poll::Ready(());
        }
        self.queue.extend(unknown);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        if !self.askers.iter().any(|asker| asker.will_wake(cx.waker())) {
            self.askers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn poll_queue(&mut self, cx: &Context<'_>) -> Poll<Vec<Entry>> {
        if self.queue.is_empty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut self.queue).into_iter().collect())
    }

    /// These are on the disk now.
    fn learn(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.known.extend(entries);
        self.is_open = true;
        self.askers.drain(..).for_each(Waker::wake);
    }
}

/// Waits until payments are on the disk.
pub(super) async fn commit(journal: &RefCell<Journal>, entries: &[Entry]) {
    poll_fn(|cx| journal.borrow_mut().poll_known(entries, cx)).await;
}

/// Opens the journal and writes what is asked for, however often that fails.
pub(super) async fn keep(env: SimEnv, journal: Rc<RefCell<Journal>>, truth: Rc<RefCell<Truth>>) {
    let disk = env.disk();
    let file = loop {
        match disk.open("journal", OpenMode::Create).await {
            Ok(file) => break file,
            Err(_) => sleep(&env, RETRY).await,
        }
    };
    let found = recover(&env, &file).await;
    let mut end = (found.len() * ENTRY_BYTES) as u64;
    {
        let truth = &mut *truth.borrow_mut();
        truth.openings += 1;
        truth.recovered = found.len();
        let found: BTreeSet<_> = found.iter().copied().collect();
        truth.lost.extend(truth.acknowledged.difference(&found));
    }
    journal.borrow_mut().learn(found);
    loop {
        let mut batch = poll_fn(|cx| journal.borrow_mut().poll_queue(cx)).await;
        if crate::buggify!("the journal writes one by one") {
            let rest = batch.split_off(1);
            journal.borrow_mut().queue.extend(rest);
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|entry| entry.write(Within::Record)).collect();
        while !write(&env, &file, end, &bytes).await {
            crate::reachable!("the journal was written again");
            sleep(&env, RETRY).await;
        }
        end += bytes.len() as u64;
        journal.borrow_mut().learn(batch);
    }
}

/// Writes, makes durable and looks whether it is there; false when any of that failed.
async fn write(env: &SimEnv, file: &SimFile, at: u64, bytes: &[u8]) -> bool {
    if file.write_at(at, bytes).await.is_err() || file.sync().await.is_err() {
        return false;
    }
    // A disk may have told what is not so. A read may, too: another one tells.
    for _ in 0..READS_MAX {
        if file.read_at(at, bytes.len()).await.is_ok_and(|there| there == bytes) {
            return true;
        }
        crate::reachable!("the journal was read again");
        sleep(env, RETRY / 10).await;
    }
    false
}

/// All records up to the first that is torn, which is cut off with what is behind it: it was never
/// acknowledged.
async fn recover(env: &SimEnv, file: &SimFile) -> Vec<Entry> {
    let len = loop {
        match file.len().await {
            Ok(len) => break len,
            Err(_) => sleep(env, RETRY).await,
        }
    };
    let mut found = Vec::new();
    let mut end = 0;
    while end + (ENTRY_BYTES as u64) <= len {
        let Some(entry) = read(env, file, end).await else { break };
        found.push(entry);
        end += ENTRY_BYTES as u64;
    }
    if end < len {
        crate::reachable!("a torn end of the journal was cut off");
        while !cut(file, end).await {
            sleep(env, RETRY).await;
        }
    }
    found
}

/// Makes the file end there; false when that failed.
async fn cut(file: &SimFile, end: u64) -> bool {
    file.truncate(end).await.is_ok() && file.sync().await.is_ok()
}

async fn read(env: &SimEnv, file: &SimFile, at: u64) -> Option<Entry> {
    for _ in 0..READS_MAX {
        if let Ok(bytes) = file.read_at(at, ENTRY_BYTES).await
            && let Some(entry) = Entry::read(&bytes, Within::Record)
        {
            return Some(entry);
        }
        sleep(env, RETRY / 10).await;
    }
    None
}
