//! Level 3: a Kubernetes cluster with real nodes, on the network of level 2, in a private world.
//!
//! The control plane runs in the world's own namespace at 10.0.0.2. Each node runs containerd, kubelet and kube-proxy;
//! pods get addresses of both families that every host but the clients can reach. The API server reaches webhooks by
//! their pods' addresses, so that no single node is in the way. CoreDNS answers for names. FRR on the router takes BGP
//! sessions from any node.

mod cgroup;
mod config;
mod image;
mod node;

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeSpec, Pod};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use nix::sys::signal::Signal;

pub use image::Image;
pub use node::Node;

use crate::bgp::{Bgp, Daemon, Peer, Software};
use crate::control_plane::ControlPlane;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::tools::{binary, tool};
use crate::wait::{Deadline, eventually};

/// The image of `openelb-answer`, known to every node.
pub const ANSWER: &str = "openelb.invalid/answer:test";
const PAUSE: &str = "openelb.invalid/pause:test";
const COREDNS: &str = "openelb.invalid/coredns:test";
const DNS_V4: &str = "10.96.0.10";
const DNS_V6: &str = "fd00:96::a";

/// The router's autonomous system.
pub const ROUTER_ASN: u32 = 65000;
/// The autonomous system that the router expects of nodes.
pub const NODE_ASN: u32 = 65001;

/// How kube-proxy forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// With iptables rules.
    Iptables,
    /// With nftables rules.
    Nftables,
}

impl ProxyMode {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// What a cluster shall be like. [`Config::start`] starts it.
#[derive(Debug, Clone)]
pub struct Config {
    nodes: u8,
    mode: ProxyMode,
    router: Option<Bgp>,
    audit: bool,
    api_server_args: Vec<String>,
}

impl Config {
    /// With this mode of kube-proxy; iptables otherwise.
    #[must_use]
    pub fn proxy(mut self, mode: ProxyMode) -> Self {
        self.mode = mode;
        self
    }

    /// With this configuration of the router; otherwise it takes sessions from every node's v4 address with BFD at
    /// 100 ms where the node asks for it.
    #[must_use]
    pub fn router(mut self, router: Bgp) -> Self {
        self.router = Some(router);
        self
    }

    /// With the API server's audit log.
    #[must_use]
    pub fn audit(mut self) -> Self {
        self.audit = true;
        self
    }

    /// With one more argument for kube-apiserver.
    #[must_use]
    pub fn api_server_arg(mut self, arg: &str) -> Self {
        self.api_server_args.push(arg.to_owned());
        self
    }

    /// Starts it, and waits until every node is `Ready` and names resolve.
    ///
    /// # Errors
    /// A part is missing or does not get ready in time, or this is not inside a [`crate::scenario`].
    pub async fn start(self) -> Result<Cluster> {
        Cluster::launch(self).await
    }
}

/// A running cluster.
pub struct Cluster {
    nodes: Vec<Node>,
    router: Daemon,
    control: ControlPlane,
    network: Arc<Network>,
}

impl Cluster {
    /// Starts a cluster with so many nodes, and waits until all are `Ready`.
    ///
    /// # Errors
    /// A part is missing or does not get ready in time, or this is not inside a [`crate::scenario`].
    pub async fn start(nodes: u8) -> Result<Self> {
        Self::config(nodes).start().await
    }

    /// What to start, to be refined.
    #[must_use]
    pub fn config(nodes: u8) -> Config {
        Config {
            nodes,
            mode: ProxyMode::Iptables,
            router: None,
            audit: false,
            api_server_args: Vec::new(),
        }
    }

    async fn launch(config: Config) -> Result<Self> {
        let network = Arc::new(Network::start(config.nodes).await?);
        network.route_pods().await?;
        let world = "10.0.0.2".parse::<IpAddr>()?;
        let mut plane = ControlPlane::config()
            .for_nodes(world)
            // Webhooks are reached at their pods.
            .api_server_arg("--enable-aggregator-routing=true");
        for arg in &config.api_server_args {
            plane = plane.api_server_arg(arg);
        }
        if config.audit {
            plane = plane.audit();
        }
        let (control, images) = tokio::try_join!(plane.start(), images())?;
        let router = config
            .router
            .unwrap_or_else(|| Self::default_router(&network));
        let router = router.start(Software::Frr, network.router(), network.folder());
        let nodes = async {
            for (index, host) in network.nodes().iter().enumerate() {
                announce_node(&control, host.name(), index + 1).await?;
            }
            control
                .kubectl(&[
                    "apply",
                    "--server-side",
                    "-f",
                    &manifest("src/cluster/dns.yaml"),
                ])
                .await
                .context("cannot deploy CoreDNS")?;
            let starts = (1..=network.nodes().len()).map(|number| {
                Node::start(
                    Arc::clone(&network),
                    &control,
                    number,
                    config.mode,
                    &images.pause,
                )
            });
            let nodes = futures::future::try_join_all(starts).await?;
            futures::future::try_join_all(nodes.iter().map(async |node| {
                node.load(&images.coredns).await?;
                node.load(&images.answer).await
            }))
            .await?;
            anyhow::Ok(nodes)
        };
        let (router, nodes) = tokio::try_join!(router, nodes)?;
        let cluster = Self {
            nodes,
            router,
            control,
            network,
        };
        cluster.ready().await?;
        cluster.rolled_out("kube-system", "coredns").await?;
        Ok(cluster)
    }

    fn default_router(network: &Network) -> Bgp {
        network
            .nodes()
            .iter()
            .fold(Bgp::new(ROUTER_ASN, network.router()), |bgp, node| {
                bgp.peer(Peer::at(node.v4, NODE_ASN).bfd(100).passive())
            })
    }

    /// Waits until every node is `Ready`.
    ///
    /// # Errors
    /// One is not in time; the error says what it says of itself.
    pub async fn ready(&self) -> Result<()> {
        let nodes = Api::<NodeObject>::all(self.control.client());
        eventually("all nodes to be Ready", Deadline::LONG, async || {
            for node in &self.nodes {
                node.kubelet().check()?;
                node.containerd().check()?;
                let object = nodes.get(node.name()).await?;
                let condition = object
                    .status
                    .and_then(|status| status.conditions)
                    .unwrap_or_default()
                    .into_iter()
                    .find(|condition| condition.type_ == "Ready");
                let ready = condition
                    .as_ref()
                    .is_some_and(|condition| condition.status == "True");
                ensure!(
                    ready,
                    "{}: {}",
                    node.name(),
                    condition.and_then(|c| c.message).unwrap_or_default()
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until a Deployment has all its replicas ready and no others.
    ///
    /// # Errors
    /// It has not in time; the error says what its pods say.
    pub async fn rolled_out(&self, namespace: &str, name: &str) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.control.client(), namespace);
        let pods = Api::<Pod>::namespaced(self.control.client(), namespace);
        eventually(
            &format!("Deployment {namespace}/{name}"),
            Deadline::LONG,
            async || {
                let object = deployments.get(name).await?;
                let generation = object.metadata.generation;
                let wanted = object.spec.and_then(|spec| spec.replicas).unwrap_or(1);
                let status = object.status.unwrap_or_default();
                let settled = status.observed_generation >= generation
                    && status.updated_replicas.unwrap_or(0) == wanted
                    && status.available_replicas.unwrap_or(0) == wanted
                    && status.replicas.unwrap_or(0) == wanted;
                if !settled {
                    anyhow::bail!("{}", describe(&pods).await?);
                }
                Ok(())
            },
        )
        .await
    }

    /// Makes an image known to every node.
    ///
    /// # Errors
    /// A node refuses it.
    pub async fn load(&self, image: &Image) -> Result<()> {
        futures::future::try_join_all(self.nodes.iter().map(|node| node.load(image)))
            .await
            .map(drop)
    }

    /// Takes a node out of the cluster for good: its power is cut, and its Node deleted.
    ///
    /// # Errors
    /// There is no such node, or the API server does not delete it.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        self.node(name)?.power_off().await?;
        self.kubectl(&["delete", "node", name]).await.map(drop)
    }

    /// Lets a machine that was removed join as a new node, and waits until it is `Ready`.
    ///
    /// # Errors
    /// There is no such machine, or it does not get ready in time.
    pub async fn add_node(&self, name: &str) -> Result<()> {
        let index = self.nodes.iter().position(|node| node.name() == name);
        let index = index.with_context(|| format!("there is no machine {name}"))?;
        announce_node(&self.control, name, index + 1).await?;
        self.node(name)?.power_on().await?;
        self.ready().await
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("there is no node {name}"))
    }

    /// The router's FRR, to be asked, stopped and restarted.
    #[must_use]
    pub fn router(&self) -> &Daemon {
        &self.router
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.control.client()
    }

    /// The network: hosts and faults of links.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Runs kubectl as the administrator, and returns what it printed.
    ///
    /// # Errors
    /// It ends with anything but 0.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control.kubectl(args).await
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, manifest.as_bytes())?;
        self.kubectl(&[
            "apply",
            "--server-side",
            "-f",
            &file.path().display().to_string(),
        ])
        .await
        .map(drop)
    }

    /// Runs helm as the administrator, and returns what it printed.
    ///
    /// # Errors
    /// It ends with anything but 0.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let helm = tool("helm")?.display().to_string();
        let kubeconfig = self.control.kubeconfig().display().to_string();
        let mut command = vec![helm.as_str(), "--kubeconfig", &kubeconfig];
        command.extend(args);
        Namespace::own().run(&command).await
    }

    /// Sends a signal to every process of a pod, behind Kubernetes' back: SIGKILL for a crash, SIGSTOP for a hang.
    ///
    /// # Errors
    /// There is no such pod, or it has no process.
    pub async fn signal_pod(&self, namespace: &str, name: &str, signal: Signal) -> Result<()> {
        let pod = Api::<Pod>::namespaced(self.client(), namespace)
            .get(name)
            .await?;
        let node = pod
            .spec
            .and_then(|spec| spec.node_name)
            .context("the pod has no node")?;
        let uid = pod.metadata.uid.context("the pod has no uid")?;
        self.node(&node)?.signal_pod(&uid, signal)
    }
}

struct Images {
    pause: Image,
    coredns: Image,
    answer: Image,
}

async fn images() -> Result<Images> {
    let answer = binary("openelb-answer")?;
    let coredns = tool("coredns")?.canonicalize()?;
    Ok(Images {
        pause: Image::of_program(PAUSE, &answer, &["pause"]).await?,
        answer: Image::of_program(ANSWER, &answer, &["serve", "8080"]).await?,
        coredns: Image::of_program(COREDNS, &coredns, &[]).await?,
    })
}

/// The kubelet finds its Node there, with the pod ranges that our routes lead to.
async fn announce_node(control: &ControlPlane, name: &str, number: usize) -> Result<()> {
    let ranges = config::pod_ranges(number);
    let node = NodeObject {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: ranges.first().cloned(),
            pod_cidrs: Some(ranges.to_vec()),
            ..NodeSpec::default()
        }),
        ..NodeObject::default()
    };
    Api::all(control.client())
        .create(&PostParams::default(), &node)
        .await?;
    Ok(())
}

async fn describe(pods: &Api<Pod>) -> Result<String> {
    let mut text = String::new();
    for pod in pods.list(&ListParams::default()).await? {
        let status = pod.status.unwrap_or_default();
        let waiting = status
            .container_statuses
            .unwrap_or_default()
            .into_iter()
            .filter_map(|container| container.state?.waiting?.message);
        writeln!(
            text,
            "{}: {} {}",
            pod.metadata.name.unwrap_or_default(),
            status.phase.unwrap_or_default(),
            waiting.collect::<Vec<_>>().join(" ")
        )?;
    }
    Ok(text)
}

fn manifest(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(path)
        .display()
        .to_string()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        crate::record::before_the_end();
    }
}
