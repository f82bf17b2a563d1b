//! A datagram at a steady pace; one line per datagram: number, microseconds since the epoch at sending, who answered
//! (`-` for nobody within a quarter of a second).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

const PATIENCE: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub(crate) struct Args {
    target: std::net::IpAddr,
    /// Milliseconds between two datagrams.
    #[arg(long, default_value_t = 10)]
    every: u64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let local = if args.target.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(local).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(args.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting: BTreeMap<u64, (Instant, u128)> = BTreeMap::new();
    let mut number = 0_u64;
    let mut buffer = [0; 128];
    let mut out = std::io::stdout().lock();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                // What came while this process did not run is no loss.
                while let Ok((length, _)) = socket.try_recv_from(&mut buffer) {
                    answered(&mut waiting, buffer.get(..length), &mut out)?;
                }
                let now = Instant::now();
                let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
                while let Some(first) = waiting.first_entry() {
                    if now.duration_since(first.get().0) < PATIENCE {
                        break;
                    }
                    writeln!(out, "{} {} -", first.key(), first.get().1)?;
                    first.remove();
                }
                out.flush()?;
                waiting.insert(number, (now, wall));
                // Unreachable for now: a datagram that gets no answer.
                let _ = socket.send_to(&number.to_be_bytes(), (args.target, 8080)).await;
                number += 1;
            }
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, _)) = received else { continue };
                answered(&mut waiting, buffer.get(..length), &mut out)?;
                out.flush()?;
            }
        }
    }
}

/// Notes who answered a datagram that is waited for.
fn answered(
    waiting: &mut BTreeMap<u64, (Instant, u128)>,
    answer: Option<&[u8]>,
    out: &mut impl Write,
) -> Result<()> {
    let answer = answer.context("the kernel wrote beyond the buffer")?;
    let Some((id, name)) = answer.split_first_chunk::<8>() else {
        return Ok(());
    };
    let id = u64::from_be_bytes(*id);
    if let Some((_, wall)) = waiting.remove(&id) {
        writeln!(out, "{id} {wall} {}", String::from_utf8_lossy(name))?;
    }
    Ok(())
}
