//! The target `llsd-xml`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("llsd-xml", data);
});
