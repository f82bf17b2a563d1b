//! The BGP speaker beside BIRD in the same run: how fast routes leave, how fast
//! many peers come up, how much memory that takes, how fast the route of a
//! killed process goes, how fast BFD finds a loss; and how soon after a watch
//! event the speaker of a cluster tells its router.
//!
//! Everything runs in network namespaces of its own: `unshare` is called first.

mod collector;
mod reaction;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use collector::collect;
use openelb_bgp::{
    Attributes, BfdConfig, BfdState, PeerConfig, RemoteAs, RouteSet, SessionState, Speaker,
    SpeakerConfig,
};
use openelb_tests::figure::{self, Figure};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PORT: u16 = 1790;
const ROUTES: u32 = 10_000;
const PATIENCE: Duration = Duration::from_mins(1);
/// For how long a session is left alone before it is killed: FRR has End-of-RIB then and has told zebra all.
const SETTLING: Duration = Duration::from_millis(300);
/// The Services of a large cluster.
const MANY: usize = 10_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os("BENCH_BGP_INSIDE").is_none() {
        let error = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child=SIGKILL",
            ])
            .arg("--mount-proc")
            .arg(std::env::current_exe()?)
            .args(&arguments)
            .env("BENCH_BGP_INSIDE", "1")
            .exec();
        return Err(error).context("unshare (the benchmark needs root)");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["speaker", peers] => runtime.block_on(serve(peers.parse()?)),
        ["announce-one"] => runtime.block_on(announce_one()),
        ["reaction", services] => {
            let mut sheet = Sheet::default();
            sheet.add(runtime.block_on(async {
                network()?;
                reaction::figures(services.parse()?).await
            }));
            sheet.write(None)
        }
        ["--json", file] => runtime.block_on(all())?.write(Some(Path::new(file))),
        [] => runtime.block_on(all())?.write(None),
        _ => bail!("usage: bench-bgp [--json FILE] or bench-bgp reaction SERVICES"),
    }
}

/// A wire to a router's namespace.
fn network() -> Result<()> {
    shell(
        "ip link set lo up; mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns
         ip netns add router
         ip link add eth0 type veth peer name eth0 netns router
         ip addr add 10.0.0.11/24 dev eth0; ip link set eth0 up
         ip -n router addr add 10.0.0.1/24 dev eth0
         ip -n router link set eth0 up; ip -n router link set lo up",
    )
}

async fn all() -> Result<Sheet> {
    network()?;
    let mut sheet = Sheet::default();
    sheet.take("routes 10,000 ms", "ms", many_routes().await);
    sheet.take("100 peers ms", "ms", many_peers().await);
    sheet.take("rss MB", "MB", both_memories().await);
    sheet.take("killed ms", "ms", killed().await);
    for ms in [50, 100] {
        sheet.take(&format!("bfd 3x{ms} ms"), "ms", detection(ms).await);
    }
    for services in [1, MANY] {
        sheet.add(reaction::figures(services).await);
    }
    Ok(sheet)
}

/// What was measured: ours, and BIRD's.
type Both = (Vec<f64>, Vec<f64>);

/// The figures, and what stood in the way of others: one that cannot be had costs none of the rest.
#[derive(Default)]
struct Sheet {
    figures: Vec<Figure>,
    failed: Vec<String>,
}

impl Sheet {
    fn add(&mut self, measured: Result<Vec<Figure>>) {
        match measured {
            Ok(figures) => self.figures.extend(figures),
            Err(error) => self.failed.push(format!("{error:#}")),
        }
    }

    fn take(&mut self, name: &str, unit: &str, measured: Result<Both>) {
        let figure = measured.and_then(|(ours, theirs)| beside_bird(name, unit, ours, theirs));
        match figure {
            Ok(figure) => self.figures.push(figure),
            Err(error) => self.failed.push(format!("{name}: {error:#}")),
        }
    }

    fn write(self, file: Option<&Path>) -> Result<()> {
        figure::write(file, &self.figures)?;
        ensure!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        Ok(())
    }
}

async fn many_routes() -> Result<Both> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        ours.push(routes(Who::Us).await?);
        theirs.push(routes(Who::Bird).await?);
    }
    Ok((ours, theirs))
}

async fn many_peers() -> Result<Both> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        ours.push(peers(Who::Us).await?.0);
        theirs.push(peers(Who::Bird).await?.0);
    }
    Ok((ours, theirs))
}

async fn both_memories() -> Result<Both> {
    Ok((vec![memory(Who::Us).await?], vec![memory(Who::Bird).await?]))
}

/// A figure of ours beside BIRD's.
fn beside_bird(name: &str, unit: &str, ours: Vec<f64>, theirs: Vec<f64>) -> Result<Figure> {
    Ok(Figure::of(name, unit, ours)?.beside("BIRD", &Figure::of(name, unit, theirs)?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Us,
    Bird,
}

/// A program that announces; killed when dropped.
struct Announcer(Child);

impl Drop for Announcer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn collector(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, index + 1)
}

fn prefixes() -> impl Iterator<Item = String> {
    (0..ROUTES).map(|i| format!("{}/32", Ipv4Addr::from(0x6440_0000 + i)))
}

/// Starts a speaker with this many peers on loopback.
fn announcer(who: Who, peers: u8) -> Result<Announcer> {
    let mut command = match who {
        Who::Us => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["speaker", &peers.to_string()]);
            command
        }
        Who::Bird => {
            let mut text =
                String::from("router id 192.0.2.1; protocol device {} protocol static { ipv4;\n");
            for prefix in prefixes() {
                writeln!(text, "route {prefix} blackhole;")?;
            }
            text += "}\n";
            for index in 0..peers {
                writeln!(
                    text,
                    "protocol bgp p{index} {{ local 127.0.0.1 as 65001; multihop;
                     neighbor {} port {PORT} as 65000;
                     connect delay time 0; connect retry time 1; error wait time 1,1;
                     ipv4 {{ import none; export all; next hop self; }}; }}",
                    collector(index)
                )?;
            }
            std::fs::write("/run/netns/bench.conf", text)?;
            let mut command = Command::new("bird");
            command.args([
                "-f",
                "-c",
                "/run/netns/bench.conf",
                "-s",
                "/run/netns/bird.ctl",
            ]);
            command
        }
    };
    Ok(Announcer(command.spawn()?))
}

/// The child process that is our speaker.
async fn serve(peers: u8) -> Result<()> {
    let attributes = Arc::new(Attributes::default());
    let routes = prefixes()
        .map(|prefix| Ok((prefix.parse()?, Arc::clone(&attributes))))
        .collect::<Result<RouteSet>>()?;
    let mut config = SpeakerConfig::new(65001, Ipv4Addr::new(192, 0, 2, 1));
    for index in 0..peers {
        let mut peer = PeerConfig::new(collector(index).into(), RemoteAs::Exactly(65000));
        peer.remote_port = PORT;
        peer.source = Some(Ipv4Addr::LOCALHOST.into());
        config = config.peer(format!("p{index}"), peer);
    }
    let (_config, follow) = watch::channel(Arc::new(config));
    let (_routes, announced) = watch::channel(Arc::new(routes));
    let _speaker = Speaker::spawn(follow, announced);
    std::future::pending().await
}

async fn routes(who: Who) -> Result<f64> {
    let listener = TcpListener::bind((collector(0), PORT)).await?;
    let _announcer = announcer(who, 1)?;
    let (_stream, time) = tokio::time::timeout(PATIENCE, collect(&listener, ROUTES)).await??;
    Ok(time.as_secs_f64() * 1000.0)
}

async fn peers(who: Who) -> Result<(f64, Announcer)> {
    converge(who, 100).await
}

/// Time until so many peers hold all routes.
async fn converge(who: Who, peers: u8) -> Result<(f64, Announcer)> {
    let mut listeners = Vec::new();
    for index in 0..peers {
        listeners.push(TcpListener::bind((collector(index), PORT)).await?);
    }
    let began = Instant::now();
    let announcer = announcer(who, peers)?;
    let all = listeners.iter().map(|listener| collect(listener, ROUTES));
    let all = futures::future::try_join_all(all);
    let _streams = tokio::time::timeout(PATIENCE, all).await??;
    let time = began.elapsed().as_secs_f64() * 1000.0;
    Ok((time, announcer))
}

async fn memory(who: Who) -> Result<f64> {
    let (_, announcer) = converge(who, 10).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", announcer.0.id()))?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("no VmRSS")?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}

/// The prefix that is announced to FRR.
const ONE: &str = "203.0.113.9";

/// The child process that announces one prefix to FRR.
async fn announce_one() -> Result<()> {
    let routes: RouteSet = [(
        format!("{ONE}/32").parse()?,
        Arc::new(Attributes::default()),
    )]
    .into_iter()
    .collect();
    let mut peer = PeerConfig::new(Ipv4Addr::new(10, 0, 0, 1).into(), RemoteAs::Exactly(65000));
    peer.timers.connect_retry = Duration::from_secs(1);
    let config = SpeakerConfig::new(65001, Ipv4Addr::new(10, 0, 0, 11)).peer("router", peer);
    let (_config, follow) = watch::channel(Arc::new(config));
    let (_routes, announced) = watch::channel(Arc::new(routes));
    let _speaker = Speaker::spawn(follow, announced);
    std::future::pending().await
}

/// FRR on the router: zebra and bgpd.
fn frr() -> Result<[Announcer; 2]> {
    shell("mkdir -p /run/netns/frr; chown -R frr:frr /run/netns/frr; chmod 755 /run/netns")?;
    std::fs::write("/run/netns/frr/zebra.conf", "hostname r\n")?;
    std::fs::write(
        "/run/netns/frr/bgpd.conf",
        "hostname r\nrouter bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n \
         neighbor 10.0.0.11 remote-as 65001\n neighbor 10.0.0.11 timers connect 1\n \
         neighbor 10.0.0.11 advertisement-interval 0\n",
    )?;
    let start = |daemon: &str, more: &str| -> Result<Announcer> {
        let line = format!(
            "exec ip netns exec router /usr/lib/frr/{daemon} --vty_socket /run/netns/frr \
             -i /run/netns/frr/{daemon}.pid -f /run/netns/frr/{daemon}.conf -z /run/netns/frr/zserv.api \
             -P 0 -A 127.0.0.1 {more}"
        );
        let child = Command::new("sh").args(["-c", &line]).spawn()?;
        let vty = format!("/run/netns/frr/{daemon}.vty");
        let end = Instant::now() + PATIENCE;
        while !std::path::Path::new(&vty).exists() {
            ensure!(Instant::now() < end, "{daemon} did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Announcer(child))
    };
    let zebra = start("zebra", "")?;
    Ok([start("bgpd", "-p 179")?, zebra])
}

/// Time from SIGKILL of the announcing process to the end of its route in the
/// kernel of the router, where FRR put it: ours, and BIRD's.
async fn killed() -> Result<Both> {
    let _frr = frr()?;
    std::fs::write(
        "/run/netns/killed.conf",
        format!(
            "router id 10.0.0.11; protocol device {{}}
             protocol static {{ ipv4; route {ONE}/32 blackhole; }}
             protocol bgp frr {{ local 10.0.0.11 as 65001; neighbor 10.0.0.1 as 65000;
             connect delay time 0; connect retry time 1; error wait time 1,1;
             ipv4 {{ import none; export all; next hop self; }}; }}"
        ),
    )?;
    let mut monitor = tokio::process::Command::new("ip")
        .args(["netns", "exec", "router", "ip", "-o", "monitor", "route"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = monitor.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let mut command = if round % 2 == 0 {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("announce-one");
            command
        } else {
            let mut command = Command::new("bird");
            command.args(["-f", "-c", "/run/netns/killed.conf"]);
            command.args(["-s", "/run/netns/killed.ctl"]);
            command
        };
        let mut announcer = Announcer(command.spawn()?);
        route(&mut lines, true).await?;
        tokio::time::sleep(SETTLING).await;
        let began = Instant::now();
        announcer.0.kill()?;
        route(&mut lines, false).await?;
        let time = began.elapsed().as_secs_f64() * 1000.0;
        if round % 2 == 0 {
            ours.push(time);
        } else {
            theirs.push(time);
        }
    }
    Ok((ours, theirs))
}

/// Waits until the router's kernel has got the route, or has lost it.
async fn route<R: AsyncBufRead + Unpin>(lines: &mut Lines<R>, there: bool) -> Result<()> {
    let found = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(ONE) && line.starts_with("Deleted") != there {
                return Ok(());
            }
        }
        bail!("the monitor ended")
    };
    tokio::time::timeout(PATIENCE, found).await?
}

/// Time from a cut of the wire to Down: ours, and BIRD's.
async fn detection(ms: u64) -> Result<Both> {
    let configuration = format!(
        "router id 10.0.0.1; protocol device {{}}
         protocol bfd {{ interface \"*\" {{ interval {ms} ms; multiplier 3; }}; }}
         protocol bgp us_ {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; bfd on; passive; error wait time 1,1;
         ipv4 {{ import all; export none; }}; }}"
    );
    std::fs::write("/run/netns/bfd.conf", configuration)?;
    let bird = Command::new("ip")
        .args([
            "netns",
            "exec",
            "router",
            "bird",
            "-f",
            "-c",
            "/run/netns/bfd.conf",
        ])
        .args(["-s", "/run/netns/bfd.ctl"])
        .spawn()?;
    let _bird = Announcer(bird);
    let interval = Duration::from_millis(ms);
    let mut peer = PeerConfig::new(Ipv4Addr::new(10, 0, 0, 1).into(), RemoteAs::Exactly(65000));
    peer.timers.connect_retry = Duration::from_secs(1);
    peer.bfd = Some(BfdConfig {
        transmit: interval,
        receive: interval,
        ..BfdConfig::default()
    });
    let config = SpeakerConfig::new(65001, Ipv4Addr::new(10, 0, 0, 11)).peer("router", peer);
    let (_config, follow) = watch::channel(Arc::new(config));
    let (_routes, announced) = watch::channel(Arc::new(RouteSet::new()));
    let speaker = Speaker::spawn(follow, announced);
    let mut snapshots = speaker.snapshot();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..40 {
        let up = snapshots.wait_for(|all| {
            all.peers.get("router").is_some_and(|peer| {
                peer.state == SessionState::Established
                    && peer.bfd.is_some_and(|bfd| {
                        bfd.state == BfdState::Up && bfd.detection == interval * 3
                    })
            })
        });
        drop(tokio::time::timeout(PATIENCE, up).await??);
        // At another point of the interval each time.
        tokio::time::sleep(interval * 4 + Duration::from_millis(7 * round % ms)).await;
        let namespace = if round % 2 == 0 {
            ""
        } else {
            "ip netns exec router "
        };
        shell(&format!(
            "{namespace}nft add table netdev cut
             {namespace}nft 'add chain netdev cut in \
              {{ type filter hook ingress device eth0 priority 0; policy drop; }}'"
        ))?;
        let cut = Instant::now();
        // BIRD tells us that it found the loss: the way from it to us is open.
        let down = snapshots.wait_for(|all| {
            all.peers
                .get("router")
                .and_then(|peer| peer.bfd)
                .is_some_and(|bfd| bfd.state != BfdState::Up)
        });
        drop(tokio::time::timeout(PATIENCE, down).await??);
        let time = cut.elapsed().as_secs_f64() * 1000.0;
        shell(&format!("{namespace}nft delete table netdev cut"))?;
        if round % 2 == 0 {
            ours.push(time);
        } else {
            theirs.push(time);
        }
    }
    Ok((ours, theirs))
}

fn shell(line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-ec", line]).output()?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
