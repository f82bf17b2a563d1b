//! Golden bytes: every message we send, written out by hand from the RFCs.

use std::sync::Arc;

use super::*;
use crate::community::{ExtendedCommunity, LargeCommunity};
use crate::route::Attributes;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::bytes)
        .filter(u8::is_ascii_hexdigit)
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A message with its header.
fn message(kind: u8, body: &str) -> Vec<u8> {
    let body = hex(body);
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(&body);
    octets
}

fn external() -> Style {
    Style {
        local_as: 65001,
        internal: false,
        four_octet_as: true,
        add_path: Vec::new(),
        limit: 4096,
    }
}

fn exported(next_hop: &str, attributes: Attributes) -> Exported {
    Exported {
        next_hop: next_hop.parse().unwrap(),
        link_local: None,
        attributes: Arc::new(attributes),
        shutting_down: false,
    }
}

fn nlri(prefixes: &[&str]) -> Vec<Nlri> {
    prefixes
        .iter()
        .map(|prefix| Nlri {
            prefix: prefix.parse().unwrap(),
            path_id: 0,
        })
        .collect()
}

fn announced(exported: &Exported, prefixes: &[&str], style: &Style) -> Vec<u8> {
    let mut out = BytesMut::new();
    let nlri = nlri(prefixes);
    assert_eq!(announce(&mut out, exported, &nlri, style), Ok(nlri.len()));
    out.to_vec()
}

#[test]
fn ipv4_to_an_external_peer() {
    let got = announced(
        &exported("192.0.2.1", Attributes::default()),
        &["203.0.113.9/32", "198.51.100.0/24"],
        &external(),
    );
    let want = message(
        2,
        "0000              # nothing withdrawn
         0014              # attributes
         40 01 01 00       # ORIGIN IGP
         40 02 06 02 01 0000fde9   # AS_PATH 65001
         40 03 04 c0000201 # NEXT_HOP
         20 cb007109 18 c63364",
    );
    assert_eq!(got, want);
}

#[test]
fn all_attributes_to_an_internal_peer() {
    let attributes = Attributes {
        origin: Origin::Incomplete,
        local_pref: Some(200),
        med: Some(50),
        prepend: 3,
        communities: [Community(0xfde8_0064), Community::NO_EXPORT].into(),
        large_communities: [LargeCommunity {
            global: 65000,
            local1: 1,
            local2: 2,
        }]
        .into(),
        extended_communities: [ExtendedCommunity(0x0002_fde8_0000_0064)].into(),
        ..Attributes::default()
    };
    let style = Style {
        internal: true,
        ..external()
    };
    let got = announced(
        &exported("192.0.2.1", attributes),
        &["203.0.113.9/32"],
        &style,
    );
    let want = message(
        2,
        "0000 0041
         40 01 01 02
         40 02 00                       # empty AS_PATH, prepending left out
         40 03 04 c0000201
         80 04 04 00000032              # MED
         40 05 04 000000c8              # LOCAL_PREF
         c0 08 08 fde80064 ffffff01
         c0 10 08 0002fde800000064
         c0 20 0c 0000fde8 00000001 00000002
         20 cb007109",
    );
    assert_eq!(got, want);
}

#[test]
fn prepending_repeats_the_local_as_towards_external_peers() {
    let attributes = Attributes {
        prepend: 2,
        ..Attributes::default()
    };
    let got = announced(
        &exported("192.0.2.1", attributes),
        &["203.0.113.9/32"],
        &external(),
    );
    assert_eq!(read_update(&got, &external()).as_path, [65001; 3]);
}

#[test]
fn ipv6_goes_into_mp_reach() {
    let got = announced(
        &exported("2001:db8::1", Attributes::default()),
        &["2001:db8:9::9/128"],
        &external(),
    );
    let want = message(
        2,
        "0000 0036
         80 0e 26 0002 01 10 20010db8000000000000000000000001 00
               80 20010db8000900000000000000000009
         40 01 01 00
         40 02 06 02 01 0000fde9",
    );
    assert_eq!(got, want);
}

#[test]
fn ipv6_over_a_link_local_session_carries_both_next_hops() {
    let exported = Exported {
        link_local: Some("fe80::1".parse().unwrap()),
        ..exported("2001:db8::1", Attributes::default())
    };
    let got = announced(&exported, &["2001:db8:9::/48"], &external());
    let want = message(
        2,
        "0000 003c
         80 0e 2c 0002 01 20 20010db8000000000000000000000001
               fe800000000000000000000000000001 00 30 20010db80009
         40 01 01 00
         40 02 06 02 01 0000fde9",
    );
    assert_eq!(got, want);
}

#[test]
fn ipv4_with_an_ipv6_next_hop_follows_rfc_8950() {
    let got = announced(
        &exported("2001:db8::1", Attributes::default()),
        &["203.0.113.9/32"],
        &external(),
    );
    let want = message(
        2,
        "0000 002a
         80 0e 1a 0001 01 10 20010db8000000000000000000000001 00 20 cb007109
         40 01 01 00
         40 02 06 02 01 0000fde9",
    );
    assert_eq!(got, want);
}

#[test]
fn a_peer_with_two_octet_as_numbers_gets_as_trans_and_as4_path() {
    let style = Style {
        local_as: 4_200_000_000,
        four_octet_as: false,
        ..external()
    };
    let got = announced(
        &exported("192.0.2.1", Attributes::default()),
        &["203.0.113.9/32"],
        &style,
    );
    let want = message(
        2,
        "0000 001b
         40 01 01 00
         40 02 04 02 01 5ba0            # AS_TRANS
         c0 11 06 02 01 fa56ea00        # AS4_PATH
         40 03 04 c0000201
         20 cb007109",
    );
    assert_eq!(got, want);
}

#[test]
fn add_path_puts_the_identifier_before_the_prefix() {
    let style = Style {
        add_path: vec![Family::Ipv4],
        ..external()
    };
    let mut out = BytesMut::new();
    let nlri = [Nlri {
        prefix: "203.0.113.9/32".parse().unwrap(),
        path_id: 7,
    }];
    announce(
        &mut out,
        &exported("192.0.2.1", Attributes::default()),
        &nlri,
        &style,
    )
    .unwrap();
    assert!(out.ends_with(&hex("00000007 20 cb007109")));
    out.clear();
    withdraw(&mut out, &nlri, &style).unwrap();
    assert_eq!(out.to_vec(), message(2, "0009 00000007 20cb007109 0000"));
}

#[test]
fn withdrawals_by_family() {
    let mut out = BytesMut::new();
    withdraw(&mut out, &nlri(&["203.0.113.9/32"]), &external()).unwrap();
    assert_eq!(out.to_vec(), message(2, "0005 20cb007109 0000"));
    out.clear();
    withdraw(&mut out, &nlri(&["2001:db8::/32"]), &external()).unwrap();
    let want = message(2, "0000 000b 80 0f 08 0002 01 20 20010db8");
    assert_eq!(out.to_vec(), want);
}

#[test]
fn end_of_rib_by_family() {
    let mut out = BytesMut::new();
    end_of_rib(&mut out, Family::Ipv4, &external()).unwrap();
    assert_eq!(out.to_vec(), message(2, "0000 0000"));
    out.clear();
    end_of_rib(&mut out, Family::Ipv6, &external()).unwrap();
    assert_eq!(out.to_vec(), message(2, "0000 0006 80 0f 03 0002 01"));
}

#[test]
fn refresh_markers() {
    let mut out = BytesMut::new();
    refresh_marker(&mut out, Family::Ipv4, Marker::Begin).unwrap();
    assert_eq!(out.to_vec(), message(5, "0001 01 01"));
    out.clear();
    refresh_marker(&mut out, Family::Ipv6, Marker::End).unwrap();
    assert_eq!(out.to_vec(), message(5, "0002 02 01"));
}

#[test]
fn a_planned_shutdown_adds_the_community_and_lowers_the_preference() {
    let exported = Exported {
        shutting_down: true,
        ..exported("192.0.2.1", Attributes::default())
    };
    let got = announced(&exported, &["203.0.113.9/32"], &external());
    assert_eq!(read_update(&got, &external()).communities, [0xffff_0000]);
    let style = Style {
        internal: true,
        ..external()
    };
    let got = announced(&exported, &["203.0.113.9/32"], &style);
    assert_eq!(read_update(&got, &style).local_pref, Some(0));
}

#[test]
fn a_message_is_filled_to_its_limit_and_not_beyond() {
    let many: Vec<Nlri> = (0..2000_u32)
        .map(|i| Nlri {
            prefix: IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + i).into(), 32).unwrap(),
            path_id: 0,
        })
        .collect();
    for limit in [4096, 65535] {
        let style = Style {
            limit,
            ..external()
        };
        let mut out = BytesMut::new();
        let exported = exported("192.0.2.1", Attributes::default());
        let count = announce(&mut out, &exported, &many, &style).unwrap();
        assert!(out.len() <= limit);
        assert!(count == many.len() || out.len() + 5 > limit);
        assert_eq!(read_update(&out, &style).announced, many[..count]);
    }
}

#[test]
fn attributes_that_fill_a_message_alone_are_said_to_fit_nothing() {
    let attributes = Attributes {
        communities: (0..1100).map(Community).collect(),
        ..Attributes::default()
    };
    let mut out = BytesMut::new();
    let exported = exported("192.0.2.1", attributes);
    assert_eq!(
        announce(&mut out, &exported, &nlri(&["10.0.0.0/8"]), &external()),
        Ok(0)
    );
    assert!(out.is_empty());
}

#[test]
fn shutdown_text_is_cut_between_characters() {
    assert_eq!(&shutdown_data("bye")[..], b"\x03bye");
    let long = "ü".repeat(200);
    let data = shutdown_data(&long);
    assert_eq!(usize::from(data[0]), data.len() - 1);
    assert_eq!(data[0], 254);
    assert!(std::str::from_utf8(&data[1..]).is_ok());
}
