//! What to do about the certificates: a plain function of the Secret, what this process trusted
//! before, and the time.

use jiff::Timestamp;

use super::{
    bundle::Bundle,
    config::CertConfig,
    issue,
    x509::{Cert, CertError},
};

/// What stands in the Secret.
#[derive(Debug)]
pub enum Reading {
    /// There is no Secret.
    Absent,
    /// There is one that cannot be used.
    Broken(CertError),
    /// There is one whose parts fit together.
    Found(Bundle),
}

/// What shall happen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What shall happen.
    pub step: Step,
    /// Why, for the log.
    pub reason: String,
}

/// One change of the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is well.
    Keep,
    /// New authority and new serving certificate; what was trusted stays so for the overlap.
    IssueAll,
    /// New serving certificate under the same authority.
    IssueServing,
    /// Trust the authority that was in use until now, for the overlap.
    ExtendTrust,
    /// The overlap has passed: trust the signing authority only.
    PruneTrust,
}

/// Decides what to do. `before` is what this process last served.
#[must_use]
pub fn decide(
    reading: &Reading,
    before: Option<&Bundle>,
    now: Timestamp,
    config: &CertConfig,
) -> Decision {
    let bundle = match reading {
        Reading::Absent => return decision(Step::IssueAll, "there is no Secret"),
        Reading::Broken(error) => return decision(Step::IssueAll, error),
        Reading::Found(bundle) => bundle,
    };
    if let Some(authority) = &bundle.authority
        && let Some(problem) = due("the authority", &authority.cert, now)
    {
        return decision(Step::IssueAll, problem);
    }
    if let Some(problem) = serving_problem(bundle, now, config) {
        let step = if bundle.authority.is_some() {
            Step::IssueServing
        } else {
            Step::IssueAll
        };
        return decision(step, problem);
    }
    let forgotten = before
        .is_some_and(|before| !before.is_trusted_by(&bundle.trust, now) && lives(before, now));
    if forgotten {
        return decision(Step::ExtendTrust, "the authority was replaced");
    }
    if bundle.trust.len() > 1 && bundle.overlap_until.is_some_and(|until| until <= now) {
        return decision(Step::PruneTrust, "the overlap of authorities has passed");
    }
    decision(Step::Keep, "")
}

/// Carries a step out in memory; `None` where nothing is to be written.
pub fn carry_out(
    step: Step,
    reading: &Reading,
    before: Option<&Bundle>,
    now: Timestamp,
    config: &CertConfig,
) -> Result<Option<Bundle>, CertError> {
    let current = match reading {
        Reading::Found(bundle) => Some(bundle),
        Reading::Absent | Reading::Broken(_) => None,
    };
    // The authorities that matter come first, because a bundle holds only a few: the one of what
    // stands in the Secret and the one of what is served.
    let held = || current.into_iter().chain(before);
    let vouching = held().filter_map(|bundle| bundle.vouching(now));
    let trusted: Vec<Cert> = vouching
        .chain(held().flat_map(|bundle| &bundle.trust))
        .cloned()
        .collect();
    match (step, current) {
        (Step::IssueServing, Some(bundle)) => {
            issue::renewed(bundle, &names(bundle, now, config), config, now).map(Some)
        }
        (Step::ExtendTrust, Some(bundle)) => {
            Ok(Some(issue::extended(bundle, &trusted, config, now)))
        }
        (Step::PruneTrust, Some(bundle)) => Ok(Some(issue::pruned(bundle, now))),
        (Step::IssueAll, _) => issue::everything(&trusted, config, now).map(Some),
        (Step::Keep, _) | (_, None) => Ok(None),
    }
}

/// The names for the next serving certificate. One that is replaced early, because a name is
/// missing, keeps the names that it had: they are those of replicas that were started with other
/// hosts, and would otherwise take ours out again. They go when the certificate is due.
fn names(bundle: &Bundle, now: Timestamp, config: &CertConfig) -> Vec<String> {
    let mut names = config.names.clone();
    let early = bundle
        .chain
        .first()
        .filter(|leaf| due("", leaf, now).is_none());
    for name in early.map(Cert::names).unwrap_or_default() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn decision(step: Step, reason: impl std::fmt::Display) -> Decision {
    Decision {
        step,
        reason: format!("{reason}"),
    }
}

/// Why the serving certificate needs replacing, if it does.
fn serving_problem(bundle: &Bundle, now: Timestamp, config: &CertConfig) -> Option<String> {
    let cert = bundle.chain.first()?;
    due("the serving certificate", cert, now).or_else(|| {
        bundle
            .verify(&config.names, now)
            .err()
            .map(|error| error.to_string())
    })
}

/// Why a certificate is not to be used any longer (or not yet), if so.
fn due(what: &str, cert: &Cert, now: Timestamp) -> Option<String> {
    if now < cert.not_before {
        Some(format!(
            "{what} is valid only from {}: the clock went back",
            cert.not_before
        ))
    } else if now > cert.not_after {
        Some(format!("{what} expired at {}", cert.not_after))
    } else if now >= cert.renewal() {
        Some(format!("two thirds of the life of {what} have passed"))
    } else {
        None
    }
}

/// Whether a bundle's serving certificate can still be in use somewhere.
fn lives(bundle: &Bundle, now: Timestamp) -> bool {
    bundle.chain.first().is_some_and(|cert| cert.is_valid(now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::{ByteString, api::core::v1::Secret};
    use proptest::prelude::*;

    use super::*;
    use crate::certs::bundle::{CA_KEY, OVERLAP_UNTIL};

    fn config() -> CertConfig {
        CertConfig::new("openelb-system", &["127.0.0.1".to_owned()])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    const DAY: i64 = 24 * 3600;

    /// As the Secret would hold it.
    fn secret(bundle: &Bundle) -> Secret {
        let mut secret = Secret {
            data: Some(bundle.to_data()),
            ..Secret::default()
        };
        if let Some(until) = bundle.overlap_until {
            secret.metadata.annotations =
                Some([(OVERLAP_UNTIL.to_owned(), until.to_string())].into());
        }
        secret
    }

    fn reread(bundle: &Bundle) -> Reading {
        Reading::Found(Bundle::from_secret(&secret(bundle)).unwrap())
    }

    /// Takes every step that is due; at most a few.
    fn settle(
        mut reading: Reading,
        before: Option<&Bundle>,
        now: Timestamp,
    ) -> (Bundle, Vec<Step>) {
        let mut steps = Vec::new();
        while steps.len() < 4 {
            let step = decide(&reading, before, now, &config()).step;
            match carry_out(step, &reading, before, now, &config()).unwrap() {
                Some(bundle) => {
                    steps.push(step);
                    reading = reread(&bundle);
                }
                None => break,
            }
        }
        let Reading::Found(bundle) = reading else {
            panic!("no certificates after {steps:?}")
        };
        (bundle, steps)
    }

    fn fresh() -> Bundle {
        settle(Reading::Absent, None, at(0)).0
    }

    #[test]
    fn without_a_secret_everything_is_issued_and_then_kept() {
        let (bundle, steps) = settle(Reading::Absent, None, at(0));
        assert_eq!(steps, [Step::IssueAll]);
        bundle.verify(&config().names, at(0)).unwrap();
        let leaf = &bundle.chain[0];
        assert!(leaf.not_before < at(0) && leaf.not_after <= at(30 * DAY));
        let data = bundle.to_data();
        for key in ["ca", "cert", "key", "tls.crt", "tls.key", "ca.crt"] {
            assert!(data.contains_key(key), "{key}");
        }
    }

    #[test]
    fn the_serving_certificate_is_renewed_at_two_thirds_under_the_same_authority() {
        let first = fresh();
        assert_eq!(settle(reread(&first), Some(&first), at(19 * DAY)).1, []);
        let (second, steps) = settle(reread(&first), Some(&first), at(20 * DAY));
        assert_eq!(steps, [Step::IssueServing]);
        assert_eq!(second.trust, first.trust);
        assert_ne!(second.chain, first.chain);
    }

    #[test]
    fn a_new_authority_is_trusted_beside_the_old_one_until_the_overlap_has_passed() {
        let first = fresh();
        let late = at(3650 * DAY * 2 / 3 + DAY);
        let (second, steps) = settle(reread(&first), Some(&first), late);
        assert_eq!(steps, [Step::IssueAll]);
        assert_eq!(second.trust.len(), 2);
        assert!(
            first
                .authority
                .as_ref()
                .is_some_and(|old| second.trust.contains(&old.cert))
        );
        let after = late + Duration::from_hours(25);
        let (third, steps) = settle(reread(&second), Some(&second), after);
        assert_eq!(steps, [Step::PruneTrust]);
        assert_eq!(third.trust.len(), 1);
        third.verify(&config().names, after).unwrap();
    }

    #[test]
    fn a_replaced_authority_stays_trusted_for_the_overlap() {
        let ours = fresh();
        let theirs = fresh();
        let (bundle, steps) = settle(reread(&theirs), Some(&ours), at(60));
        assert_eq!(steps, [Step::ExtendTrust]);
        assert_eq!(bundle.chain, theirs.chain);
        assert_eq!(bundle.trust.len(), 2);
        assert!(ours.is_trusted_by(&bundle.trust, at(60)));
    }

    #[test]
    fn a_deleted_secret_is_replaced_by_new_keys_with_the_old_ones_trusted() {
        let first = fresh();
        let (second, steps) = settle(Reading::Absent, Some(&first), at(60));
        assert_eq!(steps, [Step::IssueAll]);
        assert!(first.is_trusted_by(&second.trust, at(60)));
    }

    #[test]
    fn a_clock_that_goes_back_or_far_ahead_leads_to_certificates_that_are_valid_then() {
        let first = fresh();
        for moment in [at(-DAY), at(-4000 * DAY), at(40 * DAY), at(5000 * DAY)] {
            let (bundle, steps) = settle(reread(&first), Some(&first), moment);
            assert_eq!(steps.len(), 1, "{moment}");
            bundle.verify(&config().names, moment).unwrap();
        }
    }

    #[test]
    fn another_makers_certificates_are_used_and_replaced_when_they_are_due() {
        let first = fresh();
        let mut secret = secret(&first);
        let data = secret.data.as_mut().unwrap();
        for key in [CA_KEY, "tls.crt", "tls.key", "ca.crt"] {
            data.remove(key);
        }
        let adopted = Bundle::from_secret(&secret).unwrap();
        assert!(adopted.authority.is_none());
        assert_eq!(settle(Reading::Found(adopted.clone()), None, at(0)).1, []);
        let (bundle, steps) = settle(Reading::Found(adopted), None, at(20 * DAY));
        assert_eq!(steps, [Step::IssueAll]);
        assert!(first.is_trusted_by(&bundle.trust, at(20 * DAY)));
    }

    #[test]
    fn another_name_needs_another_serving_certificate_only() {
        let first = fresh();
        let other = CertConfig::new("openelb-system", &["lb.example.org".to_owned()]);
        let decision = decide(&reread(&first), Some(&first), at(0), &other);
        assert_eq!(decision.step, Step::IssueServing);
        assert!(
            decision.reason.contains("lb.example.org"),
            "{}",
            decision.reason
        );
    }

    /// A Secret that somebody put in: its certificate is good for `names`, and strangers'
    /// authorities are trusted beside its own.
    fn foreign(names: &[&str], strangers: usize) -> Bundle {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let config = CertConfig { names, ..config() };
        let mut bundle = issue::everything(&[], &config, at(0)).unwrap();
        bundle.authority = None;
        for _ in 0..strangers {
            bundle.trust.extend(fresh().trust);
        }
        bundle
    }

    #[test]
    fn what_is_served_stays_trusted_however_many_authorities_are_put_in() {
        let ours = fresh();
        let all = config();
        let all: Vec<&str> = all.names.iter().map(String::as_str).collect();
        for (names, strangers, expected) in [
            (all.as_slice(), 3, Step::ExtendTrust),
            (all.as_slice(), 9, Step::ExtendTrust),
            (&["other.example.org"][..], 3, Step::IssueAll),
            (&["other.example.org"][..], 9, Step::IssueAll),
        ] {
            let put = foreign(names, strangers);
            let (bundle, steps) = settle(reread(&put), Some(&ours), at(60));
            assert_eq!(steps, [expected], "{names:?} and {strangers} strangers");
            assert!(ours.is_trusted_by(&bundle.trust, at(60)));
            assert!(put.is_trusted_by(&bundle.trust, at(60)));
            bundle.verify(&config().names, at(60)).unwrap();
        }
    }

    #[test]
    fn replicas_with_different_hosts_agree_on_a_certificate_for_all_of_them() {
        let with = |host: &str| CertConfig::new("openelb-system", &[host.to_owned()]);
        let hosts = [with("old.example.org"), with("10.9.8.7")];
        let mut bundle = fresh();
        let mut writes = 0;
        for config in hosts.iter().cycle().take(6) {
            let reading = reread(&bundle);
            let step = decide(&reading, Some(&bundle), at(60), config).step;
            if let Some(next) = carry_out(step, &reading, None, at(60), config).unwrap() {
                bundle = next;
                writes += 1;
            }
        }
        assert_eq!(writes, 2, "one for each host");
        for config in &hosts {
            bundle.verify(&config.names, at(60)).unwrap();
        }
        // What nobody asks for any longer goes when the certificate is due.
        let (renewed, _) = settle(reread(&bundle), Some(&bundle), at(25 * DAY));
        assert!(renewed.verify(&hosts[0].names, at(25 * DAY)).is_err());
    }

    #[test]
    fn who_vouches_for_a_certificate_does_not_depend_on_its_names() {
        for names in [&[][..], &["*.openelb-system.svc"][..]] {
            let bundle = foreign(names, 0);
            assert!(bundle.is_trusted_by(&bundle.trust, at(60)), "{names:?}");
            assert!(!bundle.is_trusted_by(&fresh().trust, at(60)), "{names:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_broken() {
        let (one, two) = (secret(&fresh()), secret(&fresh()));
        let mix = |key: &str| {
            let mut mixed = one.clone();
            let other = two.data.as_ref().unwrap()[key].clone();
            mixed.data.as_mut().unwrap().insert(key.to_owned(), other);
            Bundle::from_secret(&mixed)
        };
        assert!(matches!(mix("tls.key"), Err(CertError::KeyMismatch(_))));
        let mut garbage = one.clone();
        garbage
            .data
            .as_mut()
            .unwrap()
            .insert("tls.crt".to_owned(), ByteString(b"x".to_vec()));
        assert!(matches!(
            Bundle::from_secret(&garbage),
            Err(CertError::NoCertificate("tls.crt"))
        ));
        // A chain that its own bundle does not vouch for is noticed when it is looked at.
        let untrusted = mix("ca.crt").unwrap();
        let step = decide(&Reading::Found(untrusted), None, at(0), &config()).step;
        assert_eq!(step, Step::IssueAll);
    }

    #[test]
    fn the_bundle_does_not_grow_when_the_secret_keeps_breaking() {
        let mut served = fresh();
        for _ in 0..10 {
            served = settle(Reading::Absent, Some(&served), at(60)).0;
        }
        assert!(served.trust.len() <= 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the clock does and whoever deletes the Secret: a few steps later there are
        /// certificates that are valid now, and what was served is still trusted while it lives.
        #[test]
        fn certificates_are_always_good_and_never_pull_the_rug(
            events in prop::collection::vec((-8000_i64..8000, any::<bool>()), 1..6),
        ) {
            let mut served: Option<Bundle> = None;
            let mut reading = Reading::Absent;
            for (day, deleted) in events {
                let now = at(day * DAY);
                if deleted {
                    reading = Reading::Absent;
                }
                let (bundle, steps) = settle(reading, served.as_ref(), now);
                prop_assert!(steps.len() <= 3, "{steps:?}");
                bundle.verify(&config().names, now).unwrap();
                prop_assert_eq!(decide(&reread(&bundle), Some(&bundle), now, &config()).step, Step::Keep);
                if let Some(before) = &served && lives(before, now) {
                    prop_assert!(before.is_trusted_by(&bundle.trust, now));
                }
                reading = reread(&bundle);
                served = Some(bundle);
            }
        }
    }
}
