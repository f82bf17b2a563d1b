//! A certificate that somebody else keeps, mounted as kubelet mounts a Secret.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use openelb_tests::product::NAMESPACE;
use openelb_tests::webhook::{Replica, get};
use openelb_tests::{Deadline, binary, eventually, story};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::stage::{CONFIGURATION, KINDS, SECRET, Stage};

/// A mounted Secret: the files are links into a folder that another link names, so that all change at once.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("certificates");
        std::fs::create_dir(&path)?;
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), path.join(file))?;
        }
        Ok(Self(path))
    }

    fn publish(&self, generation: &str, certificate: &str, key: &str) -> Result<()> {
        let content = self.0.join(generation);
        std::fs::create_dir(&content)?;
        std::fs::write(content.join("tls.crt"), certificate)?;
        std::fs::write(content.join("tls.key"), key)?;
        symlink(generation, self.0.join("..data_tmp"))?;
        std::fs::rename(self.0.join("..data_tmp"), self.0.join("..data"))?;
        Ok(())
    }
}

/// What a keeper of certificates hands out.
struct Pair {
    authority: String,
    certificate: String,
    key: String,
}

/// Somebody else who keeps certificates: an authority of its own for each.
async fn pair(stage: &Stage, name: &str) -> Result<Pair> {
    let status = tokio::process::Command::new(binary("openelb-webhook")?)
        .args(["certs", "create", "--host=127.0.0.1"])
        .arg(format!("--namespace={NAMESPACE}"))
        .arg(format!("--secret-name={name}"))
        .arg("--kubeconfig")
        .arg(stage.control.kubeconfig())
        .status()
        .await?;
    ensure!(status.success(), "certs create ended with {status}");
    let secret = Api::<Secret>::namespaced(stage.control.client(), NAMESPACE)
        .get(name)
        .await?;
    let text = |key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        let ByteString(bytes) = data.with_context(|| format!("no {key}"))?;
        anyhow::Ok(String::from_utf8(bytes.clone())?)
    };
    Ok(Pair {
        authority: text("ca.crt")?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

impl Stage {
    /// Has the configurations trust these authorities, as a CA injector does.
    async fn inject(&self, authorities: &str) -> Result<()> {
        let bundle = ByteString(authorities.as_bytes().to_vec());
        for kind in KINDS {
            let webhooks = self.chart.object(kind, CONFIGURATION)?["webhooks"]
                .as_array()
                .context("no webhooks")?;
            let patch: Vec<_> = (0..webhooks.len())
                .map(|index| {
                    let path = format!("/webhooks/{index}/clientConfig/caBundle");
                    json!({ "op": "add", "path": path, "value": bundle })
                })
                .collect();
            let patch = json!(patch).to_string();
            self.control
                .kubectl(&[
                    "patch",
                    kind,
                    CONFIGURATION,
                    "--type=json",
                    "--patch",
                    &patch,
                ])
                .await?;
        }
        Ok(())
    }

    /// Waits until this certificate is served to clients of `authorities`.
    async fn serves(&self, pair: &Pair, authorities: &str) -> Result<()> {
        let wanted = CertificateDer::from_pem_slice(pair.certificate.as_bytes())?;
        eventually("the mounted certificate", Deadline::SHORT, async || {
            let got = self.replicas[0].handshake(authorities).await?;
            ensure!(got == wanted, "another certificate");
            anyhow::Ok(())
        })
        .await
    }
}

/// A replica that may not see what the rules compare with has a certificate, and still answers no review.
#[test]
fn a_replica_that_knows_nothing_answers_no_review() {
    story(async || -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mount = Mount::new(folder.path())?;
        let argument = format!("--cert-dir={}", mount.0.display());
        let stage = Stage::prepare(0, &[]).await?;
        let pair = pair(&stage, "mounted").await?;
        mount.publish("..1", &pair.certificate, &pair.key)?;
        let nobody = stage.control.service_account(NAMESPACE, "nobody").await?;
        let arguments = [argument.as_str(), "--drain-delay=0s"];
        let replica = Replica::start(&stage.control, &stage.chart, &nobody, "blind", &arguments)?;
        let mut client = eventually("the certificate", Deadline::SHORT, async || {
            replica.process.check()?;
            replica.client(&pair.authority).await
        })
        .await?;
        let review = json!({ "request": { "uid": "u" } }).to_string();
        for path in [
            "/validate-network-kubesphere-io-v1alpha2-eip",
            "/mutate--v1-service",
        ] {
            let (status, said) = client.post(path, review.clone()).await?;
            assert_eq!(status, 503, "{path}");
            assert!(String::from_utf8_lossy(&said).contains("does not know the cluster yet"));
        }
        let answer = get(replica.health, "/readyz").await?;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("are not known yet"),
            "{answer}"
        );
        Ok(())
    });
}

#[test]
fn a_mounted_certificate_is_served_and_reloaded_and_nobody_elses_work_is_touched() {
    story(async || -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mount = Mount::new(folder.path())?;
        let argument = format!("--cert-dir={}", mount.0.display());
        let stage = Stage::prepare(1, &[&argument]).await?;
        let replica = &stage.replicas[0];
        eventually("an answer", Deadline::SHORT, async || {
            replica.process.check()?;
            let answer = get(replica.health, "/readyz").await?;
            ensure!(
                answer.starts_with("HTTP/1.1 503")
                    && answer.contains("there is no valid serving certificate yet"),
                "{answer}"
            );
            anyhow::Ok(())
        })
        .await?;

        let first = pair(&stage, "first").await?;
        mount.publish("..1", &first.certificate, &first.key)?;
        stage.configure().await?;
        stage.inject(&first.authority).await?;
        stage.ready().await?;
        stage.serves(&first, &first.authority).await?;
        let mut open = replica.client(&first.authority).await?;

        let second = pair(&stage, "second").await?;
        let both = format!("{}{}", first.authority, second.authority);
        stage.inject(&both).await?;
        mount.publish("..2", &second.certificate, &second.key)?;
        stage.serves(&second, &both).await?;
        // Whoever was connected before stays so.
        let path = "/validate-network-kubesphere-io-v1alpha2-eip";
        let answer = open.ask(path, &json!({ "uid": "open" })).await?;
        assert_eq!(answer["uid"], "open");
        stage.review().await?;

        // What cannot be served is said, and the last good certificate stays.
        mount.publish("..3", &second.certificate, &first.key)?;
        let complaint = "the private key does not fit the serving certificate";
        eventually("the report", Deadline::SHORT, async || {
            ensure!(
                replica.process.log().contains(complaint),
                "nothing is reported"
            );
            anyhow::Ok(())
        })
        .await?;
        let metrics = get(replica.metrics, "/metrics").await?;
        let errors = "openelb_webhook_certificate_errors_total ";
        assert!(metrics.contains(errors) && !metrics.contains(&format!("{errors}0")));
        stage.serves(&second, &second.authority).await?;
        replica.ready().await?;

        // Neither the Secret nor the configurations are ours then.
        assert!(stage.secrets().get_opt(SECRET).await?.is_none());
        assert_eq!(stage.ca_bundle().await?, both);
        Ok(())
    });
}
