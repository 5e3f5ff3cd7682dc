//! A new migration must be embedded again.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
