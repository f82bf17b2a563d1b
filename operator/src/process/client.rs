//! The client for the cluster's API, whose connections do not outlive a server that is silently gone.
//!
//! A watch only listens: when the API server's machine loses power, or the load balancer before it moves on
//! without a word, nothing would tell for minutes. The kernel is asked to look: a connection on which
//! nothing was heard for [`QUIET`] is probed, and given up [`GONE`] after the last word.
//!
//! Nothing is tried again here: whoever asks knows how soon it matters, and a client that waits longer and
//! longer on its own would still be waiting when the API server is back.

use std::time::Duration;

use anyhow::Context as _;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use tower::ServiceBuilder;

/// How long a connection to be made may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// After this silence a connection is probed, every [`PROBE`].
const QUIET: Duration = Duration::from_secs(3);
const PROBE: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;
/// A connection on which nothing is acknowledged for this long is gone.
const GONE: Duration = Duration::from_secs(6);

/// A client for the cluster that the configuration names.
pub(super) fn connect(mut config: kube::Config) -> anyhow::Result<kube::Client> {
    config.connect_timeout = Some(CONNECT);
    if config.proxy_url.is_some() {
        // The proxy is what our connections end at: its silence is not the API server's.
        config.write_timeout = Some(Duration::from_secs(10));
        return kube::Client::try_from(config)
            .context("cannot build a client for the cluster's API");
    }
    let tls = config.rustls_https_connector_with_connector(connector())?;
    // Boxed, because a connector's futures have to be movable.
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(CONNECT)
        .service(tls);
    let http = Http::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(QUIET));
    connector.set_keepalive_interval(Some(PROBE));
    connector.set_keepalive_retries(Some(PROBES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(GONE));
    connector
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the kernel's table of connections names this timer for one to `port`.
    fn has_timer(port: u16, timer: &str) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields[2].ends_with(&format!(":{port:04X}")) && fields[5].starts_with(timer)
        })
    }

    #[tokio::test]
    async fn the_kernel_looks_after_connections_that_only_listen() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}").parse().unwrap();
        let mut config = kube::Config::new(url);
        config.accept_invalid_certs = true;
        let client = connect(config).unwrap();
        // It is never answered.
        let request = tokio::spawn(async move { client.apiserver_version().await.map(drop) });
        let _server = listener.accept().await.unwrap();
        let keepalive = async {
            while !has_timer(port, "02:") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), keepalive).await;
        request.abort();
        assert!(seen.is_ok(), "no keepalive timer runs");
    }
}
