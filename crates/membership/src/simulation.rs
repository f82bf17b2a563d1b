//! Many cores on a simulated network with a simulated clock: partitions, loss, pauses, replays.

mod company;
mod detection;
mod faults;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    Key, Members, Profile,
    gossip::{Datagram, Gossip, Setup},
    leader,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

struct Net {
    nodes: BTreeMap<usize, Gossip>,
    paused: BTreeSet<usize>,
    /// Pairs that do not hear each other.
    cut: BTreeSet<(usize, usize)>,
    loss: f64,
    flying: BTreeMap<(Instant, u64), (usize, Datagram)>,
    sent: u64,
    now: Instant,
    rng: SmallRng,
    recorded: Option<Vec<(usize, Datagram)>>,
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap() + 1], 7946))
}

fn name(n: usize) -> String {
    format!("node-{n}")
}

impl Net {
    fn new(count: usize, seed: u64) -> Self {
        let mut net = Self {
            nodes: BTreeMap::new(),
            paused: BTreeSet::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            flying: BTreeMap::new(),
            sent: 0,
            now: Instant::now(),
            rng: SmallRng::seed_from_u64(seed),
            recorded: None,
        };
        for n in 0..count {
            net.start(n, count, &[1; 32]);
        }
        net
    }

    fn steady(count: usize, seed: u64) -> Self {
        let mut net = Self::new(count, seed);
        net.run(Duration::from_secs(5));
        for n in 0..count {
            assert_eq!(net.alive(n).len(), count, "all know each other");
            assert!(net.members(n).settled);
            let all = net.members(n);
            assert!(all.alive.values().all(|m| m.facts.as_ref().unwrap().steady));
        }
        net
    }

    fn start(&mut self, n: usize, count: usize, key: &[u8]) {
        let setup = Setup {
            node: name(n),
            advertise: address(n),
            key: Key::new(key).unwrap(),
            parameters: Profile::Default.parameters(),
            run: self.sent + 1,
            seed: self.rng.random(),
        };
        let mut gossip = Gossip::new(setup, self.now).unwrap();
        gossip.set_seeds((0..count).map(address).collect(), self.now);
        self.nodes.insert(n, gossip);
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until the condition holds or the time is over, and says how long it took.
    fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while self.now < began + time && !done(self) {
            self.now += MS(1);
            let due: Vec<_> = self
                .flying
                .range(..=(self.now, u64::MAX))
                .map(|(key, _)| *key)
                .collect();
            for key in due {
                let (from, datagram) = self.flying.remove(&key).unwrap();
                let to = usize::from(match datagram.to.ip() {
                    IpAddr::V4(ip) => ip.octets()[3] - 1,
                    IpAddr::V6(_) => unreachable!("all addresses are IPv4"),
                });
                if self.paused.contains(&to) {
                    // It waits in the socket.
                    self.flying
                        .insert((self.now + MS(1), key.1), (from, datagram));
                } else if let Some(node) = self.nodes.get_mut(&to) {
                    node.receive(address(from), &datagram.bytes, self.now);
                }
            }
            let ready: Vec<usize> = self
                .nodes
                .keys()
                .copied()
                .filter(|n| !self.paused.contains(n))
                .collect();
            for n in ready {
                let node = self.nodes.get_mut(&n).unwrap();
                if node.deadline() <= self.now {
                    node.tick(self.now);
                }
                for datagram in node.take_datagrams() {
                    self.send(n, datagram);
                }
            }
        }
        self.now - began
    }

    fn send(&mut self, from: usize, datagram: Datagram) {
        assert!(
            datagram.bytes.len() <= crate::gossip::MAX_DATAGRAM,
            "datagrams are bounded"
        );
        if let Some(recorded) = &mut self.recorded {
            recorded.push((
                from,
                Datagram {
                    to: datagram.to,
                    bytes: datagram.bytes.clone(),
                },
            ));
        }
        let to = (0..256).find(|n| address(*n) == datagram.to).unwrap_or(255);
        let cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        if !cut && self.rng.random::<f64>() >= self.loss {
            self.sent += 1;
            let latency = Duration::from_micros(self.rng.random_range(100..1500));
            self.flying
                .insert((self.now + latency, self.sent), (from, datagram));
        }
    }

    fn members(&self, n: usize) -> Members {
        self.nodes[&n].members()
    }

    fn alive(&self, n: usize) -> Vec<String> {
        self.members(n).alive.into_keys().collect()
    }

    /// The leader of some addresses as this node sees it.
    fn leaders(&self, n: usize) -> Vec<Option<String>> {
        let members = self.members(n);
        (0..50_u8)
            .map(|vip| {
                let ip = IpAddr::from([10, 0, 100, vip]);
                leader(ip, members.electable(|_, _| true)).map(str::to_owned)
            })
            .collect()
    }
}
