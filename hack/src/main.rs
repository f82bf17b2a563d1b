//! hack.

fn main() {}
