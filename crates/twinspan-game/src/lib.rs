//! The world server and its client: tick loop, admission, replication and bots.
