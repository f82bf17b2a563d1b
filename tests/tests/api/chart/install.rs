//! What the chart does before anything of it is installed.

use std::collections::BTreeSet;

use anyhow::Result;
use openelb_tests::product::{NAMESPACE, render};
use openelb_tests::{ControlPlane, Deadline, Program, binary, story};
use serde_json::Value;

use super::of_kind;

/// The install job's program with the rights that the chart gives it, twice: the second run changes nothing.
#[test]
fn the_install_job_prepares_a_cluster_with_just_its_rights() {
    story(async || -> Result<()> {
        let control = ControlPlane::config().controller_manager().start().await?;
        let account = control
            .service_account(NAMESPACE, "openelb-install")
            .await?;
        grant_install_rights(&control).await?;
        leave_a_speaker_of_openelb(&control).await?;
        let mut versions = BTreeSet::new();
        for _ in 0..2 {
            let prepare = Program::new("prepare", binary("openelb-operator")?)
                .args(["prepare", "--metrics-addr=0", "--crds", "--pod-security"])
                .args(["--memberlist", "--replace-openelb"])
                .arg("--kubeconfig")
                .arg(account.kubeconfig())
                .start(control.folder().path())?;
            let status = prepare.ended(Deadline::LONG).await?;
            assert!(status.success(), "{}", prepare.log());
            let seen = control
                .kubectl(&[
                    "get",
                    "crd/eips.network.kubesphere.io",
                    "crd/eipaddresses.network.kubesphere.io",
                    "crd/bgpconfs.network.kubesphere.io",
                    "crd/bgppeers.network.kubesphere.io",
                    "--output=jsonpath={.items[*].metadata.resourceVersion}",
                ])
                .await?;
            let key = control
            .kubectl(&[
                "get",
                "secret/memberlist",
                "--namespace",
                NAMESPACE,
                "--output=jsonpath={.data.key} {.metadata.resourceVersion} {.metadata.annotations}",
            ])
            .await?;
            assert!(key.len() > 60, "{key}");
            // OpenELB's release has this Secret; an upgrade from it must not take it away.
            assert!(key.contains(r#""helm.sh/resource-policy":"keep""#), "{key}");
            assert!(!key.contains(PUBLISHED), "{key}");
            versions.insert((seen, key));
        }
        assert_eq!(
            versions.len(),
            1,
            "the second run changed something: {versions:?}"
        );
        let label = control
            .kubectl(&[
                "get",
                "namespace",
                NAMESPACE,
                "--output=jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}",
            ])
            .await?;
        assert_eq!(label, "privileged");
        let left = control
            .kubectl(&[
                "get",
                "daemonsets",
                "--namespace",
                NAMESPACE,
                "--output=name",
            ])
            .await?;
        assert_eq!(left, "", "OpenELB's DaemonSet is still there");
        Ok(())
    });
}

/// What the chart lets the install job do.
async fn grant_install_rights(control: &ControlPlane) -> Result<()> {
    let rights: Vec<Value> = render(&[])
        .await?
        .into_iter()
        .filter(|object| {
            object["metadata"]["name"] == "openelb-install"
                && object["apiVersion"] == "rbac.authorization.k8s.io/v1"
        })
        .collect();
    assert_eq!(rights.len(), 4);
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": rights});
    let file = control.folder().write("rights.json", list.to_string())?;
    control
        .kubectl(&["apply", "--filename", &file.to_string_lossy()])
        .await
        .map(drop)
}

/// The key that OpenELB publishes, as a Secret holds it.
const PUBLISHED: &str = "b3BlbmVsYi1zcGVha2Vycw==";

/// A DaemonSet and the key of its pods as OpenELB's chart leaves them.
async fn leave_a_speaker_of_openelb(control: &ControlPlane) -> Result<()> {
    let key = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "memberlist", "namespace": NAMESPACE},
        "data": {"key": PUBLISHED},
    });
    let daemonset = serde_json::json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "openelb-speaker", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "openelb", "helm.sh/chart": "openelb-0.6.1"}},
            "template": {
                "metadata": {"labels": {"app": "openelb", "helm.sh/chart": "openelb-0.6.1"}},
                "spec": {"containers": [{"name": "speaker", "image": "speaker"}]},
            },
        },
    });
    let openelb =
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [key, daemonset]});
    let file = control
        .folder()
        .write("openelb.json", openelb.to_string())?;
    control
        .kubectl(&["create", "--filename", &file.to_string_lossy()])
        .await
        .map(drop)
}

#[tokio::test]
async fn openelbs_workloads_go_last_of_all_that_comes_before_an_installation() {
    let objects = render(&[]).await.unwrap();
    let weight = |job: &Value| -> i64 {
        let weight = &job["metadata"]["annotations"]["helm.sh/hook-weight"];
        weight.as_str().unwrap().parse().unwrap()
    };
    let removes = |job: &&Value| {
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        container["args"].to_string().contains("--replace-openelb")
    };
    let before: Vec<&Value> = of_kind(&objects, "Job")
        .into_iter()
        .filter(|job| {
            let hook = &job["metadata"]["annotations"]["helm.sh/hook"];
            hook.as_str().unwrap().contains("pre-install")
        })
        .collect();
    let (last, rest): (Vec<&Value>, Vec<&Value>) = before.into_iter().partition(removes);
    assert_eq!(last.len(), 1);
    assert_eq!(rest.len(), 2, "the CRDs and the certificate");
    for job in rest {
        assert!(weight(job) < weight(last[0]), "{job}");
    }
}

#[tokio::test]
async fn every_job_can_run_again_and_goes_by_itself() {
    let objects = render(&[]).await.unwrap();
    let jobs = of_kind(&objects, "Job");
    assert_eq!(jobs.len(), 4);
    for job in jobs {
        let annotations = &job["metadata"]["annotations"];
        let hook = annotations["helm.sh/hook"].as_str().unwrap();
        assert!(
            hook.contains("-install") && hook.contains("-upgrade"),
            "{hook}"
        );
        let policy = annotations["helm.sh/hook-delete-policy"].as_str().unwrap();
        assert!(policy.contains("before-hook-creation"), "{policy}");
        let ttl = job["spec"]["ttlSecondsAfterFinished"].as_u64().unwrap();
        assert!(ttl >= 60, "helm looks at a finished job");
        assert_eq!(
            job["spec"]["template"]["spec"]["restartPolicy"],
            "OnFailure"
        );
    }
    let error = render(&["admission.ttlSeconds=0"]).await.unwrap_err();
    assert!(error.to_string().contains("ttlSeconds"), "{error}");
}
