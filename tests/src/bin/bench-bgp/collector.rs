//! A peer that takes routes and nothing else: so simple that it costs no time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;

/// Takes so many routes of a session; returns when all of them are here, with the
/// time since the session was established.
pub(crate) async fn collect(listener: &TcpListener, routes: u32) -> Result<(TcpStream, Duration)> {
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await??;
    stream.set_nodelay(true)?;
    // AS 65000, no hold time, no capabilities but IPv4 and four-octet AS.
    let open = [
        0, 43, 1, 4, 0xfd, 0xe8, 0, 0, 192, 0, 2, 2, 14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0,
        0xfd, 0xe8,
    ];
    let mut greeting = vec![0xff; 16];
    greeting.extend_from_slice(&open);
    stream.write_all(&greeting).await?;
    let (mut kind, _) = message(&mut stream).await?;
    ensure!(kind == 1, "no OPEN");
    while kind != 4 {
        (kind, _) = message(&mut stream).await?;
    }
    let mut keepalive = vec![0xff; 16];
    keepalive.extend_from_slice(&[0, 19, 4]);
    stream.write_all(&keepalive).await?;
    let established = Instant::now();
    let mut count = 0;
    while count < routes as usize {
        let (kind, body) = message(&mut stream).await?;
        if kind == 2 {
            count += announced(&body).context("a broken UPDATE")?;
        }
    }
    Ok((stream, established.elapsed()))
}

/// The next message: its type and what follows the header.
pub(crate) async fn message(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).await?;
    let [.., high, low, kind] = header;
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(19)];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// How many /32 an UPDATE announces.
fn announced(body: &[u8]) -> Option<usize> {
    let (withdrawn, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*withdrawn))..)?;
    let (attributes, rest) = rest.split_first_chunk::<2>()?;
    let nlri = rest.get(usize::from(u16::from_be_bytes(*attributes))..)?;
    Some(nlri.len() / 5)
}
