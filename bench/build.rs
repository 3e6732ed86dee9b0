//! Compiles the small bridge to the system's ENet when the feature asks for it.

fn main() {
    println!("cargo:rerun-if-changed=enet/bridge.c");
    #[cfg(feature = "enet")]
    {
        cc::Build::new().file("enet/bridge.c").opt_level(2).compile("enet_bridge");
        println!("cargo:rustc-link-lib=enet");
    }
}
