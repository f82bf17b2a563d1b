//! The product on a [`Cluster`]: images given to the nodes, the chart installed, objects applied, routes awaited.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::{Loss, NAMESPACE, User, page, repository};
use crate::cluster::{Cluster, Image};
use crate::network::Host;
use crate::prober::{Prober, Report, Target, Traffic};
use crate::{Deadline, binary, eventually};

/// The image of the web server in `config/samples/web.yaml`.
const WEB: &str = "docker.io/openelb-rs/web:1";
/// What stands before `openelb-COMPONENT` in the names of our images.
const IMAGES: &str = "docker.io/openelb-rs";

/// What asks port 80 of `address` for a page.
fn web_of(address: IpAddr) -> Target {
    Target {
        address: SocketAddr::new(address, 80),
        traffic: Traffic::Http,
    }
}

/// When a fault was made, and when all was said to be well again.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// When it was made.
    pub fault: Instant,
    /// When what was waited for had come.
    pub healed: Instant,
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
        let web = Image::of_program(WEB, &answer, &["web", "8080"]).await?;
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

    /// Applies the samples with the commands of the README, waits for the web server, and returns the addresses of its two
    /// Services: by BGP, and on the nodes' own network.
    ///
    /// # Errors
    /// kubectl fails, or something does not happen in time.
    pub async fn samples(&self) -> Result<(IpAddr, IpAddr)> {
        page::follow(&self.user, "README.md", "The samples").await?;
        let web = self.user.rolled_out("default", "deployment/web").await;
        self.explain(web).await?;
        let bgp = self.address("web-bgp").await?;
        let lan = self.address("web-lan").await?;
        Ok((bgp, lan))
    }

    /// Traffic from a host to port 80 of `address`: none of so many connections fails. Returns what was seen. Where the
    /// machine stood still meanwhile it is tried again.
    ///
    /// # Errors
    /// One fails, or they are not answered in time.
    pub async fn flows(&self, from: &Host, address: IpAddr, connections: usize) -> Result<Report> {
        loop {
            let mut prober = self.traffic(from, address).await?;
            prober.answered(connections).await?;
            let report = prober.stop().await?;
            let all = report.answered() == report.probes().len();
            if !all && Loss::in_all(&report).cannot_be_judged() {
                continue;
            }
            ensure!(all, "{address}: {report}");
            return Ok(report);
        }
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
        let outcome = eventually("an answer on the LAN", Deadline::LONG, async || {
            let answer = self.ask_lan(address).await?.to_lowercase();
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

    /// Asks once who has `address` on the nodes' own network; nobody may answer within a second.
    ///
    /// # Errors
    /// Somebody answers.
    pub async fn silent_on_lan(&self, address: IpAddr) -> Result<()> {
        let answer = self.ask_lan(address).await;
        ensure!(answer.is_err(), "somebody answers: {answer:?}");
        Ok(())
    }

    /// What the client on the nodes' own network hears when it asks once who has `address`.
    async fn ask_lan(&self, address: IpAddr) -> Result<String> {
        let lan = self.cluster.network().lan_client();
        let text = address.to_string();
        let ask: &[&str] = if address.is_ipv4() {
            &["arping", "-c", "1", "-w", "1", "-I", lan.interface, &text]
        } else {
            &["ndisc6", "-1", "-q", "-m", &text, lan.interface]
        };
        lan.namespace().run(ask).await
    }

    /// Waits until connections from a host to port 80 of `address` are answered, a row of them without a failure: enough
    /// to try every next hop. A node's kube-proxy learns of a Service and its pods up to a second after the router does;
    /// what comes before is refused, or goes round between router and node until its time to live is over.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn answers(&self, from: &Host, address: IpAddr) -> Result<()> {
        let target = web_of(address);
        let outcome = eventually("answers without a gap", Deadline::LONG, async || {
            let mut first = Prober::start(from, &[target])?;
            let answered = tokio::time::timeout(Duration::from_secs(2), first.answered(40));
            let answered = answered.await;
            let report = first.stop().await?;
            let all = report.answered() == report.probes().len();
            if !all {
                self.forget_early_connections(address).await;
            }
            ensure!(answered.is_ok() && all, "{report}");
            anyhow::Ok(())
        })
        .await;
        self.explain(outcome).await
    }

    /// What the first connections to port 80 of a new address meet, so many of them: they begin as soon as the router's kernel
    /// knows a way there.
    ///
    /// # Errors
    /// There is no way in time, or they are not answered in time.
    pub async fn first_connections(
        &self,
        from: &Host,
        address: IpAddr,
        connections: usize,
    ) -> Result<Loss> {
        let router = self.cluster.network().router().namespace();
        let outcome = eventually("a way to the address", Deadline::LONG, async || {
            let hops = router.next_hops(IpNet::from(address)).await?;
            ensure!(!hops.is_empty(), "{address} leads nowhere");
            anyhow::Ok(())
        })
        .await;
        self.explain(outcome).await?;
        let mut prober = Prober::start(from, &[web_of(address)])?;
        let answered = prober.answered(connections).await;
        self.explain(answered).await?;
        let report = prober.stop().await?;
        let loss = Loss::in_all(&report);
        println!("the first connections to {address}: {loss:?}");
        Ok(loss)
    }

    /// Makes the nodes forget connections to `address` that were begun before kube-proxy knew it. The kernel keeps them as
    /// they are, without a pod, for up to two minutes, and a client that uses one of their ports again fails once more:
    /// single failures in a story that is about something else.
    async fn forget_early_connections(&self, address: IpAddr) {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let address = address.to_string();
        for node in self.cluster.nodes() {
            let delete = [
                "conntrack",
                "--delete",
                "--family",
                family,
                "--proto",
                "tcp",
                "--state",
                "SYN_SENT",
                "--orig-dst",
                &address,
            ];
            // It fails where there is none, and on a node without power there is nothing to forget.
            drop(node.host().namespace().run(&delete).await);
        }
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

    /// Makes a fault under traffic from a host to an address, waits for `healed`, and then for a row of answers without a
    /// failure. Returns what users lost.
    ///
    /// # Errors
    /// The fault cannot be made, or traffic does not recover in time.
    pub async fn under_traffic(
        &self,
        fault: &str,
        client: (&Host, IpAddr),
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Loss> {
        let [loss] = self.under_traffics(fault, [client], make, healed).await?;
        Ok(loss)
    }

    /// The same under the traffic of several clients at once; returns what each lost.
    ///
    /// # Errors
    /// As [`Product::under_traffic`].
    pub async fn under_traffics<const N: usize>(
        &self,
        fault: &str,
        clients: [(&Host, IpAddr); N],
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<[Loss; N]> {
        let mut losses = Vec::new();
        for (report, moments) in self.watched(fault, &clients, make, healed).await? {
            let late = Loss::begun_after(moments.healed, &report);
            late.within(Duration::from_millis(500))
                .with_context(|| format!("after all was said to be well: {report}"))?;
            ensure!(
                report.failed_before(moments.fault) == 0
                    || Loss::in_all(&report).cannot_be_judged(),
                "{report}"
            );
            losses.push(Loss::since(moments.fault, &report));
        }
        losses
            .try_into()
            .map_err(|losses| anyhow::anyhow!("as many losses as clients, not {losses:?}"))
    }

    /// Makes a fault under the traffic of several clients, waits for `healed`, and then for a row of answers; returns what
    /// each saw, and judges nothing.
    ///
    /// # Errors
    /// The fault cannot be made, or nobody answers any more.
    pub async fn watched(
        &self,
        fault: &str,
        clients: &[(&Host, IpAddr)],
        make: impl AsyncFnOnce() -> Result<()>,
        healed: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Vec<(Report, Moments)>> {
        let mut probers = Vec::new();
        for (from, address) in clients {
            probers.push(self.traffic(from, *address).await?);
        }
        for prober in &mut probers {
            prober.answered(50).await?;
        }
        let mark = |probers: &mut Vec<Prober>, what: &str| {
            for prober in probers {
                prober.mark(what);
            }
            Instant::now()
        };
        let began = mark(&mut probers, fault);
        make().await.with_context(|| format!("fault: {fault}"))?;
        let outcome = healed().await.with_context(|| format!("after: {fault}"));
        self.explain(outcome).await?;
        let moments = Moments {
            fault: began,
            healed: mark(&mut probers, "healed"),
        };
        for prober in &mut probers {
            let answered = prober.answered(100).await;
            self.explain(answered).await?;
        }
        let mut reports = Vec::new();
        for (prober, (from, address)) in probers.into_iter().zip(clients) {
            let report = prober.stop().await?;
            let loss = Loss::since(moments.fault, &report);
            println!("{fault}: {} to {address}: {loss:?}", from.name());
            reports.push((report, moments));
        }
        Ok(reports)
    }

    /// Judges the rights of our processes by the audit log so far: nothing may have been refused, and what was used is noted
    /// down (see [`super::rights`]). `values` are those that the chart was installed with.
    ///
    /// # Errors
    /// A request of ours was refused, or the cluster has no audit log.
    pub async fn judge_rights(&self, values: &[&str]) -> Result<()> {
        let objects = super::render(values).await?;
        super::rights::judge(&objects, &self.cluster.control().audit()?)
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
