//! The command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgAction, Args, Parser, Subcommand};
use openelb_process::{
    admin::{ScrapeArgs, listen_address},
    telemetry::Format,
};

use crate::certs::{
    config::{CertConfig, SECRET_NAME, WEBHOOK_NAME},
    store::Patching,
};

/// Validates and completes openelb-rs objects and Services, and looks after its own certificates.
#[derive(Debug, Parser)]
#[command(name = "openelb-webhook", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Kubeconfig file; by default the pod's ServiceAccount or $KUBECONFIG.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// What to log: a level, or directives as of tracing's EnvFilter.
    #[arg(
        long,
        global = true,
        visible_alias = "log",
        env = "OPENELB_LOG",
        default_value = "info"
    )]
    pub log_level: String,
    /// How log lines look.
    #[arg(long, global = true, env = "OPENELB_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer admission reviews.
    Serve(Box<Serve>),
    /// What the chart's jobs do; safe to run at any time and again.
    #[command(subcommand)]
    Certs(Certs),
    /// Print every metric, as `/metrics` shows it; what the reference is made from.
    #[command(hide = true)]
    Metrics,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Port of the HTTPS server.
    #[arg(long, default_value_t = 9443)]
    pub webhook_port: u16,
    /// Address of the HTTPS server; by default all of them, IPv4 and IPv6.
    #[arg(long)]
    pub bind_address: Option<IpAddr>,
    /// Where `/metrics` is served, and to this machine `/debug/state` and `/debug/log`; `0` for nowhere.
    #[arg(long, default_value = ":50052", value_parser = listen_address)]
    pub metrics_addr: Listen,
    /// Who may scrape.
    #[command(flatten)]
    pub scrape: ScrapeArgs,
    /// Where `/healthz` and `/readyz` are served over plain HTTP; `0` for nowhere.
    #[arg(long, alias = "readiness-addr", default_value = ":8081", value_parser = listen_address)]
    pub health_addr: Listen,
    /// Serve the certificate in this directory (`tls.crt`, `tls.key`), reloaded on change,
    /// instead of looking after one; the CA bundle is then somebody else's work too.
    #[arg(long, alias = "webhook-cert-dir")]
    pub cert_dir: Option<PathBuf>,
    /// Where the certificates are kept and which configurations trust them.
    #[command(flatten)]
    pub place: Place,
    /// More DNS names or IP addresses for the serving certificate (comma-separated).
    #[arg(long, value_delimiter = ',')]
    pub host: Vec<String>,
    /// Life of the serving certificate; renewed when two thirds have passed.
    #[arg(long, default_value = "720h", value_parser = duration)]
    pub certificate_lifetime: Duration,
    /// Life of the certificate authority.
    #[arg(long, default_value = "87600h", value_parser = duration)]
    pub authority_lifetime: Duration,
    /// How long a replaced authority stays trusted.
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub authority_overlap: Duration,
    /// How long to wait between the webhook configurations trusting a new authority and serving
    /// a certificate signed by it.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub authority_grace: Duration,
    /// Add the opt-in annotation to new LoadBalancer Services of no class when a default Eip
    /// exists.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub default_eip_injection: bool,
    /// User names that may write EipAddress objects freely (comma-separated); by default the
    /// ServiceAccounts `openelb-controller` and `openelb-speaker` of the namespace.
    #[arg(long, value_delimiter = ',')]
    pub address_writers: Vec<String>,
    /// After a signal to stop: go on serving this long while clients learn that we leave.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,
}

/// Where certificates are kept and used.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Namespace of the Secret and of the Service.
    #[arg(long, env = "OPENELB_NAMESPACE", default_value = "openelb-system")]
    pub namespace: String,
    /// The Secret that holds the certificates.
    #[arg(long, default_value = SECRET_NAME)]
    pub secret_name: String,
    /// Name of the validating and the mutating webhook configuration.
    #[arg(long, default_value = WEBHOOK_NAME)]
    pub webhook_name: String,
}

/// The chart's jobs.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make sure that the Secret holds a usable certificate.
    Create {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Names for the certificate (comma-separated), besides those of the Services.
        #[arg(long, value_delimiter = ',')]
        host: Vec<String>,
    },
    /// Put the Secret's authority into the webhook configurations.
    Patch {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Patch the mutating configuration.
        #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
        patch_mutating: bool,
        /// Patch the validating configuration.
        #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
        patch_validating: bool,
        /// Failure policy to set on webhooks for our own kinds; those for Services keep theirs.
        #[arg(long, value_parser = ["Fail", "Ignore"])]
        patch_failure_policy: Option<String>,
    },
}

impl Serve {
    /// How certificates shall look.
    #[must_use]
    pub fn certificates(&self) -> CertConfig {
        CertConfig {
            authority_life: self.authority_lifetime,
            serving_life: self.certificate_lifetime,
            overlap: self.authority_overlap,
            grace: self.authority_grace,
            ..CertConfig::new(&self.place.namespace, &self.host)
        }
    }

    /// Who may write EipAddress objects freely.
    #[must_use]
    pub fn address_writers(&self) -> Vec<String> {
        if !self.address_writers.is_empty() {
            return self.address_writers.clone();
        }
        let account = |name| format!("system:serviceaccount:{}:{name}", self.place.namespace);
        vec![account("openelb-controller"), account("openelb-speaker")]
    }
}

/// How `certs patch` shall patch.
#[must_use]
pub fn patching(validating: bool, mutating: bool, failure_policy: Option<String>) -> Patching {
    Patching {
        validating,
        mutating,
        failure_policy,
    }
}

/// Where to listen; `None` for nowhere.
pub type Listen = Option<SocketAddr>;

/// `90s`, `24h`, `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .map_err(|error| error.to_string())
        .and_then(|length| Duration::try_from(length).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_openelbs_jobs_are_understood() {
        let create = [
            "openelb-webhook",
            "certs",
            "create",
            "--host=openelb-controller,openelb-controller.openelb-system.svc",
            "--namespace=openelb-system",
            "--secret-name=openelb-admission",
        ];
        Cli::try_parse_from(create).unwrap();
        let patch = [
            "openelb-webhook",
            "certs",
            "patch",
            "--webhook-name=openelb-admission",
            "--namespace=openelb-system",
            "--patch-mutating=false",
            "--secret-name=openelb-admission",
            "--patch-failure-policy=Fail",
        ];
        let Command::Certs(Certs::Patch {
            patch_mutating,
            patch_validating,
            ..
        }) = Cli::try_parse_from(patch).unwrap().command
        else {
            panic!("no patch");
        };
        assert_eq!((patch_mutating, patch_validating), (false, true));
    }

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("36s"), Ok(Duration::from_secs(36)));
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
