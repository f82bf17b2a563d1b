//! Answers with the host's name.

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to answer.
    name: String,
    /// Addresses to listen on; each port 8080.
    addresses: Vec<std::net::IpAddr>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for address in args.addresses {
        let udp = UdpSocket::bind((address, 8080)).await?;
        let name = args.name.clone();
        tasks.spawn(async move {
            let mut buffer = [0; 64];
            loop {
                if let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                    let mut answer = buffer.get(..length).unwrap_or_default().to_vec();
                    answer.extend_from_slice(name.as_bytes());
                    let _ = udp.send_to(&answer, from).await;
                }
            }
        });
        let tcp = TcpListener::bind((address, 8080)).await?;
        let name = args.name.clone();
        tasks.spawn(async move {
            loop {
                if let Ok((mut stream, _)) = tcp.accept().await {
                    let _ = stream.write_all(name.as_bytes()).await;
                }
            }
        });
    }
    println!("ready");
    while tasks.join_next().await.is_some() {}
    Ok(())
}
