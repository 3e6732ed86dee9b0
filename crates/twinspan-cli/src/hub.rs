//! `twinspan hub`: topics, and the roads to them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use twinspan_hub::{Endpoint, FoundHub, Measured, explain};

use crate::args::{HubCommand, HubExplainArgs};
use crate::error::CommandError;

/// What is told of an endpoint.
#[derive(Debug, Serialize)]
struct Explained {
    endpoint: String,
    transport: Option<String>,
    reason: String,
    is_taken: Option<bool>,
    measured: Vec<Way>,
    found: Vec<Found>,
    notes: Vec<String>,
}

/// What was measured on one road.
#[derive(Debug, Serialize)]
struct Way {
    transport: String,
    address: SocketAddr,
    probes: u32,
    lost: u32,
    rtt_min_us: Option<f64>,
    rtt_median_us: Option<f64>,
}

/// A hub that announces the topic on this machine.
#[derive(Debug, Serialize)]
struct Found {
    publishes: bool,
    receives: bool,
    carries: String,
    roads: Vec<Road>,
}

/// Where it listens.
#[derive(Debug, Serialize)]
struct Road {
    transport: String,
    address: SocketAddr,
}

fn micros(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64() * 1e6)
}

impl From<&Measured> for Way {
    fn from(it: &Measured) -> Self {
        Self {
            transport: it.transport.to_string(),
            address: it.address,
            probes: it.probes,
            lost: it.lost,
            rtt_min_us: micros(it.rtt_min),
            rtt_median_us: micros(it.rtt_median),
        }
    }
}

impl From<&FoundHub> for Found {
    fn from(it: &FoundHub) -> Self {
        let roads = it.roads.iter();
        let road = |(transport, address): &(twinspan_hub::Transport, SocketAddr)| Road {
            transport: transport.to_string(),
            address: *address,
        };
        Self {
            publishes: it.publishes,
            receives: it.receives,
            carries: it.carries.clone(),
            roads: roads.map(road).collect(),
        }
    }
}

/// Runs a command.
///
/// # Errors
/// [`CommandError`] when the endpoint is none or nothing can be told.
pub fn run(command: &HubCommand) -> Result<u8, CommandError> {
    match command {
        HubCommand::Explain(args) => run_explain(args),
    }
}

/// Tells the road, and ends with 1 where there is none.
fn run_explain(args: &HubExplainArgs) -> Result<u8, CommandError> {
    let endpoint: Endpoint = args.endpoint.parse().map_err(CommandError::Endpoint)?;
    let mut told = Explained {
        endpoint: endpoint.to_string(),
        transport: None,
        reason: String::new(),
        is_taken: None,
        measured: Vec::new(),
        found: Vec::new(),
        notes: Vec::new(),
    };
    match explain(&endpoint) {
        Ok(found) => {
            told.transport = Some(found.transport.to_string());
            told.reason = found.reason;
            told.is_taken = found.is_taken;
            told.measured = found.measured.iter().map(Way::from).collect();
            told.found = found.found.iter().map(Found::from).collect();
            told.notes = found.notes;
        }
        Err(error) => told.reason = error.to_string(),
    }
    let mut out = io::stdout().lock();
    let written = if args.json {
        serde_json::to_writer(&mut out, &told).map_err(Into::into).and_then(|()| writeln!(out))
    } else {
        write_text(&mut out, &told)
    };
    written.map_err(CommandError::Output)?;
    Ok(u8::from(told.transport.is_none()))
}

fn write_text(out: &mut impl Write, told: &Explained) -> io::Result<()> {
    let road = told.transport.as_deref().unwrap_or("none");
    writeln!(out, "{}: {road}: {}", told.endpoint, told.reason)?;
    match told.is_taken {
        Some(true) if told.measured.is_empty() => {
            writeln!(out, "somebody takes part in the topic now")?;
        }
        Some(false) if told.measured.is_empty() => {
            writeln!(out, "nobody takes part in the topic now")?;
        }
        _ => {}
    }
    for note in &told.notes {
        writeln!(out, "{note}")?;
    }
    for way in &told.measured {
        let Way { transport, address, probes, lost, rtt_min_us, rtt_median_us } = way;
        write!(out, "{transport} to {address}: {lost} of {probes} probes lost")?;
        if let (Some(min), Some(median)) = (rtt_min_us, rtt_median_us) {
            write!(out, ", round trip {min:.0} us at least and {median:.0} us in the middle")?;
        }
        writeln!(out)?;
    }
    for hub in &told.found {
        let does = match (hub.publishes, hub.receives) {
            (true, true) => "publishes and receives",
            (true, false) => "publishes",
            _ => "receives",
        };
        write!(out, "a hub {does} {}", hub.carries)?;
        for Road { transport, address } in &hub.roads {
            write!(out, ", {transport} at {address}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
