//! Record files as their users meet them.

#[cfg(test)]
mod files;
