//! What arrives from the network never panics. Plain tests run a fixed count of random inputs; the
//! same targets run for long under a fuzzer.

#[test]
fn raw_frames() {
    bolero::check!()
        .with_max_len(1600)
        .for_each(openelb_layer2::fuzz::raw);
}

#[test]
fn arp() {
    bolero::check!()
        .with_max_len(64)
        .for_each(openelb_layer2::fuzz::arp);
}

#[test]
fn ndp() {
    bolero::check!()
        .with_max_len(128)
        .for_each(openelb_layer2::fuzz::ndp);
}

#[test]
fn ability() {
    bolero::check!()
        .with_max_len(1500)
        .for_each(openelb_layer2::fuzz::ability);
}
