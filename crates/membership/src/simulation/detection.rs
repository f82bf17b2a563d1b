//! How soon a death is known, and that nobody who lives is taken for dead.

use super::*;

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
fn loss_alone_kills_nobody() {
    let mut net = Net::steady(3, 5);
    net.loss = 0.05;
    net.run(Duration::from_mins(3));
    for n in 0..3 {
        let counts = net.nodes[&n].counts();
        assert_eq!((counts.deaths, counts.resurrections), (0, 0), "{n}");
    }
}
