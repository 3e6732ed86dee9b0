//! `twinspan hub`: topics, and the roads to them.

use std::io::{self, Write};

use serde::Serialize;
use twinspan_hub::{Endpoint, explain};

use crate::args::{HubCommand, HubExplainArgs};
use crate::error::CommandError;

/// What is told of an endpoint.
#[derive(Debug, Serialize)]
struct Explained {
    endpoint: String,
    transport: Option<String>,
    reason: String,
    is_taken: Option<bool>,
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
    let explained = match explain(&endpoint) {
        Ok(found) => Explained {
            endpoint: endpoint.to_string(),
            transport: Some(found.transport.to_string()),
            reason: found.reason,
            is_taken: found.is_taken,
        },
        Err(error) => Explained {
            endpoint: endpoint.to_string(),
            transport: None,
            reason: error.to_string(),
            is_taken: None,
        },
    };
    let mut out = io::stdout().lock();
    let told = if args.json {
        serde_json::to_writer(&mut out, &explained).map_err(Into::into).and_then(|()| writeln!(out))
    } else {
        let road = explained.transport.as_deref().unwrap_or("none");
        let now = match explained.is_taken {
            Some(true) => "somebody takes part in the topic now\n",
            Some(false) => "nobody takes part in the topic now\n",
            None => "",
        };
        write!(out, "{}: {road}: {}\n{now}", explained.endpoint, explained.reason)
    };
    told.map_err(CommandError::Output)?;
    Ok(u8::from(explained.transport.is_none()))
}
