//! What is known of a region.

use std::net::SocketAddr;

use twinspan_lludp::Uuid;

/// What a region said it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its simulator.
    pub address: SocketAddr,
    /// Its place on the grid: metres of its south-west corner, from the west in the high half; 0
    /// while it is not known.
    pub handle: u64,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// What is allowed in it, as the protocol has it.
    pub flags: u32,
}
