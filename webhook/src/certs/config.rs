//! What the certificates shall look like: plain data, made once from the command line.

use std::time::Duration;

/// Services under which the webhook can be reached: ours, and the names that OpenELB used
/// (0.6 `openelb-controller`, 0.5 `openelb-admission`), so that either's configuration works.
pub const SERVICE_NAMES: [&str; 3] = ["openelb-webhook", "openelb-controller", "openelb-admission"];

/// The Secret in which OpenELB keeps its certificates.
pub const SECRET_NAME: &str = openelb_api::keys::ADMISSION_SECRET;

/// The name of both webhook configurations, fixed in OpenELB too.
pub const WEBHOOK_NAME: &str = openelb_api::keys::ADMISSION_CONFIGURATION;

/// How certificates are named and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertConfig {
    /// DNS names and IP addresses that the serving certificate must be valid for; not empty.
    pub names: Vec<String>,
    /// Life of the authority.
    pub authority_life: Duration,
    /// Life of the serving certificate; renewed when two thirds have passed.
    pub serving_life: Duration,
    /// How long an authority that was replaced stays trusted.
    pub overlap: Duration,
    /// How long to wait between seeing a new authority in the webhook configurations and
    /// serving a certificate signed by it: the time that API servers take to notice.
    pub grace: Duration,
    /// Serve a new certificate after this long even if the configurations do not trust it yet.
    pub patience: Duration,
}

impl CertConfig {
    /// The defaults for Services in `namespace`, with `extra` names added.
    #[must_use]
    pub fn new(namespace: &str, extra: &[String]) -> Self {
        let mut names: Vec<String> = SERVICE_NAMES
            .iter()
            .flat_map(|service| service_names(service, namespace))
            .collect();
        for name in extra {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Self {
            names,
            authority_life: Duration::from_hours(24 * 365 * 10),
            serving_life: Duration::from_hours(24 * 30),
            overlap: Duration::from_hours(24),
            grace: Duration::from_secs(5),
            patience: Duration::from_mins(1),
        }
    }
}

/// Every name by which a client inside the cluster may call a Service.
fn service_names(service: &str, namespace: &str) -> [String; 4] {
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cover_every_service_and_the_extra_hosts_once() {
        let config = CertConfig::new(
            "lb",
            &[
                "10.0.0.1".to_owned(),
                "openelb-controller.lb.svc".to_owned(),
            ],
        );
        assert!(
            config
                .names
                .contains(&"openelb-admission.lb.svc".to_owned())
        );
        assert!(config.names.contains(&"10.0.0.1".to_owned()));
        assert_eq!(
            config
                .names
                .iter()
                .filter(|name| *name == "openelb-controller.lb.svc")
                .count(),
            1
        );
    }
}
