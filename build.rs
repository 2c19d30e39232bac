//! Gives the runtime's call for a ring to `src/io/ring.rs`, which adds a flag that the runtime does not know.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
