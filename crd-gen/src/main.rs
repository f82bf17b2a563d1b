//! crd-gen.

fn main() {}
