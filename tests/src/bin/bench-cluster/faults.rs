//! The faults of the failure table: how each is made, who watches, and how it is seen to be over.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use openelb_tests::prober::Report;
use openelb_tests::product::figures::Measurement;
use openelb_tests::product::{Loss, NAMESPACE, Product, lives};
use openelb_tests::{Deadline, Host, eventually};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The hold time, in seconds, of the router that has no BFD.
pub(crate) const HOLD: u16 = 9;
/// The API server is away for so many connections, a hundred a second.
const AWAY: usize = 1_000;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    PowerOff,
    SpeakerKilled,
    SpeakerStopped,
    Upgrade,
    Drain,
    ApiServerDown,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::PowerOff,
        Self::SpeakerKilled,
        Self::SpeakerStopped,
        Self::Upgrade,
        Self::Drain,
        Self::ApiServerDown,
    ];

    /// The rows of the table that one such fault gives, by who watches.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::PowerOff => &[
                "a node loses power: BGP with BFD 3 × 100 ms",
                "a node loses power: BGP with a hold timer of 9 s and no BFD",
                "a node loses power: layer 2, the node that answers",
            ],
            Self::SpeakerKilled => &[
                "a speaker is killed (SIGKILL): BGP with BFD 3 × 100 ms",
                "a speaker is killed (SIGKILL): layer 2, the speaker that answers",
            ],
            Self::SpeakerStopped => &[
                "a speaker's pod is deleted (SIGTERM): BGP",
                "a speaker's pod is deleted (SIGTERM): layer 2, the speaker that answers",
            ],
            Self::Upgrade => &[
                "helm upgrade replaces every pod of ours: BGP",
                "helm upgrade replaces every pod of ours: layer 2",
            ],
            Self::Drain => &[
                "a node is drained: BGP",
                "a node is drained: layer 2, the node that answers",
            ],
            Self::ApiServerDown => &[
                "the API server is down for ten seconds: BGP",
                "the API server is down for ten seconds: layer 2",
            ],
        }
    }

    /// All rows.
    pub(crate) fn rows() -> Vec<&'static str> {
        let rows = Self::ALL.iter().flat_map(|fault| fault.names());
        rows.copied().collect()
    }
}

/// A cluster with traffic.
pub(crate) struct Bench<'a> {
    product: &'a Product<'a>,
    bgp: IpAddr,
    lan: IpAddr,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(product: &'a Product<'a>, bgp: IpAddr, lan: IpAddr) -> Self {
        Self { product, bgp, lan }
    }

    /// Every node serves, both routers know it, and BFD watches.
    pub(crate) async fn all_is_well(&self) -> Result<()> {
        self.product.leads_to(self.bgp, &NODES).await?;
        self.second_leads_to(NODES.len()).await?;
        self.product.watched_by_bfd().await?;
        self.product.answerer(self.lan).await.map(drop)
    }

    /// Makes a fault for the `run`th time, and mends it.
    pub(crate) async fn make(&self, fault: Fault, run: usize) -> Result<Vec<Measurement>> {
        let victim = self.product.answerer(self.lan).await?;
        let seen = match fault {
            Fault::PowerOff => self.power_off(&victim).await?,
            Fault::SpeakerKilled => self.speaker_killed(&victim).await?,
            Fault::SpeakerStopped => self.speaker_stopped(&victim).await?,
            Fault::Upgrade => self.upgraded(run).await?,
            Fault::Drain => self.drained(&victim).await?,
            Fault::ApiServerDown => self.api_server_down().await?,
        };
        let names = fault.names();
        ensure!(names.len() == seen.len(), "{fault:?} has rows for others");
        self.all_is_well().await?;
        names
            .iter()
            .zip(seen)
            .map(|(name, loss)| measured(name, &loss))
            .collect()
    }

    async fn second_leads_to(&self, nodes: usize) -> Result<()> {
        let lan = self.lan_client();
        eventually("the second router's routes", Deadline::LONG, async || {
            let seen = lan.namespace().next_hops(self.bgp.into()).await?;
            ensure!(seen.len() == nodes, "{seen:?}, not {nodes} nodes");
            anyhow::Ok(())
        })
        .await
    }

    fn client(&self) -> &'a Host {
        self.product.cluster().network().client()
    }

    fn lan_client(&self) -> &'a Host {
        self.product.cluster().network().lan_client()
    }

    /// Three clients watch, each for as long as its own path needs: what is slow does not lengthen the others' time.
    async fn power_off(&self, victim: &str) -> Result<Vec<Loss>> {
        let cluster = self.product.cluster();
        let node = cluster.node(victim)?;
        let left: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
        let clients = [
            (self.client(), self.bgp),
            (self.lan_client(), self.bgp),
            (self.lan_client(), self.lan),
        ];
        let mut probers = Vec::new();
        for (from, address) in clients {
            probers.push(self.product.traffic(from, address).await?);
        }
        for prober in &mut probers {
            prober.answered(50).await?;
        }
        let [mut bfd, mut hold, mut lan] = <[_; 3]>::try_from(probers)
            .map_err(|_| anyhow::anyhow!("as many probers as clients"))?;
        let moment = Instant::now();
        for prober in [&mut bfd, &mut hold, &mut lan] {
            prober.mark("power off");
        }
        node.power_off().await?;
        let by_bfd = async {
            self.product.leads_to(self.bgp, &left).await?;
            bfd.answered(100).await?;
            bfd.stop().await
        };
        let by_hold_timer = async {
            self.second_leads_to(left.len()).await?;
            hold.answered(100).await?;
            hold.stop().await
        };
        let on_lan = async {
            let next = self.product.answerer(self.lan).await?;
            ensure!(next != victim, "{victim} has no power");
            lan.answered(100).await?;
            lan.stop().await
        };
        let (bfd, hold, lan) = tokio::try_join!(by_bfd, by_hold_timer, on_lan)?;
        node.power_on().await?;
        cluster.ready().await?;
        Ok([bfd, hold, lan]
            .iter()
            .map(|report| since(moment, report))
            .collect())
    }

    async fn speaker_killed(&self, node: &str) -> Result<Vec<Loss>> {
        let cluster = self.product.cluster();
        let speaker = self.product.speaker_on(node).await?;
        let address = IpAddr::V4(cluster.node(node)?.host().v4);
        let sessions = async || {
            let lives = lives(cluster.router()).await?;
            let of = lives.get(&address).context("no such peer")?;
            anyhow::Ok(of.established)
        };
        let before = sessions().await?;
        self.watched(
            "a speaker is killed (SIGKILL)",
            async || {
                cluster
                    .signal_pod(NAMESPACE, &speaker, Signal::SIGKILL)
                    .await
            },
            async || {
                eventually("another session", Deadline::LONG, async || {
                    ensure!(sessions().await? > before, "it is the same");
                    anyhow::Ok(())
                })
                .await?;
                self.all_is_well().await
            },
        )
        .await
    }

    async fn speaker_stopped(&self, node: &str) -> Result<Vec<Loss>> {
        let speaker = self.product.speaker_on(node).await?;
        let user = self.product.user();
        self.watched(
            "a speaker's pod is deleted (SIGTERM)",
            async || {
                let delete = ["delete", "pod", &speaker, "--namespace", NAMESPACE];
                user.kubectl(&delete).await.map(drop)
            },
            async || {
                user.rolled_out(NAMESPACE, "daemonset/openelb-speaker")
                    .await?;
                self.all_is_well().await
            },
        )
        .await
    }

    async fn upgraded(&self, run: usize) -> Result<Vec<Loss>> {
        let level = if run.is_multiple_of(2) {
            "log.level=debug"
        } else {
            "log.level=info"
        };
        self.watched(
            "helm upgrade replaces every pod of ours",
            async || self.product.install(&[level]).await,
            async || self.all_is_well().await,
        )
        .await
    }

    async fn drained(&self, node: &str) -> Result<Vec<Loss>> {
        let user = self.product.user();
        let left: Vec<&str> = NODES.into_iter().filter(|name| *name != node).collect();
        let seen = self
            .watched(
                "a node is drained",
                async || {
                    let drain = [
                        "drain",
                        node,
                        "--ignore-daemonsets",
                        "--delete-emptydir-data",
                    ];
                    user.kubectl(&drain).await.map(drop)
                },
                async || {
                    self.product.leads_to(self.bgp, &left).await?;
                    self.second_leads_to(left.len()).await
                },
            )
            .await?;
        user.kubectl(&["uncordon", node]).await?;
        // Old pods count when new ones are spread: all are made anew, one for each node.
        user.kubectl(&["scale", "deployment/web", "--replicas=0"])
            .await?;
        let gone = [
            "wait",
            "--for=delete",
            "pod",
            "--selector=app=web",
            "--timeout=100s",
        ];
        user.kubectl(&gone).await?;
        user.kubectl(&["scale", "deployment/web", "--replicas=3"])
            .await?;
        user.rolled_out("default", "deployment/web").await?;
        Ok(seen)
    }

    async fn api_server_down(&self) -> Result<Vec<Loss>> {
        let control = self.product.cluster().control();
        self.watched(
            "the API server is down for ten seconds",
            async || {
                control.api_server().kill().await;
                let mut meanwhile = self.product.traffic(self.client(), self.bgp).await?;
                meanwhile.answered(AWAY).await?;
                meanwhile.stop().await.map(drop)
            },
            async || {
                control.api_server().restart().await?;
                control.ready().await
            },
        )
        .await
    }

    /// A fault that the client behind the router and the one on the LAN see from its beginning to its end.
    async fn watched(
        &self,
        fault: &str,
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Vec<Loss>> {
        let clients = [(self.client(), self.bgp), (self.lan_client(), self.lan)];
        let seen = self.product.watched(fault, &clients, make, healed).await?;
        Ok(seen
            .iter()
            .map(|(report, moments)| since(moments.fault, report))
            .collect())
    }
}

/// What was lost since a fault; what failed before it is said, and is none of it.
fn since(fault: Instant, report: &Report) -> Loss {
    let before = report.failed_before(fault);
    if before > 0 {
        println!("{before} connections failed before the fault: {report}");
    }
    Loss::since(fault, report)
}

fn measured(fault: &str, loss: &Loss) -> Result<Measurement> {
    println!("{fault}: {loss:?}");
    Ok(Measurement {
        fault: fault.to_owned(),
        trouble_ms: loss.trouble.as_secs_f64() * 1e3,
        failed: u64::try_from(loss.failed)?,
        tried: u64::try_from(loss.tried)?,
    })
}
