//! What a login gave.

use std::fmt;
use std::net::SocketAddr;

use twinspan_circuit::{AgentIds, Seed};
use twinspan_lludp::Uuid;
use twinspan_xmlrpc::login::{Buddy, InventoryFolder, LoginSuccess, Secret};

use crate::login::LoginError;

/// Somebody's session on a grid, as login gave it. Ids that let others act for the avatar are shown
/// by no `Debug`.
#[derive(Clone, PartialEq)]
pub struct SessionInfo {
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// The avatar.
    pub agent_id: Uuid,
    /// Its session.
    pub session_id: Uuid,
    /// Its session with services behind the grid.
    pub secure_session_id: Uuid,
    /// What opens circuits to simulators.
    pub circuit_code: u32,
    /// The first region's simulator.
    pub simulator: SocketAddr,
    /// The first region's place on the grid.
    pub region_handle: u64,
    /// Where the avatar begins, in the grid's words.
    pub start_location: Option<String>,
    /// A text of the grid for the user.
    pub message: Option<String>,
    /// Seconds since 1970 by the grid's clock.
    pub grid_seconds: Option<i64>,
    /// What the avatar may see: `PG`, `M` or `A`.
    pub access: Option<String>,
    /// The root of its inventory.
    pub inventory_root: Option<Uuid>,
    /// The folders of its inventory.
    pub inventory: Vec<InventoryFolder>,
    /// The root of the library.
    pub library_root: Option<Uuid>,
    /// Who owns the library.
    pub library_owner: Option<Uuid>,
    /// The folders of the library.
    pub library: Vec<InventoryFolder>,
    /// Its friends.
    pub buddies: Vec<Buddy>,
    seed: Option<Seed>,
    mfa_hash: Secret,
}

impl SessionInfo {
    /// Takes what login gave.
    ///
    /// # Errors
    /// [`LoginError::Unusable`] when the simulator is at no address that could be one, or the seed
    /// is longer than any.
    pub fn of(login: LoginSuccess) -> Result<Self, LoginError> {
        let ip = login.sim_ip;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || login.sim_port == 0 {
            return Err(LoginError::Unusable { field: "sim_ip" });
        }
        let seed = Seed::new(login.seed_capability.reveal());
        if seed.is_none() {
            return Err(LoginError::Unusable { field: "seed_capability" });
        }
        Ok(Self {
            agent_id: login.agent_id,
            session_id: login.session_id,
            secure_session_id: login.secure_session_id,
            circuit_code: login.circuit_code,
            simulator: SocketAddr::from((ip, login.sim_port)),
            region_handle: login.region_handle(),
            start_location: login.start_location,
            message: login.message,
            grid_seconds: login.seconds_since_epoch,
            access: login.agent_access,
            inventory_root: login.inventory_root,
            inventory: login.inventory_skeleton,
            library_root: login.library_root,
            library_owner: login.library_owner,
            library: login.library_skeleton,
            buddies: login.buddies,
            first_name: login.first_name,
            last_name: login.last_name,
            seed,
            mfa_hash: login.mfa_hash,
        })
    }

    /// What circuits are opened with.
    pub const fn ids(&self) -> AgentIds {
        AgentIds {
            agent_id: self.agent_id,
            session_id: self.session_id,
            circuit_code: self.circuit_code,
        }
    }

    /// The first region's first capability.
    pub const fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// What is to be kept for the next login with a second factor; empty without one.
    pub const fn mfa_hash(&self) -> &Secret {
        &self.mfa_hash
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("first_name", &self.first_name)
            .field("last_name", &self.last_name)
            .field("agent_id", &self.agent_id)
            .field("simulator", &self.simulator)
            .field("region_handle", &self.region_handle)
            .field("start_location", &self.start_location)
            .field("inventory", &self.inventory.len())
            .field("library", &self.library.len())
            .field("buddies", &self.buddies.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success(ip: [u8; 4], port: u16, seed: &str) -> LoginSuccess {
        let [agent, session, secure] = [1, 0xabcd_0002, 0xabcd_0003].map(Uuid::from_u128);
        LoginSuccess::new(agent, session, secure, 77_777_777, (ip.into(), port), seed)
    }

    #[test]
    fn no_secret_is_shown() {
        let login = success([10, 0, 0, 2], 9_000, "http://grid/CAPS/secret");
        let session = SessionInfo::of(login).unwrap();
        let shown = format!("{session:?}");
        for secret in ["abcd0002", "abcd0003", "77777777", "secret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(session.ids().circuit_code, 77_777_777);
    }

    #[test]
    fn a_simulator_is_somewhere() {
        for (ip, port) in
            [([0, 0, 0, 0], 1), ([224, 0, 0, 1], 1), ([255; 4], 1), ([10, 0, 0, 1], 0)]
        {
            let session = SessionInfo::of(success(ip, port, "http://grid/"));
            assert!(matches!(session, Err(LoginError::Unusable { field: "sim_ip" })));
        }
        let session = SessionInfo::of(success([10, 0, 0, 1], 1, &"x".repeat(5_000)));
        assert!(matches!(session, Err(LoginError::Unusable { field: "seed_capability" })));
    }
}
