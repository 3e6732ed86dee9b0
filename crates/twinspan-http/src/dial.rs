//! A connection to a host by name: its addresses one after the other.

use twinspan_core::time::Timestamp;
use twinspan_provider::{ConnectError, Env, ResolveError, TcpOptions};

use crate::target::Target;

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Dialed {
    Resolve(ResolveError),
    Connect(ConnectError),
}

/// Connects to the first of the target's addresses that answers. Each has an equal share of the time
/// that is left until `deadline`, so that one which is silent does not take it all.
pub(crate) async fn dial<E: Env>(
    env: &E,
    target: &Target,
    deadline: Timestamp,
) -> Result<E::Tcp, Dialed> {
    let resolved = env.resolve(&target.host, target.port).await.map_err(Dialed::Resolve)?;
    let mut left = resolved.addresses.len();
    let mut failed = None;
    for address in resolved.addresses {
        let share = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let connect_timeout = deadline.since(env.now()) / share;
        let options = TcpOptions { connect_timeout, ..TcpOptions::default() };
        match env.connect(address, &options).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
        left = left.saturating_sub(1);
    }
    Err(match failed {
        Some(error) => Dialed::Connect(error),
        // A name that was resolved has an address.
        None => Dialed::Resolve(ResolveError::NotFound { name: target.host.clone() }),
    })
}
