//! The target `socks5-datagram`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = twinspan_fuzz::run("socks5-datagram", data);
});
