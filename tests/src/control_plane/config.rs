//! What a control plane shall be like, and the command lines that follow from it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::{ControlPlane, pki};
use crate::folder::Folder;
use crate::process::Program;
use crate::tools::tool;

/// The ports of a control plane; its address is its own, so these are free.
pub(crate) const ETCD: u16 = 2379;
const ETCD_PEERS: u16 = 2380;
pub(crate) const API_SERVER: u16 = 6443;

/// The range of ClusterIPs, both families.
pub const SERVICE_RANGE: &str = "10.96.0.0/16,fd00:96::/112";
/// The range of pod addresses, both families.
pub const POD_RANGE: &str = "10.244.0.0/16,fd00:244::/56";

/// What a control plane shall be like. [`Config::start`] starts it.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) address: IpAddr,
    pub(crate) audit: bool,
    pub(crate) controller_manager: bool,
    pub(crate) nodes: bool,
    pub(crate) api_server_args: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(loopback()),
            audit: false,
            controller_manager: false,
            nodes: false,
            api_server_args: Vec::new(),
        }
    }
}

impl Config {
    /// With the audit log.
    #[must_use]
    pub fn audit(mut self) -> Self {
        self.audit = true;
        self
    }

    /// With kube-controller-manager.
    #[must_use]
    pub fn controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// With one more argument for kube-apiserver.
    #[must_use]
    pub fn api_server_arg(mut self, arg: &str) -> Self {
        self.api_server_args.push(arg.to_owned());
        self
    }

    /// At this address instead of one on loopback, so that other hosts of a network reach it.
    #[must_use]
    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// For real nodes: at an address they can reach, handing out pod ranges, scheduling.
    #[must_use]
    pub fn for_nodes(mut self, address: IpAddr) -> Self {
        self.address = address;
        self.controller_manager = true;
        self.nodes = true;
        self
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// A part is missing, ends, or is not ready in time.
    pub async fn start(self) -> Result<ControlPlane> {
        ControlPlane::launch(self).await
    }

    pub(crate) fn etcd(&self, folder: &Folder) -> Result<Program> {
        let clients = format!("http://{}", std::net::SocketAddr::new(self.address, ETCD));
        let peers = format!(
            "http://{}",
            std::net::SocketAddr::new(self.address, ETCD_PEERS)
        );
        Ok(Program::new("etcd", tool("etcd")?)
            .args([
                "--name",
                "world",
                "--unsafe-no-fsync",
                "--logger",
                "zap",
                "--log-level",
                "warn",
            ])
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .arg(format!("--listen-client-urls={clients}"))
            .arg(format!("--advertise-client-urls={clients}"))
            .arg(format!("--listen-peer-urls={peers}"))
            .arg(format!("--initial-advertise-peer-urls={peers}"))
            .arg(format!("--initial-cluster=world={peers}")))
    }

    pub(crate) fn api_server(&self, folder: &Folder, keys: &Keys) -> Result<Program> {
        let mut program = Program::new("kube-apiserver", tool("kube-apiserver")?)
            // Most of what it does in a test is to start, and a quarter of that would be collecting garbage.
            .env("GOGC", "400")
            .env("GOMEMLIMIT", "1GiB")
            .arg(format!(
                "--etcd-servers=http://{}",
                std::net::SocketAddr::new(self.address, ETCD)
            ))
            .arg(format!("--bind-address={}", self.address))
            .arg(format!("--advertise-address={}", self.address))
            .arg(format!("--secure-port={API_SERVER}"))
            .args([
                "--authorization-mode=Node,RBAC",
                "--allow-privileged=true",
                "--profiling=false",
            ])
            .arg("--enable-admission-plugins=NodeRestriction")
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(flag("client-ca-file", &keys.authority.own.certificate_file))
            .arg(flag("tls-cert-file", &keys.server.certificate_file))
            .arg(flag("tls-private-key-file", &keys.server.key_file))
            .arg(flag(
                "kubelet-client-certificate",
                &keys.server.certificate_file,
            ))
            .arg(flag("kubelet-client-key", &keys.server.key_file))
            .arg(flag("service-account-signing-key-file", &keys.tokens.0))
            .arg(flag("service-account-key-file", &keys.tokens.1));
        if !self.nodes {
            // A loopback address is not allowed in the endpoints of the Service `kubernetes`.
            program = program.arg("--endpoint-reconciler-type=none");
        }
        if self.audit {
            let policy = folder.write("audit-policy.yaml", super::audit::POLICY)?;
            program = program
                .arg(flag("audit-policy-file", &policy))
                .arg(flag("audit-log-path", &folder.join("audit.log")));
        }
        Ok(program.args(&self.api_server_args))
    }

    pub(crate) fn controller_manager_program(
        &self,
        keys: &Keys,
        admin: &std::path::Path,
    ) -> Result<Program> {
        let mut program = Program::new("kube-controller-manager", tool("kube-controller-manager")?)
            .arg(flag("kubeconfig", admin))
            .arg(format!("--bind-address={}", self.address))
            .args([
                "--leader-elect=false",
                "--use-service-account-credentials=true",
            ])
            .args([
                "--profiling=false",
                "--concurrent-service-endpoint-syncs=20",
            ])
            .arg(flag("service-account-private-key-file", &keys.tokens.0))
            .arg(flag("root-ca-file", &keys.authority.own.certificate_file))
            .arg(flag(
                "cluster-signing-cert-file",
                &keys.authority.own.certificate_file,
            ))
            .arg(flag(
                "cluster-signing-key-file",
                &keys.authority.own.key_file,
            ));
        if self.nodes {
            program = program
                .args([
                    "--allocate-node-cidrs=true",
                    "--configure-cloud-routes=false",
                ])
                .args([
                    "--node-cidr-mask-size-ipv4=24",
                    "--node-cidr-mask-size-ipv6=64",
                ])
                .arg(format!("--cluster-cidr={POD_RANGE}"))
                .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"));
        }
        Ok(program)
    }

    pub(crate) fn scheduler_program(&self, admin: &std::path::Path) -> Result<Program> {
        Ok(Program::new("kube-scheduler", tool("kube-scheduler")?)
            .arg(flag("kubeconfig", admin))
            .arg(format!("--bind-address={}", self.address))
            .args(["--leader-elect=false", "--profiling=false"]))
    }
}

/// The keys that a control plane runs with.
pub(crate) struct Keys {
    pub(crate) authority: pki::Authority,
    pub(crate) server: pki::Pair,
    pub(crate) tokens: (std::path::PathBuf, std::path::PathBuf),
}

impl Keys {
    pub(crate) fn new(folder: &Folder, address: IpAddr) -> Result<Self> {
        let authority = pki::Authority::new(folder)?;
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let addresses = [address, "10.96.0.1".parse()?, "fd00:96::1".parse()?];
        let server = authority.server(
            folder,
            "kube-apiserver",
            ("kube-apiserver", &["system:masters"]),
            &names,
            &addresses,
        )?;
        Ok(Self {
            authority,
            server,
            tokens: pki::token_key(folder)?,
        })
    }
}

fn flag(name: &str, value: &std::path::Path) -> String {
    format!("--{name}={}", value.display())
}

/// A loopback address of its own for a control plane, one of four million on which the ports it uses are free now.
fn loopback() -> Ipv4Addr {
    loop {
        let random: u32 = rand::random();
        let address = Ipv4Addr::from(0x7f40_0000 | (random & 0x003f_ffff));
        let free = |port| match std::net::TcpListener::bind((address, port)) {
            Ok(_) => true,
            // What else is wrong, etcd will say.
            Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
        };
        if [ETCD, ETCD_PEERS, API_SERVER].into_iter().all(free) {
            return address;
        }
    }
}
