//! The classic BPF program that keeps foreign ARP and NDP out of user space.
//!
//! Let through: ARP frames whose sender or target address lies in the wanted prefixes, and neighbour
//! solicitations and advertisements whose target does. Everything else, and what this host itself
//! sends, is dropped by the kernel. So are frames of a VLAN on the interface that carries it: they come
//! by the VLAN's own interface once more, without their tag, and belong to that segment alone.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use openelb_net::{Instruction, MAX_INSTRUCTIONS};

// Codes of `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`, and `PACKET_OUTGOING`.
const PACKET_TYPE: u32 = 0xffff_f004;
const OUTGOING: u32 = 4;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG`: the tag that the kernel took off, 0 without one. Its lower 12 bits are
/// the VLAN; VLAN 0 is a priority and belongs to the interface itself.
const VLAN_TAG: u32 = 0xffff_f02c;
const VLAN: u32 = 0x0fff;

const ARP_SENDER: u32 = 28;
const ARP_TARGET: u32 = 38;
const NEXT_HEADER: u32 = 20;
const ICMP_TYPE: u32 = 54;
const NDP_TARGET: u32 = 62;

/// Frames are handed over up to this length.
const WHOLE: u32 = 0x4_0000;

/// The program for these prefixes. If they are too many for the kernel's bound, the most specific
/// ones are widened until they fit: never is a frame lost, at worst some pass in vain.
pub(crate) fn program(prefixes: &[IpNet]) -> Vec<Instruction> {
    let mut prefixes = IpNet::aggregate(&prefixes.iter().map(IpNet::trunc).collect());
    loop {
        let program = assemble(&prefixes);
        if program.len() <= MAX_INSTRUCTIONS {
            return program;
        }
        prefixes = widen(prefixes);
    }
}

/// Shortens the longest prefixes of the family that costs more, and merges what meets.
fn widen(prefixes: Vec<IpNet>) -> Vec<IpNet> {
    let spare = |net: &IpNet| net.max_prefix_len() - net.prefix_len();
    let least = prefixes.iter().map(spare).min().unwrap_or_default();
    let wider: Vec<IpNet> = prefixes
        .into_iter()
        .map(|net| {
            if spare(&net) == least {
                net.supernet().unwrap_or(net)
            } else {
                net
            }
        })
        .collect();
    IpNet::aggregate(&wider)
}

fn assemble(prefixes: &[IpNet]) -> Vec<Instruction> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => {
                match_v4(&mut v4, *net, ARP_TARGET);
                match_v4(&mut v4, *net, ARP_SENDER);
            }
            IpNet::V6(net) => match_v6(&mut v6, *net),
        }
    }
    let drop = op(RETURN, 0);
    v4.push(drop);
    v6.push(drop);
    let past_v4 = u32::try_from(v4.len()).unwrap_or(u32::MAX);

    let mut program = vec![
        op(LOAD_WORD, PACKET_TYPE),
        jump_equal(OUTGOING, 0, 1),
        drop,
        op(LOAD_WORD, VLAN_TAG),
        op(AND, VLAN),
        jump_equal(0, 1, 0),
        drop,
        op(LOAD_HALF, 12),
        jump_equal(0x0806, 3, 0),
        jump_equal(0x86dd, 0, 1),
        op(JUMP, past_v4 + 1),
        drop,
    ];
    program.extend(v4);
    program.extend([
        op(LOAD_BYTE, NEXT_HEADER),
        jump_equal(58, 1, 0),
        drop,
        op(LOAD_BYTE, ICMP_TYPE),
        jump_equal(135, 2, 0),
        jump_equal(136, 1, 0),
        drop,
    ]);
    program.extend(v6);
    program
}

fn match_v4(program: &mut Vec<Instruction>, net: Ipv4Net, offset: u32) {
    program.push(op(LOAD_WORD, offset));
    if net.prefix_len() < 32 {
        program.push(op(AND, net.netmask().into()));
    }
    program.push(jump_equal(net.network().into(), 0, 1));
    program.push(op(RETURN, WHOLE));
}

fn match_v6(program: &mut Vec<Instruction>, net: Ipv6Net) {
    let words = |ip: std::net::Ipv6Addr| {
        let bits = u128::from(ip);
        [96, 64, 32, 0]
            .map(|shift| u32::try_from((bits >> shift) & 0xffff_ffff).unwrap_or_default())
    };
    let mut checks = Vec::new();
    let mut offset = NDP_TARGET;
    for (mask, word) in words(net.netmask()).into_iter().zip(words(net.network())) {
        if mask != 0 {
            checks.push((offset, mask, word));
        }
        offset += 4;
    }
    // Each failed comparison skips the rest of this prefix and its return.
    let cost = |mask: u32| if mask == u32::MAX { 2 } else { 3 };
    let mut rest: u8 = checks.iter().map(|(_, mask, _)| cost(*mask)).sum::<u8>() + 1;
    for (offset, mask, word) in checks {
        rest -= cost(mask);
        program.push(op(LOAD_WORD, offset));
        if mask != u32::MAX {
            program.push(op(AND, mask));
        }
        program.push(jump_equal(word, 0, rest));
    }
    program.push(op(RETURN, WHOLE));
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn jump_equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction {
        code: JUMP_EQUAL,
        jt,
        jf,
        k,
    }
}

/// The prefixes to let through: the ranges, and every address that lies in none of them.
pub(crate) fn prefixes<'a>(
    ranges: &[IpNet],
    addresses: impl IntoIterator<Item = &'a IpAddr>,
) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = ranges.to_vec();
    let outside = addresses
        .into_iter()
        .filter(|ip| !ranges.iter().any(|range| range.contains(*ip)))
        .map(|ip| IpNet::from(*ip));
    all.extend(outside);
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use openelb_net::MacAddr;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Ask, Form, announcement, answer, probe};

    /// What the kernel does with a frame: the bytes it hands over.
    fn run(program: &[Instruction], frame: &[u8], packet_type: u32) -> u32 {
        run_tagged(program, frame, packet_type, 0)
    }

    /// The same for a frame whose tag was taken off.
    fn run_tagged(program: &[Instruction], frame: &[u8], packet_type: u32, tag: u32) -> u32 {
        let mut accumulator = 0_u32;
        let mut at = 0;
        let word = |offset: u32, size: usize| {
            let offset = offset as usize;
            let bytes = frame.get(offset..offset + size)?;
            Some(
                bytes
                    .iter()
                    .fold(0_u32, |all, byte| (all << 8) | u32::from(*byte)),
            )
        };
        loop {
            let i = program[at];
            at += 1;
            let loaded = match i.code {
                LOAD_WORD if i.k == PACKET_TYPE => Some(packet_type),
                LOAD_WORD if i.k == VLAN_TAG => Some(tag),
                LOAD_WORD => word(i.k, 4),
                LOAD_HALF => word(i.k, 2),
                LOAD_BYTE => word(i.k, 1),
                AND => Some(accumulator & i.k),
                JUMP => {
                    at += i.k as usize;
                    Some(accumulator)
                }
                JUMP_EQUAL => {
                    at += usize::from(if accumulator == i.k { i.jt } else { i.jf });
                    Some(accumulator)
                }
                RETURN => return i.k,
                code => panic!("unknown code {code}"),
            };
            // A load beyond the frame drops it.
            let Some(loaded) = loaded else { return 0 };
            accumulator = loaded;
        }
    }

    const ME: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn only_arp_and_ndp_for_the_prefixes_pass() {
        let program = program(&nets(&["10.0.0.64/26", "fd00:10::/120"]));
        let passes = |frame: &[u8]| run(&program, frame, 0) > 0;
        let asked = |ip: &str| passes(&probe(ME, ip.parse().unwrap()));
        assert!(asked("10.0.0.64") && asked("10.0.0.127"));
        assert!(!asked("10.0.0.63") && !asked("10.0.0.128"));
        assert!(asked("fd00:10::1") && asked("fd00:10::ff"));
        assert!(!asked("fd00:10::100") && !asked("fd00:11::1"));
        let claimed = announcement(ME, "10.0.0.100".parse().unwrap(), Form::Reply);
        assert!(passes(&claimed), "claims are heard");
        assert_eq!(run(&program, &claimed, OUTGOING), 0, "own frames are not");
        assert_eq!(run_tagged(&program, &claimed, 0, 100), 0, "nor a VLAN's");
        let urgent = run_tagged(&program, &claimed, 0, 0xe000);
        assert!(urgent > 0, "a priority is no VLAN");
        let ask = Ask {
            ip: "10.0.9.9".parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, 9]),
            from: Some("10.0.8.1".parse().unwrap()),
        };
        assert!(!passes(&answer(ME, &ask)), "a reply about another address");
        let mut ip = claimed.clone();
        ip[13] = 0;
        assert!(!passes(&ip), "neither ARP nor IPv6");
        assert!(!passes(&claimed[..20]), "a stump");
    }

    #[test]
    fn nothing_passes_without_prefixes() {
        let program = program(&[]);
        for ip in ["0.0.0.0", "10.0.0.1", "::", "fd00::1"] {
            assert_eq!(run(&program, &probe(ME, ip.parse().unwrap()), 0), 0);
        }
    }

    #[test]
    fn too_many_prefixes_are_widened_never_dropped() {
        let mut wanted = Vec::new();
        for n in 0..3_000_u32 {
            wanted.push(IpNet::from(IpAddr::V4((0x0a00_0000 + n * 2).into())));
            wanted.push(IpNet::from(IpAddr::V6(
                ((0xfd00_u128 << 112) | (u128::from(n) * 2)).into(),
            )));
        }
        let program = program(&wanted);
        assert!(program.len() <= MAX_INSTRUCTIONS);
        for net in &wanted {
            assert!(run(&program, &probe(ME, net.addr()), 0) > 0, "{net}");
        }
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_the_prefixes(
            v4 in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
            v6 in prop::collection::vec((any::<u128>(), 0_u8..=128), 0..12),
            ips in prop::collection::vec(any::<u128>(), 1..20),
        ) {
            let mut wanted: Vec<IpNet> = Vec::new();
            wanted.extend(v4.iter().map(|(ip, len)| IpNet::new(IpAddr::V4((*ip).into()), *len).unwrap()));
            wanted.extend(v6.iter().map(|(ip, len)| IpNet::new(IpAddr::V6((*ip).into()), *len).unwrap()));
            let program = program(&wanted);
            let near = wanted.iter().flat_map(|net| [net.addr(), net.network(), net.broadcast()]);
            let far = ips.iter().flat_map(|ip| {
                [IpAddr::V6((*ip).into()), IpAddr::V4(u32::try_from(ip >> 96).unwrap().into())]
            });
            for ip in near.chain(far).collect::<Vec<_>>() {
                let expected = wanted.iter().any(|net| net.contains(&ip));
                // An ARP probe's sender is 0.0.0.0, which may lie in a prefix too.
                let zero = ip.is_ipv4()
                    && wanted.iter().any(|net| net.contains(&IpAddr::V4(0.into())));
                let passed = run(&program, &probe(ME, ip), 0) > 0;
                prop_assert_eq!(passed, expected || zero, "{}", ip);
            }
        }
    }
}
