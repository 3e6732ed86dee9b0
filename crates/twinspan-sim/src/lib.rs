//! The other side of the seam: a seeded network, executor, faults and traces.
