//! Level 2: nodes, a switch, a router and clients, as network namespaces; no Kubernetes.
//!
//! ```text
//!   client ── 192.168.100.0/24 ── router ── 10.0.0.0/24 ── switch ─┬─ n1, n2, n3…
//!             fd00:100::/64                  fd00:10::/64          ├─ lan (a client on the nodes' segment)
//!                                                                  └─ the world itself (10.0.0.2)
//! ```
//!
//! The router forwards and hashes flows over their ports; nodes forward; there is no duplicate address detection, so
//! every address works at once. The switch lives in a namespace of its own, where no packet filter sees its frames.

mod delay;
mod faults;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};

use crate::folder::Folder;
use crate::namespace::Namespace;
use crate::witness::{Wire, Witness};

/// How many nodes a network can have: their addresses end in 11 to 110.
const MOST_NODES: u8 = 100;

/// A machine of the network.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: Namespace,
    /// Its interface on the nodes' segment, or the client's towards the router.
    pub interface: &'static str,
    /// Its address there.
    pub v4: Ipv4Addr,
    /// Its address there.
    pub v6: Ipv6Addr,
}

impl Host {
    fn new(name: &str, interface: &'static str, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            namespace: Namespace::named(name),
            interface,
            v4,
            v6,
        }
    }

    fn on_segment(name: &str, interface: &'static str, last: u8) -> Self {
        Self::new(
            name,
            interface,
            Ipv4Addr::new(10, 0, 0, last),
            Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, u16::from(last)),
        )
    }

    /// Its name, such as `n1`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Where its processes run.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Both its addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Its port on the switch.
    fn port(&self) -> String {
        format!("to-{}", self.name())
    }
}

/// A running network.
#[derive(Debug)]
pub struct Network {
    nodes: Vec<Host>,
    router: Host,
    client: Host,
    lan_client: Host,
    world: Host,
    switch: Namespace,
    witness: Option<Witness>,
    delays: tokio::sync::Mutex<BTreeMap<String, delay::Delay>>,
    folder: Folder,
}

impl Network {
    /// Makes the network with so many nodes (`n1`, `n2`…).
    ///
    /// # Errors
    /// It is not called inside a [`crate::scenario`], or the kernel lacks something.
    pub async fn start(nodes: u8) -> Result<Self> {
        crate::scenario::world_name()?;
        ensure!(
            nodes <= MOST_NODES,
            "a network has at most {MOST_NODES} nodes, not {nodes}"
        );
        let mut network = Self {
            nodes: (1..=nodes)
                .map(|number| Host::on_segment(&format!("n{number}"), "eth0", 10 + number))
                .collect(),
            router: Host::on_segment("router", "lan0", 1),
            client: Host::new(
                "client",
                "eth0",
                Ipv4Addr::new(192, 168, 100, 2),
                Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 2),
            ),
            lan_client: Host::on_segment("lan", "eth0", 200),
            world: Host {
                namespace: Namespace::own(),
                ..Host::on_segment("world", "world0", 2)
            },
            switch: Namespace::named("switch"),
            witness: None,
            delays: tokio::sync::Mutex::default(),
            folder: Folder::new("network")?,
        };
        network.build().await.context("cannot make the network")?;
        network.witness = Some(network.watch().await?);
        Ok(network)
    }

    /// Keeps what passes on the segment and, past the router, on the client's wire.
    async fn watch(&self) -> Result<Witness> {
        let wires = [
            Wire {
                name: "segment",
                namespace: &self.switch,
                interface: "br0",
            },
            Wire {
                name: "client",
                namespace: &self.router.namespace,
                interface: "wan0",
            },
        ];
        Witness::start(&wires, &self.folder).await
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Host] {
        &self.nodes
    }

    /// The node of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Host> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("there is no node {name}"))
    }

    /// The router between the nodes and the client.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The client behind the router.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The client on the nodes' segment.
    #[must_use]
    pub fn lan_client(&self) -> &Host {
        &self.lan_client
    }

    /// The world itself, where the control plane and its API server are: its link can be broken like any other of the
    /// segment.
    #[must_use]
    pub fn world(&self) -> &Host {
        &self.world
    }

    /// The switch.
    #[must_use]
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Who keeps the frames of the segment and of the client's wire.
    #[must_use]
    pub fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    /// Where logs of what runs in the network go.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Leads every host but the clients to the nodes' pods.
    pub(crate) async fn route_pods(&self) -> Result<()> {
        let hosts = self.nodes.iter().chain([&self.router]);
        futures::future::try_join_all(
            hosts.map(|host| self.route_pods_of(&host.namespace, host.name())),
        )
        .await?;
        self.route_pods_of(&Namespace::own(), "").await
    }

    async fn route_pods_of(&self, namespace: &Namespace, name: &str) -> Result<()> {
        let mut lines = String::new();
        for (number, node) in (1..).zip(&self.nodes) {
            if node.name() != name {
                writeln!(lines, "route add 10.244.{number}.0/24 via {}", node.v4)?;
                writeln!(
                    lines,
                    "route add fd00:244:0:{number:x}::/64 via {}",
                    node.v6
                )?;
            }
        }
        namespace.ip(&lines).await
    }

    /// Gives a node that forgot them its addresses and routes, as its disk would.
    pub(crate) async fn restore(&self, node: &Host) -> Result<()> {
        self.address(node).await?;
        self.route_pods_of(&node.namespace, node.name()).await
    }

    fn on_segment(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().chain([&self.router, &self.lan_client])
    }

    async fn build(&self) -> Result<()> {
        let world = Namespace::own();
        let mut names = String::from("netns add switch\nnetns add client\n");
        for host in self.on_segment() {
            writeln!(names, "netns add {}", host.name())?;
        }
        world.ip(&names).await?;

        // Before any link: parameters of an interface are copied when it is made.
        let no_waiting = [
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
        ];
        world.sysctl(&no_waiting).await?;
        futures::future::try_join_all(
            self.on_segment()
                .chain([&self.client])
                .map(|host| self.tune(host, &no_waiting)),
        )
        .await?;

        let mut links = String::from("link add to-world netns switch type veth peer name world0\n");
        for host in self.on_segment() {
            writeln!(
                links,
                "link add {} netns switch type veth peer name {} address 02:00:{} netns {}",
                host.port(),
                host.interface,
                host.v4
                    .octets()
                    .map(|octet| format!("{octet:02x}"))
                    .join(":"),
                host.name()
            )?;
        }
        links.push_str("link add wan0 netns router type veth peer name eth0 netns client\n");
        links.push_str("addr add 10.0.0.2/24 dev world0\naddr add fd00:10::2/64 dev world0 nodad\nlink set world0 up\n");
        world.ip(&links).await?;

        let mut ports = String::from(
            "link add br0 type bridge\nlink set br0 up\nlink set to-world master br0 up\n",
        );
        for host in self.on_segment() {
            writeln!(ports, "link set {} master br0 up", host.port())?;
        }
        self.switch.ip(&ports).await?;

        futures::future::try_join_all(
            self.on_segment()
                .chain([&self.client])
                .map(|host| self.address(host)),
        )
        .await?;
        Ok(())
    }

    async fn tune(&self, host: &Host, no_waiting: &[&str]) -> Result<()> {
        let mut settings = no_waiting.to_vec();
        if host.name() != "client" && host.name() != "lan" {
            settings.extend(["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
        }
        if host.name() == "router" {
            settings.extend([
                "net.ipv4.fib_multipath_hash_policy=1",
                "net.ipv6.fib_multipath_hash_policy=1",
            ]);
        }
        host.namespace.sysctl(&settings).await
    }

    async fn address(&self, host: &Host) -> Result<()> {
        let mut lines = String::from("link set lo up\n");
        writeln!(lines, "addr add {}/24 dev {}", host.v4, host.interface)?;
        writeln!(
            lines,
            "addr add {}/64 dev {} nodad",
            host.v6, host.interface
        )?;
        writeln!(lines, "link set {} up", host.interface)?;
        match host.name() {
            "router" => lines.push_str(
                "addr add 192.168.100.1/24 dev wan0\naddr add fd00:100::1/64 dev wan0 nodad\nlink set wan0 up\n",
            ),
            "client" => lines.push_str("route add default via 192.168.100.1\nroute add ::/0 via fd00:100::1\n"),
            _ => lines.push_str("route add default via 10.0.0.1\nroute add ::/0 via fd00:10::1\n"),
        }
        host.namespace.ip(&lines).await
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        crate::record::before_the_end();
    }
}
