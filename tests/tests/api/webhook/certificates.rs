//! Certificates: made once by whoever comes first, renewed and replaced under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use openelb_tests::{Deadline, binary, eventually, story};

use openelb_tests::product::NAMESPACE;

use super::stage::{SECRET, Stage};

/// Reviews without a pause, until told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    workers: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    pub(super) fn start(stage: &Arc<Stage>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let workers = (0..3)
            .map(|_| {
                let (stage, stop, done) = (Arc::clone(stage), Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        stage.review().await?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        Self {
            stop,
            done,
            workers,
        }
    }

    /// Stops; fails if any review did.
    pub(super) async fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await?.context("a review failed under way")?;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// A new client that trusts what the configurations say gets through to every replica.
async fn new_clients(stage: &Stage) -> Result<()> {
    for replica in &stage.replicas {
        let trust = stage.ca_bundle().await?;
        replica
            .handshake(&trust)
            .await
            .context("a new client was not served")?;
    }
    Ok(())
}

#[test]
fn replicas_that_start_together_share_one_certificate() {
    story(async || -> Result<()> {
        let stage = Stage::set(3, &[]).await?;
        let trust = stage.secret("ca.crt").await?;
        assert_eq!(
            trust.matches("BEGIN CERTIFICATE").count(),
            1,
            "one authority, made once"
        );
        assert_eq!(stage.secret("ca").await?, trust);
        assert_eq!(stage.ca_bundle().await?, trust);
        let mut served = BTreeSet::new();
        for replica in &stage.replicas {
            served.insert(replica.handshake(&trust).await?.to_vec());
        }
        assert_eq!(served.len(), 1, "all serve the same certificate");
        Ok(())
    });
}

#[test]
fn certificates_and_authorities_expire_under_load_and_no_review_fails() {
    story(async || -> Result<()> {
        // On a slow machine lives are longer too.
        let lasting = |flag: &str, seconds: u64| {
            let life = Deadline::seconds(seconds).duration();
            format!("--{flag}={}s", life.as_secs())
        };
        let lives = [
            lasting("certificate-lifetime", 9),
            lasting("authority-lifetime", 24),
            lasting("authority-overlap", 10),
            lasting("authority-grace", 1),
        ];
        let lives: Vec<&str> = lives.iter().map(String::as_str).collect();
        let stage = Stage::set(2, &lives).await?;
        let stage = Arc::new(stage);
        let load = Load::start(&stage);
        let (mut certificates, mut authorities) = (BTreeSet::new(), BTreeSet::new());
        let began = std::time::Instant::now();
        // Until a certificate of the first generation has expired several times over.
        while certificates.len() < 5 || authorities.len() < 3 {
            ensure!(
                began.elapsed() < Deadline::LONG.duration(),
                "only {} certificates and {} authorities so far",
                certificates.len(),
                authorities.len()
            );
            certificates.insert(stage.secret("tls.crt").await?);
            authorities.insert(stage.secret("ca.key").await?);
            new_clients(&stage).await?;
        }
        let reviews = load.finish().await?;
        ensure!(reviews > 100, "only {reviews} reviews");
        Ok(())
    });
}

#[test]
fn a_deleted_or_replaced_secret_fails_no_review() {
    story(async || -> Result<()> {
        let stage = Arc::new(Stage::set(2, &["--authority-grace=1s"]).await?);
        let load = Load::start(&stage);
        let first = stage.secret("tls.crt").await?;
        stage
            .secrets()
            .delete(SECRET, &DeleteParams::default())
            .await?;
        let second = eventually("a new Secret", Deadline::SHORT, async || {
            let found = stage.secret("tls.crt").await?;
            ensure!(found != first, "still the old certificate");
            anyhow::Ok(found)
        })
        .await?;
        served(&stage, &second).await?;

        // Somebody puts certificates of another authority there; here, those that `certs create` makes elsewhere.
        let args = [
            "certs".to_owned(),
            "create".to_owned(),
            "--host=127.0.0.1".to_owned(),
            format!("--namespace={NAMESPACE}"),
            "--secret-name=elsewhere".to_owned(),
            format!("--kubeconfig={}", stage.control.kubeconfig().display()),
        ];
        for _ in 0..2 {
            let status = tokio::process::Command::new(binary("openelb-webhook")?)
                .args(&args)
                .status()
                .await?;
            ensure!(status.success(), "certs create ended with {status}");
        }
        let mut other = stage.secrets().get("elsewhere").await?;
        other.metadata = stage.secrets().get(SECRET).await?.metadata;
        stage
            .secrets()
            .replace(SECRET, &kube::api::PostParams::default(), &other)
            .await?;
        let third = stage.secret("tls.crt").await?;
        ensure!(third != second, "the Secret was not replaced");
        served(&stage, &third).await?;
        let trust = stage.secret("ca.crt").await?;
        assert!(
            trust.matches("BEGIN CERTIFICATE").count() >= 2,
            "old and new are trusted together"
        );
        assert_eq!(stage.ca_bundle().await?, trust);
        load.finish().await?;
        Ok(())
    });
}

/// Waits until every replica serves this certificate to clients of the configurations.
async fn served(stage: &Stage, certificate: &str) -> Result<()> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let wanted = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    for replica in &stage.replicas {
        eventually("the new certificate", Deadline::SHORT, async || {
            let trust = stage.ca_bundle().await?;
            let got = replica.handshake(&trust).await?;
            ensure!(got == wanted, "still another certificate");
            anyhow::Ok(())
        })
        .await?;
    }
    Ok(())
}
