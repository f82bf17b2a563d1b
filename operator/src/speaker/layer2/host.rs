//! Whether this node's kernel answers ARP for addresses by itself, which it must not.
//!
//! A kernel answers for every address that any of its interfaces has, unless `arp_ignore` forbids it.
//! kube-proxy in IPVS mode gives each node all addresses of Services (on `kube-ipvs0`), so without
//! its option `strictARP` every node answers for every address, and clients reach a random one. The
//! other modes bind no address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use openelb_net::Links;

/// The interface of kube-proxy's IPVS mode.
const IPVS: &str = "kube-ipvs0";
/// Where the kernel's settings are.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// What was found on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// kube-proxy runs in IPVS mode.
    ipvs: bool,
    /// Interfaces on which the kernel answers for addresses of others.
    open: BTreeSet<String>,
    /// The IPv4 addresses that the node has by itself.
    bound: BTreeSet<Ipv4Addr>,
}

impl Host {
    /// Reads the kernel's settings for the interfaces.
    pub(super) fn read(links: &Links) -> Self {
        Self::judge(links, |interface| {
            let path = Path::new(SETTINGS).join(interface).join("arp_ignore");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        })
    }

    /// The same of given settings: pure. The kernel takes the greater of `all` and the interface's own.
    fn judge(links: &Links, arp_ignore: impl Fn(&str) -> Option<u8>) -> Self {
        let all = arp_ignore("all").unwrap_or(0);
        let links = links.links.values();
        let open = links
            .clone()
            .filter(|link| !link.loopback && link.name != IPVS);
        let open = open.filter(|link| all.max(arp_ignore(&link.name).unwrap_or(0)) == 0);
        let bound = links.clone().flat_map(|link| &link.addresses);
        Self {
            ipvs: links.clone().any(|link| link.name == IPVS),
            open: open.map(|link| link.name.clone()).collect(),
            bound: bound
                .filter_map(|net| match net.addr() {
                    IpAddr::V4(ip) => Some(ip),
                    IpAddr::V6(_) => None,
                })
                .collect(),
        }
    }

    /// Says in the log what was found, if it is news.
    pub(super) fn report(&self, before: Option<&Self>) {
        let told = before.is_some_and(|old| old.ipvs == self.ipvs && old.open == self.open);
        if told {
            return;
        }
        let mode = if self.ipvs {
            "ipvs"
        } else {
            "iptables, nftables or none"
        };
        if self.ipvs && !self.open.is_empty() {
            tracing::warn!(
                kube_proxy = mode,
                interfaces = ?self.open,
                "this node answers ARP for the addresses of all Services, whoever announces them; set strictARP: true in the ipvs section of kube-proxy's configuration (or net.ipv4.conf.all.arp_ignore=1 and arp_announce=2)"
            );
        } else {
            tracing::info!(kube_proxy = mode, "ARP is answered by the speaker alone");
        }
    }

    /// Whether this node's kernel answers for the addresses of all Services.
    pub(super) fn answers_for_all(&self) -> bool {
        self.ipvs && !self.open.is_empty()
    }

    /// What is wrong with an address that is announced on this interface, and how to mend it; `others` are
    /// the nodes that say [`Self::answers_for_all`] of themselves.
    pub(super) fn trouble(&self, ip: IpAddr, interface: &str, others: &[String]) -> Option<String> {
        let IpAddr::V4(ip) = ip else { return None };
        if !self.bound.contains(&ip) || !self.open.contains(interface) {
            return (!others.is_empty()).then(|| {
                format!(
                    "the kernels of other nodes answer ARP for this address too, so that clients reach any of them: {}; set strictARP: true in the ipvs section of kube-proxy's configuration",
                    others.join(", ")
                )
            });
        }
        let fix = if self.ipvs {
            "set strictARP: true in the ipvs section of kube-proxy's configuration"
        } else {
            "remove it from the node, or set net.ipv4.conf.all.arp_ignore=1 and arp_announce=2"
        };
        Some(format!(
            "the kernel of the node has this address and answers ARP for it on {interface}, as will those of other nodes that are set up alike; {fix}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use openelb_net::Link;

    use super::*;

    fn links(names: &[(&str, &str)]) -> Links {
        let links = (1..).zip(names).map(|(index, (name, address))| {
            let link = Link {
                index,
                name: (*name).to_owned(),
                mac: None,
                running: true,
                loopback: *name == "lo",
                master: None,
                addresses: vec![address.parse().unwrap()],
            };
            (index, link)
        });
        Links {
            links: links.collect(),
            routes: Vec::new(),
        }
    }

    fn vip() -> IpAddr {
        "10.0.100.1".parse().unwrap()
    }

    #[test]
    fn ipvs_without_strict_arp_is_trouble_with_the_fix() {
        let links = links(&[("eth0", "10.0.0.1/16"), (IPVS, "10.0.100.1/32")]);
        let loose = Host::judge(&links, |_| Some(0));
        let text = loose.trouble(vip(), "eth0", &[]).unwrap();
        assert!(loose.answers_for_all());
        assert!(text.contains("strictARP: true"), "{text}");
        assert_eq!(
            loose.trouble("10.0.100.2".parse().unwrap(), "eth0", &[]),
            None
        );
        assert_eq!(loose.trouble("fd00::1".parse().unwrap(), "eth0", &[]), None);
        for strict in ["all", "eth0"] {
            let host = Host::judge(&links, |name| Some(u8::from(name == strict)));
            assert_eq!(host.trouble(vip(), "eth0", &[]), None, "{strict}");
            // Another node that is not strict harms the addresses of this one.
            let others = ["n2".to_owned(), "n3".to_owned()];
            let text = host.trouble(vip(), "eth0", &others).unwrap();
            assert!(
                text.contains("n2, n3") && text.contains("strictARP: true"),
                "{text}"
            );
            assert_eq!(
                host.trouble("fd00::1".parse().unwrap(), "eth0", &others),
                None
            );
        }
    }

    #[test]
    fn an_address_on_the_loopback_is_trouble_too_and_the_other_modes_are_not() {
        let bound = links(&[("lo", "10.0.100.1/32"), ("eth0", "10.0.0.1/16")]);
        let text = Host::judge(&bound, |_| None)
            .trouble(vip(), "eth0", &[])
            .unwrap();
        assert!(text.contains("arp_ignore=1"), "{text}");
        let usual = links(&[("lo", "127.0.0.1/8"), ("eth0", "10.0.0.1/16")]);
        assert_eq!(
            Host::judge(&usual, |_| Some(0)).trouble(vip(), "eth0", &[]),
            None
        );
        assert!(!Host::judge(&usual, |_| Some(0)).answers_for_all());
    }
}
