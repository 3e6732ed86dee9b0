//! The target `hub-sealed`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("hub-sealed", data);
});
