//! What users lose when something breaks, on three real nodes with the chart installed: the figures of
//! `docs/failure-table.md`.
//!
//! A client opens a new TCP connection every 10 ms; each fault is made `--runs` times. One loss of power is seen by three
//! clients at once: behind a router with BFD, behind a router with nothing but the hold timer, and on the nodes' own LAN.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::Signal;
use openelb_tests::bgp::{Bgp, Daemon, Peer, Software};
use openelb_tests::cluster::{Cluster, NODE_ASN, ROUTER_ASN};
use openelb_tests::figure::{self, Figure};
use openelb_tests::product::figures::{self, Measurement};
use openelb_tests::product::{Loss, NAMESPACE, Product};
use openelb_tests::{Deadline, eventually};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the failure table to this file.
    #[arg(long)]
    page: Option<PathBuf>,
    /// How often each fault is made.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// The hold time, in seconds, of the router that has no BFD.
    #[arg(long, default_value_t = 9)]
    hold: u16,
}

fn main() -> Result<()> {
    let args = Args::parse();
    openelb_tests::world_of_program(async || measure(&args).await)
}

async fn measure(args: &Args) -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let product = Product::new(&cluster).await?;
    product.install(&[]).await?;
    let (bgp, lan) = product.samples().await?;
    let local = r#"--patch={"spec":{"externalTrafficPolicy":"Local"}}"#;
    product
        .user()
        .kubectl(&["patch", "service", "web-lan", local])
        .await?;
    let bench = Bench {
        second: second_router(&cluster, args.hold).await?,
        product: &product,
        bgp,
        lan,
    };
    bench.all_is_well().await?;
    let mut seen = Vec::new();
    for run in 0..args.runs {
        println!("run {} of {}", run + 1, args.runs);
        let node = NODES.iter().cycle().nth(run).context("no node")?;
        bench.power_off(args.hold, &mut seen).await?;
        bench.speaker_killed(node, &mut seen).await?;
        bench.speaker_stopped(node, &mut seen).await?;
        bench.upgraded(run, &mut seen).await?;
        bench.drained(node, &mut seen).await?;
        bench.api_server_down(&mut seen).await?;
        if let Some(page) = &args.page {
            std::fs::write(page, figures::page(&seen, &figures::machine()))?;
        }
    }
    bench.second.stop().await?;
    figure::write(args.json.as_deref(), &table(&seen)?)
}

/// The client on the LAN is a router too, with routes of its own to the addresses that BGP brings, and no BFD.
async fn second_router(cluster: &Cluster, hold: u16) -> Result<Daemon> {
    let network = cluster.network();
    let host = network.lan_client();
    let router = network
        .nodes()
        .iter()
        .fold(Bgp::new(ROUTER_ASN, host), |bgp, node| {
            bgp.peer(Peer::at(node.v4, NODE_ASN).hold(hold).passive())
        })
        .start(Software::Frr, host, network.folder())
        .await?;
    cluster
        .apply(&format!(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {{name: without-bfd}}
spec:
  conf: {{peerAs: {ROUTER_ASN}, neighborAddress: {}}}
",
            host.v4
        ))
        .await?;
    Ok(router)
}

struct Bench<'a> {
    product: &'a Product<'a>,
    second: Daemon,
    bgp: IpAddr,
    lan: IpAddr,
}

impl Bench<'_> {
    /// Every node serves, both routers know it, and BFD watches.
    async fn all_is_well(&self) -> Result<()> {
        self.product.leads_to(self.bgp, &NODES).await?;
        self.second_leads_to(NODES.len()).await?;
        self.product.watched_by_bfd().await?;
        self.product.answerer(self.lan).await.map(drop)
    }

    async fn second_leads_to(&self, nodes: usize) -> Result<()> {
        let lan = self.product.cluster().network().lan_client();
        eventually("the second router's routes", Deadline::LONG, async || {
            let seen = lan.namespace().next_hops(self.bgp.into()).await?;
            ensure!(seen.len() == nodes, "{seen:?}, not {nodes} nodes");
            anyhow::Ok(())
        })
        .await
    }

    /// The node that answers on the LAN loses power, seen by three clients.
    async fn power_off(&self, hold: u16, seen: &mut Vec<Measurement>) -> Result<()> {
        let cluster = self.product.cluster();
        let network = cluster.network();
        let victim = self.product.answerer(self.lan).await?;
        let node = cluster.node(&victim)?;
        let watched = [
            (
                "a node loses power: BGP with BFD 3 × 100 ms".to_owned(),
                (network.client(), self.bgp),
            ),
            (
                format!("a node loses power: BGP with a hold timer of {hold} s and no BFD"),
                (network.lan_client(), self.bgp),
            ),
            (
                "a node loses power: layer 2, the address's leader".to_owned(),
                (network.lan_client(), self.lan),
            ),
        ];
        let mut probers = Vec::new();
        for (_, (from, address)) in &watched {
            probers.push(self.product.traffic(from, *address).await?);
        }
        for prober in &mut probers {
            prober.answered(50).await?;
        }
        let moments: Vec<_> = probers
            .iter_mut()
            .map(|prober| prober.mark("power off"))
            .collect();
        node.power_off().await?;
        let left: Vec<&str> = NODES.into_iter().filter(|name| *name != victim).collect();
        self.product.leads_to(self.bgp, &left).await?;
        self.second_leads_to(left.len()).await?;
        for prober in &mut probers {
            prober.answered(100).await?;
        }
        for (((fault, _), prober), moment) in watched.iter().zip(probers).zip(moments) {
            let report = prober.stop().await?;
            let loss = Loss {
                trouble: report.trouble_after(moment),
                failed: report.probes().len() - report.answered(),
                tried: report.probes().len(),
            };
            seen.push(measured(fault, &loss)?);
        }
        node.power_on().await?;
        cluster.ready().await?;
        self.all_is_well().await
    }

    async fn speaker_killed(&self, node: &str, seen: &mut Vec<Measurement>) -> Result<()> {
        let speaker = self.product.speaker_on(node).await?;
        let cluster = self.product.cluster();
        self.under_traffic(
            "a speaker is killed (SIGKILL)",
            async || {
                cluster
                    .signal_pod(NAMESPACE, &speaker, Signal::SIGKILL)
                    .await?;
                self.second_leads_to(NODES.len() - 1).await
            },
            async || self.second_leads_to(NODES.len()).await,
            seen,
        )
        .await
    }

    async fn speaker_stopped(&self, node: &str, seen: &mut Vec<Measurement>) -> Result<()> {
        let speaker = self.product.speaker_on(node).await?;
        let user = self.product.user();
        self.under_traffic(
            "a speaker's pod is deleted (SIGTERM)",
            async || {
                let delete = ["delete", "pod", &speaker, "--namespace", NAMESPACE];
                user.kubectl(&delete).await.map(drop)
            },
            async || {
                user.rolled_out(NAMESPACE, "daemonset/openelb-speaker")
                    .await
            },
            seen,
        )
        .await
    }

    async fn upgraded(&self, run: usize, seen: &mut Vec<Measurement>) -> Result<()> {
        let level = if run.is_multiple_of(2) {
            "log.level=debug"
        } else {
            "log.level=info"
        };
        self.under_traffic(
            "helm upgrade replaces every pod of ours",
            async || self.product.install(&[level]).await,
            async || Ok(()),
            seen,
        )
        .await
    }

    async fn drained(&self, node: &str, seen: &mut Vec<Measurement>) -> Result<()> {
        let user = self.product.user();
        let left: Vec<&str> = NODES.into_iter().filter(|name| *name != node).collect();
        self.under_traffic(
            "a node is drained",
            async || {
                user.kubectl(&[
                    "drain",
                    node,
                    "--ignore-daemonsets",
                    "--delete-emptydir-data",
                ])
                .await
                .map(drop)
            },
            async || self.product.leads_to(self.bgp, &left).await,
            seen,
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
        self.all_is_well().await
    }

    async fn api_server_down(&self, seen: &mut Vec<Measurement>) -> Result<()> {
        let control = self.product.cluster().control();
        let client = self.product.cluster().network().client();
        self.under_traffic(
            "the API server is down for ten seconds",
            async || {
                control.api_server().kill().await;
                let mut meanwhile = self.product.traffic(client, self.bgp).await?;
                // A hundred a second.
                meanwhile.answered(1_000).await?;
                meanwhile.stop().await.map(drop)
            },
            async || {
                control.api_server().restart().await?;
                control.ready().await
            },
            seen,
        )
        .await
    }

    async fn under_traffic(
        &self,
        fault: &str,
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
        seen: &mut Vec<Measurement>,
    ) -> Result<()> {
        let client = (self.product.cluster().network().client(), self.bgp);
        let loss = self
            .product
            .under_traffic(fault, client, make, healed)
            .await?;
        seen.push(measured(fault, &loss)?);
        self.all_is_well().await
    }
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

fn table(seen: &[Measurement]) -> Result<Vec<Figure>> {
    figures::rows(seen)
        .into_iter()
        .map(|(fault, runs)| {
            let troubles: Vec<f64> = runs.iter().map(|run| run.trouble_ms).collect();
            Figure::of(fault, "ms", troubles)
        })
        .collect()
}
