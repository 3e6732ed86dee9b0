//! The hand on a topology: set it, change links, forget mappings, read what came of it.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::fabric::{Fabric, Place};
use super::{LinkReport, LinkSpec, LinkState, NatReport, Topology, TopologyError};
use crate::sim::Sim;
use crate::trace::TraceKind;
use crate::world::ip_words;

impl Sim {
    /// Lets what the hosts of `topology` send go over its links from now on. Hosts that it does not
    /// name keep a link with each other, and reach none of its own.
    ///
    /// # Errors
    /// [`TopologyError`] names the mistake in it, or says that something was sent before.
    pub fn set_topology(&mut self, topology: Topology) -> Result<(), TopologyError> {
        let now = self.now();
        let seed = self.seed();
        let state = &mut *self.world.state.borrow_mut();
        if state.fabric.is_some() || state.network.has_flows() || state.streams.has_any() {
            return Err(TopologyError::Begun);
        }
        let fabric = Fabric::new(seed, topology)?;
        let ids = [0, fabric.nodes.len() as u64, fabric.links.len() as u64, 0];
        state.fabric = Some(Box::new(fabric));
        state.trace.record(now, TraceKind::Topology, ids);
        Ok(())
    }

    /// Changes what a link is like from now on; what is on it is not touched.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`], or [`TopologyError::Link`] with what is wrong with `spec`.
    pub fn set_link_spec(&mut self, name: &str, spec: LinkSpec) -> Result<(), TopologyError> {
        let link_error = |source| TopologyError::Link { name: name.to_owned(), source };
        spec.check().map_err(link_error)?;
        self.with_link(name, 1, |fabric, link| {
            let costs = fabric.links.get(link as usize).map(|pipe| pipe.spec.cost);
            let reroutes = costs != Some(spec.cost);
            fabric.set_spec(link, spec);
            if reroutes { fabric.reroute() } else { Ok(()) }
        })
    }

    /// Cuts a link, takes it out of the routes, or puts it in again.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`].
    pub fn set_link_state(&mut self, name: &str, to: LinkState) -> Result<(), TopologyError> {
        self.with_link(name, 2 + to as u64, |fabric, link| {
            let Some(pipe) = fabric.links.get_mut(link as usize) else { return Ok(()) };
            let was = std::mem::replace(&mut pipe.state, to);
            let reroutes = (was == LinkState::Down) != (to == LinkState::Down);
            if reroutes { fabric.reroute() } else { Ok(()) }
        })
    }

    /// What a link carried so far.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`].
    pub fn link_report(&self, name: &str) -> Result<LinkReport, TopologyError> {
        let state = self.world.state.borrow();
        let fabric = state.fabric.as_ref();
        let found = fabric.and_then(|fabric| {
            let link = *fabric.link_by_name.get(name)?;
            Some(fabric.report(link))
        });
        found.ok_or_else(|| unknown(name))
    }

    /// The names of all links, in their order.
    pub fn link_names(&self) -> Vec<String> {
        let state = self.world.state.borrow();
        let fabric = state.fabric.as_ref();
        fabric.map_or_else(Vec::new, |fabric| fabric.link_by_name.keys().cloned().collect())
    }

    /// What a box did so far.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`], also for nodes that are no boxes.
    pub fn nat_report(&self, name: &str) -> Result<NatReport, TopologyError> {
        let state = self.world.state.borrow();
        let fabric = state.fabric.as_ref();
        let found = fabric.and_then(|fabric| {
            let node = *fabric.node_by_name.get(name)?;
            let Place::Guard { nat, .. } = fabric.nodes.get(node as usize)? else { return None };
            Some(nat.report())
        });
        found.ok_or_else(|| unknown(name))
    }

    /// Lets a box forget all its mappings, as one does that starts again: who is behind it gets
    /// other outer ports, and is not reached from the outside before it has sent.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`], also for nodes that are no boxes.
    pub fn rebind_nat(&mut self, name: &str) -> Result<(), TopologyError> {
        self.rebind(name, None)
    }

    /// Like [`Sim::rebind_nat`], and gives the box another outer address, as a provider does at
    /// night.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`], also for firewalls; [`TopologyError::Address`] when another node
    /// has the address.
    pub fn readdress_nat(&mut self, name: &str, outer: IpAddr) -> Result<(), TopologyError> {
        self.rebind(name, Some(outer))
    }

    fn rebind(&mut self, name: &str, outer: Option<IpAddr>) -> Result<(), TopologyError> {
        let now = self.now();
        let state = &mut *self.world.state.borrow_mut();
        let fabric = state.fabric.as_deref_mut().ok_or_else(|| unknown(name))?;
        let node = *fabric.node_by_name.get(name).ok_or_else(|| unknown(name))?;
        let Some(Place::Guard { nat, .. }) = fabric.nodes.get(node as usize) else {
            return Err(unknown(name));
        };
        if let Some(ip) = outer {
            if nat.outer().is_none() {
                return Err(unknown(name));
            }
            let holder = fabric.node(ip);
            if ip.is_loopback() || ip.is_unspecified() || holder.is_some_and(|other| other != node)
            {
                return Err(TopologyError::Address { name: name.to_owned(), ip });
            }
        }
        fabric.rebind(node, outer);
        let [high, low] = outer.map_or([0, 0], ip_words);
        let ids = [8, xxh3_64(name.as_bytes()), high, low];
        state.trace.record(now, TraceKind::Topology, ids);
        Ok(())
    }

    fn with_link(
        &mut self,
        name: &str,
        code: u64,
        change: impl FnOnce(&mut Fabric, u32) -> Result<(), TopologyError>,
    ) -> Result<(), TopologyError> {
        let now = self.now();
        let state = &mut *self.world.state.borrow_mut();
        let fabric = state.fabric.as_deref_mut().ok_or_else(|| unknown(name))?;
        let link = *fabric.link_by_name.get(name).ok_or_else(|| unknown(name))?;
        change(fabric, link)?;
        let ids = [code, xxh3_64(name.as_bytes()), 0, 0];
        state.trace.record(now, TraceKind::Topology, ids);
        Ok(())
    }
}

fn unknown(name: &str) -> TopologyError {
    TopologyError::Unknown { name: name.to_owned() }
}
