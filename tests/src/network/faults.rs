//! Faults of links. Each has a way back; none changes what a host believes about itself unless it says so.

use std::fmt::Write;

use anyhow::{Context, Result};

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
        self.switch
            .ip(&format!("link set {} master br0 up\n", host.port()))
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
                    "add rule {TABLE} forward iifname \"{}\" oifname \"{}\" drop",
                    from.port(),
                    to.port()
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

    /// Delays what a host receives by so many milliseconds.
    ///
    /// # Errors
    /// The kernel has no `netem`.
    pub async fn delay(&self, host: &Host, milliseconds: u32) -> Result<()> {
        let delay = format!("{milliseconds}ms");
        self.switch
            .run(&[
                "tc",
                "qdisc",
                "replace",
                "dev",
                &host.port(),
                "root",
                "netem",
                "delay",
                &delay,
            ])
            .await
            .map(drop)
            .context("delaying packets needs a kernel with sch_netem")
    }

    /// Ends every partition and loss, and the limits and delays of all hosts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn heal(&self) -> Result<()> {
        self.switch
            .nft(&format!("add table {TABLE}\ndelete table {TABLE}\n"))
            .await?;
        for host in self.on_segment() {
            // Fails where nothing was set, which is what is wanted.
            let _ = self
                .switch
                .run(&["tc", "qdisc", "del", "dev", &host.port(), "root"])
                .await;
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
