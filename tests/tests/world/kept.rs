//! What is kept of a test that fails, and how a world that stays is entered.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use openelb_tests::{Deadline, eventually, tool};
use tokio::process::Command;

use crate::nothing_left::groups;
use crate::victim::{ANNOUNCED, Victim, WANTED, processes};

const KEEP: &[(&str, &str)] = &[("OPENELB_KEEP_WORLD", "1")];

/// A world whose story has failed, and which stays.
struct Staying {
    victim: Victim,
    enter: String,
    leave: String,
}

impl Staying {
    async fn start(level: &str) -> Result<Self> {
        let mut victim = Victim::start_quiet("a_world_that_fails", level, KEEP)?;
        let enter = victim.says_below("enter it with").await?;
        let leave = victim.says_after("the world stays, until `touch ").await?;
        let (leave, _) = leave.split_once('`').context("no file to touch")?;
        let leave = leave.to_owned();
        Ok(Self {
            victim,
            enter,
            leave,
        })
    }

    /// Runs a command inside, entered in the way that was printed.
    async fn inside(&self, command: &str) -> Result<String> {
        let line = format!("{} {command}", self.enter);
        let output = Command::new("sh").args(["-c", &line]).output().await?;
        ensure!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Lets it end, and returns the folder whose place it prints.
    async fn end(mut self) -> Result<Kept> {
        std::fs::write(&self.leave, "")?;
        let place = self.victim.says_after("what was kept is in ").await?;
        self.victim.says(WANTED).await?;
        ensure!(!self.victim.ended().await?.success(), "the failure is gone");
        let kept = Kept(PathBuf::from(place));
        eventually("the end of the world", Deadline::SHORT, async || {
            let left = processes(&kept.0)?;
            ensure!(left.is_empty(), "{left:?}");
            let groups = groups(&kept.0)?;
            ensure!(groups.is_empty(), "{groups:?}");
            Ok(())
        })
        .await?;
        Ok(kept)
    }
}

/// A folder that was kept, removed when this is dropped.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Kept {
    /// Checks that the one file whose path ends so has all these texts.
    fn tells(&self, name: &str, texts: &[&str]) -> Result<()> {
        let file = find(&self.0, name).with_context(|| format!("no {name} was kept"))?;
        let content = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
        for text in texts {
            ensure!(content.contains(text), "no {text:?} in {name}:\n{content}");
        }
        Ok(())
    }

    /// What tcpdump reads from the frames that were kept of a wire.
    async fn frames(&self, wire: &str) -> Result<String> {
        let file = find(&self.0, &format!("{wire}.pcap0")).context("no frames were kept")?;
        let output = Command::new("tcpdump")
            .arg("-nr")
            .arg(file)
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first file below a folder whose path ends so.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        if path.is_dir() && !path.is_symlink() {
            find(&path, name)
        } else {
            path.ends_with(name).then_some(path)
        }
    })
}

/// Files of images, and of what containerd unpacks of them: most of a cluster's bytes, and they explain nothing.
const STORES: [&str; 2] = ["image.tar", "io.containerd.metadata.v1.bolt/meta.db"];
/// What may be kept of a cluster, in bytes: four files of frames of 20 MB, etcd's data with the 64 MB that it sets
/// aside, and logs.
const MOST_KEPT: u64 = 300_000_000;

/// The bytes of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() {
            size(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(sum)
}

#[tokio::test]
async fn a_control_plane_that_fails_keeps_what_explains_it() -> Result<()> {
    let mut victim = Victim::start("a_control_plane_that_fails", "control-plane", &[])?;
    let kept = Kept(PathBuf::from(
        victim.says_after("what was kept is in ").await?,
    ));
    ensure!(!victim.ended().await?.success(), "the failure is gone");
    kept.tells("events.txt", &["something odd"])?;
    kept.tells("objects.yaml", &["kind: Service"])?;
    kept.tells("kube-apiserver.log", &["Serving securely"])?;
    kept.tells("etcd.log", &["embed/config.go"])
}

/// Lets a world fail in this way, and returns what was kept.
async fn failed(level: &str) -> Result<Kept> {
    let mut victim = Victim::start_quiet("a_world_that_fails", level, &[])?;
    let place = victim.says_after("what was kept is in ").await?;
    victim.says(WANTED).await?;
    ensure!(!victim.ended().await?.success(), "the failure is gone");
    Ok(Kept(PathBuf::from(place)))
}

#[tokio::test]
async fn a_story_that_panics_keeps_what_explains_it_too() -> Result<()> {
    for level in ["panic", "panic in a task"] {
        let kept = failed(level).await?;
        kept.tells("kernel-n1.txt", &["10.0.0.11/24"])?;
        kept.tells("tcpdump-segment.log", &["listening on br0"])?;
    }
    Ok(())
}

#[tokio::test]
async fn speakers_on_a_lan_that_fail_keep_what_explains_it() -> Result<()> {
    let kept = failed("speakers").await?;
    for node in ["alpha", "bravo"] {
        kept.tells(&format!("node-{node}.log"), &["\"steady\":true"])?;
        kept.tells(&format!("kernel-{node}.txt"), &["10.0.100.1/32"])?;
    }
    kept.tells("kernel-client.txt", &["10.0.100.1 dev eth0"])?;
    let frames = kept.frames("segment").await?;
    ensure!(frames.contains("10.0.100.1"), "no frame");
    Ok(())
}

/// What is written down while the session is up, which a router that was asked after its peer had gone would not show.
#[tokio::test]
async fn a_lab_that_fails_keeps_what_its_router_and_our_speaker_held() -> Result<()> {
    let routers: [(&str, &str, &[&str]); 3] = [
        (
            "lab with bird",
            "bird-router.txt",
            &["Established", ANNOUNCED, "BGP.as_path: 65001", "Up"],
        ),
        (
            "lab with frr",
            "frr-router.txt",
            &["10.0.0.11", ANNOUNCED, "Status: up"],
        ),
        ("lab with gobgp", "gobgp-router.txt", &["Establ", ANNOUNCED]),
    ];
    for (level, file, held) in routers {
        let kept = failed(level).await?;
        kept.tells(file, held)?;
        kept.tells("us.txt", &["state: Established"])?;
        kept.tells("kernel-router.txt", &["10.0.0.1/24", "10.0.0.11 dev eth0"])?;
        kept.tells("kernel-world.txt", &["10.0.0.11/24", "10.0.0.1 dev eth0"])?;
        let frames = kept.frames("segment").await?;
        ensure!(frames.contains("10.0.0.11"), "no frame of {level}");
    }
    Ok(())
}

#[tokio::test]
async fn a_network_that_fails_stays_on_request_and_keeps_what_explains_it() -> Result<()> {
    let world = Staying::start("network").await?;
    let said = world
        .inside("ip netns exec n1 ip addr show dev eth0")
        .await?;
    ensure!(said.contains("10.0.0.11/24"), "{said}");
    let said = world
        .inside("ip netns exec router ping -n -c 1 10.0.0.11")
        .await?;
    ensure!(said.contains("1 received"), "{said}");

    let kept = world.end().await?;
    kept.tells(
        "frr-router.txt",
        &["203.0.113.9/32", "10.0.0.11", "BFD Peers"],
    )?;
    kept.tells("bird-n1.txt", &["Established", "203.0.113.9/32"])?;
    kept.tells("frr-router/bgpd.log", &["ADJCHANGE"])?;
    kept.tells("bird-n1/bird.log", &["Started"])?;
    kept.tells("answer-n1.log", &["listening on 80"])?;
    kept.tells(
        "kernel-router.txt",
        &["203.0.113.9", "02:00:0a:00:00:0b", "192.168.100.1"],
    )?;
    kept.tells("kernel-n1.txt", &["10.0.0.11/24", "02:00:0a:00:00:01"])?;
    kept.tells(
        "traffic-1.txt",
        &["-- what the test is about", "answered by pod-n1 on n1"],
    )?;
    let frames = kept.frames("segment").await?;
    ensure!(
        frames.contains("ARP") && frames.contains("192.168.100.2"),
        "{frames}"
    );
    let frames = kept.frames("client").await?;
    ensure!(
        frames.contains("192.168.100.2") && frames.contains("192.168.100.1"),
        "{frames}"
    );
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_fails_stays_on_request_and_keeps_what_explains_it() -> Result<()> {
    let world = Staying::start("cluster").await?;
    let folder = Path::new(&world.leave).parent().context("no folder")?;
    let kubeconfig = find(folder, "kubeconfig-admin").context("no kubeconfig")?;
    let command = format!(
        "{} --kubeconfig {} get nodes,pods --all-namespaces",
        tool("kubectl")?.display(),
        kubeconfig.display()
    );
    let said = world.inside(&command).await?;
    ensure!(
        said.contains("node/n1   Ready") && said.contains("pod/web-"),
        "{said}"
    );

    for name in STORES {
        find(folder, name).with_context(|| format!("there was no {name}"))?;
    }

    let kept = world.end().await?;
    kept.tells("events.txt", &["Scheduled", "Started", "web-"])?;
    kept.tells(
        "objects.yaml",
        &["kind: Node", "kind: EndpointSlice", "name: web"],
    )?;
    kept.tells("frr-router.txt", &["show bgp summary", "10.0.0.11"])?;
    kept.tells("kernel-n1.txt", &["10.244.1.1/24", "fd00:244:0:1::"])?;
    kept.tells("kernel-router.txt", &["10.244.1.0/24"])?;
    for (log, text) in [
        ("kube-apiserver.log", "Serving securely"),
        ("etcd.log", "embed/config.go"),
        ("n1/kubelet.log", "kubelet"),
        ("n1/containerd.log", "containerd successfully booted"),
        ("n1/kube-proxy.log", "proxier"),
        ("web/0.log", "listening on 8080"),
    ] {
        kept.tells(log, &[text])?;
    }
    let frames = kept.frames("segment").await?;
    ensure!(frames.contains("10.0.0.11"), "no frame of n1");
    for name in STORES {
        let found = find(&kept.0, name);
        ensure!(found.is_none(), "{found:?} was kept");
    }
    let size = size(&kept.0)?;
    println!("kept of a cluster: {} MB", size / 1_000_000);
    ensure!(size < MOST_KEPT, "{size} bytes were kept");
    Ok(())
}
