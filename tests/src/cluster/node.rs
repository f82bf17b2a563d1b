//! A node: containerd, kubelet and kube-proxy in the namespace of a host, all of them and every pod in one control
//! group.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::cgroup::Group;
use super::image::Image;
use super::{ProxyMode, config};
use crate::control_plane::{ControlPlane, Identity};
use crate::namespace::Namespace;
use crate::network::{Host, Network};
use crate::process::{Process, Program};
use crate::tools::tool;
use crate::wait::{Deadline, eventually};

/// Runs a kubelet with `/var/lib/kubelet` and `/var/log/containers` of its own: all kubelets of a machine use one path there for their
/// device plugins' socket whatever they are told, and refuse to start when they meet. What it mounts for pods, below the
/// folder that [`share`] made, containerd sees.
const ALONE: [&str; 9] = [
    "unshare",
    "--mount",
    "--propagation",
    "unchanged",
    "--",
    "sh",
    "-c",
    r#"for own in /var/lib/kubelet /var/log/containers; do
        mkdir -p $own && mount -t tmpfs kubelet $own || exit 1
    done
    exec "$@""#,
    "kubelet",
];

/// A running node.
#[derive(Debug)]
pub struct Node {
    network: Arc<Network>,
    host: Host,
    /// Counted from 1; its pods are in `10.244.NUMBER.0/24` and `fd00:244:0:NUMBER::/64`.
    number: usize,
    group: Group,
    home: PathBuf,
    socket: PathBuf,
    containerd: Process,
    kubelet: Process,
    kube_proxy: Process,
}

impl Node {
    pub(crate) async fn start(
        network: Arc<Network>,
        control: &ControlPlane,
        number: usize,
        mode: ProxyMode,
        pause: &Image,
    ) -> Result<Self> {
        let host = network
            .nodes()
            .get(number - 1)
            .context("no such node")?
            .clone();
        let group = Group::create(format!(
            "{}-{}",
            crate::scenario::world_name()?,
            host.name()
        ))?;
        let home = network.folder().join(host.name());
        std::fs::create_dir_all(&home)?;
        // Sockets have short paths only.
        let state = PathBuf::from("/run/openelb").join(host.name());
        std::fs::create_dir_all(&state)?;
        let socket = state.join("containerd.sock");

        let identities = Identities::new(control, &host).await?;
        let files = config::Files {
            control,
            host: &host,
            number,
            home: &home,
            state: &state,
            group: &group,
            mode,
            pause,
        };
        let containerd = Program::new("containerd", tool("containerd")?)
            .arg("--config")
            .arg(files.containerd()?)
            .env("PATH", path_with(tool("containerd-shim-runc-v2")?.parent()));
        let kubelet = Program::new("kubelet", tool("kubelet")?)
            .arg("--config")
            .arg(files.kubelet(&identities.serving)?)
            .arg("--kubeconfig")
            .arg(identities.kubelet.kubeconfig())
            .arg(format!("--hostname-override={}", host.name()))
            .arg(format!("--node-ip={},{}", host.v4, host.v6))
            .arg(format!("--root-dir={}", home.join("kubelet").display()))
            .arg(format!("--cert-dir={}", home.join("pki").display()));
        let kube_proxy = Program::new("kube-proxy", tool("kube-proxy")?)
            .arg("--config")
            .arg(files.kube_proxy(identities.proxy.kubeconfig())?);

        let begin = |program: Program| -> Result<Process> {
            program
                .by_way_of(group.wrapper()?)
                .by_way_of(host.namespace().wrapper())
                .start(&home)
        };
        let containerd = begin(containerd)?;
        let kube_proxy = begin(kube_proxy)?;
        share(&home.join("kubelet")).await?;
        let unstarted = kubelet.by_way_of(ALONE);
        import(&containerd, &socket, pause).await?;
        let kubelet = begin(unstarted)?;
        Ok(Self {
            network,
            host,
            number,
            group,
            home,
            socket,
            containerd,
            kubelet,
            kube_proxy,
        })
    }

    /// Its name, such as `n1`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its machine: addresses and namespace.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The kubelet, to be stopped, paused and restarted.
    #[must_use]
    pub fn kubelet(&self) -> &Process {
        &self.kubelet
    }

    /// containerd, to be stopped, paused and restarted. Its containers live on without it.
    #[must_use]
    pub fn containerd(&self) -> &Process {
        &self.containerd
    }

    /// kube-proxy, to be stopped, paused and restarted.
    #[must_use]
    pub fn kube_proxy(&self) -> &Process {
        &self.kube_proxy
    }

    /// Makes an image known to this node.
    ///
    /// # Errors
    /// containerd refuses it.
    pub async fn load(&self, image: &Image) -> Result<()> {
        import(&self.containerd, &self.socket, image).await
    }

    /// Takes the power: not one more frame leaves it, nothing is closed or withdrawn, and all of it is gone at once,
    /// daemons and pods. Its disks stay.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn power_off(&self) -> Result<()> {
        self.network.unplug(&self.host).await?;
        self.group.kill().await?;
        for process in [&self.containerd, &self.kubelet, &self.kube_proxy] {
            process.kill().await;
        }
        Ok(())
    }

    /// Gives the power back: the node boots with its disks and without anything that lives in memory.
    ///
    /// # Errors
    /// A part does not start.
    pub async fn power_on(&self) -> Result<()> {
        let namespace = self.host.namespace();
        namespace
            .run(&["sh", "-c", config::FORGET])
            .await
            .context("cannot clear the node's memory")?;
        let state = self.socket.parent().context("no state folder")?;
        let state = state.display().to_string();
        let unmount = r#"
            awk -v under="$1/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount --lazy
            rm -rf "$1" && mkdir -p "$1""#;
        namespace
            .run(&["sh", "-c", unmount, "unmount", &state])
            .await?;
        self.network.plug(&self.host).await?;
        self.network.restore(&self.host).await?;
        self.containerd.restart().await?;
        self.kube_proxy.restart().await?;
        eventually("containerd after the boot", Deadline::LONG, async || {
            self.containerd.check()?;
            tokio::net::UnixStream::connect(&self.socket).await?;
            anyhow::Ok(())
        })
        .await?;
        self.kubelet.restart().await
    }

    /// Pulls the node off the network silently; all its processes go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn unplug(&self) -> Result<()> {
        self.network.unplug(&self.host).await
    }

    /// Pulls its cable: it sees that its carrier is lost; all its processes go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn cut(&self) -> Result<()> {
        self.network.cut(&self.host).await
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn plug(&self) -> Result<()> {
        self.network.plug(&self.host).await
    }

    /// Sends a signal to every process of a pod's containers, as the kernel would; the kubelet is not told.
    ///
    /// # Errors
    /// The pod has no process here.
    pub fn signal_pod(&self, uid: &str, signal: Signal) -> Result<()> {
        let members = self.group.members(uid)?;
        ensure!(
            !members.is_empty(),
            "pod {uid} has no process on {}",
            self.name()
        );
        for member in members {
            let _ = kill(member, signal);
        }
        Ok(())
    }

    /// The processes of a pod's containers, by their ids in the world.
    ///
    /// # Errors
    /// The pod has no process here.
    pub fn processes_of(&self, uid: &str) -> Result<Vec<i32>> {
        let members = self.group.members(uid)?;
        ensure!(
            !members.is_empty(),
            "pod {uid} has no process on {}",
            self.name()
        );
        Ok(members.iter().map(|pid| pid.as_raw()).collect())
    }

    /// The node's pods, both families.
    #[must_use]
    pub fn pod_ranges(&self) -> [String; 2] {
        config::pod_ranges(self.number)
    }

    /// Where the node's files and logs are.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
}

struct Identities {
    kubelet: Identity,
    proxy: Identity,
    serving: (PathBuf, PathBuf),
}

impl Identities {
    async fn new(control: &ControlPlane, host: &Host) -> Result<Self> {
        let name = host.name();
        Ok(Self {
            kubelet: control
                .user(&format!("system:node:{name}"), &["system:nodes"])
                .await?,
            proxy: control.user("system:kube-proxy", &[]).await?,
            serving: control.serving(&format!("serving-{name}"), name, &host.addresses())?,
        })
    }
}

/// Makes a folder whose mounts are seen in all namespaces of mounts that have it.
async fn share(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let script = r#"mount --bind "$1" "$1" && mount --make-shared "$1""#;
    let folder = folder.display().to_string();
    let command = ["sh", "-c", script, "share", &folder];
    Namespace::own().run(&command).await.map(drop)
}

async fn import(containerd: &Process, socket: &Path, image: &Image) -> Result<()> {
    let ctr = tool("ctr")?;
    eventually(
        &format!("containerd to take {}", image.name),
        Deadline::LONG,
        async || {
            containerd.check()?;
            let output = tokio::process::Command::new(&ctr)
                .arg("--address")
                .arg(socket)
                .args(["--namespace", "k8s.io", "images", "import", "--local"])
                .arg(image.path())
                .kill_on_drop(true)
                .output()
                .await?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            anyhow::Ok(())
        },
    )
    .await
}

fn path_with(folder: Option<&Path>) -> std::ffi::OsString {
    let mut folders: Vec<PathBuf> = folder.into_iter().map(Path::to_owned).collect();
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    std::env::join_paths(folders).unwrap_or_default()
}
