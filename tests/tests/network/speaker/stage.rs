//! A network with a control plane that its nodes reach, and a speaker on each node. There is no controller: the tests
//! write what it would.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::CustomResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::Family;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress, name_for};
use openelb_tests::control_plane::Config;
use openelb_tests::{
    ControlPlane, Deadline, Host, Identity, Network, Process, Program, binary, eventually, product,
};
use serde_json::{Value, json};

/// The address of the world itself on the nodes' segment.
const WORLD: [u8; 4] = [10, 0, 0, 2];

/// See the module.
pub(super) struct Stage {
    pub(super) network: Network,
    pub(super) control: ControlPlane,
    account: Identity,
    speakers: BTreeMap<String, Process>,
}

impl Stage {
    /// A network with so many nodes, each a Node with its addresses, our kinds, and no speaker yet.
    pub(super) async fn start(nodes: u8) -> Result<Self> {
        Self::on(nodes, ControlPlane::config()).await
    }

    /// The same, with the API server's audit log.
    pub(super) async fn audited(nodes: u8) -> Result<Self> {
        Self::on(nodes, ControlPlane::config().audit()).await
    }

    async fn on(nodes: u8, control: Config) -> Result<Self> {
        let network = Network::start(nodes).await?;
        let control = control.at(IpAddr::from(WORLD)).start().await?;
        let account = control
            .service_account("openelb-system", "openelb-speaker")
            .await?;
        let stage = Self {
            network,
            control,
            account,
            speakers: BTreeMap::new(),
        };
        for crd in [
            Eip::crd(),
            EipAddress::crd(),
            BgpConf::crd(),
            BgpPeer::crd(),
        ] {
            stage.apply(&serde_json::to_value(crd)?).await?;
        }
        stage
            .kubectl(&[
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                "crd",
                "--all",
            ])
            .await?;
        let rights = product::rights::of("speaker", &["speaker.membership=lease"]).await?;
        stage.apply(&rights).await?;
        for host in stage.network.nodes() {
            stage.register(host).await?;
        }
        Ok(stage)
    }

    async fn register(&self, host: &Host) -> Result<()> {
        let name = host.name();
        self.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
            .await?;
        let addresses: Vec<Value> = host
            .addresses()
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address.to_string()}))
            .collect();
        let status = json!({"status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
        }});
        let nodes = Api::<Node>::all(self.control.client());
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// Starts (or starts again) the speaker of a node, with these flags besides the usual ones.
    pub(super) async fn speak(&mut self, node: &str, flags: &[&str]) -> Result<()> {
        if let Some(speaker) = self.speakers.get(node) {
            return speaker.restart().await;
        }
        let host = self.network.node(node)?;
        let program = Program::new(&format!("speaker-{node}"), binary("openelb-operator")?)
            .args([
                "speaker",
                "--node-name",
                node,
                "--metrics-addr",
                "127.0.0.1:50053",
            ])
            .args(["--log", "debug,hyper=info,tower=info,hyper_util=info"])
            // A machine that has just booted would wait for one; a test that has one says so by a flag.
            .env("OPENELB_KUBE_PROXY", "off")
            .arg("--kubeconfig")
            .arg(self.account.kubeconfig())
            .args(flags);
        let speaker = host
            .namespace()
            .program(program)
            .start(self.network.folder().path())?;
        self.speakers.insert(node.to_owned(), speaker);
        Ok(())
    }

    /// The speaker of a node.
    pub(super) fn speaker(&self, node: &str) -> Result<&Process> {
        self.speakers
            .get(node)
            .with_context(|| format!("no speaker on {node}"))
    }

    /// Fails where a speaker has ended by itself.
    pub(super) fn check(&self) -> Result<()> {
        self.speakers.values().try_for_each(Process::check)
    }

    /// Fails where a speaker has ended by itself with an error.
    pub(super) fn check_but_killed(&self) -> Result<()> {
        for (node, speaker) in &self.speakers {
            let failed = speaker
                .status()
                .and_then(|status| status.code())
                .is_some_and(|code| code != 0);
            ensure!(!failed, "the speaker on {node} failed:\n{}", speaker.log());
        }
        Ok(())
    }

    /// The pod of a node's speaker, as kubelet would show it.
    pub(super) async fn pod(&self, node: &str) -> Result<()> {
        let host = self.network.node(node)?;
        let name = format!("openelb-speaker-{node}");
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "openelb-system", "labels": {"app": "openelb", "component": "speaker"}},
            "spec": {"nodeName": node, "hostNetwork": true, "serviceAccountName": "openelb-speaker", "containers": [{"name": "speaker", "image": "none"}]}
        }))
        .await?;
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(
            self.control.client(),
            "openelb-system",
        );
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"status": {"podIP": host.v4.to_string(), "podIPs": [{"ip": host.v4.to_string()}], "conditions": ready}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// Makes a speaker's pod not ready, as kubelet does where the process is gone.
    pub(super) async fn pod_fails(&self, node: &str) -> Result<()> {
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(
            self.control.client(),
            "openelb-system",
        );
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let name = format!("openelb-speaker-{node}");
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// Starts the controller.
    pub(super) fn controller(&self) -> Result<Process> {
        Program::new("controller", binary("openelb-operator")?)
            .args([
                "controller",
                "--leader-elect",
                "false",
                "--metrics-addr",
                "0",
            ])
            .arg("--kubeconfig")
            .arg(self.control.kubeconfig())
            .start(self.network.folder().path())
    }

    /// Waits until the `Announced` condition of a Service says this.
    pub(super) async fn announced(&self, service: &str, status: &str, words: &str) -> Result<()> {
        eventually(
            &format!("{words:?} on {service}"),
            Deadline::LONG,
            async || {
                let text = self
                    .kubectl(&["get", "service", service, "-o", "json"])
                    .await?;
                let object: Value = serde_json::from_str(&text)?;
                let conditions = &object["status"]["conditions"];
                let announced = conditions.as_array().into_iter().flatten();
                let announced = announced
                    .filter(|one| one["type"] == "openelb.kubesphere.io/Announced")
                    .find(|one| {
                        let message = one["message"].as_str();
                        one["status"] == status && message.is_some_and(|text| text.contains(words))
                    });
                ensure!(announced.is_some(), "{conditions}");
                Ok(())
            },
        )
        .await
    }

    /// Waits until a BgpPeer looks like this.
    pub(super) async fn peer(
        &self,
        name: &str,
        what: &str,
        good: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        eventually(what, Deadline::LONG, async || {
            let text = self
                .kubectl(&["get", "bgppeer", name, "-o", "json"])
                .await?;
            let peer: Value = serde_json::from_str(&text)?;
            ensure!(good(&peer["status"]), "{}", peer["status"]);
            Ok(())
        })
        .await
    }

    /// Waits until the speaker of a node calls itself ready.
    pub(super) async fn ready(&self, node: &str) -> Result<()> {
        let namespace = self.network.node(node)?.namespace().clone();
        eventually(
            &format!("a ready speaker on {node}"),
            Deadline::LONG,
            async || {
                self.check()?;
                let answer = namespace
                    .run(&["curl", "-sS", "http://127.0.0.1:50053/readyz"])
                    .await?;
                ensure!(answer == "ok", "{answer}");
                Ok(())
            },
        )
        .await
    }

    pub(super) async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control.kubectl(args).await
    }

    /// Applies an object, by server-side apply.
    pub(super) async fn apply(&self, object: &Value) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), serde_json::to_vec(object)?)?;
        let path = file.path().to_string_lossy().into_owned();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path])
            .await?;
        Ok(())
    }

    /// Applies an object of ours.
    pub(super) async fn ours(&self, kind: &str, name: &str, spec: &Value) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
            "metadata": {"name": name}, "spec": spec
        }))
        .await
    }

    /// A Service that holds this address of the Eip `pool`, as the controller would leave it.
    pub(super) async fn service(&self, name: &str, policy: &str, address: &str) -> Result<()> {
        self.service_of("pool", name, policy, &[address]).await
    }

    /// A Service that holds these addresses of an Eip, one of each family at most, as the controller would leave it.
    pub(super) async fn service_of(
        &self,
        eip: &str,
        name: &str,
        policy: &str,
        addresses: &[&str],
    ) -> Result<()> {
        let ips = addresses.iter().map(|address| address.parse());
        let ips = ips.collect::<Result<Vec<IpAddr>, _>>()?;
        let families = ips.iter().map(|ip| Family::of(*ip).as_str());
        let families: Vec<&str> = families.collect();
        let stacks = if ips.len() > 1 {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": "default",
                "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"},
                "labels": {"eip.openelb.kubesphere.io/v1alpha2": eip}
            },
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": policy,
                "ipFamilyPolicy": stacks, "ipFamilies": families,
                "ports": [{"port": 80, "protocol": "TCP"}]
            }
        }))
        .await?;
        let services = Api::<k8s_openapi::api::core::v1::Service>::namespaced(
            self.control.client(),
            "default",
        );
        let uid = services
            .get(name)
            .await?
            .metadata
            .uid
            .context("a Service without uid")?;
        for ip in &ips {
            let spec = json!({
                "address": ip.to_string(), "eip": eip,
                "services": [{"namespace": "default", "name": name, "uid": uid}]
            });
            self.ours("EipAddress", &name_for(*ip), &spec).await?;
        }
        let ingress = addresses.iter().map(|address| json!({"ip": address}));
        let ingress: Vec<Value> = ingress.collect();
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        services
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// Makes these nodes the ones with a ready endpoint of a Service.
    pub(super) async fn endpoints(&self, service: &str, nodes: &[&str]) -> Result<()> {
        self.slice(service, nodes, Family::V4).await
    }

    /// Makes these nodes the ones with a ready endpoint of a Service, of one family.
    pub(super) async fn slice(&self, service: &str, nodes: &[&str], family: Family) -> Result<()> {
        let (number, network) = match family {
            Family::V4 => (1, "10.244.0."),
            Family::V6 => (2, "fd00:244::"),
        };
        let endpoints: Vec<Value> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                json!({"addresses": [format!("{network}{}", index + 1)], "nodeName": node, "conditions": {"ready": true}})
            })
            .collect();
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{number}"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": service}
            },
            "addressType": family.as_str(), "endpoints": endpoints, "ports": [{"port": 80}]
        }))
        .await
    }
}
