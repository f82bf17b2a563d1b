//! Asks for an address by ARP again and again, one request after the other's answer, and writes how many nanoseconds
//! each answer took. Or floods the segment with requests for neighbouring addresses and waits for none.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use openelb_net::{Instruction, LinksWatch, PacketSocket};

#[derive(clap::Args)]
pub(crate) struct Args {
    target: Ipv4Addr,
    #[arg(long, default_value_t = 2000)]
    count: u32,
    /// Ask in this VLAN, by a tag in the frame.
    #[arg(long)]
    vlan: Option<u16>,
    /// Ask for `count` addresses from the target on, and wait for no answer.
    #[arg(long)]
    flood: bool,
    /// Flood again after so many milliseconds, until it is killed.
    #[arg(long, requires = "flood")]
    again: Option<u64>,
}

/// Everything passes (`ret #262144`).
const ALL: [Instruction; 1] = [Instruction {
    code: 6,
    jt: 0,
    jf: 0,
    k: 0x4_0000,
}];

pub(crate) async fn run(args: Args) -> Result<()> {
    let links = LinksWatch::spawn().await?;
    let links = links.subscribe().borrow().clone();
    let link = links.by_name("eth0").context("no eth0")?;
    let mac = link.mac.context("eth0 has no hardware address")?.0;
    let own = link
        .addresses
        .iter()
        .find_map(|net| match net.addr() {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        })
        .context("eth0 has no IPv4 address")?;
    let request = |target: Ipv4Addr| {
        let mut frame = [0xff; 6].to_vec();
        frame.extend(mac);
        if let Some(vlan) = args.vlan {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(mac);
        frame.extend(own.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    };

    let socket = PacketSocket::open(&ALL)?;
    if args.flood {
        loop {
            for n in 0..args.count {
                let target = Ipv4Addr::from(u32::from(args.target).wrapping_add(n));
                // A frame that finds no room is one less in a flood.
                let _ = socket.send(link.index, &request(target));
            }
            let Some(pause) = args.again else {
                return Ok(());
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    let mut buffer = [0; 2048];
    let frame = request(args.target);
    for _ in 0..args.count {
        let began = Instant::now();
        socket.send(link.index, &frame)?;
        loop {
            let received =
                tokio::time::timeout(Duration::from_secs(1), socket.receive(&mut buffer)).await;
            let Ok(received) = received else {
                bail!("{} does not answer", args.target)
            };
            let answer = buffer.get(..received?.length).unwrap_or_default();
            // An ARP reply to this host whose sender is the target; an announcement is for all.
            if answer.get(..6) == Some(&mac)
                && answer.get(12..14) == Some(&[8, 6])
                && answer.get(21) == Some(&2)
                && answer.get(28..32) == Some(&args.target.octets())
            {
                break;
            }
        }
        println!("{}", began.elapsed().as_nanos());
    }
    Ok(())
}
