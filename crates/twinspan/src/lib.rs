//! Twinspan: one real-time networking stack for shared worlds.
