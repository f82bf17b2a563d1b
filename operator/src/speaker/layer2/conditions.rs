//! What is wrong with an address that this node announces, as conditions on its EipAddress: pure.
//!
//! `Conflict` is there as soon as the address is announced, and stays: it also says that the address
//! has been in use, so that it is never probed and set aside later.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use openelb_api::keys::conditions::{CONFLICT, KERNEL_ANSWERS, OUTSIDE_SUBNET, SET_ASIDE};
use openelb_layer2::{Activity, ProbeResult, VipState};

use super::host::Host;
use crate::announce::Holding;

/// Whether the address has been in use before: announced by any node, or adopted.
pub(super) fn was_announced(holding: &Holding) -> bool {
    let conflict = holding
        .conditions
        .iter()
        .find(|condition| condition.type_ == CONFLICT);
    holding.adopted
        || !holding.announcers.is_empty()
        || conflict.is_some_and(|condition| condition.reason != SET_ASIDE)
}

/// The conditions as they should be, in place of those that are shown. `others` are the nodes whose
/// kernels answer for all addresses.
pub(super) fn conditions(
    shown: &[Condition],
    state: Option<&VipState>,
    ip: IpAddr,
    (host, others): (&Host, &[String]),
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = shown.to_vec();
    let Some(state) = state else {
        return conditions;
    };
    let interface = state.interface.as_deref().unwrap_or_default();
    match state.activity {
        Activity::Answering(_) => {
            let claim = claim(state);
            set(&mut conditions, CONFLICT, claim, "NoConflict", true, now);
            let outside = (!state.in_subnet).then(|| {
                let text = format!(
                    "{ip} is in no subnet of {interface}: only hosts and routers with a route over that segment reach it"
                );
                ("NotInSubnet", text)
            });
            set(
                &mut conditions,
                OUTSIDE_SUBNET,
                outside,
                "InSubnet",
                false,
                now,
            );
            let kernel = host.trouble(ip, interface, others);
            let kernel = kernel.map(|text| ("AddressOnNode", text));
            set(
                &mut conditions,
                KERNEL_ANSWERS,
                kernel,
                "SpeakerAnswers",
                false,
                now,
            );
        }
        Activity::SetAside => {
            let taken = match state.probe {
                ProbeResult::Taken(mac) => Some((
                    SET_ASIDE,
                    format!(
                        "a host with hardware address {mac} has this address; it is not announced, and a Service that did not ask for it by name gets another one. Remove it there, or exclude the address from the Eip"
                    ),
                )),
                _ => None,
            };
            if taken.is_some() {
                set(&mut conditions, CONFLICT, taken, "NoConflict", true, now);
            }
        }
        // Somebody else announces it and says what there is to say.
        _ => {}
    }
    conditions
}

fn claim(state: &VipState) -> Option<(&'static str, String)> {
    let conflict = state.conflict.as_ref();
    if let Some(foreign) = conflict.filter(|conflict| conflict.speaker.is_none()) {
        return Some((
            "ForeignClaim",
            format!(
                "a host with hardware address {} claims this address; remove it there, or exclude the address from the Eip",
                foreign.mac
            ),
        ));
    }
    match state.probe {
        ProbeResult::Taken(mac) => Some((
            "TakenBefore",
            format!(
                "a host with hardware address {mac} had this address before it was announced; remove it there"
            ),
        )),
        _ => None,
    }
}

/// Sets a condition: `True` with the trouble, else `False`, which is only written over a `True`
/// unless it is `always` shown.
fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    trouble: Option<(&str, String)>,
    fine: &str,
    always: bool,
    now: Timestamp,
) {
    let old = conditions
        .iter()
        .position(|condition| condition.type_ == kind);
    let (status, reason, message) = match trouble {
        Some((reason, message)) => ("True", reason, message),
        None if old.is_none() && !always => return,
        None => ("False", fine, String::new()),
    };
    let mut new = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: None,
        last_transition_time: Time(now.round(jiff::Unit::Second).unwrap_or(now)),
    };
    match old.and_then(|index| conditions.get_mut(index)) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::announce::testing::at;

    fn state(activity: Activity) -> VipState {
        VipState {
            activity,
            interface: Some("eth0".into()),
            in_subnet: true,
            probe: ProbeResult::Free,
            conflict: None,
            heard: None,
        }
    }

    fn answering() -> VipState {
        state(Activity::Answering(SystemTime::UNIX_EPOCH))
    }

    fn judged(shown: &[Condition], state: &VipState, seconds: i64) -> Vec<Condition> {
        let ip = "203.0.113.1".parse().unwrap();
        conditions(shown, Some(state), ip, (&Host::default(), &[]), at(seconds))
    }

    fn brief(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        let all = conditions.iter();
        all.map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
            .collect()
    }

    #[test]
    fn a_foreign_claim_is_a_condition_that_goes_with_it() {
        let mut claimed = answering();
        claimed.conflict = Some(openelb_layer2::Conflict {
            mac: "02:00:00:00:00:09".parse().unwrap(),
            speaker: None,
            at: SystemTime::UNIX_EPOCH,
            count: 1,
        });
        let with = judged(&[], &claimed, 5);
        assert_eq!(brief(&with), [("Conflict", "True", "ForeignClaim")]);
        assert!(with[0].message.contains("02:00:00:00:00:09"));
        assert_eq!(judged(&with, &claimed, 9), with, "nothing new is no change");
        claimed.conflict = None;
        let without = judged(&with, &claimed, 9);
        assert_eq!(brief(&without), [("Conflict", "False", "NoConflict")]);
    }

    #[test]
    fn an_address_outside_the_subnet_is_warned_of_until_it_is_inside() {
        let mut outside = answering();
        outside.in_subnet = false;
        let warned = judged(&[], &outside, 1);
        let expected = ("OutsideSubnet", "True", "NotInSubnet");
        assert!(brief(&warned).contains(&expected), "{warned:?}");
        outside.in_subnet = true;
        let fine = judged(&warned, &outside, 2);
        assert!(brief(&fine).contains(&("OutsideSubnet", "False", "InSubnet")));
    }

    #[test]
    fn one_that_is_not_announced_here_is_left_to_the_one_who_does() {
        let mut claimed = state(Activity::Idle);
        claimed.in_subnet = false;
        claimed.probe = ProbeResult::Taken("02:00:00:00:00:09".parse().unwrap());
        assert!(judged(&[], &claimed, 1).is_empty());
    }

    #[test]
    fn what_was_announced_once_is_known_for_good_and_what_was_set_aside_is_not() {
        let holding = |conditions| Holding {
            conditions,
            ..Holding::default()
        };
        assert!(!was_announced(&holding(Vec::new())));
        assert!(was_announced(&Holding {
            adopted: true,
            ..Holding::default()
        }));
        assert!(was_announced(&holding(judged(&[], &answering(), 1))));
        let mut aside = state(Activity::SetAside);
        aside.probe = ProbeResult::Taken("02:00:00:00:00:09".parse().unwrap());
        let aside = judged(&[], &aside, 1);
        assert_eq!(brief(&aside), [("Conflict", "True", SET_ASIDE)]);
        assert!(!was_announced(&holding(aside)));
    }
}
