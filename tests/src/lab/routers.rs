//! Routers of a lab: BIRD, FRR and GoBGP, each asked in its own words. What each holds is written down at the end.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Lab, command};
use crate::{Deadline, Process, Program, Record, Software, eventually, tool};

impl Lab {
    /// Starts BIRD; `protocols` is the part of its configuration that matters.
    pub fn bird(&self, protocols: &str) -> Result<Bird> {
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
        let tool = |question: &str| {
            let socket = socket.display().to_string();
            let words = ["birdc", "-s", &socket].map(str::to_owned);
            words.into_iter().chain([question.to_owned()]).collect()
        };
        Ok(Bird {
            record: self.record(Software::Bird, "bird", tool),
            process,
            socket,
        })
    }

    /// Starts the zebra, bgpd and bfdd of the FRR that is installed.
    pub async fn frr(&self, bgp: &str) -> Result<Frr> {
        self.frr_of(&Version::installed(), bgp).await
    }

    /// Starts the zebra, bgpd and bfdd of a version of FRR.
    pub async fn frr_of(&self, version: &Version, bgp: &str) -> Result<Frr> {
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
            eventually(daemon, Deadline::SHORT, async || {
                vty.exists().then_some(()).context("no vty")
            })
            .await?;
        }
        let tool = |question: &str| {
            let words = [
                version.vtysh.display().to_string(),
                "--vty_socket".to_owned(),
                d.to_string(),
                "-c".to_owned(),
                question.to_owned(),
            ];
            words.to_vec()
        };
        Ok(Frr {
            _record: self.record(Software::Frr, "frr", tool),
            processes,
            folder,
            vtysh: version.vtysh.clone(),
        })
    }

    /// Starts GoBGP.
    pub fn gobgp(&self, neighbors: &str) -> Result<Gobgp> {
        let configuration = format!(
            "[global.config]\n as = 65000\n router-id = \"10.0.0.1\"\n port = 179\n{neighbors}"
        );
        let file = self.folder.write("gobgp.toml", configuration)?;
        let program = Program::new("gobgpd", tool("gobgpd")?).arg("-f").arg(&file);
        let process = self.start(program.args(["--api-hosts", "127.0.0.1:50051"]))?;
        let program = tool("gobgp")?.display().to_string();
        let tool = |question: &str| {
            let words = question.split_whitespace().map(str::to_owned);
            [program.clone()].into_iter().chain(words).collect()
        };
        Ok(Gobgp {
            _record: self.record(Software::GoBgp, "gobgp", tool),
            _process: process,
        })
    }

    /// What writes down what a router holds, who is asked in the router's namespace.
    fn record(&self, software: Software, name: &str, tool: impl Fn(&str) -> Vec<String>) -> Record {
        let enter = ["ip", "netns", "exec", "router"].map(str::to_owned);
        let asked = software.questions().iter().map(|question| {
            let words = [enter.to_vec(), tool(question)].concat();
            ((*question).to_owned(), words)
        });
        let file = self.folder.join(format!("{name}-router.txt"));
        Record::of_answers(&file, asked.collect())
    }
}

/// BIRD, asked through its control socket.
#[derive(Debug)]
pub struct Bird {
    record: Record,
    process: Process,
    socket: PathBuf,
}

impl Bird {
    /// What birdc says to this.
    pub fn ask(&self, question: &str) -> Result<String> {
        command(&format!("birdc -s {} {question}", self.socket.display()))
            .with_context(|| self.process.log())
    }

    /// Ends it as a part of the story.
    pub fn stop(self) {
        self.record.withdraw();
    }

    /// Lets it run before everything else.
    pub fn raise_priority(&self) -> Result<()> {
        // BFD has a thread of its own.
        command(&format!(
            "chrt --all-tasks --rr --pid 10 {}",
            self.process.pid()
        ))?;
        Ok(())
    }

    /// The routes of the protocol `openelb`, with all attributes.
    pub fn routes(&self) -> Result<String> {
        self.ask("show route all protocol openelb")
    }
}

/// Where the programs of a version of FRR are.
#[derive(Clone, Debug)]
pub struct Version {
    daemons: PathBuf,
    vtysh: PathBuf,
    /// bfdd has a socket of its own, which went with FRR 10.
    control_socket: bool,
}

impl Version {
    /// The system's.
    #[must_use]
    pub fn installed() -> Self {
        Self {
            daemons: "/usr/lib/frr".into(),
            vtysh: "vtysh".into(),
            control_socket: true,
        }
    }

    /// A newer one, which is unpacked where it can be had; the reason where it cannot.
    pub fn newer() -> Result<Self> {
        let script = crate::product::repository().join("hack/tools/newer-frr");
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
pub struct Frr {
    _record: Record,
    processes: Vec<Process>,
    folder: PathBuf,
    vtysh: PathBuf,
}

impl Frr {
    /// What vtysh says to this.
    pub fn ask(&self, question: &str) -> Result<String> {
        command(&format!(
            "ip netns exec router {} --vty_socket {} -c '{question}'",
            self.vtysh.display(),
            self.folder.display()
        ))
    }

    /// The same in JSON.
    pub fn json(&self, question: &str) -> Result<Value> {
        let text = self.ask(&format!("{question} json"))?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Everything its daemons have logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }

    /// Changes the configuration of the BGP instance.
    pub fn configure(&self, lines: &[&str]) -> Result<()> {
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
    pub fn neighbor(&self, address: &str) -> Result<Value> {
        let all = self.json(&format!("show bgp neighbors {address}"))?;
        all.get(address).cloned().context("no such neighbor")
    }

    /// The paths of a prefix.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Value>> {
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
pub struct Gobgp {
    _record: Record,
    _process: Process,
}

impl Gobgp {
    /// What gobgp says to this.
    pub fn ask(&self, question: &str) -> Result<Value> {
        let gobgp = tool("gobgp")?;
        let gobgp = gobgp.display();
        let text = command(&format!("ip netns exec router {gobgp} -j {question}"))?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }
}
