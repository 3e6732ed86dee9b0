//! The target `session-bulk`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("session-bulk", data);
});
