//! Whatever happens to speakers and cables.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Elect(usize),
    Wish(usize, bool),
    Cut(usize),
    Mend(usize),
    Carrier(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize).prop_map(Step::Elect),
        (0..3_usize, any::<bool>()).prop_map(|(n, lead)| Step::Wish(n, lead)),
        (0..3_usize).prop_map(Step::Cut),
        (0..3_usize).prop_map(Step::Mend),
        (0..3_usize, any::<bool>()).prop_map(|(n, up)| Step::Carrier(n, up)),
        (1..1500_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened: once all can hear each other and agree on the leader, that one alone
    /// answers.
    #[test]
    fn one_answers_in_the_end(steps in prop::collection::vec(step(), 0..20), leader in 0..3_usize) {
        let mut lan = Lan::new(3);
        for step in steps {
            match step {
                Step::Elect(n) => lan.elect(n),
                Step::Wish(n, lead) => {
                    lan.wish(n, if lead { Role::Lead } else { Role::Follow }, |_| {});
                }
                Step::Cut(n) => {
                    lan.cut.insert(n);
                }
                Step::Mend(n) => {
                    lan.cut.remove(&n);
                }
                Step::Carrier(n, up) => lan.engines[n].set_links(links(mac(n), up), lan.now),
                Step::Wait(ms) => lan.advance(MS(ms)),
            }
        }
        lan.cut.clear();
        for n in 0..3 {
            lan.engines[n].set_links(links(mac(n), true), lan.now);
        }
        lan.elect(leader);
        lan.advance(Duration::from_secs(15));
        prop_assert_eq!(lan.answering(VIP), [leader]);
        prop_assert_eq!(lan.answering(VIP6), [leader]);
    }
}
