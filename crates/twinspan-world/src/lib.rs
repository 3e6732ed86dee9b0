//! Game state as pure functions: entities, grid, interest, authority, effects, replication codec.
