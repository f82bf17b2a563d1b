//! What arrives from the network never panics. Plain tests run a fixed count of random inputs; the
//! same targets run for long under a fuzzer.

#[test]
fn datagrams() {
    bolero::check!()
        .with_max_len(1500)
        .for_each(openelb_membership::fuzz::datagram);
}

#[test]
fn messages() {
    bolero::check!()
        .with_max_len(1400)
        .for_each(openelb_membership::fuzz::message);
}
