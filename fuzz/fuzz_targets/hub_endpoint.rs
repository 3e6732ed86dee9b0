//! The target `hub-endpoint`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("hub-endpoint", data);
});
