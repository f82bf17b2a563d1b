//! What a host hears of who has which address: claims of ARP and NDP, read from tcpdump.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::{Deadline, Folder, Namespace, Process, Program, eventually};

/// Somebody who listens on a host's `eth0`.
#[derive(Debug)]
pub struct Capture(Process);

/// A frame whose sender says that it has an address: an ARP reply, a gratuitous ARP request or a neighbour advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// When it came in, in microseconds since the epoch.
    pub at: u64,
    /// The hardware address of the sender, in lower case.
    pub from: String,
    /// Whom the frame was sent to.
    pub to: String,
    /// The address.
    pub address: IpAddr,
}

impl Claim {
    /// Whether it was said to all, unasked. (An answer to duplicate address detection looks the same.)
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"].contains(&&*self.to)
    }

    /// Reads a line of `tcpdump -tten`.
    fn read(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (seconds, micros) = time.split_once('.')?;
        let at = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        let (from, rest) = rest.split_once(" > ")?;
        let (to, says) = rest.split_once(',')?;
        let word = |after: &str| {
            let (_, rest) = says.split_once(after)?;
            rest.split([' ', ',']).next()?.parse::<IpAddr>().ok()
        };
        let asked = word("Request who-has ");
        let gratuitous = asked.filter(|asked| word(" tell ") == Some(*asked));
        let address = gratuitous
            .or_else(|| word("Reply "))
            .or_else(|| word("neighbor advertisement, tgt is "))?;
        Some(Self {
            at,
            from: from.to_lowercase(),
            to: to.to_lowercase(),
            address,
        })
    }
}

impl Capture {
    /// Listens on a host's `eth0`, from when this returns, to what others send.
    ///
    /// # Errors
    /// tcpdump is missing or does not start.
    pub async fn start(host: &Namespace, folder: &Folder) -> Result<Self> {
        let name = format!("claims-{}", rand::random::<u32>());
        let program = Program::new(&name, "tcpdump")
            .args([
                "-i", "eth0", "-ttenl", "-Q", "in", "-s", "128", "-B", "8192",
            ])
            .arg("arp or icmp6");
        let dump = host.program(program).start(folder.path())?;
        listens(&dump).await?;
        Ok(Self(dump))
    }

    /// All claims so far, in the order in which they came in.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        self.0.log().lines().filter_map(Claim::read).collect()
    }
}

/// Waits until a tcpdump sees frames.
pub(crate) async fn listens(dump: &Process) -> Result<()> {
    eventually("tcpdump to listen", Deadline::SHORT, async || {
        dump.check()?;
        let said = dump.log();
        ensure!(said.contains("listening on"), "{said}");
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_from_requests() {
        let claim = |says: &str| {
            let line = format!("1700000000.123456 02:00:00:00:00:0A > 33:33:00:00:00:01, {says}");
            Claim::read(&line).map(|claim| claim.address.to_string())
        };
        let arp = "ethertype ARP (0x0806), length 42:";
        let v4 = Some("10.0.128.1".to_owned());
        for says in [
            "Request who-has 10.0.128.1 tell 10.0.128.1, length 28",
            "Request who-has 10.0.128.1 (ff:ff:ff:ff:ff:ff) tell 10.0.128.1, length 28",
            "Reply 10.0.128.1 is-at 02:00:00:00:00:0a, length 28",
        ] {
            assert_eq!(claim(&format!("{arp} {says}")), v4, "{says}");
        }
        let ask = "Request who-has 10.0.128.1 tell 10.0.0.3, length 28";
        assert_eq!(claim(&format!("{arp} {ask}")), None);
        let ndp = "ethertype IPv6 (0x86dd), length 86: fd00:10::2:1 > ff02::1: ICMP6, neighbor";
        assert_eq!(
            claim(&format!(
                "{ndp} advertisement, tgt is fd00:10::2:1, length 32"
            ))
            .as_deref(),
            Some("fd00:10::2:1")
        );
        let ask = "solicitation, who has fd00:10::2:1, length 32";
        assert_eq!(claim(&format!("{ndp} {ask}")), None);
        assert_eq!(Claim::read("listening on eth0, link-type EN10MB"), None);
    }

    #[test]
    fn a_claim_has_its_time_and_both_ends() {
        let line = "1700000000.123456 02:00:00:00:00:0A > FF:FF:FF:FF:FF:FF, ethertype ARP (0x0806), length 42: \
                    Reply 10.0.128.1 is-at 02:00:00:00:00:0a, length 28";
        let claim = Claim::read(line).unwrap();
        assert_eq!(claim.at, 1_700_000_000_123_456);
        assert_eq!(claim.from, "02:00:00:00:00:0a");
        assert!(claim.is_announcement());
        let answer = Claim {
            to: "02:00:00:00:00:03".to_owned(),
            ..claim
        };
        assert!(!answer.is_announcement());
    }
}
