//! The admission webhook of openelb-rs: an HTTPS server and its certificates.

use std::{io::IsTerminal, path::Path};

use anyhow::Context as _;
use clap::Parser;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use openelb_webhook::{
    args::{Certs, Cli, Command, LogFormat, patching},
    certs::{config::CertConfig, job, store::Store},
    metrics::Metrics,
    run,
};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Metrics) {
        print!("{}", Metrics::example().encode()?);
        return Ok(());
    }
    start_logging(&cli)?;
    let client = client(cli.kubeconfig.as_deref()).await?;
    match cli.command {
        Command::Metrics => Ok(()),
        Command::Serve(args) => run::serve(&args, client).await,
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

fn start_logging(cli: &Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log_level).context("--log-level")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
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
