//! What the grid answers over HTTP: logins, and the capabilities of who is in.

use std::collections::BTreeMap;
use std::task::Waker;

use twinspan_core::time::Timestamp;
use twinspan_http::{
    HeaderMap, HeaderValue, Method, ServerRequest, ServerResponse, StatusCode, header,
};
use twinspan_llsd::{Form, Limits, Map, Value, parse_any};
use twinspan_lludp::Uuid;

use crate::assets::AssetKind;
use crate::bodies;
use crate::config::RegionId;
use crate::grid::Grid;
use crate::inventory;
use crate::login::{Attempt, LoginDesk};
use crate::queue::{EventQueue, Poll, Polled};
use crate::seeds::{PATH, Token};
use crate::uploads::{self, Uploads};

/// What the body of one request may be.
const LIMITS: Limits = Limits { bytes_max: 256 << 10, depth_max: 16, elements_max: 8_192 };
/// Names of capabilities that one request may ask for.
const NAMES_MAX: usize = 512;

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capability {
    EventQueueGet,
    FetchInventory2,
    FetchInventoryDescendents2,
    GetTexture,
    GetMesh,
    GetMesh2,
    ViewerAsset,
    SimulatorFeatures,
    NewFileAgentInventory,
}

impl Capability {
    const ALL: [Self; 9] = [
        Self::EventQueueGet,
        Self::FetchInventory2,
        Self::FetchInventoryDescendents2,
        Self::GetTexture,
        Self::GetMesh,
        Self::GetMesh2,
        Self::ViewerAsset,
        Self::SimulatorFeatures,
        Self::NewFileAgentInventory,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::EventQueueGet => "EventQueueGet",
            Self::FetchInventory2 => "FetchInventory2",
            Self::FetchInventoryDescendents2 => "FetchInventoryDescendents2",
            Self::GetTexture => "GetTexture",
            Self::GetMesh => "GetMesh",
            Self::GetMesh2 => "GetMesh2",
            Self::ViewerAsset => "ViewerAsset",
            Self::SimulatorFeatures => "SimulatorFeatures",
            Self::NewFileAgentInventory => "NewFileAgentInventory",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }

    /// Whether it is asked by POST; else by GET.
    const fn is_posted(self) -> bool {
        matches!(
            self,
            Self::EventQueueGet
                | Self::FetchInventory2
                | Self::FetchInventoryDescendents2
                | Self::NewFileAgentInventory
        )
    }
}

/// Counters of what was answered over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpStats {
    /// Requests of any kind.
    pub requests: u64,
    /// Seeds that were asked.
    pub seeds: u64,
    /// Polls of event queues that brought events.
    pub polls_answered: u64,
    /// Polls that brought none in their time.
    pub polls_empty: u64,
    /// Events that were told, those that were told again included.
    pub events_told: u64,
    /// Events that found their queue full.
    pub events_dropped: u64,
    /// Requests for what is not there, or no more.
    pub not_found: u64,
    /// Requests that mean nothing.
    pub bad: u64,
}

/// Whose queue at which region.
pub(crate) type QueueKey = (u32, RegionId);

/// A poll that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) key: QueueKey,
    poll: Poll,
}

/// What a request comes to.
pub(crate) enum Answer {
    Now(ServerResponse),
    /// Events are waited for.
    Later(Waiting),
}

#[derive(Debug, Default)]
struct Line {
    queue: EventQueue,
    waker: Option<Waker>,
}

/// Answers requests.
pub(crate) struct Desk {
    pub(crate) login: LoginDesk,
    uploads: Uploads,
    lines: BTreeMap<QueueKey, Line>,
    /// How many tokens had ended when the queues were last tidied.
    ended: u64,
    grid_name: String,
    pub(crate) stats: HttpStats,
}

impl Desk {
    pub(crate) fn new(login: LoginDesk, grid_name: String) -> Self {
        Self {
            login,
            uploads: Uploads::default(),
            lines: BTreeMap::new(),
            ended: 0,
            grid_name,
            stats: HttpStats::default(),
        }
    }

    /// Takes what the grid has for event queues, wakes who waits for it, and forgets the queues of
    /// those who are gone.
    pub(crate) fn collect(&mut self, grid: &mut Grid) {
        while let Some(queued) = grid.poll_queue() {
            let key = (queued.code, queued.region);
            let Some(guest) = grid.guest(queued.code) else { continue };
            let event = bodies::event(&queued.event, guest, grid.destination(queued.code));
            if !grid.seeds.has(queued.code, queued.region) {
                self.stats.events_dropped += 1;
                continue;
            }
            let line = self.lines.entry(key).or_default();
            self.stats.events_dropped += u64::from(!line.queue.push(event));
            if let Some(waker) = line.waker.take() {
                waker.wake();
            }
        }
        if self.ended != grid.seeds.ended() {
            self.ended = grid.seeds.ended();
            self.uploads.retain(|code| grid.guest(code).is_some());
            self.lines.retain(|(code, region), line| {
                let stays = grid.seeds.has(*code, *region);
                if let Some(waker) = line.waker.take_if(|_| !stays) {
                    waker.wake();
                }
                stays
            });
        }
    }

    pub(crate) fn request(
        &mut self,
        grid: &mut Grid,
        (now, wall): (Timestamp, u64),
        request: &ServerRequest,
    ) -> Answer {
        self.stats.requests += 1;
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if let Some(rest) = path.strip_prefix(PATH) {
            return self.capability(grid, request, rest, query);
        }
        if path == "/get_grid_info" {
            return self.grid_info();
        }
        if !LoginDesk::is_path(path) {
            return self.fail(StatusCode::NOT_FOUND);
        }
        if request.method != Method::POST {
            return self.fail(StatusCode::METHOD_NOT_ALLOWED);
        }
        let content_type = request.headers.get(header::CONTENT_TYPE);
        let attempt = Attempt {
            now,
            wall,
            from: request.peer.ip(),
            path,
            content_type: content_type.and_then(|kind| kind.to_str().ok()).unwrap_or_default(),
            body: &request.body,
        };
        let answer = self.login.answer(grid, &attempt);
        self.collect(grid);
        Answer::Now(answer)
    }

    /// A status alone, counted.
    fn fail(&mut self, status: StatusCode) -> Answer {
        match status {
            StatusCode::NOT_FOUND => self.stats.not_found += 1,
            _ => self.stats.bad += 1,
        }
        Answer::Now(ServerResponse::status(status))
    }

    /// What viewers ask a grid for before they log in.
    fn grid_info(&self) -> Answer {
        let (url, name) = (self.login.url(), escaped(&self.grid_name));
        let text = format!(
            "<?xml version=\"1.0\"?>\n<gridinfo><platform>Twinspan</platform>\
             <login>{url}</login><gridname>{name}</gridname><gridnick>{name}</gridnick></gridinfo>\n"
        );
        Answer::Now(ServerResponse::new(StatusCode::OK, "application/xml", text))
    }

    fn capability(
        &mut self,
        grid: &mut Grid,
        request: &ServerRequest,
        rest: &str,
        query: &str,
    ) -> Answer {
        let (token, name) = rest.split_once('/').unwrap_or((rest, ""));
        let owner = Token::parse(token).and_then(|token| grid.seeds.owner(token));
        let Some((code, region)) = owner else { return self.fail(StatusCode::NOT_FOUND) };
        // Viewers put a slash, or ids, behind the address that they were given.
        let mut parts = name.split('/');
        let name = parts.next().unwrap_or_default();
        if name.is_empty() {
            return self.seed(grid, request, (code, region));
        }
        let Some(capability) = Capability::of_name(name).filter(|one| offers(grid, *one)) else {
            return self.fail(StatusCode::NOT_FOUND);
        };
        let is_posted = request.method == Method::POST;
        if is_posted != capability.is_posted() || !(is_posted || request.method == Method::GET) {
            return self.fail(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Some(owner) = grid.guest(code).map(|guest| guest.ids.agent_id) else {
            return self.fail(StatusCode::NOT_FOUND);
        };
        match capability {
            Capability::EventQueueGet => self.poll(request, (code, region)),
            Capability::FetchInventory2 => {
                let uploads = grid.library.items_of(owner);
                self.fetched(request, |asked| inventory::items(owner, uploads, asked))
            }
            Capability::FetchInventoryDescendents2 => {
                let uploads = grid.library.items_of(owner);
                self.fetched(request, |asked| inventory::descendents(owner, uploads, asked))
            }
            Capability::GetTexture => self.asset(grid, request, query, &[AssetKind::Texture]),
            Capability::GetMesh | Capability::GetMesh2 => {
                self.asset(grid, request, query, &[AssetKind::Mesh])
            }
            Capability::ViewerAsset => self.asset(grid, request, query, &AssetKind::ALL),
            Capability::NewFileAgentInventory => match parts.next().filter(|part| !part.is_empty())
            {
                None => self.upload_asked(grid, request, (code, region), owner),
                Some(number) => self.upload(grid, request, (code, owner), number),
            },
            Capability::SimulatorFeatures => Answer::Now(llsd(&features(&self.grid_name))),
        }
    }

    /// Addresses of the capabilities that were asked for; those that there are not are left out.
    fn seed(&mut self, grid: &mut Grid, request: &ServerRequest, key: QueueKey) -> Answer {
        if request.method != Method::POST {
            return self.fail(StatusCode::METHOD_NOT_ALLOWED);
        }
        let asked = parse_any(&request.body, &LIMITS).unwrap_or_default();
        let (Some(names), Some(seed)) = (asked.as_array(), grid.seed(key.1, key.0)) else {
            return self.fail(StatusCode::BAD_REQUEST);
        };
        self.stats.seeds += 1;
        let known = names.iter().take(NAMES_MAX).filter_map(Value::as_text);
        let known = known.filter_map(Capability::of_name).filter(|one| offers(grid, *one));
        let known = known.map(|capability| {
            let name = capability.name();
            (name.to_owned(), Value::from(format!("{}/{name}", seed.url())))
        });
        Answer::Now(llsd(&Value::Map(known.collect::<Map>())))
    }

    /// Begins a poll of an event queue.
    fn poll(&mut self, request: &ServerRequest, key: QueueKey) -> Answer {
        let asked = parse_any(&request.body, &LIMITS);
        let Some(asked) = asked.ok().filter(|asked| asked.as_map().is_some()) else {
            return self.fail(StatusCode::BAD_REQUEST);
        };
        let ack = asked.get("ack").filter(|ack| !ack.is_undef()).and_then(Value::to_i64);
        let ack = ack.and_then(|ack| i32::try_from(ack).ok());
        let is_done = asked.get("done").and_then(Value::to_bool).unwrap_or_default();
        let line = self.lines.entry(key).or_default();
        let poll = line.queue.begin(ack);
        // The poll before is over.
        if let Some(waker) = line.waker.take() {
            waker.wake();
        }
        if is_done {
            let nothing = Value::map([("events", Value::Array(Vec::new()))]);
            return Answer::Now(llsd(&nothing));
        }
        Answer::Later(Waiting { key, poll })
    }

    /// The answer to a poll, or `None` while there is none: then `waker` is woken when there may be.
    pub(crate) fn poll_answer(
        &mut self,
        waiting: Waiting,
        waker: &Waker,
    ) -> Option<ServerResponse> {
        let Some(line) = self.lines.get_mut(&waiting.key) else {
            // He left the region.
            self.stats.not_found += 1;
            return Some(ServerResponse::status(StatusCode::NOT_FOUND));
        };
        match line.queue.take(waiting.poll) {
            Polled::Events(id, events) => {
                self.stats.polls_answered += 1;
                self.stats.events_told += events.len() as u64;
                Some(llsd(&bodies::answer(id, events)))
            }
            Polled::Superseded => Some(nothing()),
            Polled::Waiting => {
                line.waker = Some(waker.clone());
                None
            }
        }
    }

    /// A poll has waited for long enough: real grids let the proxy before them say so.
    pub(crate) fn poll_empty(&mut self) -> ServerResponse {
        self.stats.polls_empty += 1;
        nothing()
    }

    fn fetched(
        &mut self,
        request: &ServerRequest,
        fetch: impl Fn(&Value) -> Option<Value>,
    ) -> Answer {
        let asked = parse_any(&request.body, &LIMITS);
        match asked.ok().and_then(|asked| fetch(&asked)) {
            Some(value) => Answer::Now(llsd(&value)),
            None => self.fail(StatusCode::BAD_REQUEST),
        }
    }

    /// Somebody says what he is about to upload.
    fn upload_asked(
        &mut self,
        grid: &mut Grid,
        request: &ServerRequest,
        (code, region): QueueKey,
        owner: Uuid,
    ) -> Answer {
        let asked = parse_any(&request.body, &LIMITS).ok();
        let outcome = asked.and_then(|asked| self.uploads.announce(grid, (code, owner), &asked));
        match (outcome, grid.seed(region, code)) {
            (Some(Ok(number)), Some(seed)) => {
                let name = Capability::NewFileAgentInventory.name();
                let uploader = format!("{}/{name}/{number}", seed.url());
                Answer::Now(llsd(&uploads::go_on(uploader)))
            }
            (Some(Err(reason)), _) => Answer::Now(llsd(&uploads::refused(reason))),
            _ => self.fail(StatusCode::BAD_REQUEST),
        }
    }

    /// The bytes of an upload.
    fn upload(
        &mut self,
        grid: &mut Grid,
        request: &ServerRequest,
        who: (u32, Uuid),
        number: &str,
    ) -> Answer {
        let number = number.parse().ok();
        let brought =
            number.and_then(|number| self.uploads.bring(grid, who, number, &request.body));
        match brought {
            Some(Ok(made)) => Answer::Now(llsd(&uploads::complete(made))),
            Some(Err(reason)) => Answer::Now(llsd(&uploads::refused(reason))),
            None => self.fail(StatusCode::NOT_FOUND),
        }
    }

    /// An asset, or a part of it.
    fn asset(
        &mut self,
        grid: &Grid,
        request: &ServerRequest,
        query: &str,
        kinds: &[AssetKind],
    ) -> Answer {
        let asked = kinds.iter().find_map(|kind| Some((*kind, id_in(query, kind.query())?)));
        let found = asked.and_then(|(kind, id)| Some((kind, grid.library.find(kind, id)?)));
        match found {
            Some((kind, bytes)) => Answer::Now(part(&request.headers, kind, &bytes)),
            None => self.fail(StatusCode::NOT_FOUND),
        }
    }
}

/// Nothing in time, as a grid's front says it.
fn nothing() -> ServerResponse {
    ServerResponse::new(StatusCode::BAD_GATEWAY, "text/plain", "Upstream error: ")
}

/// Whether a grid has a capability.
fn offers(grid: &Grid, capability: Capability) -> bool {
    !grid.config.without_capabilities.iter().any(|name| name == capability.name())
}

fn llsd(value: &Value) -> ServerResponse {
    match Form::Xml.write_with_header(value) {
        Ok(body) => ServerResponse::new(StatusCode::OK, Form::Xml.content_type(), body),
        // A text of the configuration that XML cannot hold.
        Err(_) => ServerResponse::status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// What viewers ask a simulator about itself.
fn features(grid_name: &str) -> Value {
    let extras = Value::map([
        ("GridName", Value::from(grid_name)),
        ("say-range", 20.into()),
        ("shout-range", 100.into()),
        ("whisper-range", 10.into()),
    ]);
    Value::map([
        ("MeshRezEnabled", Value::from(true)),
        ("MeshUploadEnabled", false.into()),
        ("MeshXferEnabled", true.into()),
        ("PhysicsMaterialsEnabled", false.into()),
        ("OpenSimExtras", extras),
    ])
}

/// The id that a query has under a name.
fn id_in(query: &str, name: &str) -> Option<Uuid> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// Bytes, or the part of them that was asked for.
fn part(headers: &HeaderMap, kind: AssetKind, bytes: &[u8]) -> ServerResponse {
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.and_then(|range| Range::read(range, bytes.len())) {
        None => (StatusCode::OK, None),
        Some(Range::Beyond) => {
            let status = ServerResponse::status(StatusCode::RANGE_NOT_SATISFIABLE);
            return with_range(status, &format!("bytes */{}", bytes.len()));
        }
        Some(Range::Part { from, to }) => (StatusCode::PARTIAL_CONTENT, Some((from, to))),
    };
    let (from, to) = range.unwrap_or((0, bytes.len().saturating_sub(1)));
    let some = bytes.get(from..=to).unwrap_or_default().to_vec();
    let response = ServerResponse::new(status, kind.content_type(), some)
        .with_header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match range {
        Some(_) => with_range(response, &format!("bytes {from}-{to}/{}", bytes.len())),
        None => response,
    }
}

fn with_range(response: ServerResponse, range: &str) -> ServerResponse {
    match HeaderValue::from_str(range) {
        Ok(range) => response.with_header(header::CONTENT_RANGE, range),
        // Digits always are a value.
        Err(_) => response,
    }
}

/// A part of something, its last byte included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Part {
        from: usize,
        to: usize,
    },
    /// It begins behind the end.
    Beyond,
}

impl Range {
    /// Reads one range of bytes. `None` for several of them and for what means nothing: then the
    /// whole is sent, as HTTP has it.
    fn read(text: &str, len: usize) -> Option<Self> {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let last_byte = len.checked_sub(1)?;
        let number = |text: &str| text.trim().parse::<usize>().ok();
        if first.trim().is_empty() {
            // The last so many.
            let count = number(last)?.min(len);
            let from = len - count;
            return Some(if count == 0 {
                Self::Beyond
            } else {
                Self::Part { from, to: last_byte }
            });
        }
        let from = number(first)?;
        let to = if last.trim().is_empty() { usize::MAX } else { number(last)? };
        if to < from {
            return None;
        }
        if from > last_byte {
            return Some(Self::Beyond);
        }
        Some(Self::Part { from, to: to.min(last_byte) })
    }
}

/// A text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A request as it comes to a desk, for tests.
#[cfg(test)]
fn request_of(method: Method, path: &str, body: Vec<u8>) -> ServerRequest {
    let peer = ([10, 0, 0, 9], 1).into();
    ServerRequest { method, path: path.into(), headers: HeaderMap::new(), body: body.into(), peer }
}

#[cfg(test)]
mod tests;
