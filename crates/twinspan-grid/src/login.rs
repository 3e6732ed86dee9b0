//! The login: who may come in, with what he is let in, and why not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use twinspan_circuit::AgentIds;
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_http::{HeaderValue, ServerResponse, StatusCode, header};
use twinspan_lludp::{Uuid, Vector3};
use twinspan_xmlrpc::login::{
    AccountName, Home, LoginReply, LoginRequest, LoginSuccess, Redirect, Refusal, Secret,
    StartLocation,
};
use twinspan_xmlrpc::{Fault, Limits, LoginForm};

use crate::account::{Account, Failures, ScriptedAnswer, key_of};
use crate::config::{AdmitError, Guest, RegionConfig, RegionId};
use crate::grid::Grid;
use crate::inventory;

/// What one request to log in may be.
const LIMITS: Limits = Limits { bytes_max: 64 << 10, depth_max: 16, elements_max: 2_048 };
/// Where an agent appears whose place is not known.
const MIDDLE: [f32; 3] = [128.0, 128.0, 22.0];
/// East.
const LOOK_AT: [f32; 3] = [1.0, 0.0, 0.0];
/// Codes that are drawn before it is given up: each is somebody else's once in a million.
const DRAWS_MAX: u32 = 8;
/// The code of a fault that a request causes, as real grids have it.
const BAD_REQUEST: i32 = -32_600;
/// What the path of a login behind a redirect begins with; the number of redirects follows.
const REDIRECTED: &str = "/login/";

/// A login that came.
pub(crate) struct Attempt<'a> {
    pub(crate) now: Timestamp,
    /// Seconds since 1970.
    pub(crate) wall: u64,
    pub(crate) from: IpAddr,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
}

/// An account and what it was given.
#[derive(Debug)]
struct Entry {
    account: Account,
    /// What shows that a second factor was given before.
    mfa_hash: Secret,
}

/// What a login tells besides who somebody is.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// Where viewers reach regions.
    pub(crate) ip: Ipv4Addr,
    pub(crate) http_port: u16,
    /// Where the login is.
    pub(crate) login_url: String,
}

/// Counters of a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginStats {
    /// Agents that were let in.
    pub let_in: u64,
    /// Requests that were refused, sent elsewhere or answered with a fault.
    pub refused: u64,
    /// Wrong names and passwords among these.
    pub wrong_keys: u64,
    /// Requests that could not be read.
    pub unreadable: u64,
    /// Requests that were written in LLSD, not in XML-RPC.
    pub in_llsd: u64,
}

/// Takes logins.
pub(crate) struct LoginDesk {
    accounts: BTreeMap<String, Entry>,
    addresses: Addresses,
    failures: Failures,
    secrets: Box<dyn SecretSource>,
    pub(crate) stats: LoginStats,
}

/// An answer, before it is written.
enum Verdict {
    Reply(LoginReply),
    Fault(Fault),
    Page { status: u16, html: String },
}

impl Verdict {
    fn refusal(reason: &str, text: impl Into<String>) -> Self {
        Self::Reply(LoginReply::Refused(Refusal::new(reason, text)))
    }
}

impl LoginDesk {
    pub(crate) fn new(
        accounts: Vec<Account>,
        addresses: Addresses,
        secrets: Box<dyn SecretSource>,
    ) -> Self {
        let entry = |account: Account| {
            (key_of(&account.name), Entry { account, mfa_hash: Secret::default() })
        };
        Self {
            accounts: accounts.into_iter().map(entry).collect(),
            addresses,
            failures: Failures::default(),
            secrets,
            stats: LoginStats::default(),
        }
    }

    /// Where the login is.
    pub(crate) fn url(&self) -> &str {
        &self.addresses.login_url
    }

    /// Whether a path is that of the login.
    pub(crate) fn is_path(path: &str) -> bool {
        path == "/" || path == "/login" || path.starts_with(REDIRECTED)
    }

    pub(crate) fn answer(&mut self, grid: &mut Grid, attempt: &Attempt<'_>) -> ServerResponse {
        let form = LoginForm::of_content_type(attempt.content_type);
        self.stats.in_llsd += u64::from(form == LoginForm::Llsd);
        let verdict = match LoginRequest::read(attempt.body, form, &LIMITS) {
            Ok(request) => self.judge(grid, attempt, &request),
            Err(error) => {
                self.stats.unreadable += 1;
                Verdict::Fault(Fault { code: BAD_REQUEST, message: error.to_string() })
            }
        };
        let let_in = matches!(verdict, Verdict::Reply(LoginReply::Success(_)));
        self.stats.let_in += u64::from(let_in);
        self.stats.refused += u64::from(!let_in);
        let written = match verdict {
            Verdict::Reply(reply) => reply.write(form),
            Verdict::Fault(fault) => LoginReply::write_fault(&fault, form),
            Verdict::Page { status, html } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                return ServerResponse::new(status, "text/html", html);
            }
        };
        match written {
            Ok(body) => ServerResponse::new(StatusCode::OK, form.content_type(), body)
                // It has secrets in it.
                .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // A text of the configuration that XML cannot hold.
            Err(_) => ServerResponse::status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn judge(&mut self, grid: &mut Grid, attempt: &Attempt<'_>, request: &LoginRequest) -> Verdict {
        if self.failures.is_blocked(attempt.now, attempt.from) {
            return Verdict::refusal("key", "Too many wrong passwords; wait a minute.");
        }
        let key = key_of(&request.name);
        let entry = self.accounts.get_mut(&key);
        let Some(entry) = entry.filter(|entry| entry.account.password == request.password) else {
            self.stats.wrong_keys += 1;
            self.failures.count(attempt.now, attempt.from);
            // The same for a wrong name: nobody learns which names there are.
            return Verdict::refusal("key", "The name or the password is wrong.");
        };
        if let Some(verdict) = scripted(entry, attempt, request, &self.addresses.login_url) {
            return verdict;
        }
        if entry.account.script.second_factor.is_some() && entry.mfa_hash.is_empty() {
            entry.mfa_hash = Secret::new(secret_id(self.secrets.as_mut()).simple().to_string());
        }
        let (name, mfa_hash) = (entry.account.name.clone(), entry.mfa_hash.clone());
        let agent_id = entry.account.agent_id;
        if let Some(code) = grid.code_of(agent_id) {
            let is_in = grid.home(code).is_some();
            grid.kick(attempt.now, code, "You logged in elsewhere.");
            if is_in {
                let text = "You are logged in already. That session was ended: try again.";
                return Verdict::refusal("presence", text);
            }
        }
        self.let_in(grid, attempt, request, (&name, mfa_hash), agent_id)
    }

    fn let_in(
        &mut self,
        grid: &mut Grid,
        attempt: &Attempt<'_>,
        request: &LoginRequest,
        (account, mfa_hash): (&AccountName, Secret),
        agent_id: Uuid,
    ) -> Verdict {
        let Some((region, position, word)) = place_of(grid, agent_id, &request.start) else {
            return Verdict::refusal("connect", "The grid has no regions.");
        };
        let mut draws = 0;
        let secure_session_id = secret_id(self.secrets.as_mut());
        let ids = loop {
            let ids = draw_ids(agent_id, self.secrets.as_mut());
            let (first_name, last_name) = (account.first.clone(), account.last.clone());
            let guest = Guest { ids, secure_session_id, first_name, last_name };
            draws += 1;
            match grid.admit(attempt.now, guest, region, position) {
                Ok(()) => break ids,
                Err(AdmitError::CodeTaken) if draws < DRAWS_MAX => {}
                Err(error) => return Verdict::refusal("connect", format!("No entry: {error}.")),
            }
        };
        let mut success = self.success(grid, &ids, secure_session_id, region, word);
        success.first_name.clone_from(&account.first);
        success.last_name.clone_from(&account.last);
        success.mfa_hash = mfa_hash;
        success.seconds_since_epoch = i64::try_from(attempt.wall).ok();
        Verdict::Reply(LoginReply::Success(Box::new(success)))
    }

    fn success(
        &self,
        grid: &mut Grid,
        ids: &AgentIds,
        secure: Uuid,
        region: RegionId,
        word: &str,
    ) -> LoginSuccess {
        let seed = grid.seed(region, ids.circuit_code);
        let seed = seed.map_or_else(String::new, |seed| seed.url().to_owned());
        let config = grid.region(region);
        let (port, handle) = config.map_or((0, 0), |config| (config.addr.port(), config.handle()));
        let mut success = LoginSuccess::new(
            ids.agent_id,
            ids.session_id,
            secure,
            ids.circuit_code,
            (self.addresses.ip, port),
            seed,
        );
        // The halves of a handle are metres.
        (success.region_x, success.region_y) = ((handle >> 32) as u32, handle as u32);
        success.http_port = Some(self.addresses.http_port);
        success.region_size = Some([256, 256]);
        success.look_at = Some(LOOK_AT);
        success.start_location = Some(word.to_owned());
        let (home, position, look_at) = grid.home_of(ids.agent_id);
        let handle = grid.region(home).map_or(0, RegionConfig::handle);
        let array = |place: Vector3| [place.x, place.y, place.z];
        success.home = Some(Home {
            region: [(handle >> 32) as u32, handle as u32],
            position: array(position),
            look_at: array(look_at),
        });
        (success.agent_access, success.agent_access_max) = (Some("A".into()), Some("A".into()));
        success.inventory_root = Some(inventory::root(ids.agent_id));
        success.inventory_skeleton = inventory::skeleton(ids.agent_id);
        success.max_agent_groups = Some(0);
        success.message = Some("Welcome.".into());
        let blacklist = ["EnableSimulator", "TeleportFinish", "CrossedRegion", "OpenCircuit"];
        success.udp_blacklist = blacklist.map(str::to_owned).to_vec();
        success
    }
}

/// What the script of an account says to a request; `None` when it is let in.
fn scripted(
    entry: &mut Entry,
    attempt: &Attempt<'_>,
    request: &LoginRequest,
    login_url: &str,
) -> Option<Verdict> {
    let script = &mut entry.account.script;
    match script.answers.pop_front() {
        Some(ScriptedAnswer::Refusal(refusal)) => {
            return Some(Verdict::Reply(LoginReply::Refused(refusal)));
        }
        Some(ScriptedAnswer::Fault(fault)) => return Some(Verdict::Fault(fault)),
        Some(ScriptedAnswer::Page { status, html }) => return Some(Verdict::Page { status, html }),
        None => {}
    }
    let hops = attempt.path.strip_prefix(REDIRECTED).and_then(|hops| hops.parse::<u32>().ok());
    let hops = hops.unwrap_or(0);
    if hops < script.redirects {
        // It is smaller than another number. One that never ends goes back to the beginning.
        let next = if script.redirects == u32::MAX { 1 } else { hops + 1 };
        return Some(Verdict::Reply(LoginReply::Indeterminate(Redirect {
            next_url: format!("{}{}{next}", login_url.trim_end_matches('/'), REDIRECTED),
            next_method: Some(twinspan_xmlrpc::login::LOGIN_METHOD.into()),
            next_duration: None,
            message: Some("Another server takes care of you.".into()),
        })));
    }
    if let Some(factor) = &script.second_factor {
        let knows = !request.token.is_empty() && request.token == *factor;
        let knew = !entry.mfa_hash.is_empty() && request.mfa_hash == entry.mfa_hash;
        if !knows && !knew {
            let text = "The code of your second factor is needed.";
            return Some(Verdict::refusal("mfa_challenge", text));
        }
    }
    if let Some(terms) = script.terms.as_ref().filter(|_| !request.agree_to_tos) {
        return Some(Verdict::refusal("tos", terms.as_str()));
    }
    if let Some(critical) = script.critical.as_ref().filter(|_| !request.read_critical) {
        return Some(Verdict::refusal("critical", critical.as_str()));
    }
    None
}

/// Where somebody begins, and what that is called.
fn place_of(
    grid: &Grid,
    agent_id: Uuid,
    start: &StartLocation,
) -> Option<(RegionId, Vector3, &'static str)> {
    let [x, y, z] = MIDDLE;
    let middle = Vector3::new(x, y, z);
    let (first, _) = grid.regions().next()?;
    Some(match start {
        StartLocation::Last => match grid.left_from(agent_id) {
            Some((region, position)) => (region, position, "last"),
            None => (first, middle, "last"),
        },
        StartLocation::Home => {
            let (region, position, _) = grid.home_of(agent_id);
            (region, position, "home")
        }
        StartLocation::Region { name, position: [x, y, z] } => {
            let mut regions = grid.regions();
            match regions.find(|(_, config)| config.name.eq_ignore_ascii_case(name)) {
                Some((region, _)) => {
                    let [x, y, z] = [*x, *y, *z].map(f32::from);
                    (region, Vector3::new(x, y, z), "url")
                }
                None => (first, middle, "safe"),
            }
        }
        StartLocation::Other(_) => (first, middle, "safe"),
    })
}

fn draw_ids(agent_id: Uuid, secrets: &mut dyn SecretSource) -> AgentIds {
    let mut code = [0; 4];
    secrets.fill(&mut code);
    // Zero stands for none. The reply has numbers with a sign, which not every viewer takes off.
    let circuit_code = (u32::from_ne_bytes(code) >> 1).max(1);
    AgentIds { agent_id, session_id: secret_id(secrets), circuit_code }
}

/// An id that nobody guesses, marked as random (version 4).
fn secret_id(secrets: &mut dyn SecretSource) -> Uuid {
    let mut bytes = [0; 16];
    secrets.fill(&mut bytes);
    let cleared = u128::from_ne_bytes(bytes) & !(0xF << 76 | 0x3 << 62);
    Uuid::from_u128(cleared | 0x4 << 76 | 0x2 << 62)
}

#[cfg(test)]
mod tests;
