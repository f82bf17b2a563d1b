//! The configuration files of a node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ProxyMode;
use super::cgroup::Group;
use super::image::Image;
use crate::control_plane::{ControlPlane, POD_RANGE};
use crate::network::Host;
use crate::tools::tool;

/// What a machine forgets without power: pods' links, rules, connections, addresses and routes of its own making.
/// Runs in the node's namespace.
pub(super) const FORGET: &str = r#"
for link in $(ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
    case $link in
    lo | eth0) ;;
    *) ip link del "$link" 2>/dev/null ;;
    esac
done
nft flush ruleset
conntrack -F 2>/dev/null
ip addr flush dev lo; ip addr flush dev eth0; ip route flush table main; ip -6 route flush table main
ip neigh flush all
ip link set lo down; ip link set lo up
true
"#;

/// The ranges of a node's pods.
pub(super) fn pod_ranges(number: usize) -> [String; 2] {
    [
        format!("10.244.{number}.0/24"),
        format!("fd00:244:0:{number:x}::/64"),
    ]
}

/// All that the files of a node are made from.
pub(super) struct Files<'a> {
    pub(super) control: &'a ControlPlane,
    pub(super) host: &'a Host,
    pub(super) number: usize,
    pub(super) home: &'a Path,
    pub(super) state: &'a Path,
    pub(super) group: &'a Group,
    pub(super) mode: ProxyMode,
    pub(super) pause: &'a Image,
}

impl Files<'_> {
    #[allow(
        clippy::unnecessary_debug_formatting,
        reason = "TOML quotes and escapes strings as Rust does"
    )]
    pub(super) fn containerd(&self) -> Result<PathBuf> {
        let network = self.cni()?;
        let plugins = tool("bridge")?;
        for plugin in ["loopback", "host-local", "portmap"] {
            tool(plugin)?;
        }
        let text = format!(
            r#"version = 3
root = {root:?}
state = {state:?}
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
address = {socket:?}
[ttrpc]
address = {ttrpc:?}
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = {pause:?}
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{plugins:?}]
conf_dir = {network:?}
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = {runc:?}
SystemdCgroup = false
"#,
            root = crate::scenario::scratch()?
                .join(self.host.name())
                .join("containerd"),
            state = self.state.join("containerd"),
            socket = self.state.join("containerd.sock"),
            ttrpc = self.state.join("containerd.sock.ttrpc"),
            pause = self.pause.name,
            plugins = plugins.parent().context("no folder of plugins")?,
            runc = tool("runc")?,
        );
        self.write("containerd.toml", &text)
    }

    /// Writes the pod network's configuration and returns its folder.
    fn cni(&self) -> Result<PathBuf> {
        let folder = self.home.join("cni");
        std::fs::create_dir_all(&folder)?;
        let ranges: Vec<Value> = pod_ranges(self.number)
            .iter()
            .map(|range| json!([{ "subnet": range }]))
            .collect();
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.state.join("addresses"), "ranges": ranges,
                        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        std::fs::write(folder.join("10-pods.conflist"), network.to_string())?;
        Ok(folder)
    }

    pub(super) fn kubelet(&self, (certificate, key): &(PathBuf, PathBuf)) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.control.authority_file() },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
            "containerRuntimeEndpoint": format!("unix://{}", self.state.join("containerd.sock").display()),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.group.path(),
            "failCgroupV1": false,
            "enforceNodeAllocatable": [],
            "oomScoreAdj": 0,
            "localStorageCapacityIsolation": false,
            "failSwapOn": false,
            "resolvConf": "",
            "clusterDNS": [super::DNS_V4, super::DNS_V6],
            "clusterDomain": "cluster.local",
            "podLogsDir": self.home.join("pods"),
            "serializeImagePulls": false,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": { "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%" },
            "volumePluginDir": self.home.join("volume-plugins"),
        });
        self.write("kubelet.json", &config.to_string())
    }

    pub(super) fn kube_proxy(&self, kubeconfig: &Path) -> Result<PathBuf> {
        let quick = json!({ "minSyncPeriod": "0s", "syncPeriod": "30s" });
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.mode.name(),
            "hostnameOverride": self.host.name(),
            "clientConnection": { "kubeconfig": kubeconfig },
            "clusterCIDR": POD_RANGE,
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
            "iptables": quick,
            "nftables": quick,
        });
        self.write("kube-proxy.json", &config.to_string())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.home.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
