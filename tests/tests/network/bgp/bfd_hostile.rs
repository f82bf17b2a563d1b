//! BFD packets from who means ill, or cannot stay up: what does not come from the peer on the link changes nothing, and
//! no flap leaves anything behind. The peer is played by the test, which so knows what only the two sides know.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{BfdConfig, BfdState, SessionState, SpeakerConfig};
use openelb_tests::Namespace;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::hostile::{Held, files, memory, message, open};
use super::lab::{Lab, Us, config, peer, plain, run, until};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const SINGLE_HOP: u16 = 3784;
/// The number by which the peer knows its session.
const THEIRS: u32 = 0x0ba1_0ba1;
/// States on the wire (RFC 5880 section 4.1).
const DOWN: u8 = 1;
const INIT: u8 = 2;
const UP: u8 = 3;

/// A speaker that waits for the peer, and watches it three times in 300 ms.
fn watched() -> SpeakerConfig {
    let mut peer = peer(&PEER.to_string());
    peer.passive = true;
    peer.timers.hold = Duration::from_secs(90);
    let interval = Duration::from_millis(100);
    peer.bfd = Some(BfdConfig {
        transmit: interval,
        receive: interval,
        ..BfdConfig::default()
    });
    config([peer])
}

/// A control packet without echo or authentication: 100 ms both ways, three misses.
fn control(state: u8, mine: u32, yours: u32) -> [u8; 24] {
    let mut octets = [0; 24];
    octets[..4].copy_from_slice(&[1 << 5, state << 6, 3, 24]);
    octets[4..8].copy_from_slice(&mine.to_be_bytes());
    octets[8..12].copy_from_slice(&yours.to_be_bytes());
    octets[12..16].copy_from_slice(&100_000_u32.to_be_bytes());
    octets[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
    octets
}

/// A socket of the router that sends to our BFD.
fn sender(source: SocketAddr, ttl: u32) -> Result<UdpSocket> {
    Namespace::named("router").enter(|| {
        let socket = UdpSocket::bind(source)?;
        socket.set_ttl(ttl)?;
        socket.connect((US, SINGLE_HOP))?;
        Ok(socket)
    })
}

/// The peer's BFD.
struct Played {
    socket: UdpSocket,
    /// The number by which we know our session.
    ours: u32,
}

impl Played {
    /// Waits for a packet of ours.
    async fn meet(us: &Us) -> Result<Self> {
        us.sees("BFD to run", "p0", |peer| peer.bfd.is_some())
            .await?;
        let heard = Namespace::named("router").enter(|| {
            let socket = UdpSocket::bind((PEER, SINGLE_HOP))?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            Ok(socket)
        })?;
        let mut octets = [0; 64];
        let (len, _) = heard
            .recv_from(&mut octets)
            .context("no BFD packet of ours")?;
        let number = octets
            .get(4..8)
            .filter(|_| len == 24)
            .context("no BFD packet")?;
        Ok(Self {
            socket: sender((PEER, 0).into(), 255)?,
            ours: u32::from_be_bytes(number.try_into()?),
        })
    }

    fn says(&self, state: u8) -> Result<()> {
        self.socket.send(&control(state, THEIRS, self.ours))?;
        Ok(())
    }

    /// Both sides of the handshake, which we need not be heard in.
    fn up(&self) -> Result<()> {
        self.says(DOWN)?;
        self.says(INIT)?;
        self.says(UP)
    }
}

/// The peer's BGP, established.
async fn session(us: &Us) -> Result<TcpStream> {
    let stream = until("a connection", async || {
        Namespace::named("router").enter(|| Ok(std::net::TcpStream::connect((US, 179))?))
    })
    .await?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream)?;
    stream.write_all(&open(1)).await?;
    stream.write_all(&message(4, &[])).await?;
    us.established("p0").await?;
    Ok(stream)
}

async fn bfd_is(us: &Us, state: BfdState) -> Result<()> {
    us.sees("the state of BFD", "p0", |peer| {
        peer.bfd.is_some_and(|bfd| bfd.state == state)
    })
    .await?;
    Ok(())
}

#[test]
fn five_hundred_flaps_that_bfd_finds_leave_nothing_behind() {
    run(async |_lab| {
        let us = Us::start(watched(), plain(&["203.0.113.9/32"]));
        let played = Played::meet(&us).await?;
        let mut before = None;
        for round in 1..=500_u64 {
            let stream = session(&us).await?;
            played.up()?;
            us.sees("the flap to be possible", "p0", |peer| {
                peer.bfd
                    .is_some_and(|bfd| bfd.state == BfdState::Up || bfd.flaps >= round)
            })
            .await?;
            played.says(DOWN)?;
            let lost = us
                .sees("the loss", "p0", |peer| {
                    peer.counters.read().dropped == round
                        && peer.state != SessionState::Established
                        && peer.bfd.is_some_and(|bfd| bfd.flaps == round)
                })
                .await?;
            let said = lost.last_notification.as_ref().map(|n| (n.code, n.subcode));
            ensure!(said == Some((6, 10)), "ended by {said:?}");
            drop(stream);
            if round == 100 {
                before = Some(Held::now()?);
            }
        }
        before.context("no measure")?.is_left_again().await?;
        us.drain().await;
        Ok(())
    });
}

/// Sends what the peer on the link would, as long as this lives.
struct Alive {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Alive {
    fn start(played: Played) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                played.says(UP)?;
                // The pace that was agreed, less what jitter takes from it (RFC 5880 section 6.8.7).
                std::thread::sleep(Duration::from_millis(75));
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it could not send is seen as a loss.
            let _ = thread.join();
        }
    }
}

/// What a stranger may send, who knows everything but is not the peer on the link.
fn forged(lab: &Lab, ours: u32) -> Result<Vec<(UdpSocket, Vec<u8>)>> {
    lab.in_router("ip addr add 10.0.0.99/24 dev eth0")?;
    let end = control(DOWN, THEIRS, ours).to_vec();
    let mut broken = end.clone();
    broken[3] = 200;
    let far = || sender((PEER, 0).into(), 254);
    let near = || sender((PEER, 0).into(), 255);
    let other = IpAddr::from([10, 0, 0, 99]);
    Ok(vec![
        // Through a router: all is right but the TTL.
        (far()?, end.clone()),
        (far()?, control(DOWN, THEIRS, 0).to_vec()),
        // Of another session, from the peer's address, and of this one from another.
        (near()?, control(DOWN, THEIRS, ours ^ 1).to_vec()),
        (sender((other, 0).into(), 255)?, end.clone()),
        // No BFD: a length that is not there, half a packet, nothing.
        (near()?, broken),
        (near()?, end[..12].to_vec()),
        (near()?, Vec::new()),
    ])
}

#[test]
fn forged_packets_change_nothing_one_by_one_and_as_a_flood() {
    run(async |lab| {
        let us = Us::start(watched(), plain(&["203.0.113.9/32"]));
        let played = Played::meet(&us).await?;
        let ours = played.ours;
        let _stream = session(&us).await?;
        played.up()?;
        bfd_is(&us, BfdState::Up).await?;
        let _alive = Alive::start(played);
        us.told("p0", 1).await?;
        let flaps = us.snapshot().peers["p0"].bfd.map(|bfd| bfd.flaps);
        let (files_before, kib_before) = (files()?, memory()?);
        let forged = forged(&lab, ours)?;
        let sent = tokio::task::spawn_blocking(move || -> Result<u64> {
            let mut sent = 0;
            for _ in 0..50_000 {
                for (socket, packet) in &forged {
                    // A full queue is what a flood meets.
                    sent += u64::from(socket.send(packet).is_ok());
                }
            }
            Ok(sent)
        })
        .await??;
        println!("{sent} forged packets");
        let peer = us.snapshot().peers["p0"].clone();
        ensure!(
            peer.bfd
                .is_some_and(|bfd| bfd.state == BfdState::Up && Some(bfd.flaps) == flaps),
            "{peer:?}"
        );
        ensure!(peer.counters.read().dropped == 0, "{peer:?}");
        ensure!(peer.state == SessionState::Established, "{peer:?}");
        let (files_now, kib) = (files()?, memory()?);
        ensure!(
            files_now == files_before,
            "{files_before} files became {files_now}"
        );
        ensure!(kib < kib_before + 4096, "{kib_before} KiB became {kib} KiB");
        us.drain().await;
        Ok(())
    });
}
