//! Two namespaces with a wire between them, routers in one of them, and our
//! speaker in the other.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use openelb_bgp::{
    Attributes, PeerConfig, PeerSnapshot, RemoteAs, RouteSet, SessionState, Shutdown, Snapshot,
    Speaker, SpeakerConfig,
};
use openelb_tests::{Deadline, Folder, Namespace, Process, Program, Witness, scenario_on, tool};
use serde_json::Value;
use tokio::sync::watch;

/// How long anything may take; the machine may be shared.
fn patience() -> Duration {
    Deadline::SHORT.duration()
}

/// Tells a story about a lab, in a world of its own.
pub(super) fn run(story: impl AsyncFnOnce(Lab) -> Result<()>) {
    scenario_on(Lab::new, story);
}

pub(super) fn command(line: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", line]).output()?;
    ensure!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lab {
    _witness: Witness,
    folder: Folder,
}

impl Lab {
    async fn new() -> Result<Self> {
        command(
            "ip netns add router
             sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
             ip netns exec router sysctl -qw net.ipv6.conf.all.accept_dad=0 \
                net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1
             ip link add eth0 type veth peer name eth0 netns router
             ip addr add 10.0.0.11/24 dev eth0
             ip addr add fd00:10::11/64 dev eth0 nodad
             ip link set eth0 up
             ip -n router addr add 10.0.0.1/24 dev eth0
             ip -n router addr add fd00:10::1/64 dev eth0 nodad
             ip -n router link set eth0 up
             ip -n router link set lo up",
        )?;
        let folder = Folder::new("bgp")?;
        let router = Namespace::named("router");
        Ok(Self {
            _witness: Witness::start(&router, "eth0", &folder).await?,
            folder,
        })
    }

    /// Runs a command of the shell in the router's namespace.
    pub(super) fn in_router(&self, line: &str) -> Result<String> {
        command(&format!("ip netns exec router {line}"))
    }

    /// Cuts the wire without loss of carrier, or mends it.
    pub(super) fn silence(&self, silent: bool) -> Result<()> {
        command(if silent {
            "nft add table netdev cut
             nft 'add chain netdev cut in { type filter hook ingress device eth0 priority 0; policy drop; }'"
        } else {
            "nft delete table netdev cut"
        })?;
        Ok(())
    }

    fn start(&self, program: Program) -> Result<Process> {
        program
            .by_way_of(["ip", "netns", "exec", "router"])
            .start(self.folder.path())
    }

    /// Starts BIRD; `protocols` is the part of its configuration that matters.
    pub(super) fn bird(&self, protocols: &str) -> Result<Bird> {
        let configuration = format!(
            "router id 10.0.0.1; log stderr all; debug protocols {{ states, events }};
             protocol device {{}} protocol direct {{ ipv4; ipv6; }}
             {protocols}"
        );
        let file = self.folder.write("bird.conf", configuration)?;
        command(&format!("bird -p -c {}", file.display()))?;
        let socket = self.folder.join("bird.ctl");
        let program = Program::new("bird", "/usr/sbin/bird").args(["-f", "-c"]);
        let process = self.start(program.arg(&file).arg("-s").arg(&socket))?;
        Ok(Bird { process, socket })
    }

    /// Starts the zebra, bgpd and bfdd of the FRR that is installed.
    pub(super) async fn frr(&self, bgp: &str) -> Result<Frr> {
        self.frr_of(&Version::installed(), bgp).await
    }

    /// Starts the zebra, bgpd and bfdd of a version of FRR.
    pub(super) async fn frr_of(&self, version: &Version, bgp: &str) -> Result<Frr> {
        let folder = self.folder.join("frr");
        std::fs::create_dir_all(&folder)?;
        let d = folder.display();
        command(&format!(
            "chmod 755 {}; chown -R frr:frr {d}",
            self.folder.path().display()
        ))?;
        std::fs::write(folder.join("zebra.conf"), "hostname r\n")?;
        std::fs::write(folder.join("bfdd.conf"), "hostname r\n")?;
        let configuration = format!(
            "hostname r\nfrr defaults datacenter\nlog stdout\nrouter bgp 65000\n bgp router-id 10.0.0.1\n \
             no bgp ebgp-requires-policy\n bgp bestpath as-path multipath-relax\n{bgp}\n"
        );
        std::fs::write(folder.join("bgpd.conf"), configuration)?;
        let mut processes = Vec::new();
        for daemon in ["zebra", "bfdd", "bgpd"] {
            let more = match daemon {
                "bfdd" if version.control_socket => {
                    format!("-z {d}/zserv.api --bfdctl {d}/bfdd.sock")
                }
                "bgpd" => format!("-z {d}/zserv.api -p 179"),
                _ => format!("-z {d}/zserv.api"),
            };
            let line = format!(
                "exec {}/{daemon} --vty_socket {d} -i {d}/{daemon}.pid -f {d}/{daemon}.conf \
                 --log stdout -P 0 -A 127.0.0.1 {more}",
                version.daemons.display()
            );
            let program = Program::new(daemon, "/bin/sh").args(["-c", &line]);
            processes.push(self.start(program)?);
            let vty = folder.join(format!("{daemon}.vty"));
            until(daemon, async || {
                vty.exists().then_some(()).context("no vty")
            })
            .await?;
        }
        Ok(Frr {
            processes,
            folder,
            vtysh: version.vtysh.clone(),
        })
    }

    /// Starts GoBGP.
    pub(super) fn gobgp(&self, neighbors: &str) -> Result<Gobgp> {
        let configuration = format!(
            "[global.config]\n as = 65000\n router-id = \"10.0.0.1\"\n port = 179\n{neighbors}"
        );
        let file = self.folder.write("gobgp.toml", configuration)?;
        let program = Program::new("gobgpd", tool("gobgpd")?).arg("-f").arg(&file);
        let process = self.start(program.args(["--api-hosts", "127.0.0.1:50051"]))?;
        Ok(Gobgp { _process: process })
    }
}

/// BIRD, asked through its control socket.
#[derive(Debug)]
pub(super) struct Bird {
    process: Process,
    socket: PathBuf,
}

impl Bird {
    pub(super) fn ask(&self, question: &str) -> Result<String> {
        command(&format!("birdc -s {} {question}", self.socket.display()))
            .with_context(|| self.process.log())
    }

    /// Lets it run before everything else.
    pub(super) fn raise_priority(&self) -> Result<()> {
        // BFD has a thread of its own.
        command(&format!(
            "chrt --all-tasks --rr --pid 10 {}",
            self.process.pid()
        ))?;
        Ok(())
    }

    /// The routes of the protocol `openelb`, with all attributes.
    pub(super) fn routes(&self) -> Result<String> {
        self.ask("show route all protocol openelb")
    }
}

/// Where the programs of a version of FRR are.
#[derive(Clone, Debug)]
pub(super) struct Version {
    daemons: PathBuf,
    vtysh: PathBuf,
    /// bfdd has a socket of its own, which went with FRR 10.
    control_socket: bool,
}

impl Version {
    /// The system's.
    pub(super) fn installed() -> Self {
        Self {
            daemons: "/usr/lib/frr".into(),
            vtysh: "vtysh".into(),
            control_socket: true,
        }
    }

    /// A newer one, which is unpacked where it can be had; the reason where it cannot.
    pub(super) fn newer() -> Result<Self> {
        let script = openelb_tests::product::repository().join("hack/tools/newer-frr");
        let folder = PathBuf::from(command(&script.to_string_lossy())?.trim());
        Ok(Self {
            daemons: folder.join("run"),
            vtysh: folder.join("run/vtysh"),
            control_socket: false,
        })
    }
}

/// FRR, asked through vtysh.
#[derive(Debug)]
pub(super) struct Frr {
    processes: Vec<Process>,
    folder: PathBuf,
    vtysh: PathBuf,
}

impl Frr {
    pub(super) fn ask(&self, question: &str) -> Result<String> {
        command(&format!(
            "ip netns exec router {} --vty_socket {} -c '{question}'",
            self.vtysh.display(),
            self.folder.display()
        ))
    }

    pub(super) fn json(&self, question: &str) -> Result<Value> {
        let text = self.ask(&format!("{question} json"))?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Everything its daemons have logged.
    pub(super) fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }

    /// Changes the configuration of the BGP instance.
    pub(super) fn configure(&self, lines: &[&str]) -> Result<()> {
        let mut all = vec!["configure terminal", "router bgp 65000"];
        all.extend(lines);
        let all: Vec<String> = all.iter().map(|line| format!("-c '{line}'")).collect();
        command(&format!(
            "ip netns exec router {} --vty_socket {} {}",
            self.vtysh.display(),
            self.folder.display(),
            all.join(" ")
        ))?;
        Ok(())
    }

    /// What it knows of us as a neighbor.
    pub(super) fn neighbor(&self, address: &str) -> Result<Value> {
        let all = self.json(&format!("show bgp neighbors {address}"))?;
        all.get(address).cloned().context("no such neighbor")
    }

    /// The paths of a prefix.
    pub(super) fn paths(&self, prefix: &str) -> Result<Vec<Value>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let entry = self.json(&format!("show bgp {family} unicast {prefix}"))?;
        Ok(entry
            .get("paths")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default())
    }
}

/// GoBGP, asked through its program.
#[derive(Debug)]
pub(super) struct Gobgp {
    _process: Process,
}

impl Gobgp {
    pub(super) fn ask(&self, question: &str) -> Result<Value> {
        let gobgp = tool("gobgp")?;
        let gobgp = gobgp.display();
        let text = command(&format!("ip netns exec router {gobgp} -j {question}"))?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }
}

/// Asks until there is an answer, and says what stood in the way if there is
/// none in time.
pub(super) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + patience();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("waited in vain for {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Asks for a text until it contains all of `wanted`.
pub(super) async fn shows(
    what: &str,
    wanted: &[&str],
    mut ask: impl FnMut() -> Result<String>,
) -> Result<String> {
    until(what, async || {
        let text = ask()?;
        for part in wanted {
            ensure!(text.contains(part), "no {part:?} in:\n{text}");
        }
        Ok(text)
    })
    .await
}

/// Our side.
#[derive(Debug)]
pub(super) struct Us {
    pub config: watch::Sender<Arc<SpeakerConfig>>,
    pub routes: watch::Sender<Arc<RouteSet>>,
    pub speaker: Speaker,
}

/// A peer at `address` in AS 65000, with timers fit for tests.
pub(super) fn peer(address: &str) -> PeerConfig {
    let mut peer = PeerConfig::new(address.parse().unwrap(), RemoteAs::Exactly(65000));
    peer.timers.hold = Duration::from_secs(9);
    peer.timers.connect_retry = Duration::from_secs(1);
    peer
}

/// A speaker of AS 65001 with these peers, named `p0`, `p1`…
pub(super) fn config(peers: impl IntoIterator<Item = PeerConfig>) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(65001, "10.0.0.11".parse().unwrap());
    config.listen = vec!["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()];
    for (index, peer) in peers.into_iter().enumerate() {
        config = config.peer(format!("p{index}"), peer);
    }
    config
}

/// Prefixes with plain attributes.
pub(super) fn plain(prefixes: &[&str]) -> RouteSet {
    with(prefixes, Attributes::default())
}

/// Prefixes with these attributes.
pub(super) fn with(prefixes: &[&str], attributes: Attributes) -> RouteSet {
    let attributes = Arc::new(attributes);
    prefixes
        .iter()
        .map(|prefix| (prefix.parse().unwrap(), Arc::clone(&attributes)))
        .collect()
}

impl Us {
    pub(super) fn start(config: SpeakerConfig, routes: RouteSet) -> Self {
        let (config, follow) = watch::channel(Arc::new(config));
        let (routes, announced) = watch::channel(Arc::new(routes));
        Self {
            config,
            routes,
            speaker: Speaker::spawn(follow, announced),
        }
    }

    pub(super) fn announce(&self, routes: RouteSet) {
        self.routes.send_replace(Arc::new(routes));
    }

    /// Changes the configuration of a peer.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut PeerConfig)) {
        self.config.send_modify(|config| {
            let mut new = SpeakerConfig::clone(config);
            let mut peer = PeerConfig::clone(&new.peers[name]);
            change(&mut peer);
            new = new.peer(name, peer);
            *config = Arc::new(new);
        });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.speaker.snapshot().borrow().clone()
    }

    /// Waits until the snapshot of a peer satisfies `wanted`.
    pub(super) async fn sees(
        &self,
        what: &str,
        name: &str,
        mut wanted: impl FnMut(&PeerSnapshot) -> bool,
    ) -> Result<Arc<PeerSnapshot>> {
        let mut snapshots = self.speaker.snapshot();
        let result = tokio::time::timeout(
            patience(),
            snapshots.wait_for(|all| all.peers.get(name).is_some_and(|peer| wanted(peer))),
        )
        .await;
        match result {
            Ok(Ok(all)) => return Ok(Arc::clone(&all.peers[name])),
            Ok(Err(error)) => bail!("{what}: {error}"),
            Err(_) => {}
        }
        let last = self.snapshot();
        bail!("{what}: last seen {:?}", last.peers.get(name))
    }

    pub(super) async fn established(&self, name: &str) -> Result<Arc<PeerSnapshot>> {
        self.sees("established", name, |peer| {
            peer.state == SessionState::Established
        })
        .await
    }

    /// Waits until a peer was told so many IPv4 prefixes.
    pub(super) async fn told(&self, name: &str, prefixes: u64) -> Result<Arc<PeerSnapshot>> {
        self.sees("told", name, |peer| {
            peer.families
                .values()
                .map(|family| family.advertised.count())
                .sum::<u64>()
                == prefixes
        })
        .await
    }

    pub(super) async fn drain(self) {
        self.speaker
            .shutdown(Shutdown::Drain {
                wait: Duration::ZERO,
                reason: "the test ends".to_owned(),
            })
            .await;
    }
}
