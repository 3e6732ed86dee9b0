//! Real transports: batched UDP and the reactor that drives it.
