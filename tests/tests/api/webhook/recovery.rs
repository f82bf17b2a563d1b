//! What breaks is whole again within half a minute, and meanwhile the cluster goes on.

use anyhow::{Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use openelb_tests::ipam::allocated;
use openelb_tests::product::NAMESPACE;
use openelb_tests::{Deadline, Program, binary, eventually, story};
use serde_json::json;

use super::stage::{CONFIGURATION, SECRET, Stage};

/// How long anything may stay broken.
const SOON: Deadline = Deadline::seconds(30);

async fn recovered(stage: &Stage) -> Result<()> {
    eventually("a review", SOON, async || stage.review().await).await
}

#[test]
fn an_overwritten_or_recreated_configuration_is_put_right() {
    story(async || -> Result<()> {
        let stage = Stage::set(2, &[]).await?;
        let good = stage.ca_bundle().await?;
        // The authority of the API server itself is a certificate, but not ours.
        let wrong = ByteString(stage.control.authority().as_bytes().to_vec());
        let patch = json!([{ "op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": wrong }]);
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        stage
            .configurations()
            .patch(CONFIGURATION, &PatchParams::default(), &patch)
            .await?;
        eventually("the CA bundle", SOON, async || {
            ensure!(stage.ca_bundle().await? == good, "another CA bundle");
            anyhow::Ok(())
        })
        .await?;
        recovered(&stage).await?;

        stage
            .configurations()
            .delete(CONFIGURATION, &DeleteParams::default())
            .await?;
        stage.configure().await?;
        recovered(&stage).await?;
        assert_eq!(stage.ca_bundle().await?, good);
        Ok(())
    });
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

        let account = stage.chart.account(&stage.control, "controller").await?;
        let controller = Program::new("controller", binary("openelb-operator")?)
            .args(["controller", "--metrics-addr=0", "--identity=one"])
            .arg("--kubeconfig")
            .arg(account.kubeconfig())
            .env("OPENELB_NAMESPACE", NAMESPACE)
            .start(stage.control.folder().path())?;
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
