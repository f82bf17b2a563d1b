//! Partitions, pauses and restarts: who may lead meanwhile, and that all agree again.

use super::*;

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
