//! Names that machines may not use: clocks, threads, sockets, runtimes, unordered maps, the
//! platform's float functions.

use std::collections::BTreeSet;

use crate::paths::{Kind, NamedPath, paths};
use crate::report::Finding;
use crate::source::Source;
use crate::tree::Tree;

/// Crates whose protocol logic is machines, and in which all else is listed in [`DRIVERS`].
const MACHINES: &[&str] = &[
    "twinspan-core",
    "twinspan-admission",
    "twinspan-reliable",
    "twinspan-world",
    "twinspan-lludp",
    "twinspan-session",
    "twinspan-topic",
    "twinspan-sim",
    "twinspan-game",
    "twinspan-peer",
    "twinspan-hub",
    "twinspan-viewer",
    "twinspan-grid",
];

/// Files and directories of those crates that drive machines: they wait, or call the system.
const DRIVERS: &[&str] = &[
    "crates/twinspan-game/src/real.rs",
    "crates/twinspan-game/src/real/",
    "crates/twinspan-hub/src/auto.rs",
    "crates/twinspan-hub/src/builder.rs",
    "crates/twinspan-hub/src/choose.rs",
    "crates/twinspan-hub/src/discover/herald.rs",
    "crates/twinspan-hub/src/discover/host.rs",
    "crates/twinspan-hub/src/discover/mesh.rs",
    "crates/twinspan-hub/src/measure.rs",
    "crates/twinspan-hub/src/port.rs",
    "crates/twinspan-hub/src/quic.rs",
    "crates/twinspan-hub/src/quic/",
    "crates/twinspan-hub/src/road.rs",
    "crates/twinspan-hub/src/seal.rs",
    "crates/twinspan-hub/src/side.rs",
    "crates/twinspan-hub/src/stream/datagrams.rs",
    "crates/twinspan-hub/src/stream/memory.rs",
    "crates/twinspan-hub/src/stream/node.rs",
    "crates/twinspan-hub/src/stream/open.rs",
    "crates/twinspan-hub/src/stream/roads.rs",
    "crates/twinspan-hub/src/stream/tcp.rs",
    "crates/twinspan-hub/src/system.rs",
    "crates/twinspan-hub/src/udp.rs",
    "crates/twinspan-hub/src/udp/",
    "crates/twinspan-viewer/src/client.rs",
    "crates/twinspan-viewer/src/files.rs",
    "crates/twinspan-viewer/src/handlers/pool.rs",
];

/// Crates whose handles speak to a core on another thread: `tokio::sync` has neither clock nor
/// socket, and wakes in the order of asking.
const CHANNELS: &[&str] = &["crates/twinspan-viewer/"];

const TABLE: &str = "DRIVERS in xtask/src/names.rs";

/// Float functions whose last bits differ between platforms. `sqrt`, `mul_add` and the remainders
/// are exact everywhere.
const FLOAT_FUNCTIONS: &[&str] = &[
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "exp",
    "exp2", "exp_m1", "hypot", "ln", "ln_1p", "log", "log10", "log2", "powf", "powi", "sin",
    "sin_cos", "sinh", "tan", "tanh",
];

/// Packages that draw from the system, or hash with what they drew from it.
const FOREIGN_RANDOMNESS: &[&str] = &[
    "ahash",
    "fastrand",
    "foldhash",
    "getrandom",
    "hashbrown",
    "nanorand",
    "oorandom",
    "rand",
    "rand_core",
];

/// Instructions that read clocks and entropy without a call.
const INSTRUCTIONS: &[&str] =
    &["__rdtscp", "_rdrand16_step", "_rdrand32_step", "_rdrand64_step", "_rdseed64_step", "_rdtsc"];

/// Methods that show the order of an unordered map.
const ORDER_METHODS: &[&str] = &[
    "drain",
    "extract_if",
    "into_iter",
    "into_keys",
    "into_values",
    "iter",
    "iter_mut",
    "keys",
    "retain",
    "values",
    "values_mut",
];

/// Checks every machine file.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let machines = tree.sources.iter().filter(|(path, _)| is_machine(path));
    machines.flat_map(|(path, source)| file(path, source)).collect()
}

/// Entries of the table of drivers that name nothing in the tree.
pub(crate) fn check_table(tree: &Tree) -> Vec<Finding> {
    stale(tree, DRIVERS)
}

fn stale(tree: &Tree, drivers: &[&str]) -> Vec<Finding> {
    let stale = drivers.iter().filter(|driver| !tree.paths.contains(driver.trim_end_matches('/')));
    let what = |driver| format!("{TABLE} lists `{driver}`, which is not there");
    let finding = |driver| Finding::new("xtask/src/names.rs", 1, what(driver), "remove the entry");
    stale.map(finding).collect()
}

fn is_machine(path: &str) -> bool {
    let mut parts = path.split('/');
    let (top, name, source) = (parts.next(), parts.next(), parts.next());
    let within = top == Some("crates") && source == Some("src");
    let is_driver = DRIVERS.iter().any(|driver| path.starts_with(driver));
    within && name.is_some_and(|name| MACHINES.contains(&name)) && !is_driver
}

fn file(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for named in paths(source).iter().filter(|named| !named.test) {
        let maps = map_finding(path, source, named);
        findings.extend(maps.or_else(|| path_finding(path, named)));
    }
    findings.extend(float_methods(path, source));
    findings.extend(iterated_maps(path, source));
    findings
}

/// Why a path may not stand in a machine.
fn path_finding(path: &str, named: &NamedPath) -> Option<Finding> {
    let whole = named.segments.join("::");
    let has = |name: &str| named.segments.iter().any(|segment| segment == name);
    let last = named.segments.last().map_or("", String::as_str);
    let is_std =
        |module: &str| named.starts_with(&["std", module]) || named.starts_with(&["core", module]);
    let is_duration =
        is_std("time") && named.segments.get(2).is_some_and(|name| name == "Duration");
    let hides = named.segments.len() == 2 && named.starts_with(&["std", "*"]);
    let socket = ["UdpSocket", "TcpStream", "TcpListener", "ToSocketAddrs", "*", "self"];
    let remedy = if has("Instant") || has("SystemTime") || (is_std("time") && !is_duration) {
        "take a twinspan_core::time::Timestamp as an argument; of std::time only Duration"
    } else if is_std("thread") {
        "leave threads to a driver"
    } else if is_std("net")
        && named.segments.iter().skip(2).any(|name| socket.contains(&name.as_str()))
    {
        "take and give datagrams; sockets belong behind the seam, and addresses are named one by one"
    } else if is_std("net") && named.segments.len() == 2 {
        "import the address types one by one, so that sockets stay visible"
    } else if is_std("fs") || is_std("env") || is_std("process") || hides {
        "leave files, the environment and processes to a driver"
    } else if named.starts_with(&["tokio", "sync"])
        && CHANNELS.iter().any(|start| path.starts_with(start))
    {
        return None;
    } else if named.starts_with(&["tokio"])
        || named.starts_with(&["async_std"])
        || named.starts_with(&["mio"])
    {
        "leave waiting to a driver behind the seam"
    } else if last == "select"
        && (named.starts_with(&["futures"]) || named.starts_with(&["futures_util"]))
    {
        "poll in an order of your own: this macro shuffles with what no seed decides"
    } else if FOREIGN_RANDOMNESS.iter().any(|package| named.starts_with(&[package]))
        && (named.segments.len() > 1 || named.kind != Kind::Plain)
    {
        "draw from a named twinspan_core::random::Stream"
    } else if INSTRUCTIONS.contains(&last) {
        "take the time as an argument, and draw from a named twinspan_core::random::Stream"
    } else if has("RandomState") {
        "use an ordered collection, or a hash with a fixed key"
    } else if matches!(named.segments.as_slice(), [.., float, _] if float == "f32" || float == "f64")
        && FLOAT_FUNCTIONS.contains(&last)
    {
        "use libm, whose results are the same everywhere"
    } else {
        return None;
    };
    let remedy = format!("{remedy}; a driver file is listed in {TABLE}");
    Some(Finding::new(path, named.line, format!("`{whole}` in a machine"), remedy))
}

/// What a comment says that argues for a map without order.
const REASONS: &[&str] = &["not iterated: ", "never iterated: "];

/// Maps without order: every mention outside an import says why their order cannot show.
fn map_finding(path: &str, source: &Source, named: &NamedPath) -> Option<Finding> {
    let map = named.segments.iter().find(|name| *name == "HashMap" || *name == "HashSet");
    if named.starts_with(&["std", "collections", "*"]) {
        let what = "`std::collections::*` in a machine".to_owned();
        return Some(Finding::new(path, named.line, what, "import collections by name"));
    }
    let map = map?;
    let (what, remedy) = match named.kind {
        Kind::Import => return None,
        Kind::Renamed => (format!("`{map}` under another name"), "import it under its own"),
        Kind::Plain if source.is_remarked(named.line, REASONS) => return None,
        // `HashMap::new()` of a field whose declaration gave the reason needs no second one.
        Kind::Plain if named.segments.last() != Some(map) && gives_reason(source) => return None,
        Kind::Plain => (
            format!("`{map}` in a machine"),
            "use a BTreeMap, a Vec or a slab, or say `// not iterated: why` on the line before",
        ),
    };
    Some(Finding::new(path, named.line, what, remedy))
}

fn gives_reason(source: &Source) -> bool {
    source.comments.iter().any(|comment| comment.says_any(REASONS))
}

fn float_methods(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.test) {
        let Some(name) = source.texts(at + 1).next() else { break };
        let called = token.text == "." && FLOAT_FUNCTIONS.contains(&name);
        if called && source.reads(at + 2, &["("]) {
            let what = format!("`.{name}()` in a machine");
            let remedy = format!("use libm::{name}, whose result is the same everywhere");
            findings.push(Finding::new(path, token.line, what, remedy));
        }
    }
    findings
}

/// Names bound to an unordered map whose order is looked at, whatever a comment says.
fn iterated_maps(path: &str, source: &Source) -> Vec<Finding> {
    let maps = map_names(source);
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.test || !maps.contains(token.text.as_str()) {
            continue;
        }
        let mut after = source.texts(at + 1);
        let method = match (after.next(), after.next()) {
            (Some("."), Some(method)) if ORDER_METHODS.contains(&method) => Some(method),
            (Some("{"), _) if in_for_head(source, at) => Some("for"),
            _ => None,
        };
        if let Some(method) = method {
            let what = format!("`{}` is a map without order, and `{method}` shows it", token.text);
            findings.push(Finding::new(path, token.line, what, "use a BTreeMap, a Vec or a slab"));
        }
    }
    findings
}

/// Names that are declared as `name: [path::]HashMap` or `name = [path::]HashMap`.
fn map_names(source: &Source) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.text != "HashMap" && token.text != "HashSet" {
            continue;
        }
        let mut start = at;
        while start >= 2 && source.reads(start - 1, &["::"]) {
            start -= 2;
        }
        while start >= 1 && is_reference(source, start - 1) {
            start -= 1;
        }
        let Some(sign) = start.checked_sub(1) else { continue };
        if source.reads(sign, &[":"]) || source.reads(sign, &["="]) {
            names.extend(sign.checked_sub(1).and_then(|name| source.texts(name).next()));
        }
    }
    names
}

fn is_reference(source: &Source, at: usize) -> bool {
    matches!(source.texts(at).next(), Some("&" | "mut"))
}

/// Whether the tokens before `at` read `in`, `in &`, `in &mut`, `in self.` and the like.
fn in_for_head(source: &Source, at: usize) -> bool {
    let mut before = source.tokens.get(..at).unwrap_or_default().iter().rev();
    let skipped = ["&", "mut", "self", "."];
    before.find(|token| !skipped.contains(&token.text.as_str())).is_some_and(|t| t.text == "in")
}

#[cfg(test)]
mod tests;
