//! The admission webhook of openelb-rs: an HTTPS server and its certificates.

use std::path::Path;

use anyhow::Context as _;
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use openelb_process::telemetry::{self, Identity};
use openelb_webhook::{
    args::{Certs, Cli, Command, patching},
    certs::{config::CertConfig, job, store::Store},
    metrics::Metrics,
    run,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Metrics) {
        print!("{}", Metrics::example().encode()?);
        return Ok(());
    }
    let name = match &cli.command {
        Command::Certs(_) => "certs",
        Command::Serve(_) | Command::Metrics => "webhook",
    };
    let identity = Identity::process(name).from_environment();
    let log = telemetry::init(&cli.log_level, cli.log_format, &identity)?;
    let client = client(cli.kubeconfig.as_deref()).await?;
    match cli.command {
        Command::Metrics => Ok(()),
        Command::Serve(args) => run::serve(&args, client, log).await,
        Command::Certs(Certs::Create { place, host }) => {
            let store = Store::new(
                &client,
                &place.namespace,
                &place.secret_name,
                &place.webhook_name,
            );
            Ok(job::create(&store, &CertConfig::new(&place.namespace, &host)).await?)
        }
        Command::Certs(Certs::Patch {
            place,
            patch_mutating,
            patch_validating,
            patch_failure_policy,
        }) => {
            let store = Store::new(
                &client,
                &place.namespace,
                &place.secret_name,
                &place.webhook_name,
            );
            let patching = patching(patch_validating, patch_mutating, patch_failure_policy);
            Ok(job::patch(&store, &patching).await?)
        }
    }
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer()
            .await
            .context("there is no kubeconfig and no ServiceAccount")?,
    };
    Client::try_from(config).context("cannot make a client of the kubeconfig")
}
