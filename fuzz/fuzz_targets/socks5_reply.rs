//! The target `socks5-reply`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("socks5-reply", data);
});
