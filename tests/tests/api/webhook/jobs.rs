//! The chart's jobs, with the arguments and the rights that the chart gives them: once, again, and over what OpenELB
//! left.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, PostParams};
use openelb_tests::product::NAMESPACE;
use openelb_tests::{Deadline, Identity, Program, binary, story};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

use super::stage::{CONFIGURATION, KINDS, SECRET, Stage};

/// What OpenELB's own jobs say, where `certgen` is the program.
const OPENELB_CREATE: [&str; 5] = [
    "certs",
    "create",
    "--host=openelb-controller,openelb-controller.openelb-system.svc",
    "--namespace=openelb-system",
    "--secret-name=openelb-admission",
];
const OPENELB_PATCH: [&str; 7] = [
    "certs",
    "patch",
    "--webhook-name=openelb-admission",
    "--namespace=openelb-system",
    "--patch-mutating=false",
    "--secret-name=openelb-admission",
    "--patch-failure-policy=Fail",
];

/// Runs a job as `who`; returns whether it succeeded and what it said.
async fn run(stage: &Stage, who: &Identity, arguments: &[&str]) -> Result<(bool, String)> {
    let name = format!("job-{:016x}", rand::random::<u64>());
    let job = Program::new(&name, binary("openelb-webhook")?)
        .args(arguments)
        .arg("--kubeconfig")
        .arg(who.kubeconfig())
        .env("OPENELB_NAMESPACE", NAMESPACE)
        .start(stage.control.folder().path())?;
    let status = job.ended(Deadline::SHORT).await?;
    Ok((status.success(), job.log()))
}

async fn succeeds(stage: &Stage, who: &Identity, arguments: &[&str]) -> Result<()> {
    let (succeeded, log) = run(stage, who, arguments).await?;
    ensure!(succeeded, "{arguments:?}: {log}");
    Ok(())
}

impl Stage {
    /// The chart's configurations with the Service in them, but with a failure policy that the job has to mend.
    async fn install_configurations(&self) -> Result<()> {
        for kind in KINDS {
            let mut configuration = self.chart.object(kind, CONFIGURATION)?.clone();
            for webhook in configuration["webhooks"]
                .as_array_mut()
                .context("no webhooks")?
            {
                webhook["failurePolicy"] = json!("Ignore");
            }
            let said = self.apply(&configuration, &[]).await?;
            ensure!(said.succeeded, "{}", said.err);
        }
        Ok(())
    }

    /// The versions of all that the jobs write.
    async fn versions(&self) -> Result<String> {
        let version = "--output=jsonpath={.metadata.resourceVersion}";
        let mut versions = vec![
            self.control
                .kubectl(&["get", "secret", SECRET, "--namespace", NAMESPACE, version])
                .await?,
        ];
        for kind in KINDS {
            versions.push(
                self.control
                    .kubectl(&["get", kind, CONFIGURATION, version])
                    .await?,
            );
        }
        Ok(versions.join(" "))
    }
}

#[test]
fn the_charts_jobs_make_and_inject_certificates_once_with_just_their_rights() {
    story(async || -> Result<()> {
        let stage = Stage::prepare(0, &[]).await?;
        let account = stage.chart.account(&stage.control, "admission").await?;
        let create = stage.chart.arguments("Job", "openelb-admission-create")?;
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        let patch = stage.chart.arguments("Job", "openelb-admission-patch")?;
        let patch: Vec<&str> = patch.iter().map(String::as_str).collect();

        // In the wrong order they say what to do.
        let (succeeded, log) = run(&stage, &account, &patch).await?;
        assert!(
            !succeeded && log.contains("run `openelb-webhook certs create` first"),
            "{log}"
        );
        succeeds(&stage, &account, &create).await?;
        let (succeeded, log) = run(&stage, &account, &patch).await?;
        assert!(
            !succeeded && log.contains("install the chart's first"),
            "{log}"
        );

        stage.install_configurations().await?;
        let mut versions = BTreeSet::new();
        for _ in 0..2 {
            succeeds(&stage, &account, &create).await?;
            succeeds(&stage, &account, &patch).await?;
            versions.insert(stage.versions().await?);
        }
        assert_eq!(versions.len(), 1, "the second run changed something");
        let trust = stage.secret("ca.crt").await?;
        for kind in KINDS {
            for (name, bundle, policy) in stage.webhooks(kind).await? {
                assert_eq!(bundle, trust, "{name}");
                let wanted = if name.contains("service") {
                    "Ignore"
                } else {
                    "Fail"
                };
                assert_eq!(policy, wanted, "{name}");
            }
        }

        // An upgrade over running replicas changes nothing for them either.
        let replica_account = stage.chart.account(&stage.control, "webhook").await?;
        let replica = openelb_tests::webhook::Replica::start(
            &stage.control,
            &stage.chart,
            &replica_account,
            "running",
            &[],
        )?;
        replica.ready().await?;
        // It wants the address of this machine in its certificate, which the jobs did not know of.
        let served = replica.handshake(&stage.secret("ca.crt").await?).await?;
        succeeds(&stage, &account, &create).await?;
        succeeds(&stage, &account, &patch).await?;
        assert_eq!(
            replica.handshake(&stage.secret("ca.crt").await?).await?,
            served
        );

        // No more rights than that.
        for (verb, what) in [
            ("get", "secrets/other"),
            ("list", "secrets"),
            ("delete", "secrets/openelb-admission"),
            ("get", "validatingwebhookconfigurations/other"),
            ("create", "validatingwebhookconfigurations"),
            ("get", "eips"),
        ] {
            assert!(!stage.may(&account, verb, what).await?, "{verb} {what}");
        }
        Ok(())
    });
}

#[test]
fn openelbs_own_flags_and_secret_are_taken_over() {
    story(async || -> Result<()> {
        let stage = Stage::prepare(0, &[]).await?;
        let admin = stage.control.admin();
        stage.install_configurations().await?;
        succeeds(&stage, admin, &OPENELB_CREATE).await?;
        succeeds(&stage, admin, &OPENELB_PATCH).await?;
        let trust = stage.secret("ca").await?;
        for (name, bundle, _) in stage.webhooks(KINDS[0]).await? {
            assert_eq!(bundle, trust, "{name}");
        }
        for (name, bundle, policy) in stage.webhooks(KINDS[1]).await? {
            assert_eq!(
                (bundle.as_str(), policy.as_str()),
                ("", "Ignore"),
                "{name} was not to be patched"
            );
        }

        // A Secret with OpenELB's three keys, and no key of the authority, whose certificate is good for all our names.
        let secrets: Api<Secret> = stage.secrets();
        let mut secret = secrets.get(SECRET).await?;
        secret
            .data
            .as_mut()
            .context("an empty Secret")?
            .retain(|key, _| ["ca", "cert", "key"].contains(&key.as_str()));
        secrets
            .replace(SECRET, &PostParams::default(), &secret)
            .await?;
        let before = secrets.get(SECRET).await?.metadata.resource_version;
        succeeds(&stage, admin, &OPENELB_CREATE).await?;
        succeeds(&stage, admin, &OPENELB_PATCH).await?;
        let after = secrets.get(SECRET).await?.metadata.resource_version;
        assert_eq!(before, after, "good certificates of others are left alone");
        assert_eq!(stage.webhooks(KINDS[0]).await?[0].1, trust);

        // OpenELB's own is good for two names only, so a new one takes its place; its authority stays trusted.
        let openelbs = openelbs_secret()?;
        secret.data = Some(openelbs.data.clone());
        secret.metadata.resource_version = None;
        secrets
            .replace(SECRET, &PostParams::default(), &secret)
            .await?;
        succeeds(&stage, admin, &OPENELB_CREATE).await?;
        succeeds(&stage, admin, &OPENELB_PATCH).await?;
        let trust = stage.secret("ca.crt").await?;
        assert!(trust.contains(openelbs.authority.trim()), "{trust}");
        assert_eq!(trust.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(stage.webhooks(KINDS[0]).await?[0].1, trust);
        assert_eq!(stage.secret("cert").await?, stage.secret("tls.crt").await?);

        // One that cannot be used is replaced.
        secret
            .data
            .as_mut()
            .context("an empty Secret")?
            .insert("cert".to_owned(), ByteString(b"lost".to_vec()));
        secret.metadata.resource_version = None;
        secrets
            .replace(SECRET, &PostParams::default(), &secret)
            .await?;
        let (succeeded, log) = run(&stage, admin, &OPENELB_PATCH).await?;
        assert!(
            !succeeded && log.contains("tls.crt holds no PEM certificate"),
            "{log}"
        );
        succeeds(&stage, admin, &OPENELB_CREATE).await?;
        succeeds(&stage, admin, &OPENELB_PATCH).await?;
        assert_eq!(
            stage.webhooks(KINDS[0]).await?[0].1,
            stage.secret("ca").await?
        );
        secrets.delete(SECRET, &DeleteParams::default()).await?;
        Ok(())
    });
}

/// What OpenELB's jobs make: an authority whose key they throw away, and a certificate for two names.
struct OpenElbs {
    authority: String,
    data: BTreeMap<String, ByteString>,
}

fn openelbs_secret() -> Result<OpenElbs> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let names = [
        "openelb-controller".to_owned(),
        "openelb-controller.openelb-system.svc".to_owned(),
    ];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let data = [
        ("ca", authority.clone()),
        ("cert", certificate.pem()),
        ("key", key.serialize_pem()),
    ];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
    Ok(OpenElbs {
        authority,
        data: data.into(),
    })
}
