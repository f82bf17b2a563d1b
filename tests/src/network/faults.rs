//! Faults of links of the nodes' segment. Each has a way back; none changes what a host believes about itself unless it
//! says so. The client behind the router has no such link: what is to happen to it happens to the router's.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;

use super::delay::{self, Delay};
use super::{Host, Network};

/// The table that holds the faults of the switch.
const TABLE: &str = "bridge faults";

impl Network {
    /// Pulls a host off the switch silently: its link keeps its carrier, but no frame passes any more. This is how a
    /// dead machine looks to the others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn unplug(&self, host: &Host) -> Result<()> {
        self.switch
            .ip(&format!("link set {} nomaster\n", host.port()))
            .await
    }

    /// Pulls the cable: both ends lose their carrier.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn cut(&self, host: &Host) -> Result<()> {
        self.switch
            .ip(&format!("link set {} down\n", host.port()))
            .await
    }

    /// Undoes [`Network::unplug`] and [`Network::cut`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn plug(&self, host: &Host) -> Result<()> {
        let delays = self.delays.lock().await;
        let bridge = if delays.contains_key(host.name()) {
            delay::bridge(host)
        } else {
            "br0".to_owned()
        };
        self.switch
            .ip(&format!("link set {} master {bridge} up\n", host.port()))
            .await
    }

    /// Lets no frame pass between the two groups; within each, all goes on. Everybody else hears both.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn partition(&self, one: &[&Host], other: &[&Host]) -> Result<()> {
        let mut rules = String::new();
        for (from, to) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            for (from, to) in [(from, to), (to, from)] {
                writeln!(
                    rules,
                    "add rule {TABLE} forward iifname {{ {} }} oifname {{ {} }} drop",
                    ports(from),
                    ports(to)
                )?;
            }
        }
        self.add_rules(&rules).await
    }

    /// Drops so many of a hundred frames to and from a host, at random.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn lose(&self, host: &Host, percent: u8) -> Result<()> {
        let port = host.port();
        self.add_rules(&format!(
            "add rule {TABLE} forward iifname \"{port}\" numgen random mod 100 < {percent} drop\n\
             add rule {TABLE} forward oifname \"{port}\" numgen random mod 100 < {percent} drop\n"
        ))
        .await
    }

    /// Limits what a host receives to so many kilobits per second.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn limit(&self, host: &Host, kilobits: u32) -> Result<()> {
        let rate = format!("{kilobits}kbit");
        self.switch
            .run(&[
                "tc",
                "qdisc",
                "replace",
                "dev",
                &host.port(),
                "root",
                "tbf",
                "rate",
                &rate,
                "burst",
                "16kb",
                "latency",
                "50ms",
            ])
            .await
            .map(drop)
    }

    /// Holds every frame to and from a host for so long: a round trip takes twice that longer. Called again it changes
    /// the time.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delay(&self, host: &Host, time: Duration) -> Result<()> {
        let mut delays = self.delays.lock().await;
        if let Some(delay) = delays.get(host.name()) {
            delay.set(time)?;
        } else {
            let delay = Delay::start(&self.switch, host, time).await?;
            delays.insert(host.name().to_owned(), delay);
        }
        Ok(())
    }

    /// Ends every partition and loss, and the limits and delays of all hosts. Who is unplugged stays so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn heal(&self) -> Result<()> {
        self.switch
            .nft(&format!("add table {TABLE}\ndelete table {TABLE}\n"))
            .await?;
        let mut delays = self.delays.lock().await;
        for host in self.on_segment().chain([&self.world]) {
            // Fails where nothing was set, which is what is wanted.
            let _ = self
                .switch
                .run(&["tc", "qdisc", "del", "dev", &host.port(), "root"])
                .await;
            if let Some(delay) = delays.remove(host.name()) {
                delay.end(&self.switch, host).await?;
            }
        }
        Ok(())
    }

    async fn add_rules(&self, rules: &str) -> Result<()> {
        self.switch
            .nft(&format!(
                "add table {TABLE}\nadd chain {TABLE} forward {{ type filter hook forward priority 0; }}\n{rules}"
            ))
            .await
    }
}

/// Where a host is met on `br0`: at its own port, or at the end of its slow cable.
fn ports(host: &Host) -> String {
    format!("\"{}\", \"farp-{}\"", host.port(), host.name())
}
