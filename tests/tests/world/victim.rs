//! Test programs that are started to wait, to fail or to be killed, and what is seen of them from outside.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openelb_bgp::{Attributes, BfdConfig, PeerConfig, RemoteAs, SpeakerConfig};
use openelb_tests::lab::{Lab, Us};
use openelb_tests::speakers::{Speakers, VIP};
use openelb_tests::{
    Bgp, Cluster, ControlPlane, Deadline, Folder, Network, Peer, Prober, Program, Software,
    Traffic, eventually, scenario, story, tool,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::cluster::deploy_web;
use crate::faults::{all, serve};

/// Set for a program that is started below, to the level of its world.
const VICTIM: &str = "OPENELB_TEST_VICTIM";
/// The error of a story that is meant to fail.
pub(crate) const WANTED: &str = "this failure is wanted";

fn level() -> String {
    std::env::var(VICTIM).unwrap_or_default()
}

/// The body of programs that are killed; on its own, an empty world.
#[test]
fn a_world_that_waits() {
    scenario(async || match level().as_str() {
        "network" => {
            let network = Network::start(2).await?;
            wait_in(network.folder()).await?;
            let [one, two] = network.nodes() else {
                bail!("two nodes")
            };
            let _server = serve(&network, one, &[]).await?;
            let mut prober = Prober::start(two, &all(&one.addresses(), &[Traffic::Tcp]))?;
            prober.answered(50).await?;
            println!("still whole");
            Ok(())
        }
        "cluster" => {
            let cluster = Cluster::start(1).await?;
            deploy_web(&cluster).await?;
            wait_in(cluster.network().folder()).await?;
            cluster.ready().await?;
            cluster.rolled_out("default", "web").await?;
            println!("still whole");
            Ok(())
        }
        "speakers" => {
            let speakers = Speakers::start(&["alpha", "bravo"], &[]).await?;
            wait_in(speakers.lan.folder()).await?;
            speakers.leader(VIP).await?;
            println!("still whole");
            Ok(())
        }
        "part" => {
            tool("loopback")?;
            let network = std::fs::read_link("/proc/self/ns/net")?;
            println!("\nthe part is there in {}", network.display());
            Ok(())
        }
        _ => Ok(()),
    });
}

/// The same for a control plane, which needs no world.
#[tokio::test]
async fn a_control_plane_that_waits() -> Result<()> {
    if level() != "control-plane" {
        return Ok(());
    }
    let control = ControlPlane::start().await?;
    wait_in(control.folder()).await?;
    control.kubectl(&["create", "namespace", "late"]).await?;
    println!("still whole");
    Ok(())
}

/// Shows the folder and a process by which the world is known from outside, and waits for the word to go on.
async fn wait_in(folder: &Folder) -> Result<()> {
    let _sleeper = Program::new("sleeper", "sh")
        .args([
            "-c",
            "sleep 1000; true",
            &folder.path().display().to_string(),
        ])
        .start(folder.path())?;
    println!("folder {}", folder.path().display());
    eventually("the word to go on", Deadline::LONG, async || {
        ensure!(folder.join("go").exists(), "not given");
        Ok(())
    })
    .await
}

/// The body of programs that fail; on its own, an empty world.
#[test]
fn a_world_that_fails() {
    scenario(async || match level().as_str() {
        "network" => {
            let network = Network::start(1).await?;
            let [node] = network.nodes() else {
                bail!("one node")
            };
            let router = Bgp::new(65000, network.router()).peer(Peer::at(node.v4, 65001).bfd(100));
            let router = router
                .start(Software::Frr, network.router(), network.folder())
                .await?;
            let speaker = Bgp::new(65001, node)
                .peer(Peer::at(network.router().v4, 65000).bfd(100))
                .announce("203.0.113.9/32".parse()?);
            let _speaker = speaker
                .start(Software::Bird, node, network.folder())
                .await?;
            router.established(node.v4).await?;
            router
                .routes_become("203.0.113.9/32".parse()?, "a path", |routes| {
                    !routes.is_empty()
                })
                .await?;
            let _server = serve(&network, node, &[]).await?;
            let mut prober =
                Prober::start(network.client(), &all(&node.addresses(), &[Traffic::Tcp]))?;
            prober.answered(20).await?;
            prober.mark("what the test is about");
            prober.answered(20).await?;
            bail!(WANTED)
        }
        "cluster" => {
            let cluster = Cluster::start(1).await?;
            deploy_web(&cluster).await?;
            bail!(WANTED)
        }
        "speakers" => {
            let speakers = Speakers::start(&["alpha", "bravo"], &[]).await?;
            speakers.leader(VIP).await?;
            bail!(WANTED)
        }
        "lab with bird" => {
            let lab = Lab::new().await?;
            let bird = lab.bird(
                "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
                 protocol bfd { interface \"*\" { min rx interval 50 ms; min tx interval 50 ms; }; }
                 protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; bfd on;
                 ipv4 { import all; export none; }; }",
            )?;
            let us = speaker()?;
            us.told("router", 1).await?;
            eventually("the route", Deadline::SHORT, async || {
                let said = bird.ask("show route all")?;
                ensure!(said.contains(ANNOUNCED), "{said}");
                let said = lab.in_router("ip route")?;
                ensure!(said.contains("proto bird"), "{said}");
                let said = bird.ask("show bfd sessions")?;
                ensure!(said.contains("Up"), "{said}");
                Ok(())
            })
            .await?;
            bail!(WANTED)
        }
        "lab with frr" => {
            let lab = Lab::new().await?;
            let frr = lab
                .frr(" neighbor 10.0.0.11 remote-as 65001\n neighbor 10.0.0.11 bfd 3 50 50")
                .await?;
            let us = speaker()?;
            us.told("router", 1).await?;
            eventually("the route", Deadline::SHORT, async || {
                let paths = frr.paths(ANNOUNCED)?;
                ensure!(!paths.is_empty(), "no path");
                let said = frr.ask("show bfd peers")?;
                ensure!(said.contains("Status: up"), "{said}");
                Ok(())
            })
            .await?;
            bail!(WANTED)
        }
        "lab with gobgp" => {
            let lab = Lab::new().await?;
            let _gobgp = lab.gobgp(
                "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"10.0.0.11\"\n  peer-as = 65001\n",
            )?;
            let us = speaker()?;
            us.told("router", 1).await?;
            bail!(WANTED)
        }
        "panic" => {
            let _network = Network::start(1).await?;
            panic!("{WANTED}")
        }
        "panic in a task" => {
            let network = Network::start(1).await?;
            let task = tokio::spawn(async move { panic!("{WANTED} in {}", network.nodes().len()) });
            task.await?;
            Ok(())
        }
        _ => Ok(()),
    });
}

/// What the speaker of a lab that fails announces.
pub(crate) const ANNOUNCED: &str = "203.0.113.9/32";

/// Our speaker in a lab.
fn speaker() -> Result<Us> {
    let mut peer = PeerConfig::new("10.0.0.1".parse()?, RemoteAs::Exactly(65000));
    peer.bfd = Some(BfdConfig {
        transmit: Duration::from_millis(50),
        receive: Duration::from_millis(50),
        ..BfdConfig::default()
    });
    let mut config = SpeakerConfig::new(65001, "10.0.0.11".parse()?).peer("router", peer);
    config.listen = vec!["0.0.0.0:179".parse()?];
    let attributes = Arc::new(Attributes::default());
    let routes = [(ANNOUNCED.parse()?, attributes)];
    Ok(Us::start(config, routes.into_iter().collect()))
}

/// The same for a control plane.
#[test]
fn a_control_plane_that_fails() {
    story(async || {
        if level() != "control-plane" {
            return Ok(());
        }
        let control = ControlPlane::start().await?;
        let event = control.folder().write(
            "event.yaml",
            "apiVersion: v1\nkind: Event\nmetadata: {name: odd, namespace: default}\nreason: Odd\n\
             message: something odd\ninvolvedObject: {kind: Service, name: web, namespace: default}\n",
        )?;
        control
            .kubectl(&["create", "-f", &event.display().to_string()])
            .await?;
        bail!(WANTED)
    });
}

/// A running program and what it says. Dropped, it is killed.
pub(crate) struct Victim {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Victim {
    /// Starts this program again for one test of this file; what the test prints is seen at once.
    pub(crate) fn start(test: &str, level: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(test, level, env, &["--nocapture"])
    }

    /// Starts it as a plain `cargo test` does, where the test's output is shown when it has ended.
    pub(crate) fn start_quiet(test: &str, level: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(test, level, env, &[])
    }

    fn start_with(test: &str, level: &str, env: &[(&str, &str)], more: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", &format!("victim::{test}")])
            .args(more)
            .env(VICTIM, level)
            .env_remove("OPENELB_KEEP")
            .env_remove("OPENELB_KEEP_WORLD")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (sender, lines) = mpsc::channel(10_000);
        read(child.stdout.take().context("no output")?, sender.clone());
        read(child.stderr.take().context("no output")?, sender);
        Ok(Self {
            child,
            lines,
            said: Vec::new(),
        })
    }

    /// Waits for a line with this text, and returns it.
    pub(crate) async fn says(&mut self, text: &str) -> Result<String> {
        if let Some(line) = self.said.iter().find(|line| line.contains(text)) {
            return Ok(line.clone());
        }
        let waited = tokio::time::timeout(Deadline::LONG.duration(), async {
            while let Some(line) = self.lines.recv().await {
                self.said.push(line.clone());
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        })
        .await;
        match waited {
            Ok(Some(line)) => Ok(line),
            _ => bail!("it never said {text:?}, but:\n{}", self.said.join("\n")),
        }
    }

    /// What follows this text on a line that it says.
    pub(crate) async fn says_after(&mut self, text: &str) -> Result<String> {
        let line = self.says(text).await?;
        let (_, rest) = line.split_once(text).context("not in the line")?;
        Ok(rest.trim().to_owned())
    }

    /// The line after one with this text.
    pub(crate) async fn says_below(&mut self, text: &str) -> Result<String> {
        self.says(text).await?;
        loop {
            let at = self.said.iter().position(|line| line.contains(text));
            if let Some(line) = at.and_then(|at| self.said.get(at + 1)) {
                return Ok(line.trim().to_owned());
            }
            let line = self.lines.recv().await.context("it says nothing more")?;
            self.said.push(line);
        }
    }

    /// Sends it a signal, and nobody else.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits for its own end.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        tokio::time::timeout(Deadline::LONG.duration(), async {
            // It must not be kept from speaking.
            while let Some(line) = self.lines.recv().await {
                self.said.push(line);
            }
            self.child.wait().await
        })
        .await
        .with_context(|| format!("it does not end:\n{}", self.said.join("\n")))?
        .map_err(Into::into)
    }
}

fn read(output: impl AsyncRead + Unpin + Send + 'static, sender: mpsc::Sender<String>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
}

/// The processes of this machine that have a path below a world's folder as an argument, with their command lines.
pub(crate) fn processes(world: &Path) -> Result<Vec<(PathBuf, String)>> {
    let below = format!("{}/", world.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if format!("{command}/").contains(&below) || command.contains(&below) {
            found.push((path, command));
        }
    }
    Ok(found)
}
