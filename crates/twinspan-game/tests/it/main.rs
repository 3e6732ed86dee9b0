//! The game system as its users meet it: in the simulator and over real sockets.

mod world;
