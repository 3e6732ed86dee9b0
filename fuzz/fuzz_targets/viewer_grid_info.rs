//! The target `viewer-grid-info`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("viewer-grid-info", data);
});
