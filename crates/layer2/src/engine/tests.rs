//! Engines on a simulated LAN with a simulated clock.

mod announcing;
mod arbitrary;
mod foreign;
mod interfaces;
mod moves;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use openelb_net::{Link, Links, MacAddr};

use super::*;
use crate::{Activity, InterfaceChoice, Role, Vip, frame};

const VIP: &str = "10.0.0.100";
const VIP6: &str = "fd00:10::100";
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The alphabetically first outranks.
fn outranks(_: IpAddr, one: &str, other: &str) -> bool {
    one < other
}

fn mac(n: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(n).unwrap()])
}

fn links(mac: MacAddr, running: bool) -> Arc<Links> {
    let eth0 = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: Some(mac),
        running,
        loopback: false,
        master: None,
        addresses: vec![
            "10.0.0.1/24".parse().unwrap(),
            "fd00:10::1/64".parse().unwrap(),
        ],
    };
    Arc::new(Links {
        links: [(2, eth0)].into(),
        routes: Vec::new(),
    })
}

struct Lan {
    engines: Vec<Engine>,
    /// Hosts whose frames are lost.
    cut: BTreeSet<usize>,
    now: Now,
    /// All frames with their sender.
    heard: Vec<(usize, Vec<u8>)>,
}

impl Lan {
    fn new(count: usize) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        let engines = (0..count)
            .map(|n| {
                let config = ResponderConfig::new(NAMES[n], outranks);
                let mut engine = Engine::new(config, Arc::default(), 7, now.instant);
                engine.set_links(links(mac(n), true), now);
                engine
            })
            .collect();
        Self {
            engines,
            cut: BTreeSet::new(),
            now,
            heard: Vec::new(),
        }
    }

    fn wish(&mut self, n: usize, role: Role, change: impl Fn(&mut Desired)) {
        let vip = Vip {
            choice: Arc::new(InterfaceChoice::Auto),
            role,
            probe: ProbePolicy::Off,
            preferred: None,
            proven: false,
            refresh: Some(Vip::REFRESH),
        };
        let peers = (0..self.engines.len())
            .filter(|other| *other != n)
            .map(|other| (mac(other), Arc::from(NAMES[other])))
            .collect();
        let mut desired = Desired {
            addresses: [VIP, VIP6]
                .map(|ip| (ip.parse().unwrap(), vip.clone()))
                .into(),
            peers,
            ..Desired::default()
        };
        change(&mut desired);
        self.engines[n].set_desired(Arc::new(desired), self.now);
    }

    /// Everybody follows the leader of this number.
    fn elect(&mut self, leader: usize) {
        for n in 0..self.engines.len() {
            let role = if n == leader {
                Role::Lead
            } else {
                Role::Follow
            };
            self.wish(n, role, |_| {});
        }
    }

    fn advance(&mut self, time: Duration) {
        let step = Duration::from_millis(5);
        let end = self.now.instant + time;
        while self.now.instant < end {
            self.now.instant += step;
            self.now.wall += step;
            for n in 0..self.engines.len() {
                self.engines[n].tick(self.now);
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        loop {
            let mut frames = Vec::new();
            for (n, engine) in self.engines.iter_mut().enumerate() {
                frames.extend(engine.sends.drain(..).map(|send| (n, send.frame)));
            }
            if frames.is_empty() {
                return;
            }
            for (from, frame) in frames {
                for to in 0..self.engines.len() {
                    let lost = self.cut.contains(&from) || self.cut.contains(&to);
                    if to != from && !lost {
                        self.engines[to].receive(2, &frame, self.now);
                    }
                }
                self.heard.push((from, frame));
            }
        }
    }

    /// A stranger says something.
    fn say(&mut self, frame: &[u8]) {
        for engine in &mut self.engines {
            engine.receive(2, frame, self.now);
        }
        self.deliver();
    }

    /// A stranger claims the first address.
    fn claim(&mut self, by: MacAddr) {
        let claim = frame::announcement(by, VIP.parse().unwrap(), Form::Reply);
        self.say(&claim);
    }

    /// Who answers a request for the address.
    fn answering(&self, ip: &str) -> Vec<usize> {
        let ip: IpAddr = ip.parse().unwrap();
        (0..self.engines.len())
            .filter(|n| self.engines[*n].states[&ip].phase.answers())
            .collect()
    }

    fn activity(&self, n: usize, ip: &str) -> Activity {
        self.engines[n].snapshot().addresses[&ip.parse::<IpAddr>().unwrap()].activity
    }

    /// Announcements heard so far of one host.
    fn announcements(&self, by: usize, ip: &str) -> usize {
        let claim = Some((ip.parse().unwrap(), mac(by)));
        self.heard
            .iter()
            .filter(|(_, f)| frame::parse(f).is_ok_and(|m| m.claim == claim))
            .count()
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

const FOREIGN: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

/// Every address is probed first, with this policy.
fn probing(policy: ProbePolicy) -> impl Fn(&mut Desired) {
    move |desired| {
        for vip in desired.addresses.values_mut() {
            vip.probe = policy;
        }
    }
}
