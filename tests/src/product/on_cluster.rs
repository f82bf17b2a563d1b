//! The product on a [`Cluster`]: images given to the nodes, the chart installed, objects applied, routes awaited.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::figures::{self, Measurement};
use super::{NAMESPACE, User, repository};
use crate::cluster::{Cluster, Image};
use crate::network::Host;
use crate::prober::{Prober, Target, Traffic};
use crate::{Deadline, binary, eventually};

/// The image of the web server in `config/samples/web.yaml`.
const WEB: &str = "docker.io/openelb-rs/web:1";
/// What stands before `openelb-COMPONENT` in the names of our images.
const IMAGES: &str = "docker.io/openelb-rs";

/// What users lost.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// From the fault to the last new connection that failed.
    pub trouble: std::time::Duration,
    /// New connections that failed.
    pub failed: usize,
    /// New connections made.
    pub tried: usize,
}

/// What asks port 80 of `address` for a page.
fn web_of(address: IpAddr) -> Target {
    Target {
        address: SocketAddr::new(address, 80),
        traffic: Traffic::Http,
    }
}

/// The product on a cluster.
pub struct Product<'a> {
    cluster: &'a Cluster,
    user: User,
}

impl<'a> Product<'a> {
    /// Gives our images, and the samples' web server, to every node; nothing is installed yet.
    ///
    /// # Errors
    /// The images are not built, or a node refuses one.
    pub async fn new(cluster: &'a Cluster) -> Result<Self> {
        let archives = repository().join("target/image/archives/x86_64");
        for component in ["webhook", "controller", "speaker"] {
            let archive = archives.join(format!("openelb-{component}.tar"));
            ensure!(
                archive.is_file(),
                "{} is not there: run `hack/image --profile lab` first",
                archive.display()
            );
            let name = format!(
                "{IMAGES}/openelb-{component}:v{}",
                env!("CARGO_PKG_VERSION")
            );
            cluster.load(&Image::archive(&name, archive)).await?;
        }
        let answer = binary("openelb-answer")?;
        let folder = cluster.network().folder();
        let web = Image::of_program(WEB, &answer, &["web", "8080"], folder).await?;
        cluster.load(&web).await?;
        Ok(Self {
            cluster,
            user: User::new(cluster.control().admin().clone()),
        })
    }

    /// Whose commands are run.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// Installs or upgrades the chart with `values` (`name=value`), and returns when all is ready.
    ///
    /// # Errors
    /// helm fails, or something does not become ready; the error says what pods said.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        let outcome = self.user.install(values).await;
        self.explain(outcome).await
    }

    /// Applies the samples as the documentation does, waits for the web server, and returns the addresses of its two
    /// Services: by BGP, and on the nodes' own network.
    ///
    /// # Errors
    /// kubectl fails, or something does not happen in time.
    pub async fn samples(&self) -> Result<(IpAddr, IpAddr)> {
        self.user.apply("config/samples").await?;
        let web = self.user.rolled_out("default", "deployment/web").await;
        self.explain(web).await?;
        let bgp = self.address("web-bgp").await?;
        let lan = self.address("web-lan").await?;
        Ok((bgp, lan))
    }

    /// The address of a Service in the namespace `default`.
    ///
    /// # Errors
    /// It has none in time; the error says what pods said.
    pub async fn address(&self, service: &str) -> Result<IpAddr> {
        let outcome = self.user.address("default", service).await;
        self.explain(outcome).await
    }

    /// The product's pods of a component, by the name of their node.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods(&self, component: &str) -> Result<Vec<(String, String)>> {
        let pods: Api<Pod> = Api::namespaced(self.user.client(), NAMESPACE);
        let labels = ListParams::default().labels(&format!("app=openelb,component={component}"));
        Ok(pods
            .list(&labels)
            .await?
            .into_iter()
            .map(|pod| {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
                (node.unwrap_or_default(), pod.name_any())
            })
            .collect())
    }

    /// The speaker's pod on a node.
    ///
    /// # Errors
    /// There is none.
    pub async fn speaker_on(&self, node: &str) -> Result<String> {
        let speakers = self.pods("speaker").await?;
        speakers
            .into_iter()
            .find_map(|(on, pod)| (on == node).then_some(pod))
            .with_context(|| format!("no speaker runs on {node}"))
    }

    /// Waits until the router's kernel sends packets for `address` to exactly these nodes.
    ///
    /// # Errors
    /// It does not in time; the error holds what the router and the pods say.
    pub async fn leads_to(&self, address: IpAddr, nodes: &[&str]) -> Result<()> {
        let mut wanted = nodes
            .iter()
            .map(|name| {
                let host = self.cluster.node(name)?.host();
                Ok(if address.is_ipv4() {
                    IpAddr::V4(host.v4)
                } else {
                    IpAddr::V6(host.v6)
                })
            })
            .collect::<Result<Vec<IpAddr>>>()?;
        wanted.sort();
        let router = self.cluster.network().router().namespace();
        let outcome = eventually("the router's routes", Deadline::LONG, async || {
            let seen = router.next_hops(IpNet::from(address)).await?;
            ensure!(
                seen == wanted,
                "{address} leads to {seen:?}, not {wanted:?}"
            );
            anyhow::Ok(())
        })
        .await;
        if outcome.is_err() {
            let bgp = self.cluster.router().ask("show bgp summary").await;
            let outcome = outcome.context(bgp.unwrap_or_default());
            return self.explain(outcome).await;
        }
        outcome
    }

    /// Waits until the router's BFD sessions to all nodes are up: what happens before is for the hold timer to find.
    ///
    /// # Errors
    /// They are not in time; the error holds what the router and the pods say.
    pub async fn watched_by_bfd(&self) -> Result<()> {
        let outcome = eventually("BFD with every node", Deadline::LONG, async || {
            let peers = self.cluster.router().bfd_peers().await?;
            for node in self.cluster.nodes() {
                let address = IpAddr::V4(node.host().v4);
                ensure!(
                    peers.iter().any(|peer| peer.address == address && peer.up),
                    "{} is not up: {peers:?}",
                    node.name()
                );
            }
            anyhow::Ok(())
        })
        .await;
        self.explain(outcome).await
    }

    /// The node that answers for `address` on the nodes' own network, as the client there sees it.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub async fn answerer(&self, address: IpAddr) -> Result<String> {
        let lan = self.cluster.network().lan_client();
        let text = address.to_string();
        let outcome = eventually("an answer on the LAN", Deadline::LONG, async || {
            let ask: &[&str] = if address.is_ipv4() {
                &["arping", "-c", "1", "-w", "1", "-I", lan.interface, &text]
            } else {
                &["ndisc6", "-1", "-q", "-m", &text, lan.interface]
            };
            let answer = lan.namespace().run(ask).await?.to_lowercase();
            for node in self.cluster.nodes() {
                let host = node.host();
                let mac = host.namespace().hardware_address(host.interface).await?;
                if answer.contains(&mac) {
                    return Ok(node.name().to_owned());
                }
            }
            anyhow::bail!("no node is in {answer}")
        })
        .await;
        self.explain(outcome).await
    }

    /// Waits until connections from a host to port 80 of `address` are answered, a row of them without a failure: enough
    /// to try every next hop. A node's kube-proxy learns of a Service and its pods up to a second after the router does,
    /// and refuses what comes before.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn answers(&self, from: &Host, address: IpAddr) -> Result<()> {
        let target = web_of(address);
        let outcome = eventually("answers without a gap", Deadline::LONG, async || {
            let mut first = Prober::start(from, &[target])?;
            let answered =
                tokio::time::timeout(std::time::Duration::from_secs(2), first.answered(40));
            let answered = answered.await;
            let report = first.stop().await?;
            let all = report.answered() == report.probes().len();
            ensure!(answered.is_ok() && all, "{report}");
            anyhow::Ok(())
        })
        .await;
        self.explain(outcome).await
    }

    /// Traffic from a host to port 80 of `address`, once it is answered.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn traffic(&self, from: &Host, address: IpAddr) -> Result<Prober> {
        // What happens before the first answers is another story's matter.
        self.answers(from, address).await?;
        Prober::start(from, &[web_of(address)])
    }

    /// Makes a fault under traffic from `from` to `address`, waits for `healed`, and then for a row of answers without a
    /// failure. What users lost is added to the failure table's figures where `OPENELB_FIGURES` names a file.
    ///
    /// # Errors
    /// The fault cannot be made, or traffic does not recover in time.
    pub async fn under_traffic(
        &self,
        fault: &str,
        (from, address): (&Host, IpAddr),
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Loss> {
        let mut prober = self.traffic(from, address).await?;
        prober.answered(50).await?;
        let moment = prober.mark(fault);
        make().await.with_context(|| format!("fault: {fault}"))?;
        let outcome = healed().await.with_context(|| format!("after: {fault}"));
        self.explain(outcome).await?;
        let recovered = prober.mark("healed");
        let answered = prober.answered(100).await;
        self.explain(answered).await?;
        let report = prober.stop().await?;
        let loss = Loss {
            trouble: report.trouble_after(moment),
            failed: report.probes().len() - report.answered(),
            tried: report.probes().len(),
        };
        println!("{fault}: {loss:?}");
        let late = report.trouble_after(recovered);
        ensure!(
            late < std::time::Duration::from_millis(500),
            "traffic still failed {late:?} after all was said to be well: {report}"
        );
        ensure!(report.failed_before(moment) == 0, "{report}");
        if let Some(file) = std::env::var_os("OPENELB_FIGURES") {
            figures::append(
                std::path::Path::new(&file),
                &Measurement {
                    fault: fault.to_owned(),
                    trouble_ms: loss.trouble.as_secs_f64() * 1e3,
                    failed: u64::try_from(loss.failed)?,
                    tried: u64::try_from(loss.tried)?,
                },
            )?;
        }
        Ok(loss)
    }

    async fn explain<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(self.what_pods_say().await)),
        }
    }

    /// Pods, events, our objects and the end of every log, for error messages.
    pub async fn what_pods_say(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "pods,jobs", "--all-namespaces", "--output=wide"][..],
            &["get", "services", "--namespace=default", "--output=wide"],
            &[
                "get",
                "eips,eipaddresses,bgpconfs,bgppeers",
                "--output=wide",
            ],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
                "--field-selector=type=Warning",
            ],
            &[
                "logs",
                "--namespace",
                NAMESPACE,
                "--selector=app=openelb",
                "--tail=15",
                "--prefix",
            ],
        ] {
            match self.user.kubectl(args).await {
                Ok(answer) => text.push_str(&answer),
                Err(error) => text.push_str(&error.to_string()),
            }
            text.push('\n');
        }
        text
    }
}
