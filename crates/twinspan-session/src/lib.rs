//! Sealed game sessions: header, cookie, handshake, keys, replay window, endpoint.
