//! XML-RPC as a user has it: documents of real servers, broken ones, another implementation.

#[cfg(test)]
mod documents;
#[cfg(test)]
#[path = "../../../twinspan-llsd/tests/it/hippolyzer.rs"]
mod hippolyzer;
#[cfg(test)]
mod peer;
