//! What a process answers on its ports for the kubelet, for Prometheus and for people on its own machine.
//!
//! | path | for whom | says |
//! |---|---|---|
//! | `/healthz` | all | whether the main loops go round, else which does not ([`Pulses`]) |
//! | `/readyz` | all | whether the process can do its work, else what is missing ([`Readiness`]) |
//! | `/metrics` | all, or who [may](crate::access) | numbers in the OpenMetrics format |
//! | `/debug/state` | this machine | what the process holds, as JSON ([`State`]) |
//! | `/debug/log` | this machine | GET: what is logged; PUT: another filter, until the process ends |
//!
//! [`Pulses`]: crate::Pulses
//! [`Readiness`]: crate::Readiness
//! [`State`]: crate::State

mod pages;
mod server;
mod tls;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
pub use pages::{debug, health, metrics};
pub use server::run;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Gatekeeper;

/// Who may scrape, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ScrapeArgs {
    /// Serve the port of /metrics by HTTPS, and /metrics only to bearer tokens whose owner may `get` the
    /// non-resource URL /metrics (the API server is asked by TokenReview and SubjectAccessReview).
    #[arg(long, global = true)]
    metrics_secure: bool,
    /// Directory of the certificate for that (`tls.crt`, `tls.key`), read again when it changes; without it the
    /// process makes one for itself, which nobody can verify.
    #[arg(long, global = true)]
    metrics_cert_dir: Option<PathBuf>,
}

impl ScrapeArgs {
    /// What guards the port of `/metrics`: nothing, unless it was asked for. The certificate is looked after until
    /// `stop`.
    ///
    /// # Errors
    /// There is no usable certificate.
    pub fn guard(&self, client: &kube::Client, stop: &CancellationToken) -> anyhow::Result<Guard> {
        if !self.metrics_secure {
            anyhow::ensure!(
                self.metrics_cert_dir.is_none(),
                "--metrics-cert-dir means something only with --metrics-secure"
            );
            return Ok(Guard::default());
        }
        let tls = tls::acceptor(self.metrics_cert_dir.as_deref(), stop)
            .context("the port of /metrics has no certificate")?;
        Ok(Guard {
            tls: Some(tls),
            gatekeeper: Some(Gatekeeper::new(client.clone())),
        })
    }
}

/// What guards a port.
#[derive(Clone, Default)]
pub struct Guard {
    /// TLS, where the port speaks it.
    pub tls: Option<TlsAcceptor>,
    /// Who decides about scrapes, if not everybody may.
    pub gatekeeper: Option<Gatekeeper>,
}

/// Reads `HOST:PORT`, Go's `:PORT` (all addresses), or `0` (`None`: no server).
///
/// # Errors
/// It is none of these.
pub fn listen_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "0" {
        return Ok(None);
    }
    let every = text.strip_prefix(':').and_then(|port| port.parse().ok());
    let address = match every {
        Some(port) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        None => text
            .parse()
            .map_err(|_| "expected HOST:PORT, :PORT, or 0 for none".to_owned())?,
    };
    Ok(Some(address))
}

/// Binds; where the host has no IPv6, "every address" means every IPv4 address.
///
/// # Errors
/// The address is in use, or is not this machine's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

/// `EAFNOSUPPORT`.
const NO_FAMILY: i32 = 97;

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(NO_FAMILY)
}

#[cfg(test)]
mod tests {
    use super::listen_address;

    #[test]
    fn reads_the_go_form_and_full_addresses() {
        let port = |text| {
            listen_address(text)
                .unwrap()
                .map(|address| address.to_string())
        };
        assert_eq!(port(":9").as_deref(), Some("[::]:9"));
        assert_eq!(port("127.0.0.1:9").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(port("0"), None);
        for bad in ["nine", "80", ":", "host:80"] {
            assert!(listen_address(bad).is_err(), "{bad}");
        }
    }
}
