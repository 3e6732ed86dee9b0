//! The fuzz bodies over committed seeds and over mutations of them.

#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeds;
