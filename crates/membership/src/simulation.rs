//! Many cores on a simulated network with a simulated clock: partitions, loss, pauses, replays.

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

/// How long after the last fault all nodes agree again, at most; see `config`.
const AGREE: Duration = Duration::from_secs(10);
/// How long two nodes may both lead by their own views while there is no fault: news are on their way.
const OVERLAP: Duration = Duration::from_millis(100);

impl Net {
    /// Of some addresses: how many running nodes lead each by their own view.
    fn led(&self) -> Vec<usize> {
        let views: Vec<Members> = self
            .nodes
            .iter()
            .filter(|(n, _)| !self.paused.contains(n))
            .map(|(_, node)| node.members())
            .filter(|view| view.settled)
            .collect();
        let led = |ip| {
            let leads = |view: &&Members| leader(ip, view.electable(|_, _| true)) == Some(&view.me);
            views.iter().filter(leads).count()
        };
        (0..8_u8)
            .map(|vip| led(IpAddr::from([10, 0, 100, vip])))
            .collect()
    }

    fn agrees(&self, count: usize) -> bool {
        self.nodes.len() == count
            && self.nodes.keys().all(|n| self.alive(*n).len() == count)
            && self.led().iter().all(|leaders| *leaders == 1)
    }
}

#[test]
fn two_lead_only_while_there_is_a_fault_and_shortly_after() {
    const COUNT: usize = 4;
    for seed in 31..36 {
        let mut net = Net::steady(COUNT, seed);
        for _ in 0..6 {
            let who = net.rng.random_range(0..COUNT);
            let other = (who + 1) % COUNT;
            let rest = (0..COUNT).filter(|n| *n != who && *n != other);
            let rest: Vec<usize> = rest.collect();
            let fault = net.rng.random_range(0..5);
            match fault {
                0 => net
                    .cut
                    .extend((0..COUNT).filter(|n| *n != who).map(|n| (who, n))),
                1 => net
                    .cut
                    .extend(rest.iter().flat_map(|n| [(who, *n), (other, *n)])),
                2 => {
                    net.paused.insert(who);
                }
                3 => {
                    net.nodes.remove(&who);
                }
                _ => net.loss = 0.3,
            }
            let long = net.rng.random_range(100..4_000);
            net.run(MS(long));
            net.cut.clear();
            net.paused.clear();
            net.loss = 0.0;
            if !net.nodes.contains_key(&who) {
                net.start(who, COUNT, &[1; 32]);
            }
            let took = net.run_until(AGREE, |net| net.agrees(COUNT));
            assert!(took < AGREE, "seed {seed}: fault {fault} of {long} ms");
            // From now on somebody leads each address, and two only while the news travel.
            let mut twice = Duration::ZERO;
            for _ in 0..1_000 {
                net.run(MS(5));
                let led = net.led();
                assert!(led.iter().all(|leaders| *leaders > 0), "{led:?}");
                twice = if led.iter().any(|leaders| *leaders > 1) {
                    twice + MS(5)
                } else {
                    Duration::ZERO
                };
                assert!(twice <= OVERLAP, "seed {seed}: fault {fault} of {long} ms");
            }
        }
    }
}

/// Lets one node after the other die without a word, and says how long it took until all others knew.
fn deaths(count: usize, runs: usize, loss: f64) -> Vec<Duration> {
    let mut net = Net::steady(count, 11);
    net.loss = loss;
    let mut times = Vec::new();
    for run in 0..runs {
        let dead = run % count;
        net.nodes.remove(&dead);
        let took = net.run_until(Duration::from_secs(5), |net| {
            net.nodes
                .keys()
                .all(|n| !net.alive(*n).contains(&name(dead)))
        });
        times.push(took);
        net.start(dead, count, &[1; 32]);
        // Not in step with anything that is periodic.
        net.run(Duration::from_secs(1) + MS(u64::try_from(run).unwrap() * 7));
        assert!(
            net.nodes.keys().all(|n| net.alive(*n).len() == count),
            "it came back"
        );
    }
    times.sort();
    times
}

#[test]
fn a_silent_death_is_known_to_all_within_the_bound() {
    for (count, runs) in [(2, 40), (3, 60), (5, 30), (12, 10)] {
        let times = deaths(count, runs, 0.0);
        // Delays of the simulated network, and its steps of a millisecond.
        let nodes = u32::try_from(count).unwrap();
        let bound = Profile::Default.parameters().noticed_within(nodes) + MS(10);
        assert!(*times.last().unwrap() <= bound, "{count}: {times:?}");
    }
}

#[test]
fn detection_is_measured_from_the_last_word_of_the_dead() {
    let mut net = Net::steady(3, 12);
    net.nodes.remove(&0);
    net.run(Duration::from_secs(2));
    let within = Profile::Default.parameters().noticed_within(3) + MS(10);
    for n in [1, 2] {
        let detection = net.nodes[&n].counts().detection;
        assert_eq!(detection.counts.iter().sum::<u64>(), 1);
        assert!(
            detection.sum > MS(310) && detection.sum < within + MS(120),
            "{detection:?}"
        );
    }
    // A goodbye is no detection.
    let mut gone = net.nodes.remove(&1).unwrap();
    gone.leave();
    for datagram in gone.take_datagrams() {
        net.send(1, datagram);
    }
    net.run(MS(20));
    assert_eq!(net.alive(2), [name(2)]);
    let detection = net.nodes[&2].counts().detection;
    assert_eq!(detection.counts.iter().sum::<u64>(), 1);
}

#[test]
fn loss_does_not_delay_the_news_of_a_death_beyond_the_promise() {
    let times = deaths(3, 60, 0.05);
    assert!(*times.last().unwrap() < MS(700), "{times:?}");
}

/// Each node in turn does not run for a while, again and again, as on an overloaded machine.
fn starve(net: &mut Net, who: &[usize], longest: u64, rounds: usize) {
    for _ in 0..rounds {
        for n in who {
            net.paused.insert(*n);
            let pause = net.rng.random_range(1..=longest);
            net.run(MS(pause));
            net.paused.remove(n);
            let rest = net.rng.random_range(1..100);
            net.run(MS(rest));
        }
    }
}

#[test]
fn a_starved_observer_accuses_nobody() {
    let mut net = Net::steady(3, 21);
    // So late that the others may take it for dead; it must not take them for dead in turn.
    starve(&mut net, &[0], 900, 60);
    assert_eq!(net.nodes[&0].counts().deaths, 0);
}

#[test]
fn starvation_and_loss_together_kill_nobody() {
    let mut net = Net::steady(3, 22);
    net.loss = 0.05;
    starve(&mut net, &[0, 1, 2], 250, 60);
    for n in 0..3 {
        let counts = net.nodes[&n].counts();
        assert_eq!((counts.deaths, counts.resurrections), (0, 0), "{n}");
    }
}

#[test]
fn a_node_that_was_given_up_and_comes_back_soon_waits_until_it_is_steady() {
    for pause in [800, 1_200, 1_900] {
        let mut net = Net::steady(3, 23);
        net.paused.insert(0);
        net.run(MS(pause));
        assert_eq!(net.alive(1), [name(1), name(2)], "{pause}");
        net.paused.clear();
        let mut back = false;
        for _ in 0..2_500 {
            net.run(MS(1));
            back |= net.alive(1).len() == 3;
            for n in [1, 2] {
                let electable = net.members(n);
                let electable = electable.electable(|_, _| true);
                assert!(!electable.contains(&"node-0"), "{pause}: too soon for {n}");
            }
        }
        assert!(back, "{pause}");
        net.run(Duration::from_secs(4));
        assert!((0..3).all(|n| net.members(n).electable(|_, _| true).len() == 3));
    }
}

#[test]
fn loss_alone_kills_nobody() {
    let mut net = Net::steady(3, 5);
    net.loss = 0.05;
    net.run(Duration::from_mins(3));
    for n in 0..3 {
        let counts = net.nodes[&n].counts();
        assert_eq!((counts.deaths, counts.resurrections), (0, 0), "{n}");
    }
}

#[test]
fn a_partition_heals_and_all_agree_again() {
    let mut net = Net::steady(5, 3);
    let before = net.leaders(0);
    for a in [0, 1] {
        for b in [2, 3, 4] {
            net.cut.insert((a, b));
        }
    }
    net.run(Duration::from_secs(30));
    assert_eq!(net.alive(0), [name(0), name(1)]);
    assert_eq!(net.alive(4), [name(2), name(3), name(4)]);
    // Each half has one answer: two leaders at most, and only while the network is cut.
    assert_eq!(net.leaders(0), net.leaders(1));
    assert_eq!(net.leaders(2), net.leaders(4));
    net.cut.clear();
    let healed = net.run_until(Duration::from_secs(30), |net| {
        (0..5).all(|n| net.alive(n).len() == 5 && net.leaders(n) == before)
    });
    assert!(healed < Duration::from_secs(20), "{healed:?}");
}

#[test]
fn a_node_cut_off_from_all_waits_until_it_is_steady_again() {
    let mut net = Net::steady(3, 8);
    net.cut.extend([(0, 1), (0, 2)]);
    net.run(Duration::from_secs(5));
    assert_eq!(net.alive(0), [name(0)]);
    net.cut.clear();
    net.run_until(Duration::from_secs(10), |net| net.alive(1).len() == 3);
    assert!(
        !net.members(1).electable(|_, _| true).contains(&"node-0"),
        "back, but not to be elected"
    );
    net.run(Duration::from_secs(5));
    assert!((0..3).all(|n| net.members(n).electable(|_, _| true).len() == 3));
}

#[test]
fn a_paused_node_does_not_trust_its_view() {
    let mut net = Net::steady(3, 9);
    net.paused.insert(0);
    net.run(Duration::from_secs(4));
    assert_eq!(net.alive(1), [name(1), name(2)]);
    net.paused.clear();
    net.run(MS(2));
    assert!(!net.members(0).settled);
    assert!(
        !net.members(0).alive[&name(0)]
            .facts
            .as_ref()
            .unwrap()
            .steady
    );
    net.run(Duration::from_secs(8));
    assert!(net.members(0).settled);
    assert!((0..3).all(|n| net.members(n).electable(|_, _| true).len() == 3));
}

#[test]
fn goodbye_is_heard_at_once_and_leaving_nodes_are_not_elected() {
    let mut net = Net::steady(3, 4);
    let now = net.now;
    net.nodes
        .get_mut(&0)
        .unwrap()
        .set_own(true, b"eth0".as_slice().into(), now);
    net.run(MS(20));
    assert_eq!(net.alive(1).len(), 3, "it lives still");
    assert_eq!(net.members(1).electable(|_, _| true), [name(1), name(2)]);
    assert_eq!(
        &*net.members(2).alive[&name(0)]
            .facts
            .as_ref()
            .unwrap()
            .attachment,
        b"eth0"
    );
    let mut gone = net.nodes.remove(&0).unwrap();
    gone.leave();
    for datagram in gone.take_datagrams() {
        net.send(0, datagram);
    }
    net.run(MS(10));
    assert_eq!(net.alive(1), [name(1), name(2)]);
    assert_eq!(
        &*net.members(2).departed[&name(0)].attachment,
        b"eth0",
        "its frames are still known"
    );
}

#[test]
fn a_node_with_another_key_stays_outside() {
    let mut net = Net::steady(2, 6);
    net.start(2, 3, &[2; 32]);
    for n in 0..2 {
        let now = net.now;
        net.nodes
            .get_mut(&n)
            .unwrap()
            .set_seeds((0..3).map(address).collect(), now);
    }
    net.run(Duration::from_secs(10));
    assert_eq!(net.alive(2), [name(2)]);
    assert_eq!(net.alive(0), [name(0), name(1)]);
    assert!(net.nodes[&2].counts().refused > 0);
}

#[test]
fn a_recorded_life_does_not_bring_back_the_dead() {
    let mut net = Net::steady(3, 7);
    net.recorded = Some(Vec::new());
    net.run(Duration::from_secs(2));
    let recorded = net.recorded.take().unwrap();
    net.nodes.remove(&0);
    net.run(Duration::from_secs(2));
    assert_eq!(net.alive(1).len(), 2);
    // All that the dead node said is said again, to nodes that knew it and to one that starts anew.
    net.nodes.remove(&2);
    net.start(2, 3, &[1; 32]);
    net.run(Duration::from_secs(3));
    for (from, datagram) in recorded {
        if from == 0 {
            net.send(0, datagram);
        }
    }
    net.run(Duration::from_secs(3));
    assert_eq!(net.alive(1), [name(1), name(2)]);
    assert_eq!(net.alive(2), [name(1), name(2)]);
    assert!(net.nodes[&1].counts().replayed > 0);
}

#[test]
fn a_node_alone_acts_after_a_while_and_one_with_nobody_to_meet_soon() {
    let mut net = Net::new(1, 1);
    net.run(MS(500));
    assert!(net.members(0).settled, "nobody to meet");
    let mut net = Net::new(1, 2);
    let now = net.now;
    net.nodes
        .get_mut(&0)
        .unwrap()
        .set_seeds((0..3).map(address).collect(), now);
    net.run(MS(1000));
    assert!(!net.members(0).settled);
    net.run(MS(1500));
    assert!(net.members(0).settled);
}
