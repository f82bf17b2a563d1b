//! What arrives from the network never panics. Plain tests run a fixed count of
//! random inputs; the same targets run for long under a fuzzer.

#[test]
fn bgp() {
    bolero::check!()
        .with_max_len(4096)
        .for_each(openelb_bgp::fuzz::bgp);
}

#[test]
fn bfd() {
    bolero::check!()
        .with_max_len(260)
        .for_each(openelb_bgp::fuzz::bfd);
}
