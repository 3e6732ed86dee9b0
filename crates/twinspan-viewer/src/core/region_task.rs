//! One region over HTTP: its capabilities, then its event queue, until it is gone.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use twinspan_circuit::Seed;
use twinspan_http::{HttpClient, HttpError, Request, Response, Url};
use twinspan_llsd::{Form, Value};
use twinspan_provider::Env;

use crate::caps::{CAPABILITIES, Capabilities, ask_seed, seed_wait};
use crate::queue::{
    NextPoll, POLL_BYTES_MAX, POLL_TIMEOUT, PollOutcome, QueueMessage, QueuePolicy, poll_body,
};
use crate::wait::{sleep, within};
use crate::xmlrpc::read_off;

/// How long the last word to an event queue may take.
const DONE_TIMEOUT: Duration = Duration::from_secs(5);
/// The capability of event queues.
const EVENT_QUEUE: &str = "EventQueueGet";

/// What a region's task found out.
#[derive(Debug)]
pub(super) enum Note {
    /// The region's capabilities.
    Caps(Capabilities),
    /// There are none to be had.
    CapsFailed(String),
    /// A message of its event queue.
    Message(QueueMessage),
    /// Entries of its event queue that were no messages.
    Broken(usize),
    /// A poll failed; there will be another.
    Failed(String),
    /// The queue is gone, as is the agent from the region.
    Gone,
    /// The queue failed too often.
    GivenUp(String),
}

/// Where notes go, with the region that they are of.
pub(super) type Notes = mpsc::Sender<(SocketAddr, Note)>;

/// The present state of a region's event queue, for its last word.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    url: Option<Url>,
    ack: Value,
}

/// Runs until the region is gone.
pub(super) async fn run<E: Env>(
    env: E,
    http: HttpClient<E>,
    (address, seed): (SocketAddr, Seed),
    notes: Notes,
    state: Rc<RefCell<QueueState>>,
) {
    let Some(caps) = capabilities(&env, &http, (address, &seed), &notes).await else { return };
    let url = caps.get(EVENT_QUEUE).cloned();
    // Whoever takes notes ends this task when it is gone itself.
    let _ = notes.send((address, Note::Caps(caps))).await;
    let Some(url) = url else { return };
    state.borrow_mut().url = Some(url.clone());
    let mut policy = QueuePolicy::default();
    loop {
        let began = env.now();
        let ack = state.borrow().ack.clone();
        let answer = poll(&http, &url, &ack, false).await;
        let bytes = answer.as_ref().map_or(0, |response| response.body.len());
        let held = env.now().since(began);
        let outcome = read_off(&env, bytes, move || PollOutcome::of(answer)).await;
        let outcome = outcome.unwrap_or_else(|error| PollOutcome::Failed(error.to_string()));
        let next = policy.after(&outcome, held);
        if take(address, outcome, &notes, &state, &next).await.is_err() {
            return;
        }
        match next {
            NextPoll::After(wait) if wait.is_zero() => {}
            NextPoll::After(wait) => sleep(&env, wait).await,
            NextPoll::Gone => {
                state.borrow_mut().url = None;
                // Nothing follows it.
                let _ = notes.send((address, Note::Gone)).await;
                return;
            }
            NextPoll::GivenUp { last } => {
                // Nothing follows it.
                let _ = notes.send((address, Note::GivenUp(last))).await;
                return;
            }
        }
    }
}

/// Asks the seed until it answers, or there is no use in it.
async fn capabilities<E: Env>(
    env: &E,
    http: &HttpClient<E>,
    (address, seed): (SocketAddr, &Seed),
    notes: &Notes,
) -> Option<Capabilities> {
    let mut failures = 0;
    loop {
        let error = match ask_seed(http, seed, CAPABILITIES).await {
            Ok(caps) => return Some(caps),
            Err(error) => error,
        };
        failures += 1;
        match seed_wait(failures).filter(|_| error.is_passing()) {
            Some(wait) => sleep(env, wait).await,
            None => {
                // Nothing follows it.
                let _ = notes.send((address, Note::CapsFailed(error.to_string()))).await;
                return None;
            }
        }
    }
}

async fn poll<E: Env>(
    http: &HttpClient<E>,
    url: &Url,
    ack: &Value,
    done: bool,
) -> Result<Response, HttpError> {
    // What was read can be written.
    let body = Form::Xml.write(&poll_body(ack, done)).unwrap_or_default();
    let request = Request::post(url.clone(), Form::Xml.content_type(), body)
        .with_timeout(POLL_TIMEOUT)
        .with_response_bytes_max(POLL_BYTES_MAX);
    http.send(request).await
}

/// Hands on what an answer has in it. The next poll acknowledges it, so it is handed on first.
async fn take(
    address: SocketAddr,
    outcome: PollOutcome,
    notes: &Notes,
    state: &RefCell<QueueState>,
    next: &NextPoll,
) -> Result<(), mpsc::error::SendError<(SocketAddr, Note)>> {
    match outcome {
        PollOutcome::Events(batch) => {
            for message in batch.messages {
                notes.send((address, Note::Message(message))).await?;
            }
            if batch.broken > 0 {
                notes.send((address, Note::Broken(batch.broken))).await?;
            }
            state.borrow_mut().ack = batch.id;
        }
        PollOutcome::Failed(reason) if matches!(next, NextPoll::After(_)) => {
            notes.send((address, Note::Failed(reason))).await?;
        }
        PollOutcome::Nothing if matches!(next, NextPoll::After(wait) if !wait.is_zero()) => {
            let reason = "a poll was answered at once and without events".to_owned();
            notes.send((address, Note::Failed(reason))).await?;
        }
        PollOutcome::Failed(_) | PollOutcome::Nothing | PollOutcome::Gone => {}
    }
    Ok(())
}

/// Tells an event queue that nobody polls it any more: once, and whatever comes of it.
pub(super) async fn say_done<E: Env>(env: E, http: HttpClient<E>, state: Rc<RefCell<QueueState>>) {
    let QueueState { url, ack } = state.take();
    if let Some(url) = url {
        // Its answer is of no interest.
        let _ = within(&env, DONE_TIMEOUT, poll(&http, &url, &ack, true)).await;
    }
}

#[cfg(test)]
mod tests;
