//! Whatever text or JSON comes, nothing panics, and what is accepted holds together.

use openelb_api::bgp::{
    Community, ExtendedCommunity, LargeCommunity, PathAttributes, Peer, Speaker,
};
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress, EipSpec, address_of, name_for};
use openelb_api::{AddressRange, Pool, PoolAddresses, Tolerant, WrittenRange};

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[test]
fn any_text_is_a_range_or_none() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(written) = text(bytes).parse::<WrittenRange>() {
            let range = written.range;
            assert!(range.contains(range.first()) && range.contains(range.last()));
            assert_eq!(range.to_string().parse::<AddressRange>().ok(), Some(range));
        }
    });
}

#[test]
fn any_text_is_a_pool_or_none() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = text(bytes);
        let (address, exclude) = text.split_once('!').unwrap_or((&text, "10.0.0.1"));
        let spec = EipSpec {
            address: address.to_owned(),
            exclude: vec![exclude.to_owned()],
            avoid_buggy_ips: bytes.len().is_multiple_of(2),
            ..EipSpec::default()
        };
        if let Ok(pool) = PoolAddresses::read(&spec) {
            assert!(pool.assignable.size() <= pool.named.size());
            assert_eq!(pool.assignable.without(&pool.named).size(), 0);
            assert_eq!(pool.assignable.intersection(&pool.excluded).size(), 0);
        }
    });
}

#[test]
fn any_text_is_a_community_or_none() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = text(bytes);
        if let Ok(community) = text.parse::<Community>() {
            assert_eq!(community.to_string().parse(), Ok(community));
        }
        if let Ok(large) = text.parse::<LargeCommunity>() {
            assert_eq!(large.to_string().parse(), Ok(large));
        }
        if let Ok(extended) = text.parse::<ExtendedCommunity>() {
            assert_eq!(extended.to_string().parse(), Ok(extended));
        }
    });
}

#[test]
fn any_text_is_a_name_or_none() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = text(bytes);
        if let Some(address) = address_of(&text) {
            assert_eq!(name_for(address), text);
        }
    });
}

#[test]
fn any_json_is_an_object_or_an_error() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(read) = serde_json::from_slice::<Tolerant<Eip>>(bytes)
            && let Ok(eip) = read.parsed
        {
            let _ = Pool::try_from(&*eip);
            let _ = eip.spec.bgp.as_ref().map(PathAttributes::try_from);
        }
        if let Ok(read) = serde_json::from_slice::<Tolerant<BgpPeer>>(bytes)
            && let Ok(peer) = read.parsed
        {
            let _ = Peer::try_from(&*peer);
        }
        if let Ok(read) = serde_json::from_slice::<Tolerant<BgpConf>>(bytes)
            && let Ok(conf) = read.parsed
        {
            let _ = Speaker::try_from(&*conf);
        }
        let _ = serde_json::from_slice::<Tolerant<EipAddress>>(bytes);
    });
}
