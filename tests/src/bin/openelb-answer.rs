//! What answers in pods and behind load balancers: says who it is and whom it sees, over TCP and UDP.
//!
//! `serve PORT`: a TCP connection gets one line, `NODE POD PEER`, and after it whatever it sends; a UDP packet gets the
//! same line. SIGTERM ends it at once, or after `LINGER` seconds in which it goes on answering. `pause` only waits.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("pause") => {
            end.recv().await;
        }
        Some("serve") => {
            let port = args.next().context("serve which port?")?.parse()?;
            let linger = name("LINGER")
                .parse()
                .map_or(Duration::ZERO, Duration::from_secs);
            tokio::select! {
                outcome = serve(port) => outcome?,
                () = async { end.recv().await; tokio::time::sleep(linger).await } => {}
            }
        }
        _ => bail!("say `serve PORT` or `pause`"),
    }
    Ok(())
}

async fn serve(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (UDP)"))?;
    tokio::spawn(async move {
        loop {
            if let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(talk(stream, peer));
            }
        }
    });
    let mut packet = [0; 2048];
    loop {
        let (_, peer) = socket.recv_from(&mut packet).await?;
        // An answer that cannot be sent is a lost packet, which is the asker's to notice.
        let _ = socket.send_to(line(peer).as_bytes(), peer).await;
    }
}

async fn talk(mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(line(peer).as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

fn line(peer: SocketAddr) -> String {
    format!(
        "{} {} {}\n",
        name("NODE_NAME"),
        name("POD_NAME"),
        peer.ip().to_canonical()
    )
}

fn name(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| "-".to_owned())
}
