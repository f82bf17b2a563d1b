//! keepalived: what VRRP makes of the same faults, from a description, seen through a view.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::folder::Folder;
use crate::network::Host;
use crate::process::{Process, Program};
use crate::wait::{Deadline, eventually};

/// What a keepalived shall do (VRRP version 3, RFC 5798).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vrrp {
    /// The virtual router's number, the same on all its machines.
    pub id: u8,
    /// Who of them shall have the addresses: the highest.
    pub priority: u8,
    /// How often the one that has them says so; in steps of 10 ms.
    pub interval: Duration,
    /// The addresses, of one family or both.
    pub addresses: Vec<IpAddr>,
}

/// What a keepalived is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VrrpState {
    /// It has the addresses.
    Master,
    /// Another has.
    Backup,
    /// Its interface is of no use.
    Fault,
}

impl Vrrp {
    /// The virtual router of this number with these addresses: priority 100, an advertisement every 100 ms.
    #[must_use]
    pub fn new(id: u8, addresses: &[IpAddr]) -> Self {
        Self {
            id,
            priority: 100,
            interval: Duration::from_millis(100),
            addresses: addresses.to_vec(),
        }
    }

    /// With this priority (1 to 254).
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// With this time between advertisements.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Starts it on a host, and waits until it takes part. Its log goes to `folder`.
    ///
    /// # Errors
    /// keepalived is missing or refuses its configuration.
    pub async fn start(self, host: &Host, folder: &Folder) -> Result<Keepalived> {
        let name = format!("keepalived-{}", host.name());
        let place = PathBuf::from("/run/openelb").join(&name);
        std::fs::create_dir_all(&place)
            .with_context(|| format!("cannot make {}", place.display()))?;
        let file = place.join("keepalived.conf");
        std::fs::write(&file, self.render(host.interface)?)?;
        let mut program = Program::new(&name, "keepalived")
            .args(["--dont-fork", "--vrrp", "--log-console", "--use-file"])
            .arg(file);
        for kind in ["pid", "vrrp_pid"] {
            program = program.arg(format!("--{kind}")).arg(place.join(kind));
        }
        let keepalived = Keepalived {
            process: host.namespace().program(program).start(folder.path())?,
            host: host.clone(),
            config: self,
        };
        eventually(
            &format!("{name} to take part"),
            Deadline::SHORT,
            async || {
                keepalived.process.check()?;
                keepalived.state().with_context(|| keepalived.process.log())
            },
        )
        .await?;
        Ok(keepalived)
    }

    /// Addresses of the other family than the first are announced with it, but not named in the packets (there is room
    /// for one family).
    fn render(&self, interface: &str) -> Result<String> {
        let first = self.addresses.first().context("no address")?;
        let (named, beside): (Vec<&IpAddr>, Vec<&IpAddr>) = self
            .addresses
            .iter()
            .partition(|address| address.is_ipv4() == first.is_ipv4());
        let mut text = format!(
            "vrrp_instance lan {{\n version 3\n state BACKUP\n interface {interface}\n virtual_router_id {}\n \
             priority {}\n advert_int {:.2}\n garp_master_delay 1\n",
            self.id,
            self.priority,
            self.interval.as_secs_f64()
        );
        for (block, addresses) in [
            ("virtual_ipaddress", named),
            ("virtual_ipaddress_excluded", beside),
        ] {
            if addresses.is_empty() {
                continue;
            }
            writeln!(text, " {block} {{")?;
            for address in addresses {
                let length = if address.is_ipv4() { 32 } else { 128 };
                writeln!(text, "  {address}/{length} dev {interface}")?;
            }
            writeln!(text, " }}")?;
        }
        text.push_str("}\n");
        Ok(text)
    }
}

/// A running keepalived. Dropped, it is killed.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    host: Host,
    config: Vrrp,
}

impl Keepalived {
    /// What it says it is, or nothing before it has said so.
    #[must_use]
    pub fn state(&self) -> Option<VrrpState> {
        state(&self.process.log())
    }

    /// Which of its addresses its host has at this moment.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn holds(&self) -> Result<Vec<IpAddr>> {
        let addresses = self.host.namespace().addresses().await?;
        let mine = self.config.addresses.iter().copied();
        Ok(mine.filter(|address| addresses.contains(address)).collect())
    }

    /// Waits until it says it is this, and has all its addresses, or none.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn becomes(&self, wanted: VrrpState) -> Result<()> {
        let what = format!("{} to be {wanted:?}", self.process.name());
        eventually(&what, Deadline::LONG, async || {
            self.process.check()?;
            let (state, holds) = (self.state(), self.holds().await?);
            let expected = if wanted == VrrpState::Master {
                self.config.addresses.len()
            } else {
                0
            };
            ensure!(
                state == Some(wanted) && holds.len() == expected,
                "it is {state:?} and holds {holds:?}"
            );
            Ok(())
        })
        .await
    }

    /// Its process, to be stopped, killed, paused and restarted.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The last state that a log tells of.
fn state(log: &str) -> Option<VrrpState> {
    log.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("Entering ")?;
        match rest.split_whitespace().next()? {
            "MASTER" => Some(VrrpState::Master),
            "BACKUP" => Some(VrrpState::Backup),
            "FAULT" => Some(VrrpState::Fault),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_in_the_log_counts() {
        assert_eq!(state("Starting VRRP child process"), None);
        let log = "(lan) Entering BACKUP STATE (init)\n(lan) Entering MASTER STATE\nnoise\n";
        assert_eq!(state(log), Some(VrrpState::Master));
    }

    #[test]
    fn addresses_of_the_other_family_are_announced_beside() {
        let addresses = [
            "10.0.0.100".parse().unwrap(),
            "fd00:10::100".parse().unwrap(),
        ];
        let text = Vrrp::new(7, &addresses)
            .priority(200)
            .render("eth0")
            .unwrap();
        assert!(
            text.contains("virtual_ipaddress {\n  10.0.0.100/32 dev eth0\n }"),
            "{text}"
        );
        assert!(
            text.contains("virtual_ipaddress_excluded {\n  fd00:10::100/128 dev eth0\n }"),
            "{text}"
        );
        assert!(
            text.contains("priority 200") && text.contains("advert_int 0.10"),
            "{text}"
        );
        assert!(Vrrp::new(7, &[]).render("eth0").is_err());
    }
}
