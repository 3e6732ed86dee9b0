//! LLSD as a user has it: golden documents, random values, serde, another implementation.

#[cfg(test)]
mod forms;
#[cfg(test)]
mod hippolyzer;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod random;
#[cfg(test)]
mod serde;
