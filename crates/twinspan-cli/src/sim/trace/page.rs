//! The page: the run as JSON inside one document, which asks nobody for anything.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};
use twinspan_sim::TraceEvent;

use super::{Run, Shown};
use crate::args::SimTraceArgs;

/// Bytes of a datagram that the page shows.
const PAYLOAD_BYTES_SHOWN: usize = 256;

/// The document around the data.
const HEAD: &str = concat!(
    include_str!("head.html"),
    "<style>",
    include_str!("style.css"),
    "</style>\n</head>\n",
    include_str!("body.html"),
    "<script type=\"application/json\" id=\"data\">",
);
const TAIL: &str =
    concat!("</script>\n<script>", include_str!("page.js"), "</script>\n</body>\n</html>\n");

/// Writes the page.
pub(super) fn write(args: &SimTraceArgs, run: &Run, out: &mut impl Write) -> io::Result<()> {
    out.write_all(HEAD.as_bytes())?;
    // Nothing in the data can end the element that it stands in.
    let text = serde_json::to_string(&data(args, run))?.replace('<', "\\u003c");
    out.write_all(text.as_bytes())?;
    out.write_all(TAIL.as_bytes())
}

fn data(args: &SimTraceArgs, run: &Run) -> Value {
    let hosts: Vec<_> = run.legend.hosts().collect();
    let host_at = |ip| hosts.iter().position(|(_, known)| *known == ip);
    let mut kinds: Vec<String> = Vec::new();
    let mut flows: BTreeMap<u64, usize> = BTreeMap::new();
    let mut flow_ends = Vec::new();
    let mut events = Vec::with_capacity(run.collected.events.len());
    for event in &run.collected.events {
        let name = event.kind.to_string();
        let kind = kinds.iter().position(|known| *known == name).unwrap_or_else(|| {
            kinds.push(name);
            kinds.len() - 1
        });
        let flow = flow_of(event).map(|(key, number)| {
            let next = flows.len();
            let index = *flows.entry(key).or_insert(next);
            if index == next {
                let ends = run.legend.flow(key);
                flow_ends.push(ends.map(|(from, to)| {
                    json!([from.to_string(), to.to_string(), host_at(from.ip()), host_at(to.ip())])
                }));
            }
            json!([index, number])
        });
        let Shown { number, at, kind: _, ids, values, hash, host, sent } = event;
        let whole = TraceEvent {
            number: *number,
            at: *at,
            kind: event.kind,
            ids: *ids,
            values,
            hash: *hash,
        };
        let details = run.legend.details(&whole);
        events.push(json!([at.as_nanos(), kind, host, details.trim_start(), flow, sent]));
    }
    let sent = run.collected.sent.iter().map(|sent| {
        let bytes = sent.bytes.get(..PAYLOAD_BYTES_SHOWN).unwrap_or(&sent.bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!([sent.bytes.len(), hex])
    });
    let states = run.collected.states.iter().filter_map(|(event, ip, text)| {
        let host = host_at(*ip)?;
        Some(json!([event, host, text]))
    });
    json!({
        "about": run.about,
        "hash": format!("{:016x}", run.hash),
        "total": run.events,
        "first": args.from,
        "hosts": hosts.iter().map(|(name, ip)| json!([name, ip.to_string()])).collect::<Vec<_>>(),
        "kinds": kinds,
        "flows": flow_ends,
        "events": events,
        "sent": sent.collect::<Vec<_>>(),
        "states": states.collect::<Vec<_>>(),
    })
}

/// The flow and the number of the datagram that an event is about.
fn flow_of(event: &Shown) -> Option<(u64, u64)> {
    match event.kind.fields() {
        ["flow", "number", ..] => Some((event.ids[0], event.ids[1])),
        _ => None,
    }
}
