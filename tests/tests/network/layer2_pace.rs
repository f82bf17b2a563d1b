//! What take-overs of very many addresses look like on the wire, as a host of the LAN hears them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use openelb_layer2::ResponderConfig;
use openelb_membership::leader;
use openelb_tests::speakers::{Speakers, tool};
use openelb_tests::{Capture, Claim, Deadline, Program, eventually, scenario};

use super::layer2::all_led;

const NAMES: [&str; 2] = ["alpha", "bravo"];

/// How long a speaker on a busy machine may be kept from sending what it has chosen, in milliseconds.
const LATE: u32 = 100;

/// Of the addresses in the speakers' ranges those that they serve: as many as `lan-tool` takes of each.
fn served() -> Vec<IpAddr> {
    let v4 = (1..2047).map(|n| IpAddr::V4(Ipv4Addr::from(0x0a00_8000 + n)));
    let v6 = (0..1000).map(|n| IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 2, n)));
    v4.chain(v6).collect()
}

/// How often an address is announced after a take-over: IPv4 in two forms, of which the first two times only one each.
fn times(address: IpAddr) -> usize {
    if address.is_ipv4() { 12 } else { 6 }
}

/// The most announcements within any tenth of a second.
fn most(claims: &[Claim]) -> usize {
    let mut times: Vec<u64> = claims.iter().map(|claim| claim.at).collect();
    times.sort_unstable();
    let within =
        |(first, at): (usize, &u64)| times.partition_point(|other| *other < at + 100_000) - first;
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// What this host announced, in the order in which it was heard.
fn announced(capture: &Capture, mac: &str) -> Vec<Claim> {
    let claims = capture.claims().into_iter();
    claims
        .filter(|claim| claim.from == mac && claim.is_announcement())
        .collect()
}

#[test]
fn a_thousand_take_overs_keep_to_the_pace_and_begin_with_what_is_asked_for() {
    scenario(async || {
        let mut speakers = Speakers::build(&NAMES).await?;
        let capture = speakers.claims().await?;
        for name in NAMES {
            // Nothing but take-overs is to be heard.
            let ranges = ["--vips", "10.0.128.0/21,fd00:10::2:0/117", "--refresh", "0"];
            speakers.speak(name, &ranges)?;
        }
        speakers.wait_steady(&NAMES).await?;
        let served = served();
        all_led(&speakers, &NAMES, served.len()).await?;
        let heir = speakers.lan.mac("bravo")?;
        let (moving, staying): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = served
            .iter()
            .partition(|ip| leader(**ip, NAMES) == Some("alpha"));
        ensure!(moving.len() >= 1_000, "only {} will move", moving.len());
        all_said(&capture, &heir, 0, &staying).await?;

        // Those whose turn would be the last of IPv4 are asked for all the time.
        let last: Vec<Ipv4Addr> = moving
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let asked = last.get(last.len() - 20..).context("too few")?;
        let (from, to) = (
            asked.first().context("none")?,
            asked.last().context("none")?,
        );
        let count = (u32::from(*to) - u32::from(*from) + 1).to_string();
        let ask = Program::new("ask", tool()?).args([
            "ask",
            &from.to_string(),
            "--count",
            &count,
            "--flood",
            "--again",
            "10",
        ]);
        let ask = speakers.lan.start("client", ask)?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let began = u64::try_from(began.as_micros())?;
        speakers.lan.cut("alpha")?;
        all_led(&speakers, &["bravo"], served.len()).await?;
        all_said(&capture, &heir, began, &moving).await?;
        ask.check()?;

        let all = announced(&capture, &heir);
        let limit = ResponderConfig::PACE / 10 + ResponderConfig::PACE * (100 + LATE) / 1_000;
        let worst = most(&all);
        let mut first: Vec<IpAddr> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut took = 0;
        for claim in all.iter().filter(|claim| claim.at >= began) {
            if moving.contains(&claim.address) && seen.insert(claim.address) {
                first.push(claim.address);
                took = claim.at - began;
            }
        }
        let place = |ip: &Ipv4Addr| first.iter().position(|other| *other == IpAddr::V4(*ip));
        let places: Option<Vec<usize>> = asked.iter().map(place).collect();
        let places = places.context("one was never announced")?;
        println!(
            "{} take-overs, each announced once {} ms after the cut; at most {worst} announcements in 100 ms (limit \
             {limit}); what was asked for came as numbers {places:?}",
            moving.len(),
            took / 1_000
        );
        ensure!(
            worst <= usize::try_from(limit)?,
            "{worst} announcements in 100 ms"
        );
        // Without its being asked for, the first of them would be near number 1,000.
        ensure!(places.iter().all(|place| *place < 700), "{places:?}");
        Ok(())
    });
}

/// Waits until a host has announced each of these addresses as often as it is to, from a moment on.
async fn all_said(
    capture: &Capture,
    mac: &str,
    from: u64,
    addresses: &BTreeSet<IpAddr>,
) -> Result<()> {
    eventually("all announcements", Deadline::SHORT, async || {
        let mut said: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for claim in announced(capture, mac) {
            if claim.at >= from {
                *said.entry(claim.address).or_default() += 1;
            }
        }
        let missing = addresses
            .iter()
            .filter(|ip| said.get(ip).copied().unwrap_or(0) < times(**ip));
        let missing = missing.count();
        ensure!(
            missing == 0,
            "{missing} of {} were not announced as often as is due",
            addresses.len()
        );
        anyhow::Ok(())
    })
    .await
}
