//! What answers in pods and behind load balancers: says who it is and whom it sees, over TCP and UDP.
//!
//! `serve PORT [ADDRESS…]`: a TCP connection gets one line, `NODE POD PEER`, and after it whatever it sends; a UDP packet
//! gets the same line. UDP is answered from the addresses named; without any, from the one that the kernel chooses.
//! `web PORT`: an HTTP request gets that line as a page. SIGTERM ends it at once, or after `LINGER` seconds in which it
//! goes on answering. `ask NAME PORT [4|6]` resolves a name and prints the line of who is there. `pause` only waits; `check`
//! ends well.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
            let addresses: Vec<IpAddr> = args.map(|arg| arg.parse()).collect::<Result<_, _>>()?;
            tokio::select! {
                outcome = serve(port, &addresses) => outcome?,
                () = leave(&mut end) => {}
            }
        }
        Some("web") => {
            let port = args.next().context("serve which port?")?.parse()?;
            tokio::select! {
                outcome = web(port) => outcome?,
                () = leave(&mut end) => {}
            }
        }
        Some("ask") => {
            let name = args.next().context("ask whom?")?;
            let port = args.next().context("ask at which port?")?.parse()?;
            let family = args.next().unwrap_or_default();
            let answer = ask(&name, port, &family);
            print!(
                "{}",
                tokio::time::timeout(Duration::from_secs(5), answer).await??
            );
        }
        Some("check") => {}
        _ => bail!("say `serve PORT`, `web PORT`, `ask NAME PORT`, `pause` or `check`"),
    }
    Ok(())
}

/// What one says who listens there; `family` may be `4` or `6`.
async fn ask(name: &str, port: u16, family: &str) -> Result<String> {
    let addresses = tokio::net::lookup_host((name, port)).await?;
    let mut wanted = addresses.filter(|address| match family {
        "4" => address.is_ipv4(),
        "6" => address.is_ipv6(),
        _ => true,
    });
    let address = wanted.next().context("the name has no such address")?;
    let mut stream = tokio::io::BufReader::new(TcpStream::connect(address).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line)
}

/// Returns when it is time to end.
async fn leave(end: &mut Signal) {
    end.recv().await;
    let linger = name("LINGER")
        .parse()
        .map_or(Duration::ZERO, Duration::from_secs);
    tokio::time::sleep(linger).await;
}

/// Answers HTTP, one request per connection.
async fn web(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    loop {
        if let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(tokio::time::timeout(
                Duration::from_secs(10),
                page(stream, peer),
            ));
        }
    }
}

async fn page(mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    let mut request = [0; 2048];
    // What is asked for makes no difference; that something is asked does.
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    let body = line(peer);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

async fn serve(port: u16, addresses: &[IpAddr]) -> Result<()> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    let mut packets = tokio::task::JoinSet::new();
    for address in if addresses.is_empty() {
        &any
    } else {
        addresses
    } {
        let socket = UdpSocket::bind((*address, port))
            .await
            .with_context(|| format!("cannot listen on {address} port {port} (UDP)"))?;
        packets.spawn(answer_packets(socket));
    }
    println!("listening on {port}");
    loop {
        tokio::select! {
            Ok((stream, peer)) = listener.accept() => { tokio::spawn(talk(stream, peer)); }
            Some(ended) = packets.join_next() => return ended?,
        }
    }
}

async fn answer_packets(socket: UdpSocket) -> Result<()> {
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
