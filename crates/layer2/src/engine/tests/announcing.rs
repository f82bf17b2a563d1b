//! What is said unasked: how often, how fast, and in which order.

use super::*;

#[test]
fn a_take_over_is_announced_at_once_repeated_and_then_refreshed_slowly() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(10));
    assert_eq!(
        (lan.announcements(0, VIP), lan.announcements(0, VIP6)),
        (2, 1),
        "both forms at once"
    );
    lan.advance(Duration::from_secs(12));
    let (v4, v6) = (lan.announcements(0, VIP), lan.announcements(0, VIP6));
    assert!(
        (8..=16).contains(&v4) && (5..=8).contains(&v6),
        "{v4} and {v6}"
    );
    lan.advance(Duration::from_mins(10));
    let refreshed = lan.announcements(0, VIP6) - v6;
    assert!(
        (7..=14).contains(&refreshed),
        "{refreshed} refreshes in ten minutes"
    );
}

#[test]
fn the_refresh_can_be_turned_off() {
    let mut lan = Lan::new(1);
    let off = |desired: &mut Desired| {
        desired
            .addresses
            .values_mut()
            .for_each(|vip| vip.refresh = None);
    };
    lan.wish(0, Role::Lead, off);
    lan.advance(Duration::from_secs(20));
    let before = lan.heard.len();
    lan.advance(Duration::from_mins(10));
    assert_eq!(lan.heard.len(), before);
}

/// So many addresses on `eth0` in place of the usual ones.
fn many(addresses: u16) -> impl Fn(&mut Desired) {
    move |desired| {
        let vip = Vip {
            choice: Arc::new(InterfaceChoice::Names(vec!["eth0".to_owned()])),
            ..desired.addresses.values().next().unwrap().clone()
        };
        desired.addresses = (0..addresses)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                (IpAddr::from([10, 0, high, low]), vip.clone())
            })
            .collect();
    }
}

#[test]
fn frames_that_nobody_asked_for_never_exceed_the_pace() {
    const ADDRESSES: u16 = 1_000;
    let mut lan = Lan::new(1);
    let many = many(ADDRESSES);
    lan.wish(0, Role::Lead, many);
    let pace = usize::try_from(lan.engines[0].config.pace).unwrap();
    // Frames sent in each 5 ms.
    let mut sent = Vec::new();
    for _ in 0..3_000 {
        let before = lan.heard.len();
        lan.advance(MS(5));
        sent.push(lan.heard.len() - before);
    }
    for window in [1, 20, 200] {
        // A burst, what the time is worth, and one announcement that was begun with its last token.
        let most = pace / 10 + pace * window / 200 + 2;
        let worst = sent.windows(window).map(|w| w.iter().sum::<usize>()).max();
        assert!(
            worst.unwrap() <= most,
            "{worst:?} frames in {} ms",
            window * 5
        );
    }
    let all: usize = sent.iter().sum();
    assert_eq!(all, usize::from(ADDRESSES) * 12, "and all are sent");
    assert_eq!(lan.engines[0].counters.taken(), u64::from(ADDRESSES));
    assert_eq!(lan.engines[0].counters.given_up(), 0);
}

#[test]
fn an_address_that_is_asked_for_is_announced_before_the_others() {
    let mut lan = Lan::new(1);
    let many = many(1_000);
    lan.engines[0].config.pace = 10;
    lan.engines[0].schedule = Schedule::new(10, lan.now.instant);
    lan.wish(0, Role::Lead, many);
    lan.advance(Duration::from_secs(1));
    let last = "10.0.3.231";
    assert_eq!(lan.announcements(0, last), 0, "its turn is far away");
    let ip = last.parse().unwrap();
    lan.say(&frame::probe(FOREIGN, ip));
    lan.advance(MS(300));
    assert_eq!(
        lan.announcements(0, last),
        2,
        "an answer and an announcement"
    );
}
