//! Names of simulated hosts: a table, and the ways in which a lookup fails.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::{draw, unit};
use twinspan_provider::dns::{DNS_PORT, DnsConfig, resolve_by_dns};
use twinspan_provider::{RESOLVE_TIMEOUT, ResolveError, Resolved, Timer, resolve_special};
use xxhash_rust::xxh3::xxh3_64;

use crate::chaos::Strike;
use crate::env::SimEnv;
use crate::plan::flow_key;
use crate::timer::SimTimer;
use crate::trace::TraceKind;
use crate::world::{HostId, State, World};

/// Names of one simulation.
pub const NAMES_MAX: usize = 1 << 16;

/// The address of a name that was never another: nobody's, for documentation.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// How a lookup fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameFailure {
    /// The name servers say that there is no such name (NXDOMAIN).
    Unknown,
    /// The name servers fail (SERVFAIL).
    ServerFailure,
    /// The name servers do not answer.
    Timeout,
}

impl NameFailure {
    const ALL: [Self; 3] = [Self::Unknown, Self::ServerFailure, Self::Timeout];

    fn kind(self) -> FaultKind {
        match self {
            Self::Unknown => FaultKind::NameUnknown,
            Self::ServerFailure => FaultKind::NameFailure,
            Self::Timeout => FaultKind::NameTimeout,
        }
    }
}

/// What the name servers say of a name.
#[derive(Clone)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>, Duration),
    Failure(NameFailure),
}

#[derive(Default)]
pub(crate) struct Names {
    table: BTreeMap<String, Answer>,
    /// What the names were before, which an old copy of the table still says.
    former: BTreeMap<String, Answer>,
    /// Whom hosts ask; where nobody, the table answers.
    pub(crate) server: Option<IpAddr>,
}

/// What befalls an answer on the wire besides failures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OnWire {
    /// It says that it did not fit.
    pub(crate) is_cut: bool,
    /// A forged one comes before it.
    pub(crate) is_forged: bool,
}

/// Addresses and how long they hold, nothing of a name that nobody has, or how it failed.
pub(crate) type WireAnswer = Result<Option<(Vec<IpAddr>, Duration)>, NameFailure>;

/// Names are the same in any case and with a dot at their end.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl World {
    pub(crate) fn set_name(&self, name: &str, answer: Answer) {
        let state = &mut *self.state.borrow_mut();
        let table = &mut state.names.table;
        let name = plain(name);
        assert!(
            table.len() < NAMES_MAX || table.contains_key(&name),
            "a simulation holds {NAMES_MAX} names at most"
        );
        let hash = xxh3_64(name.as_bytes());
        let failure = match &answer {
            Answer::Failure(failure) => {
                state.faults.inject(failure.kind());
                1 + failure.kind().index() as u64
            }
            Answer::Addresses(..) => 0,
        };
        if let Some(former) = table.insert(name.clone(), answer)
            && matches!(former, Answer::Addresses(..))
        {
            state.names.former.insert(name, former);
        }
        let ids = [hash, u64::MAX, failure, 0];
        state.trace.record(self.now.get(), TraceKind::Resolve, ids);
    }

    /// What the name servers will say, decided when they are asked.
    fn ask(&self, (id, incarnation): (HostId, u32), name: &str) -> Result<Answer, ResolveError> {
        let state = &mut *self.state.borrow_mut();
        let Some(host) = state.hosts.running(id, incarnation) else {
            let source = twinspan_provider::OffloadError::HostStopped;
            return Err(ResolveError::Offload { name: name.to_owned(), source });
        };
        host.lookups += 1;
        let (ip, number) = (host.ip, host.lookups - 1);
        let plain = plain(name);
        let hash = xxh3_64(plain.as_bytes());
        let key = draw(host.seed, &[hash, host.lookups]);
        let mut answer = state.names.table.get(&plain).cloned();
        let share = self.config.name_failure;
        if share > 0.0 && unit(draw(key, &[1])) < share {
            answer = Some(Answer::Failure(state.fail_by_share(answer.is_some(), draw(key, &[2]))));
        } else if let Some(Answer::Failure(failure)) = &answer {
            state.faults.observe(failure.kind());
        }
        if state.chaos.is_on {
            let former = state.names.former.get(&plain).cloned();
            answer = state.strike_answer(Asked::Table(ip, number), (answer, former));
        }
        let ids = [hash, u64::from(id.0), key, 0];
        state.trace.record(self.now.get(), TraceKind::Resolve, ids);
        Ok(answer.unwrap_or(Answer::Addresses(Vec::new(), Duration::ZERO)))
    }

    /// What a name server on the host `id` says to a question that came from `ends.0`, decided when it
    /// comes.
    pub(crate) fn answer_by_wire(
        &self,
        id: HostId,
        name: &str,
        ends: (SocketAddr, SocketAddr),
        (number, is_stream): (u64, bool),
    ) -> (WireAnswer, OnWire) {
        let key = draw(flow_key(ends.0, ends.1), &[number]);
        let state = &mut *self.state.borrow_mut();
        let plain = plain(name);
        let hash = xxh3_64(plain.as_bytes());
        let mut answer = state.names.table.get(&plain).cloned();
        let share = self.config.name_failure;
        if share > 0.0 && unit(draw(key, &[1])) < share {
            answer = Some(Answer::Failure(state.fail_by_share(answer.is_some(), draw(key, &[2]))));
        } else if let Some(Answer::Failure(failure)) = &answer {
            state.faults.observe(failure.kind());
        }
        let mut on_wire = OnWire::default();
        if state.chaos.is_on {
            let former = state.names.former.get(&plain).cloned();
            let asked = Asked::Server(ends, number);
            answer = state.strike_answer(asked, (answer, former));
            if !is_stream {
                on_wire.is_cut = state.strike_asked(FaultKind::NameTruncated, asked).is_some();
                on_wire.is_forged = state.strike_asked(FaultKind::NameForged, asked).is_some();
            }
        }
        let ids = [hash, u64::from(id.0), key, 1];
        state.trace.record(self.now.get(), TraceKind::Resolve, ids);
        let answer = match answer {
            None => Ok(None),
            Some(Answer::Addresses(ips, ttl)) => Ok(Some((ips, ttl))),
            Some(Answer::Failure(failure)) => Err(failure),
        };
        (answer, on_wire)
    }
}

/// Who was asked, and the how-manyth time: what strikes are told apart by.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// The table, by a host.
    Table(IpAddr, u64),
    /// A name server, by the first of two addresses; the number is that of the question.
    Server((SocketAddr, SocketAddr), u64),
}

impl State {
    /// Which way an answer fails that the share of failures befalls.
    fn fail_by_share(&mut self, is_known: bool, bits: u64) -> NameFailure {
        let [unknown, server, timeout] = NameFailure::ALL;
        let failure = match bits % 3 {
            0 => unknown,
            1 => server,
            _ => timeout,
        };
        self.faults.inject(failure.kind());
        // A name that nobody has stays unknown, whoever says so.
        if is_known || failure != NameFailure::Unknown {
            self.faults.observe(failure.kind());
        }
        failure
    }

    fn strike_asked(&mut self, kind: FaultKind, asked: Asked) -> Option<Strike> {
        match asked {
            Asked::Table(ip, number) => self.strike_lookup(kind, (ip, number)),
            Asked::Server(ends, number) => self.strike_way(kind, ends, number),
        }
    }

    /// What planned faults make of an answer.
    fn strike_answer(
        &mut self,
        asked: Asked,
        (answer, former): (Option<Answer>, Option<Answer>),
    ) -> Option<Answer> {
        for failure in NameFailure::ALL {
            let kind = failure.kind();
            if self.strike_asked(kind, asked).is_some() {
                // A name that nobody has stays unknown, whoever says so.
                if answer.is_some() || failure != NameFailure::Unknown {
                    self.faults.observe(kind);
                }
                return Some(Answer::Failure(failure));
            }
        }
        if answer.is_some() && self.strike_asked(FaultKind::NameStale, asked).is_some() {
            self.faults.observe(FaultKind::NameStale);
            return former
                .or_else(|| Some(Answer::Addresses(vec![NOBODY], Duration::from_secs(1))));
        }
        answer
    }
}

/// Asks for a name on behalf of a host: the name server that there is, else the table.
pub(crate) async fn resolve(env: &SimEnv, name: &str, port: u16) -> Result<Resolved, ResolveError> {
    let server = env.parts().0.state.borrow().names.server;
    if let Some(ip) = server {
        let config = DnsConfig::new(SocketAddr::new(ip, DNS_PORT));
        let lookup = resolve_by_dns(env, &config, name, port).await;
        env.note_lookup(&lookup);
        return lookup.answer;
    }
    let (world, host, incarnation) = env.parts();
    by_table(world, (host, incarnation), name, port).await
}

async fn by_table(
    world: &Rc<World>,
    host: (HostId, u32),
    name: &str,
    port: u16,
) -> Result<Resolved, ResolveError> {
    if let Some(answer) = resolve_special(name, port) {
        return answer;
    }
    let answer = world.ask(host, name)?;
    let delay = match answer {
        Answer::Failure(NameFailure::Timeout) => RESOLVE_TIMEOUT,
        _ => world.config.name_delay,
    };
    let mut timer = SimTimer::new(world, host.0);
    timer.set(Some(world.now.get().after(delay)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
    let name = name.to_owned();
    match answer {
        Answer::Addresses(ips, ttl) => Resolved::new(&name, ips, port, Some(ttl)),
        Answer::Failure(NameFailure::Unknown) => Err(ResolveError::NotFound { name }),
        Answer::Failure(NameFailure::ServerFailure) => Err(ResolveError::ServerFailure { name }),
        Answer::Failure(NameFailure::Timeout) => Err(ResolveError::TimedOut { name }),
    }
}
