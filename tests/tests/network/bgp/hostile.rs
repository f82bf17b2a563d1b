//! Peers that mean ill, or do not know better: nothing they send may end more
//! than their own session, nor take memory for good.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{PeerConfig, RemoteAs, SessionState, SpeakerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::lab::{Us, plain, run, until};

const PORT: u16 = 1790;

/// A passive speaker with two peers on loopback; the second one is the witness
/// that must not notice anything.
fn speaker() -> Us {
    let mut config = SpeakerConfig::new(65001, "192.0.2.1".parse().unwrap());
    config.listen = vec![([127, 0, 0, 1], PORT).into()];
    for (name, last) in [("ill", 2), ("well", 3)] {
        let address = std::net::Ipv4Addr::new(127, 0, 0, last).into();
        let mut peer = PeerConfig::new(address, RemoteAs::Exactly(65000));
        peer.passive = true;
        config = config.peer(name, peer);
    }
    Us::start(config, plain(&["203.0.113.9/32"]))
}

async fn connect(last: u8) -> Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, last], 0).into())?;
    until("a connection", async || {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, last], 0).into())?;
        Ok(socket.connect(([127, 0, 0, 1], PORT).into()).await?)
    })
    .await
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
}

pub(super) fn open(last: u8) -> Vec<u8> {
    message(1, &[4, 0xfd, 0xe8, 0, 90, 192, 0, 2, last, 0])
}

fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(nlri);
    message(2, &body)
}

const ATTRIBUTES: [u8; 18] = [
    0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xe8, 0x40, 3, 4, 192, 0, 2, 9,
];

/// Connects and brings the session up.
async fn session(us: &Us, name: &str, last: u8) -> Result<TcpStream> {
    let mut stream = connect(last).await?;
    stream.write_all(&open(last)).await?;
    stream.write_all(&message(4, &[])).await?;
    us.established(name).await?;
    Ok(stream)
}

/// Reads until the other side closes, and returns all of it.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    all
}

/// Resident memory of this process in KiB.
pub(super) fn memory() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4)
}

#[test]
fn a_million_routes_are_counted_in_bounded_memory() {
    run(async |_lab| {
        let us = speaker();
        let _witness = session(&us, "well", 3).await?;
        let mut stream = session(&us, "ill", 2).await?;
        let before = memory()?;
        let nlri: Vec<u8> = (0..800_u32)
            .flat_map(|i| {
                let [.., high, low] = i.to_be_bytes();
                [32, 10, 0, high, low]
            })
            .collect();
        let one = update(&ATTRIBUTES, &nlri);
        for _ in 0..1250 {
            stream.write_all(&one).await?;
        }
        until("a million", async || {
            let read = us.snapshot().peers["ill"].counters.read();
            ensure!(read.prefixes_dropped == 1_000_000, "{read:?}");
            Ok(())
        })
        .await?;
        let after = memory()?;
        ensure!(after < before + 8192, "{before} KiB became {after} KiB");
        for name in ["ill", "well"] {
            ensure!(us.snapshot().peers[name].state == SessionState::Established);
        }
        us.drain().await;
        Ok(())
    });
}

#[test]
fn bad_attributes_are_borne_and_broken_messages_end_that_session_only() {
    run(async |_lab| {
        let us = speaker();
        let _witness = session(&us, "well", 3).await?;
        // Bad origin, AS path of no length, unknown well-known attribute,
        // truncated attribute: RFC 7606 keeps the session.
        let mut stream = session(&us, "ill", 2).await?;
        let borne: [&[u8]; 4] = [
            &[0x40, 1, 1, 9, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, 9],
            &[0x40, 1, 1, 0, 0x40, 2, 3, 2, 9, 1, 0x40, 3, 4, 192, 0, 2, 9],
            &[0x40, 99, 0],
            &[0x40, 1, 1, 0, 0x40, 2, 200],
        ];
        for attributes in borne {
            stream.write_all(&update(attributes, &[8, 10])).await?;
        }
        until("four errors", async || {
            let read = us.snapshot().peers["ill"].counters.read();
            ensure!(read.malformed_updates == 4, "{read:?}");
            Ok(())
        })
        .await?;
        ensure!(us.snapshot().peers["ill"].state == SessionState::Established);
        drop(stream);
        // Each of these ends the session with its NOTIFICATION.
        let mut header = message(4, &[]);
        header[3] = 0;
        let deadly: [(Vec<u8>, u8); 5] = [
            (header, 1),
            (message(9, &[]), 1),
            (message(2, &[0, 200, 0, 0]), 3),
            (update(&ATTRIBUTES, &[33, 10, 0, 0, 0, 0]), 3),
            (open(2), 5),
        ];
        for (octets, code) in deadly {
            us.sees("no session", "ill", |peer| {
                peer.state != SessionState::Established
            })
            .await?;
            let mut stream = session(&us, "ill", 2).await?;
            stream.write_all(&octets).await?;
            let all = rest(&mut stream).await;
            let said = all
                .windows(21)
                .rev()
                .find(|window| window[..16] == [0xff; 16] && window[18] == 3)
                .map(|window| window[19]);
            ensure!(
                said == Some(code),
                "{octets:02x?}: {said:?} in place of {code}"
            );
        }
        ensure!(us.snapshot().peers["well"].state == SessionState::Established);
        ensure!(us.snapshot().peers["well"].counters.read().dropped == 0);
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_stranger_and_a_crowd_are_turned_away() {
    run(async |_lab| {
        let us = speaker();
        let mut stranger = connect(9).await?;
        ensure!(rest(&mut stranger).await.is_empty());
        let mut witness = session(&us, "ill", 2).await?;
        let mut crowd = Vec::new();
        for _ in 0..200 {
            let mut stream = connect(2).await?;
            // It may be closed already.
            let _ = stream.write_all(&open(2)).await;
            crowd.push(stream);
        }
        for mut stream in crowd {
            let all = rest(&mut stream).await;
            ensure!(all.len() < 4096);
        }
        witness.write_all(&message(4, &[])).await?;
        let peer = &us.snapshot().peers["ill"];
        ensure!(peer.state == SessionState::Established, "{peer:?}");
        ensure!(peer.counters.read().dropped == 0);
        us.drain().await;
        Ok(())
    });
}

#[test]
fn five_hundred_flaps_leave_nothing_behind() {
    run(async |_lab| {
        let us = speaker();
        let mut before = None;
        for round in 1..=500_u64 {
            let stream = session(&us, "ill", 2).await?;
            drop(stream);
            us.sees("the loss", "ill", |peer| {
                peer.counters.read().dropped == round && peer.state != SessionState::Established
            })
            .await?;
            if round == 100 {
                before = Some(Held::now()?);
            }
        }
        before.context("no measure")?.is_left_again().await?;
        us.drain().await;
        Ok(())
    });
}

/// What this process holds at one time.
pub(super) struct Held {
    files: usize,
    kib: u64,
}

impl Held {
    pub(super) fn now() -> Result<Self> {
        Ok(Self {
            files: files()?,
            kib: memory()?,
        })
    }

    /// Waits until no more files are open than then, or nearly so; and there is no more memory in use.
    pub(super) async fn is_left_again(&self) -> Result<()> {
        let Self { files: before, kib } = self;
        until("all closed", async || {
            let now = files()?;
            ensure!(now <= before + 2, "{before} files became {now}");
            Ok(())
        })
        .await?;
        let now = memory()?;
        ensure!(now < kib + 4096, "{kib} KiB became {now} KiB");
        Ok(())
    }
}

pub(super) fn files() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
