//! Handlers: their order, their queues, their failures, and their threads.

use std::sync::mpsc as thread_mpsc;
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use twinspan_lludp::messages::{ChatFromSimulator, ImprovedTerseObjectUpdate, SimStats};
use twinspan_lludp::{Var1, Var2};

use super::*;
use crate::event::{NetworkError, NetworkEvent};
use crate::handle::Shared as CoreShared;

type Log = Arc<Mutex<Vec<String>>>;

fn core() -> CoreHandle {
    let shared = Arc::new(CoreShared::new(crate::proxies::ProxyManager::default()));
    CoreHandle { shared, commands: mpsc::channel(1).0 }
}

fn context(core: &CoreHandle, reliable: bool) -> HandlerContext {
    HandlerContext {
        core: core.clone(),
        from: ([10, 0, 0, 2], 9_000).into(),
        region: None,
        number: 1,
        reliable,
        late: false,
    }
}

fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn body_of<M: Message>(message: &M) -> Vec<u8> {
    let mut body = vec![0; 2_048];
    let len = message.encode(&mut body).unwrap();
    body.truncate(len);
    body
}

fn chat(text: &str) -> Vec<u8> {
    let mut chat = ChatFromSimulator::default();
    chat.chat_data.message = Var2::text(text).unwrap();
    body_of(&chat)
}

/// Runs jobs, the last one first, until all wait or are through.
fn run(jobs: &mut Vec<Job>) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..8 {
        for index in (0..jobs.len()).rev() {
            if jobs[index].work.as_mut().poll(&mut context).is_ready() {
                jobs.remove(index);
            }
        }
    }
}

/// Writes down what it hears.
struct Hears {
    name: &'static str,
    priority: i32,
    log: Log,
    /// Waits for ever at this text, and panics or fails at others.
    stuck_at: &'static str,
}

impl Hears {
    fn new(name: &'static str, priority: i32, log: &Log) -> Self {
        Self { name, priority, log: Arc::clone(log), stuck_at: "nothing" }
    }
}

impl TypedPacketHandler<ChatFromSimulator> for Hears {
    fn priority(&self) -> i32 {
        self.priority
    }

    fn should_handle(&self, packet: &ChatFromSimulator, _context: &HandlerContext) -> bool {
        packet.chat_data.message.to_text() != "not this"
    }

    async fn handle(
        &self,
        packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        let text = packet.chat_data.message.to_text();
        if text == self.stuck_at {
            std::future::pending::<()>().await;
        }
        assert_ne!(text, "panic", "as asked for");
        if text == "fail" {
            return Err("as asked for".into());
        }
        self.log.lock().unwrap().push(format!("{} {text}", self.name));
        Ok(())
    }
}

fn written(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

const START: Timestamp = Timestamp::START;

fn dispatch(dispatcher: &mut Dispatcher, core: &CoreHandle, text: &str) -> Vec<Job> {
    dispatcher.refresh();
    let context = context(core, true);
    let done = dispatcher.dispatch(START, ChatFromSimulator::ID, &chat(text), &context);
    assert_eq!(done, Ok(Dispatched { overruns: 0 }));
    dispatcher.take_jobs().collect()
}

fn register(registry: &HandlerRegistry, handler: Hears) -> HandlerId {
    now(registry.register_handler::<ChatFromSimulator, _>(handler)).id().unwrap()
}

#[test]
fn higher_priorities_are_done_before_lower_ones_begin() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    register(&registry, Hears::new("low", -1, &log));
    register(&registry, Hears::new("first", 0, &log));
    register(&registry, Hears::new("second", 0, &log));
    register(&registry, Hears::new("high", 7, &log));
    let mut dispatcher = Dispatcher::new(registry);
    let mut jobs = dispatch(&mut dispatcher, &core, "a");
    jobs.extend(dispatch(&mut dispatcher, &core, "b"));
    assert_eq!(jobs.len(), 4, "one at a time for each handler");
    run(&mut jobs);
    assert!(jobs.is_empty());
    let log = written(&log);
    let of = |text: &str| -> Vec<&str> {
        log.iter().filter_map(|line| line.strip_suffix(text)).map(str::trim).collect()
    };
    assert_eq!(of("a"), ["high", "first", "second", "low"]);
    assert_eq!(of("b"), ["high", "first", "second", "low"]);
}

#[test]
fn who_is_slow_holds_back_others_no_longer_than_the_grace() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    register(&registry, Hears { stuck_at: "stuck", ..Hears::new("high", 1, &log) });
    register(&registry, Hears::new("low", 0, &log));
    let mut dispatcher = Dispatcher::new(registry);
    let mut jobs = dispatch(&mut dispatcher, &core, "stuck");
    run(&mut jobs);
    assert!(written(&log).is_empty());
    assert_eq!(dispatcher.poll_timeout(), START.after(PRIORITY_GRACE));
    dispatcher.handle_timeout(START.after(PRIORITY_GRACE));
    run(&mut jobs);
    assert_eq!(written(&log), ["low stuck"]);
    // Who is late is waited for no more.
    jobs.extend(dispatch(&mut dispatcher, &core, "next"));
    run(&mut jobs);
    assert_eq!(written(&log), ["low next"]);
    assert_eq!(dispatcher.poll_timeout(), Timestamp::NEVER);
}

#[test]
fn who_panics_or_fails_is_told_and_goes_on() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    let mut events = core.shared.events.subscribe();
    register(&registry, Hears::new("one", 0, &log));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let mut jobs = dispatch(&mut dispatcher, &core, "panic");
    for text in ["fail", "not this", "well"] {
        jobs.extend(dispatch(&mut dispatcher, &core, text));
    }
    run(&mut jobs);
    assert_eq!(written(&log), ["one well"]);
    let told = |event: Option<NetworkEvent>| match event {
        Some(NetworkEvent::Error { error }) => error,
        other => panic!("{other:?}"),
    };
    let panicked = told(events.try_recv());
    assert!(matches!(
        &panicked,
        NetworkError::HandlerPanicked { message: "ChatFromSimulator", .. }
    ));
    assert!(panicked.to_string().contains("as asked for"), "{panicked}");
    assert!(matches!(told(events.try_recv()), NetworkError::HandlerFailed { .. }));
    let [report] = registry.reports().try_into().unwrap();
    let counted = (report.handled, report.failed, report.panicked, report.passed_over);
    assert_eq!(counted, (1, 2, 1, 1));
}

#[test]
fn handlers_come_and_go_while_messages_do() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    let mut dispatcher = Dispatcher::new(registry.clone());
    assert!(!dispatcher.wants(ChatFromSimulator::ID));
    let one = register(&registry, Hears::new("one", 0, &log));
    let mut jobs = dispatch(&mut dispatcher, &core, "a");
    jobs.extend(dispatch(&mut dispatcher, &core, "b"));
    assert!(now(registry.unregister_handler(one)));
    assert!(!now(registry.unregister_handler(one)), "it is gone");
    run(&mut jobs);
    assert!(written(&log).is_empty(), "what waited is forgotten");
    assert!(dispatcher.refresh());
    assert!(!dispatcher.wants(ChatFromSimulator::ID));
}

#[test]
fn handlers_are_bounded() {
    let (registry, log) = (HandlerRegistry::new(), Log::default());
    for _ in 0..HANDLERS_MAX {
        register(&registry, Hears::new("one", 0, &log));
    }
    let more = Hears::new("more", 0, &log);
    let refused = now(registry.register_handler::<ChatFromSimulator, _>(more)).id();
    assert_eq!(refused, Err(RegisterError::Full));
}

/// Counts, once it is let.
struct Counts(Log);

impl TypedPacketHandler<ImprovedTerseObjectUpdate> for Counts {
    async fn handle(
        &self,
        packet: &ImprovedTerseObjectUpdate,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        let block = &packet.object_data[0];
        self.0.lock().unwrap().push(format!("{:?}", block.data.bytes()));
        Ok(())
    }
}

fn moved(object: u8, state: u8, texture: &[u8]) -> Vec<u8> {
    let mut update = ImprovedTerseObjectUpdate::default();
    let block = twinspan_lludp::messages::ImprovedTerseObjectUpdateObjectData {
        data: Var1::new([object, 0, 0, 0, state]).unwrap(),
        texture_entry: Var2::new(texture).unwrap(),
    };
    update.object_data.push(block);
    body_of(&update)
}

#[test]
fn updates_that_wait_are_replaced_by_newer_ones() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    now(registry.register_handler::<ImprovedTerseObjectUpdate, _>(Counts(Arc::clone(&log))));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let context = context(&core, false);
    for body in [
        moved(1, 1, b""),
        moved(2, 1, b""),
        moved(1, 2, b""),
        // A texture comes once: it is not replaced, and replaces.
        moved(2, 2, b"texture"),
        moved(2, 3, b""),
    ] {
        dispatcher.dispatch(START, ImprovedTerseObjectUpdate::ID, &body, &context).unwrap();
    }
    let mut jobs: Vec<Job> = dispatcher.take_jobs().collect();
    run(&mut jobs);
    let wanted = ["[1, 0, 0, 0, 2]", "[2, 0, 0, 0, 2]", "[2, 0, 0, 0, 3]"];
    assert_eq!(written(&log), wanted);
    assert_eq!(registry.reports()[0].superseded, 2);
}

/// Handles nothing, ever.
struct Sleeps;

impl TypedPacketHandler<ChatFromSimulator> for Sleeps {
    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

#[test]
fn a_full_queue_drops_what_was_sent_unreliably_before_the_rest() {
    let (registry, core) = (HandlerRegistry::new(), core());
    now(registry.register_handler::<ChatFromSimulator, _>(Sleeps));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let body = chat("x");
    let mut send = |reliable| {
        let context = context(&core, reliable);
        dispatcher.dispatch(START, ChatFromSimulator::ID, &body, &context).unwrap().overruns
    };
    let lost: u64 = (0..HANDLER_QUEUE_MAX + 5).map(|_| send(false)).sum();
    assert_eq!(lost, 5);
    let lost: u64 = (HANDLER_QUEUE_MAX..HANDLER_RESERVE_MAX + 3).map(|_| send(true)).sum();
    assert_eq!(lost, 3);
    assert_eq!(registry.reports()[0].waiting, HANDLER_RESERVE_MAX);
    registry.clear();
    assert_eq!(registry.reports()[0].waiting, 0);
}

#[test]
fn what_is_no_message_reaches_no_handler() {
    let (registry, log, core) = (HandlerRegistry::new(), Log::default(), core());
    register(&registry, Hears::new("one", 0, &log));
    let mut dispatcher = Dispatcher::new(registry);
    let context = context(&core, true);
    let outcome = dispatcher.dispatch(START, ChatFromSimulator::ID, &[1, 2], &context);
    assert!(outcome.is_err());
    assert_eq!(dispatcher.dispatch(START, SimStats::ID, &[], &context), Ok(Dispatched::default()));
    assert_eq!(dispatcher.take_jobs().count(), 0);
}

/// Blocks its thread until it is let go.
struct Blocks(Mutex<thread_mpsc::Receiver<()>>);

impl TypedPacketHandler<ChatFromSimulator> for Blocks {
    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        self.0.lock().unwrap().recv()?;
        Ok(())
    }
}

/// Says that it was called.
struct Rings(Mutex<thread_mpsc::Sender<()>>);

impl TypedPacketHandler<ChatFromSimulator> for Rings {
    fn priority(&self) -> i32 {
        1
    }

    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        self.0.lock().unwrap().send(())?;
        Ok(())
    }
}

#[test]
fn a_handler_that_blocks_its_thread_holds_back_no_other() {
    let (registry, core) = (HandlerRegistry::new(), core());
    let (let_go, held) = thread_mpsc::channel();
    let (ring, rung) = thread_mpsc::channel();
    now(registry.register_handler::<ChatFromSimulator, _>(Blocks(Mutex::new(held))));
    now(registry.register_handler::<ChatFromSimulator, _>(Rings(Mutex::new(ring))));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let pool = HandlerPool::new().unwrap();
    for _ in 0..3 {
        for job in dispatch(&mut dispatcher, &core, "x") {
            pool.starter().start(job);
        }
    }
    for _ in 0..3 {
        rung.recv().unwrap();
    }
    (0..3).for_each(|_| let_go.send(()).unwrap());
    drop(pool);
}

/// Awaits for ever, and holds something meanwhile.
struct Awaits(Arc<()>);

impl TypedPacketHandler<ChatFromSimulator> for Awaits {
    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        let _held = Arc::clone(&self.0);
        std::future::pending().await
    }
}

#[test]
fn handlers_that_await_hold_no_thread_and_end_with_the_pool() {
    let (registry, core) = (HandlerRegistry::new(), core());
    let (ring, rung) = thread_mpsc::channel();
    let held = Arc::new(());
    let many = HANDLERS_AT_ONCE_MAX + 8;
    for _ in 0..many {
        now(registry.register_handler::<ChatFromSimulator, _>(Awaits(Arc::clone(&held))));
    }
    now(registry.register_handler::<ChatFromSimulator, _>(Rings(Mutex::new(ring))));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let pool = HandlerPool::new().unwrap();
    for _ in 0..3 {
        for job in dispatch(&mut dispatcher, &core, "x") {
            pool.starter().start(job);
        }
        // It has a thread though more await than there are threads.
        rung.recv_timeout(Duration::from_secs(60)).unwrap();
        dispatcher.handle_timeout(START.after(PRIORITY_GRACE));
    }
    // Nobody waits for the others any more: all are at it.
    while Arc::strong_count(&held) < 1 + 2 * many {
        std::thread::yield_now();
    }
    drop(pool);
    while Arc::strong_count(&held) > 1 + many {
        std::thread::yield_now();
    }
}

/// Awaits its own clock again and again.
struct Ticks(Mutex<thread_mpsc::Sender<u32>>);

impl TypedPacketHandler<ChatFromSimulator> for Ticks {
    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        for number in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
            self.0.lock().unwrap().send(number)?;
        }
        Ok(())
    }
}

#[test]
fn a_handler_that_is_woken_goes_on_where_it_was() {
    let (registry, core) = (HandlerRegistry::new(), core());
    let (tick, ticks) = thread_mpsc::channel();
    now(registry.register_handler::<ChatFromSimulator, _>(Ticks(Mutex::new(tick))));
    let mut dispatcher = Dispatcher::new(registry.clone());
    let pool = HandlerPool::new().unwrap();
    for _ in 0..2 {
        for job in dispatch(&mut dispatcher, &core, "x") {
            pool.starter().start(job);
        }
    }
    let told: Vec<u32> = (0..40).map(|_| ticks.recv().unwrap()).collect();
    assert_eq!(told, [(0..20).collect::<Vec<_>>(), (0..20).collect()].concat());
    drop(pool);
}

/// Panics when it is asked what it wants.
struct Moody;

impl TypedPacketHandler<ChatFromSimulator> for Moody {
    fn in_order(&self) -> bool {
        // The first time is that of its registration.
        static ASKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        assert!(!ASKED.swap(true, Ordering::Relaxed), "asked again");
        true
    }

    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn what_a_handler_wants_is_asked_once_and_not_by_the_network() {
    let registry = HandlerRegistry::new();
    now(registry.register_handler::<ChatFromSimulator, _>(Moody)).id().unwrap();
    for _ in 0..2 {
        assert_eq!(registry.ordered(), [ChatFromSimulator::ID]);
    }
}
