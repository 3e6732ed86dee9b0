//! Which link leads on: the cheapest way between any two nodes of a topology.
//!
//! Nodes with one neighbour hang on it, and so on inwards: a tree of which only the core that is
//! left needs tables. A star of ten thousand hosts has a core of one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Nodes that may lie on circles of a topology.
pub const CORE_NODES_MAX: usize = 4_096;
/// No link, and no node.
const NONE: u32 = u32::MAX;

/// A link as routes see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) cost: u32,
    /// Whether routes may use it.
    pub(crate) is_up: bool,
}

/// The routes of a topology; made anew when a link changes.
#[derive(Debug)]
pub(crate) struct Routes {
    /// What each node hangs on, and the links up and down.
    hangs: Vec<Hang>,
    /// Where a node of the core stands in the tables.
    core_index: Vec<u32>,
    core_len: usize,
    /// Ways into each node of the core from others of it: (from, cost, link).
    into: Vec<Vec<(u32, u32, u32)>>,
    /// For each core node that was asked for: the link on from each other.
    tables: BTreeMap<u32, Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Hang {
    /// The node that it hangs on; none in the core.
    parent: u32,
    up: u32,
    down: u32,
}

/// More nodes lie on circles than tables are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreTooLarge(pub(crate) usize);

impl Routes {
    pub(crate) fn new(nodes: usize, ways: &[Way]) -> Result<Self, CoreTooLarge> {
        let mut cheapest: BTreeMap<(u32, u32), (u32, u32)> = BTreeMap::new();
        for (link, way) in (0..).zip(ways).filter(|(_, way)| way.is_up && way.from != way.to) {
            let best = cheapest.entry((way.from, way.to)).or_insert((way.cost, link));
            *best = (*best).min((way.cost, link));
        }
        let link_of = |from, to| cheapest.get(&(from, to)).map_or(NONE, |(_, link)| *link);
        let mut neighbours: Vec<Vec<u32>> = vec![Vec::new(); nodes];
        for (from, to) in cheapest.keys().copied() {
            // Once for two directions.
            if from > to && cheapest.contains_key(&(to, from)) {
                continue;
            }
            for (one, other) in [(from, to), (to, from)] {
                if let Some(list) = neighbours.get_mut(one as usize) {
                    list.push(other);
                }
            }
        }
        let hangs = peel(&neighbours, link_of);
        let is_core =
            |node: u32| hangs.get(node as usize).is_some_and(|hang: &Hang| hang.parent == NONE);
        let mut core_index = vec![NONE; nodes];
        let mut core_len = 0;
        for (node, index) in (0..).zip(&mut core_index) {
            let has_ways = neighbours.get(node as usize).is_some_and(|list| !list.is_empty());
            if is_core(node) && has_ways {
                *index = core_len as u32;
                core_len += 1;
            }
        }
        // A tree's last node is a core of one, which needs no table.
        let circles = hangs
            .iter()
            .zip(&neighbours)
            .filter(|(hang, list)| hang.parent == NONE && list.iter().any(|other| is_core(*other)));
        let on_circles = circles.count();
        if on_circles > CORE_NODES_MAX {
            return Err(CoreTooLarge(on_circles));
        }
        let mut into = vec![Vec::new(); core_len];
        for ((from, to), (cost, link)) in cheapest {
            let index = core_index.get(to as usize).copied().unwrap_or(NONE);
            if is_core(from)
                && let Some(list) = into.get_mut(index as usize)
            {
                list.push((from, cost, link));
            }
        }
        Ok(Self { hangs, core_index, core_len, into, tables: BTreeMap::new() })
    }

    /// The link that leads from one node on to another; `None` when no way does, or they are one.
    pub(crate) fn next(&mut self, from: u32, to: u32) -> Option<u32> {
        if from == to {
            return None;
        }
        let mut root = to;
        loop {
            let hang = self.hangs.get(root as usize)?;
            if hang.parent == NONE {
                break;
            }
            if hang.parent == from {
                return some(hang.down);
            }
            root = hang.parent;
        }
        let here = self.hangs.get(from as usize)?;
        if here.parent != NONE {
            return some(here.up);
        }
        if root == from {
            return None;
        }
        let place = *self.core_index.get(from as usize)? as usize;
        if !self.tables.contains_key(&root) {
            let table = self.table(root);
            self.tables.insert(root, table);
        }
        some(*self.tables.get(&root)?.get(place)?)
    }

    /// The cheapest link on towards `to` from each node of the core; of equally dear ones that with
    /// the smallest number.
    fn table(&self, to: u32) -> Vec<u32> {
        let mut best = vec![(u64::MAX, NONE); self.core_len];
        let mut open = BinaryHeap::new();
        open.push(Reverse((0_u64, to)));
        let index = |node: u32| self.core_index.get(node as usize).map_or(NONE, |at| *at) as usize;
        if let Some(start) = best.get_mut(index(to)) {
            *start = (0, NONE);
        }
        while let Some(Reverse((cost, node))) = open.pop() {
            let here = index(node);
            if best.get(here).is_none_or(|(known, _)| cost > *known) {
                continue;
            }
            for (from, more, link) in self.into.get(here).into_iter().flatten() {
                let offer = (cost + u64::from(*more), *link);
                if let Some(known) = best.get_mut(index(*from))
                    && offer < *known
                {
                    if offer.0 < known.0 {
                        open.push(Reverse((offer.0, *from)));
                    }
                    *known = offer;
                }
            }
        }
        best.into_iter().map(|(_, link)| link).collect()
    }
}

fn some(link: u32) -> Option<u32> {
    (link != NONE).then_some(link)
}

/// Takes nodes with one neighbour away until none is left; says on what each hung.
fn peel(neighbours: &[Vec<u32>], link_of: impl Fn(u32, u32) -> u32) -> Vec<Hang> {
    let mut hangs = vec![Hang { parent: NONE, up: NONE, down: NONE }; neighbours.len()];
    let mut degrees: Vec<usize> = neighbours.iter().map(Vec::len).collect();
    let mut leaves: Vec<u32> =
        (0..).zip(&degrees).filter_map(|(node, degree)| (*degree == 1).then_some(node)).collect();
    // Those that come first in the list are taken first, whatever they hang on.
    leaves.reverse();
    while let Some(leaf) = leaves.pop() {
        if degrees.get(leaf as usize) != Some(&1) {
            continue;
        }
        let list = neighbours.get(leaf as usize);
        let parent = list
            .into_iter()
            .flatten()
            .copied()
            .find(|other| hangs.get(*other as usize).is_some_and(|hang| hang.parent == NONE));
        let Some(parent) = parent else { continue };
        if let Some(hang) = hangs.get_mut(leaf as usize) {
            *hang = Hang { parent, up: link_of(leaf, parent), down: link_of(parent, leaf) };
        }
        for node in [leaf, parent] {
            if let Some(degree) = degrees.get_mut(node as usize) {
                *degree -= 1;
            }
        }
        if degrees.get(parent as usize) == Some(&1) {
            leaves.push(parent);
        }
    }
    hangs
}

#[cfg(test)]
mod tests {
    use twinspan_core::random::Stream;

    use super::*;

    fn way(from: u32, to: u32, cost: u32) -> Way {
        Way { from, to, cost, is_up: true }
    }

    fn both(one: u32, other: u32, cost: u32) -> [Way; 2] {
        [way(one, other, cost), way(other, one, cost)]
    }

    /// Follows the routes and adds up what they cost.
    fn cost(routes: &mut Routes, ways: &[Way], from: u32, to: u32) -> Option<u64> {
        let (mut here, mut sum) = (from, 0);
        for _ in 0..=ways.len() {
            if here == to {
                return Some(sum);
            }
            let way = ways[routes.next(here, to)? as usize];
            assert_eq!(way.from, here);
            assert!(way.is_up);
            here = way.to;
            sum += u64::from(way.cost);
        }
        panic!("the routes from {from} to {to} go in circles");
    }

    /// The obvious way: all pairs by going over every node.
    fn distances(nodes: u32, ways: &[Way]) -> Vec<Vec<Option<u64>>> {
        let n = nodes as usize;
        let mut best = vec![vec![None; n]; n];
        for (node, row) in best.iter_mut().enumerate() {
            row[node] = Some(0);
        }
        for way in ways.iter().filter(|way| way.is_up) {
            let slot = &mut best[way.from as usize][way.to as usize];
            let cost = u64::from(way.cost);
            *slot = Some(slot.map_or(cost, |known: u64| known.min(cost)));
        }
        for via in 0..n {
            for from in 0..n {
                for to in 0..n {
                    let through = best[from][via].zip(best[via][to]).map(|(a, b)| a + b);
                    best[from][to] = match (best[from][to], through) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                }
            }
        }
        best
    }

    #[test]
    fn routes_are_the_cheapest_there_are() {
        for seed in 0..200 {
            let mut stream = Stream::new(seed, "graph", 0);
            let nodes = 2 + stream.below(12) as u32;
            let mut ways = Vec::new();
            for node in 1..nodes {
                // A tree with some circles in it.
                let near = stream.below(u64::from(node)) as u32;
                ways.extend(both(node, near, 1 + stream.below(9) as u32));
            }
            for _ in 0..stream.below(8) {
                let [one, other] = [0, 1].map(|_| stream.below(u64::from(nodes)) as u32);
                if one != other {
                    ways.extend(both(one, other, 1 + stream.below(9) as u32));
                }
            }
            for _ in 0..stream.below(3) {
                let both = 2 * stream.below(ways.len() as u64 / 2) as usize;
                ways[both].is_up = false;
                ways[both + 1].is_up = false;
            }
            let mut routes = Routes::new(nodes as usize, &ways).unwrap();
            let wanted = distances(nodes, &ways);
            for from in 0..nodes {
                for to in 0..nodes {
                    let is = cost(&mut routes, &ways, from, to);
                    assert_eq!(is, wanted[from as usize][to as usize], "seed {seed}: {from} {to}");
                }
            }
        }
    }

    #[test]
    fn a_way_that_is_down_is_gone_around() {
        let mut ways: Vec<_> =
            [both(0, 1, 1), both(1, 2, 1), both(0, 2, 5), both(2, 3, 1)].concat();
        let mut routes = Routes::new(4, &ways).unwrap();
        assert_eq!(cost(&mut routes, &ways, 0, 3), Some(3));
        ways[2].is_up = false;
        let mut routes = Routes::new(4, &ways).unwrap();
        assert_eq!(cost(&mut routes, &ways, 0, 3), Some(6));
        assert_eq!(cost(&mut routes, &ways, 3, 0), Some(3), "the other direction is up");
    }

    #[test]
    fn one_way_streets_are_kept() {
        let ways = [way(0, 1, 1), way(1, 2, 1), way(2, 0, 1)];
        let mut routes = Routes::new(3, &ways).unwrap();
        assert_eq!(cost(&mut routes, &ways, 0, 2), Some(2));
        assert_eq!(cost(&mut routes, &ways, 2, 1), Some(2));
        let ways = [way(0, 1, 1)];
        let mut routes = Routes::new(2, &ways).unwrap();
        assert_eq!(routes.next(0, 1), Some(0));
        assert_eq!(routes.next(1, 0), None);
    }

    #[test]
    fn a_large_tree_needs_no_tables_and_a_large_circle_is_refused() {
        let ways: Vec<_> = (1..20_000).flat_map(|node| both(node, node / 3, 1)).collect();
        let mut routes = Routes::new(20_000, &ways).unwrap();
        assert!(cost(&mut routes, &ways, 19_999, 12_345).unwrap() < 40);
        assert_eq!(routes.tables.len(), 0);
        let nodes = CORE_NODES_MAX as u32 + 1;
        let ways: Vec<_> = (0..nodes).flat_map(|node| both(node, (node + 1) % nodes, 1)).collect();
        let refused = Routes::new(nodes as usize, &ways).map(|_| ());
        assert_eq!(refused, Err(CoreTooLarge(nodes as usize)));
    }
}
