//! The speaker against a real API server, with the rights of its own account: what it says in statuses, and how little
//! it writes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::v1alpha2::{BgpConf, BgpPeer, NodePeerStatus};
use openelb_tests::{ControlPlane, Deadline, Process, Program, binary, eventually, product, story};
use serde_json::json;

/// A control plane with our kinds, and a speaker that runs as node `worker`.
struct Stage {
    control: ControlPlane,
    speaker: Process,
}

impl Stage {
    async fn start() -> Result<Self> {
        let control = ControlPlane::config().audit().start().await?;
        install(&control).await?;
        let account = control
            .service_account("openelb-system", "openelb-speaker")
            .await?;
        let speaker = Program::new("speaker", binary("openelb-operator")?)
            .args([
                "speaker",
                "--node-name",
                "worker",
                "--metrics-addr",
                "0",
                "--log",
                "debug,hyper=info,tower=info",
            ])
            .arg("--kubeconfig")
            .arg(account.kubeconfig())
            .env("OPENELB_KUBE_PROXY", "off")
            .start(control.folder().path())?;
        Ok(Self { control, speaker })
    }

    async fn apply(&self, object: serde_json::Value) -> Result<()> {
        apply(&self.control, &object).await
    }

    async fn peer_entry(&self, peer: &str) -> Result<NodePeerStatus> {
        let peer = Api::<BgpPeer>::all(self.control.client()).get(peer).await?;
        let status = peer.status.context("no status")?;
        status
            .nodes_peer_status
            .get("worker")
            .cloned()
            .context("no entry of this node")
    }

    /// Waits until the speaker's entry on a BgpPeer is as expected.
    async fn entry(
        &self,
        peer: &str,
        expected: impl Fn(&NodePeerStatus) -> bool,
    ) -> Result<NodePeerStatus> {
        eventually(
            &format!("the entry on {peer}"),
            Deadline::SHORT,
            async || {
                self.speaker.check()?;
                let entry = self.peer_entry(peer).await?;
                ensure!(expected(&entry), "it is {entry:?}");
                anyhow::Ok(entry)
            },
        )
        .await
    }
}

async fn install(control: &ControlPlane) -> Result<()> {
    use kube::CustomResourceExt as _;
    use openelb_api::v1alpha2::{Eip, EipAddress};
    for crd in [
        Eip::crd(),
        EipAddress::crd(),
        BgpConf::crd(),
        BgpPeer::crd(),
    ] {
        apply(control, &serde_json::to_value(crd)?).await?;
    }
    control
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ])
        .await?;
    control
        .service_account("openelb-system", "openelb-speaker")
        .await?;
    let rights = product::rights::of("speaker", &["speaker.membership=lease"]).await?;
    apply(control, &rights).await?;
    apply(
        control,
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker", "labels": {"zone": "a"}}}),
    )
    .await?;
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(control.client());
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]
    }});
    nodes
        .patch_status("worker", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

async fn apply(control: &ControlPlane, object: &serde_json::Value) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(object)?)?;
    let path = file.path().to_string_lossy().into_owned();
    control
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path])
        .await?;
    Ok(())
}

fn conf(spec: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf", "metadata": {"name": "default"}, "spec": spec})
}

fn peer(name: &str, spec: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn a_speaker_says_what_it_runs_with_and_what_is_wrong() {
    story(async || -> Result<()> {
        let stage = Stage::start().await?;
        stage
            .apply(conf(&json!({"as": 65000, "listenPort": -1})))
            .await?;
        let confs = Api::<BgpConf>::all(stage.control.client());
        eventually("the identity of the node", Deadline::SHORT, async || {
            stage.speaker.check()?;
            let status = confs.get("default").await?.status.context("no status")?;
            let entry = status.nodes_conf_status.get("worker").context("no entry")?;
            ensure!(
                entry.as_number == 65000 && entry.router_id == "10.1.1.1",
                "{entry:?}"
            );
            anyhow::Ok(())
        })
        .await?;

        // A missing Secret harms that peer alone, and its arrival mends it.
        let to = |address: &str| json!({"neighborAddress": address, "peerAs": 65001});
        let with_secret = json!({"conf": to("127.9.9.2"), "passwordSecretRef": {"name": "md5"}});
        stage.apply(peer("secret", &with_secret)).await?;
        stage
            .apply(peer("plain", &json!({"conf": to("127.9.9.1")})))
            .await?;
        stage
            .entry("secret", |entry| entry.message.contains("no Secret md5"))
            .await?;
        stage
            .entry("plain", |entry| entry.peer_state.session_state == "ACTIVE")
            .await?;
        let secrets = Api::<Secret>::namespaced(stage.control.client(), "openelb-system");
        let secret = serde_json::from_value(json!({
            "metadata": {"name": "md5"}, "type": "kubernetes.io/basic-auth", "stringData": {"username": "x", "password": "hidden"}
        }))?;
        secrets
            .create(&kube::api::PostParams::default(), &secret)
            .await?;
        let entry = stage
            .entry("secret", |entry| entry.peer_state.session_state == "ACTIVE")
            .await?;
        ensure!(!entry.message.contains("no Secret"), "{entry:?}");
        ensure!(
            !stage.speaker.log().contains("hidden"),
            "the password is in the log"
        );

        // The selector is live, towards the peer's and the node's labels.
        let elsewhere =
            json!({"conf": to("127.9.9.1"), "nodeSelector": {"matchLabels": {"zone": "b"}}});
        stage.apply(peer("plain", &elsewhere)).await?;
        eventually("the entry to go", Deadline::SHORT, async || {
            let gone = stage.peer_entry("plain").await.is_err();
            ensure!(gone, "it is there");
            anyhow::Ok(())
        })
        .await?;
        stage
            .control
            .kubectl(&["label", "node", "worker", "zone=b", "--overwrite"])
            .await?;
        stage.entry("plain", |_| true).await?;

        // A peer labelled as the CNI's is left alone.
        stage
            .control
            .kubectl(&[
                "label",
                "bgppeer",
                "plain",
                "openelb.kubesphere.io/cni=calico",
            ])
            .await?;
        eventually("the entry to go", Deadline::SHORT, async || {
            let gone = stage.peer_entry("plain").await.is_err();
            ensure!(gone, "it is there");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_unusable_object_says_so_and_its_repair_is_noticed() {
    story(async || -> Result<()> {
        let stage = Stage::start().await?;
        stage.apply(conf(&json!({"listenPort": -1}))).await?;
        let confs = Api::<BgpConf>::all(stage.control.client());
        let message = async |part: &str| {
            eventually(
                &format!("a message with {part:?}"),
                Deadline::SHORT,
                async || {
                    stage.speaker.check()?;
                    let status = confs.get("default").await?.status.context("no status")?;
                    let entry = status.nodes_conf_status.get("worker").context("no entry")?;
                    ensure!(entry.message.contains(part), "{entry:?}");
                    ensure!(!part.is_empty() || entry.message.is_empty(), "{entry:?}");
                    anyhow::Ok(())
                },
            )
            .await
        };
        message("spec.as").await?;
        stage
            .apply(conf(&json!({"as": 65000, "listenPort": -1})))
            .await?;
        message("").await?;
        stage.apply(peer("empty", &json!({}))).await?;
        stage
            .entry("empty", |entry| entry.message.contains("spec.conf"))
            .await?;
        Ok(())
    });
}

#[test]
fn an_edit_that_makes_an_object_unusable_changes_nothing_but_the_message() {
    story(async || -> Result<()> {
        let stage = Stage::start().await?;
        stage
            .apply(conf(&json!({"as": 65000, "listenPort": -1})))
            .await?;
        let to = |address: &str| json!({"conf": {"neighborAddress": address, "peerAs": 65001}});
        stage.apply(peer("r", &to("127.9.9.1"))).await?;
        stage
            .entry("r", |entry| entry.peer_state.session_state == "ACTIVE")
            .await?;
        // Something else stays in the spec: what becomes empty by an apply is null, which the schema refuses.
        let without = json!({"transport": {"passiveMode": false}});
        stage.apply(peer("r", &without)).await?;
        let entry = stage
            .entry("r", |entry| entry.message.contains("spec.conf"))
            .await?;
        ensure!(
            entry.peer_state.neighbor_address == "127.9.9.1"
                && entry.peer_state.session_state == "ACTIVE",
            "{entry:?}"
        );
        stage.apply(conf(&json!({"listenPort": -1}))).await?;
        let confs = Api::<BgpConf>::all(stage.control.client());
        eventually("the fault", Deadline::SHORT, async || {
            stage.speaker.check()?;
            let status = confs.get("default").await?.status.context("no status")?;
            let entry = status.nodes_conf_status.get("worker").context("no entry")?;
            ensure!(entry.message.contains("spec.as"), "{entry:?}");
            ensure!(entry.as_number == 65000, "{entry:?}");
            anyhow::Ok(())
        })
        .await?;
        // The peer is still there.
        stage
            .entry("r", |entry| entry.peer_state.local_as == 65000)
            .await?;
        Ok(())
    });
}

#[test]
fn what_the_cni_says_of_its_own_peers_under_our_nodes_name_stays() {
    story(async || -> Result<()> {
        let stage = Stage::start().await?;
        let cni = "openelb.kubesphere.io/cni";
        let labelled = |mut object: serde_json::Value| {
            object["metadata"]["labels"] = json!({cni: "calico"});
            object
        };
        // The label of the BgpConf: the speaker runs nothing and says nothing.
        let theirs = conf(&json!({"as": 64512, "listenPort": -1}));
        stage.apply(labelled(theirs)).await?;
        let to = json!({"conf": {"neighborAddress": "127.9.9.1", "peerAs": 65001}});
        stage.apply(labelled(peer("cni", &to))).await?;
        let client = stage.control.client();
        let confs = Api::<BgpConf>::all(client.clone());
        let peers = Api::<BgpPeer>::all(client);
        let params = PatchParams::default();
        let said = json!({"status": {"nodesConfStatus": {"worker": {"routerId": "1.1.1.1", "as": 64512}}}});
        confs
            .patch_status("default", &params, &Patch::Merge(&said))
            .await?;
        let said = json!({"status": {"nodesPeerStatus": {"worker": {"message": "the CNI's"}}}});
        peers
            .patch_status("cni", &params, &Patch::Merge(&said))
            .await?;
        // A peer of ours shows that the speaker has seen all of it: without a BgpConf of ours it says nothing, so the
        // label goes, and comes back.
        stage.apply(peer("ours", &to)).await?;
        stage
            .control
            .kubectl(&["label", "bgpconf", "default", &format!("{cni}-")])
            .await?;
        stage.entry("ours", |_| true).await?;
        let identity = async || -> Result<Option<i64>> {
            let status = confs.get("default").await?.status.context("no status")?;
            let entry = status.nodes_conf_status.get("worker");
            Ok(entry.map(|entry| entry.as_number))
        };
        let entry = stage.peer_entry("cni").await?;
        ensure!(entry.message == "the CNI's", "{entry:?}");
        stage
            .control
            .kubectl(&["label", "bgpconf", "default", &format!("{cni}=calico")])
            .await?;
        eventually(
            "our own entries to go with the label",
            Deadline::SHORT,
            async || {
                ensure!(identity().await?.is_none(), "the identity is there");
                ensure!(stage.peer_entry("ours").await.is_err(), "the peer's is");
                anyhow::Ok(())
            },
        )
        .await?;
        let entry = stage.peer_entry("cni").await?;
        ensure!(entry.message == "the CNI's", "{entry:?}");
        Ok(())
    });
}

#[test]
fn a_speaker_writes_nothing_but_changes_of_its_own_entries() {
    story(async || -> Result<()> {
        let stage = Stage::start().await?;
        stage
            .apply(conf(&json!({"as": 65000, "listenPort": -1})))
            .await?;
        let to = json!({"conf": {"neighborAddress": "127.9.9.1", "peerAs": 65001}});
        stage.apply(peer("r", &to)).await?;
        stage.entry("r", |entry| !entry.message.is_empty()).await?;
        let writes = || -> Result<usize> {
            let requests = stage.control.audit()?;
            let ours = requests.iter().filter(|request| {
                request.user.username.contains("openelb-speaker") && request.is_write()
            });
            Ok(ours.count())
        };
        // Attempts to connect go on all the while; a marker written by somebody else shows that time has passed and that
        // the speaker saw events.
        let before = writes()?;
        for round in 0..5 {
            stage
                .control
                .kubectl(&[
                    "label",
                    "bgppeer",
                    "r",
                    &format!("round={round}"),
                    "--overwrite",
                ])
                .await?;
        }
        stage.apply(peer("marker", &json!({}))).await?;
        stage.entry("marker", |_| true).await?;
        let after = writes()?;
        ensure!(
            after == before + 1,
            "{} writes instead of one",
            after - before
        );
        Ok(())
    });
}
