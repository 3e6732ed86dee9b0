//! Messages as a user has them: the captured login, random instances of each.

#[cfg(test)]
mod allocation;
#[cfg(test)]
mod borrowed;
#[cfg(test)]
mod contents;
#[cfg(test)]
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
#[cfg(test)]
#[path = "../../../twinspan-llsd/tests/it/hippolyzer.rs"]
mod hippolyzer;
#[cfg(test)]
mod login;
#[cfg(test)]
mod long;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod random;
