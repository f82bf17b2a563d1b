//! The speaker's flags: ours, and OpenELB's so that its manifests keep working.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use openelb_layer2::ResponderConfig;
use openelb_membership::Profile;

use super::layer2::{Kind, Settings};

/// Settings of the speaker.
#[derive(Debug, clap::Args)]
// Both may stand in one command line, whose groups are told apart by name.
#[group(id = "speaker")]
pub(crate) struct Args {
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Announce the addresses of layer2 Eips by ARP and NDP.
    #[arg(long, env = "OPENELB_ENABLE_LAYER2", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    enable_layer2: bool,
    /// Where to listen for the other speakers' membership messages: the address.
    #[arg(long, default_value = "0.0.0.0")]
    bind_addr: IpAddr,
    /// Where to listen for the other speakers' membership messages: the UDP port.
    #[arg(long, default_value_t = 7946)]
    bind_port: u16,
    /// The membership key; without it the Secret `memberlist`, key `key`.
    #[arg(long, env = "MEMBER_LIST_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// How speakers know of each other: `lease` where they cannot reach each other by UDP; a death then takes seconds
    /// to be noticed.
    #[arg(long, value_enum, default_value_t = Kind::Gossip)]
    membership: Kind,
    /// How quickly a dead node is replaced in layer 2: `default`, `fast`, or `calm` for lossy networks.
    #[arg(long, default_value = "default")]
    membership_profile: Profile,
    /// Layer 2: at most so many unasked ARP and NDP frames per second, for switches that let few through.
    #[arg(long, default_value_t = ResponderConfig::PACE, value_parser = clap::value_parser!(u32).range(1..))]
    announce_pace: u32,
    /// Where the metrics of this node's kube-proxy are. An address is announced once kube-proxy passes it on; a node where
    /// nobody answers here is not waited for, and with `off` nobody is asked.
    #[arg(
        long,
        env = "OPENELB_KUBE_PROXY",
        default_value = "127.0.0.1:10249",
        value_name = "ADDRESS"
    )]
    kube_proxy: String,
    /// OpenELB's: there is no GoBGP API; state is in `kubectl get bgppeers` and in the metrics.
    #[arg(long, hide = true)]
    api_hosts: Option<String>,
    /// OpenELB's VIP mode: not available.
    #[arg(long, hide = true, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    enable_keepalived_vip: bool,
    /// OpenELB's VIP mode: not available.
    #[arg(long = "keepalived-args", hide = true)]
    keepalived: Option<String>,
    /// OpenELB's VIP mode: not available.
    #[arg(long, hide = true)]
    log_path: Option<String>,
    /// klog's verbosity: use --log.
    #[arg(long, hide = true)]
    v: Option<String>,
    /// klog's: logs always go to standard error.
    #[arg(long, hide = true, num_args = 0..=1, default_value_t = true, default_missing_value = "true")]
    logtostderr: bool,
}

impl Args {
    /// The node's name, which must be given.
    pub(crate) fn node(&self) -> anyhow::Result<String> {
        self.node_name
            .clone()
            .filter(|name| !name.is_empty())
            .context("which node is this? set --node-name, or NODE_NAME from spec.nodeName")
    }

    /// The settings of layer 2, where it is wanted.
    pub(super) fn layer2(&self, node: &str) -> Option<Settings> {
        self.enable_layer2.then(|| Settings {
            node: node.to_owned(),
            bind: SocketAddr::new(self.bind_addr, self.bind_port),
            key: self.secret.clone().filter(|key| !key.is_empty()),
            kind: self.membership,
            profile: self.membership_profile,
            pace: self.announce_pace,
        })
    }

    /// Where kube-proxy's metrics are, where it is to be asked.
    pub(super) fn kube_proxy(&self) -> anyhow::Result<Option<SocketAddr>> {
        if self.kube_proxy == "off" {
            return Ok(None);
        }
        let address = self.kube_proxy.parse();
        let address = address.with_context(|| {
            format!(
                "--kube-proxy {}: expected ADDRESS:PORT or off",
                self.kube_proxy
            )
        })?;
        Ok(Some(address))
    }

    /// Names the flags that have no effect.
    pub(super) fn say_what_is_ignored(&self) {
        for (given, flag, instead) in [
            (
                self.api_hosts.is_some(),
                "--api-hosts",
                "there is no GoBGP API; see the status of BgpPeers and /metrics",
            ),
            (
                self.enable_keepalived_vip,
                "--enable-keepalived-vip",
                "addresses of vip Eips are given but not announced; use layer2",
            ),
            (
                self.keepalived.is_some(),
                "--keepalived-args",
                "no keepalived runs",
            ),
            (
                self.log_path.is_some(),
                "--log-path",
                "no keepalived runs; logs go to standard error",
            ),
            (self.v.is_some(), "--v", "use --log, such as --log debug"),
            (
                !self.logtostderr,
                "--logtostderr",
                "logs go to standard error",
            ),
        ] {
            if given {
                tracing::warn!(flag, instead, "this flag of OpenELB has no effect");
            }
        }
    }
}
