//! What breaks is whole again within half a minute, and meanwhile the cluster goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use openelb_api::v1alpha2::{BgpPeer, Eip};
use openelb_tests::ipam::allocated;
use openelb_tests::product::NAMESPACE;
use openelb_tests::{Deadline, Process, Program, binary, eventually, story};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::stage::{CONFIGURATION, KINDS, SECRET, Stage};

/// How long anything may stay broken.
const SOON: Deadline = Deadline::seconds(30);

async fn recovered(stage: &Stage) -> Result<()> {
    eventually("a review", SOON, async || stage.review().await).await
}

/// Everything is as it should be: one trust everywhere, one certificate, and reviews.
async fn whole(stage: &Stage) -> Result<()> {
    let trust = stage.secret("ca.crt").await?;
    for kind in KINDS {
        for (name, bundle, _) in stage.webhooks(kind).await? {
            ensure!(bundle == trust, "{kind} {name} has another CA bundle");
        }
    }
    let certificate = stage.secret("tls.crt").await?;
    let wanted = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    for replica in &stage.replicas {
        let served = replica.handshake(&trust).await?;
        ensure!(served == wanted, "another certificate is served");
    }
    stage.review().await
}

/// Puts a wrong authority into the first webhook of a configuration: a good certificate, but not ours.
async fn overwrite(stage: &Stage, kind: &str) -> Result<()> {
    let wrong = ByteString(stage.control.authority().as_bytes().to_vec());
    let place = "/webhooks/0/clientConfig/caBundle";
    let patch = json!([{ "op": "replace", "path": place, "value": wrong }]).to_string();
    let patch = [
        "patch",
        kind,
        CONFIGURATION,
        "--type=json",
        "--patch",
        &patch,
    ];
    stage.control.kubectl(&patch).await.map(drop)
}

#[test]
fn an_overwritten_or_recreated_configuration_is_put_right() {
    story(async || -> Result<()> {
        let stage = Stage::set(2, &[]).await?;
        let good = stage.ca_bundle().await?;
        for kind in KINDS {
            overwrite(&stage, kind).await?;
            eventually("the CA bundle", SOON, async || whole(&stage).await).await?;
            stage
                .control
                .kubectl(&["delete", kind, CONFIGURATION])
                .await?;
            stage.configure().await?;
            eventually("the CA bundle", SOON, async || whole(&stage).await).await?;
        }
        assert_eq!(stage.ca_bundle().await?, good);
        Ok(())
    });
}

/// Reads our objects without a pause, until told to stop.
struct Readers {
    stop: Arc<AtomicBool>,
    reading: tokio::task::JoinHandle<Result<usize>>,
}

impl Readers {
    fn start(stage: &Stage) -> Self {
        let eips: Api<Eip> = Api::all(stage.control.client());
        let peers: Api<BgpPeer> = Api::all(stage.control.client());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reading = tokio::spawn(async move {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                eips.get("lan").await?;
                eips.list(&ListParams::default()).await?;
                peers.list(&ListParams::default()).await?;
                count += 1;
            }
            Ok(count)
        });
        Self { stop, reading }
    }

    /// Stops; fails if any reading did.
    async fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.reading.await?.context("reading failed")
    }
}

#[test]
fn reading_never_fails_while_each_fault_is_mended_within_half_a_minute() {
    story(async || -> Result<()> {
        let stage = Stage::set(2, &[]).await?;
        let eip = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": { "name": "lan" }, "spec": { "address": "192.0.2.0/28" },
        });
        let said = stage.apply(&eip, &[]).await?;
        ensure!(said.succeeded, "{}", said.err);
        let other = another_secret(&stage).await?;
        let readers = Readers::start(&stage);
        let mended = async |fault: &str| {
            eventually(fault, SOON, async || whole(&stage).await)
                .await
                .with_context(|| format!("after: {fault}"))
        };

        stage
            .secrets()
            .delete(SECRET, &DeleteParams::default())
            .await?;
        mended("the Secret is deleted").await?;
        for kind in KINDS {
            overwrite(&stage, kind).await?;
        }
        mended("both configurations are overwritten").await?;
        let mut replaced = stage.secrets().get(SECRET).await?;
        replaced.data = other.data;
        stage
            .secrets()
            .replace(SECRET, &PostParams::default(), &replaced)
            .await?;
        mended("the authority is replaced").await?;
        for replica in &stage.replicas {
            replica.process.kill().await;
        }
        for replica in &stage.replicas {
            replica.process.restart().await?;
        }
        mended("all replicas are killed").await?;
        let count = readers.finish().await?;
        ensure!(count > 10, "only {count} readings");
        Ok(())
    });
}

/// A Secret of another authority: what `certs create` makes elsewhere.
async fn another_secret(stage: &Stage) -> Result<Secret> {
    let job = Program::new("elsewhere", binary("openelb-webhook")?)
        .args([
            "certs",
            "create",
            "--host=127.0.0.1",
            "--secret-name=elsewhere",
        ])
        .arg(format!("--namespace={NAMESPACE}"))
        .arg("--kubeconfig")
        .arg(stage.control.kubeconfig())
        .start(stage.control.folder().path())?;
    let status = job.ended(Deadline::SHORT).await?;
    ensure!(status.success(), "{}", job.log());
    Ok(stage.secrets().get("elsewhere").await?)
}

#[test]
fn with_all_replicas_gone_the_cluster_goes_on_and_they_come_back() {
    story(async || -> Result<()> {
        let stage = Stage::set(2, &[]).await?;
        let admin = stage.control.admin();
        let eip = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": { "name": "lan" }, "spec": { "address": "192.0.2.0/28" },
        });
        let said = stage.apply(&eip, &[]).await?;
        ensure!(said.succeeded, "{}", said.err);
        for replica in &stage.replicas {
            replica.process.kill().await;
        }
        // The Secret is lost too.
        stage
            .secrets()
            .delete(SECRET, &DeleteParams::default())
            .await?;

        let read = stage
            .kubectl(
                admin,
                &["get", "eips,bgppeers,services", "--all-namespaces"],
            )
            .await?;
        ensure!(read.succeeded && read.out.contains("lan"), "{}", read.err);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
        });
        let said = stage.apply(&service, &[]).await?;
        ensure!(said.succeeded, "Services fail open: {}", said.err);
        let said = stage
            .kubectl(admin, &["annotate", "eip", "lan", "team=a"])
            .await?;
        ensure!(!said.succeeded, "our own kinds fail closed");
        let finalizer = r#"{"metadata":{"finalizers":["example.com/keep"]}}"#;
        let said = stage
            .kubectl(
                admin,
                &["patch", "eip", "lan", "--type=merge", "--patch", finalizer],
            )
            .await?;
        ensure!(
            said.succeeded,
            "finalizers never depend on the webhook: {}",
            said.err
        );

        for replica in &stage.replicas {
            replica.process.restart().await?;
        }
        recovered(&stage).await?;
        // It ends in an orderly way when asked to.
        for replica in &stage.replicas {
            let status = replica.process.stop().await?;
            ensure!(status.success(), "ended with {status}");
        }
        Ok(())
    });
}

/// A Service that nobody checked says about itself what the webhook would have said.
#[test]
fn what_slips_past_is_shown_by_the_controller_in_the_same_words() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        let webhook = &stage.replicas[0].process;
        webhook.kill().await;
        let service = |name: &str, addresses: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": name, "namespace": "default",
                    "annotations": {
                        "lb.kubesphere.io/v1alpha1": "openelb", "eip.openelb.kubesphere.io/v1alpha1": addresses,
                    },
                },
                "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
            })
        };
        let wrong = [
            ("unreadable", "192.0.2.300"),
            ("family", "2001:db8::1"),
            ("twice", "192.0.2.1,192.0.2.2"),
        ];
        for (name, addresses) in wrong {
            let said = stage.apply(&service(name, addresses), &[]).await?;
            ensure!(said.succeeded, "{name}: {}", said.err);
        }

        let controller = controller(&stage).await?;
        let services: Api<Service> = Api::default_namespaced(stage.control.client());
        let mut shown = Vec::new();
        for (name, addresses) in wrong {
            let message = eventually("the condition", Deadline::SHORT, async || {
                controller.check()?;
                match allocated(&services.get(name).await?) {
                    Some((status, reason, message))
                        if status == "False" && reason == "InvalidRequest" =>
                    {
                        Ok(message)
                    }
                    other => anyhow::bail!("{name}: {other:?}"),
                }
            })
            .await?;
            shown.push((addresses, message));
        }

        webhook.restart().await?;
        recovered(&stage).await?;
        for (addresses, message) in shown {
            let said = stage
                .apply(&service("new", addresses), &["--dry-run=server"])
                .await?;
            ensure!(
                !said.succeeded && said.err.contains(&message),
                "the controller: {message}\nthe webhook: {}",
                said.err
            );
        }
        Ok(())
    });
}

/// The controller, with the chart's rights.
async fn controller(stage: &Stage) -> Result<Process> {
    let account = stage.chart.account(&stage.control, "controller").await?;
    Program::new("controller", binary("openelb-operator")?)
        .args(["controller", "--metrics-addr=0", "--identity=one"])
        .arg("--kubeconfig")
        .arg(account.kubeconfig())
        .env("OPENELB_NAMESPACE", NAMESPACE)
        .start(stage.control.folder().path())
}

/// Our own kinds slip past where there is no configuration; they say about themselves what the webhook would have said.
#[test]
fn a_second_default_and_a_wrong_reservation_that_slipped_past_say_so() {
    story(async || -> Result<()> {
        let stage = Stage::prepare(1, &[]).await?;
        let object = |kind: &str, name: &str, annotations: Value, spec: Value| {
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
                "metadata": { "name": name, "annotations": annotations }, "spec": spec,
            })
        };
        let default = json!({ "eip.openelb.kubesphere.io/is-default-eip": "true" });
        let eip = |name: &str, address: &str| {
            object(
                "Eip",
                name,
                default.clone(),
                json!({ "address": address, "protocol": "layer2" }),
            )
        };
        let reservation = |address: &str| {
            let spec =
                json!({ "address": address, "eip": "a", "protocol": "layer2", "reserved": true });
            object("EipAddress", address, json!({}), spec)
        };
        for object in [
            eip("a", "192.0.2.0/28"),
            eip("b", "192.0.2.16/28"),
            reservation("198.51.100.1"),
            reservation("192.0.2.1"),
        ] {
            let said = stage.apply(&object, &[]).await?;
            ensure!(said.succeeded, "{}", said.err);
        }
        let controller = controller(&stage).await?;
        let invalid = async |what: [&str; 2]| -> Result<String> {
            controller.check()?;
            let path = "--output=jsonpath={.status.conditions[?(@.type=='Invalid')]}";
            let said = stage
                .control
                .kubectl(&["get", what[0], what[1], path])
                .await?;
            let condition: Value = serde_json::from_str(&said).context("no condition")?;
            ensure!(condition["status"] == "True", "{condition}");
            Ok(condition["message"].as_str().unwrap_or_default().to_owned())
        };
        let mut shown = Vec::new();
        for what in [["eip", "b"], ["eipaddress", "198.51.100.1"]] {
            let message = eventually("the condition", Deadline::SHORT, async || {
                invalid(what).await
            });
            shown.push(message.await?);
        }
        for what in [["eip", "a"], ["eipaddress", "192.0.2.1"]] {
            assert!(invalid(what).await.is_err(), "{what:?}");
        }

        stage.configure().await?;
        stage.ready().await?;
        for (object, message) in [eip("c", "203.0.113.0/28"), reservation("198.51.100.2")]
            .into_iter()
            .zip(shown)
        {
            let said = stage.apply(&object, &["--dry-run=server"]).await?;
            let message = message.replace("198.51.100.1", "198.51.100.2");
            ensure!(
                !said.succeeded && said.err.contains(&message),
                "the controller: {message}\nthe webhook: {}",
                said.err
            );
        }
        Ok(())
    });
}
