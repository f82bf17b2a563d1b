//! From a review to the rules of `openelb_api::validate` and back.

mod object;
mod sharing;

use json_patch::Patch;
use k8s_openapi::api::core::v1::Service;
use openelb_api::{
    keys,
    v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress},
    validate::{self, Change, Verdict, View},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    review::{Answer, Operation, Phase, Request},
    server::routes::Reviewer,
    view::Known,
};
use object::{read, unchanged};

/// Answers reviews with the rules.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The cluster as it is.
    pub known: Known,
    /// Opt Services in where there is a default Eip.
    pub inject: bool,
    /// User names that may write EipAddresses freely.
    pub address_writers: Vec<String>,
}

/// A kind that there are rules for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Eip,
    Address,
    Conf,
    Peer,
    Service,
}

impl Subject {
    fn label(self) -> &'static str {
        match self {
            Self::Eip => "Eip",
            Self::Address => "EipAddress",
            Self::Conf => "BgpConf",
            Self::Peer => "BgpPeer",
            Self::Service => "Service",
        }
    }

    /// What a review is about, or the answer to one that we have no rules for.
    fn of(request: &Request) -> Result<Self, Answer> {
        let kind = &request.kind;
        let (subject, version) = match (kind.group.as_str(), kind.kind.as_str()) {
            (keys::GROUP, "Eip") => (Self::Eip, keys::VERSION),
            (keys::GROUP, "EipAddress") => (Self::Address, keys::VERSION),
            (keys::GROUP, "BgpConf") => (Self::Conf, keys::VERSION),
            (keys::GROUP, "BgpPeer") => (Self::Peer, keys::VERSION),
            ("", "Service") => (Self::Service, "v1"),
            // A configuration that sends us others must not stop them.
            _ => {
                return Err(Answer::warn(format!(
                    "openelb-webhook has no rules for {kind}"
                )));
            }
        };
        if kind.version == version {
            Ok(subject)
        } else if request.operation == Operation::Delete {
            Err(Answer::allow())
        } else {
            Err(Answer::deny(format!(
                "{kind} is not a version that openelb-webhook knows; use {version}"
            )))
        }
    }
}

impl Reviewer for Admission {
    fn is_ready(&self) -> bool {
        self.known.is_loaded()
    }

    fn review(&self, phase: Phase, request: &Request) -> (Answer, &'static str) {
        match Subject::of(request) {
            Ok(subject) => (self.answer(subject, phase, request), subject.label()),
            Err(answer) => (answer, "other"),
        }
    }
}

impl Admission {
    fn answer(&self, subject: Subject, phase: Phase, request: &Request) -> Answer {
        let by_writer = subject == Subject::Address && self.address_writers.contains(&request.user);
        let is_other = request.operation == Operation::Other;
        if is_other || !request.sub_resource.is_empty() || by_writer {
            return Answer::allow();
        }
        let view = self.known.view();
        match phase {
            Phase::Validate => validated(subject, request, &view),
            Phase::Mutate => completed(subject, request, &view, self.inject),
            Phase::MutateAsked => completed(subject, request, &view, false),
        }
    }
}

fn completed(subject: Subject, request: &Request, view: &View, inject: bool) -> Answer {
    if request.operation == Operation::Delete {
        return Answer::allow();
    }
    match subject {
        Subject::Eip => complete(request, validate::complete_eip),
        Subject::Address => complete(request, |new: &EipAddress, _| {
            validate::complete_address(new, view)
        }),
        Subject::Conf => complete(request, validate::complete_bgp_conf),
        Subject::Peer => complete(request, validate::complete_bgp_peer),
        Subject::Service => complete(request, |new: &Service, old| {
            validate::complete_service(new, old, view, inject)
        }),
    }
}

fn validated(subject: Subject, request: &Request, view: &View) -> Answer {
    if request.operation == Operation::Delete {
        return match subject {
            Subject::Eip => check_deletion(request, |old: &Eip| validate::eip_deletion(old, view)),
            Subject::Address => check_deletion(request, validate::address_deletion),
            Subject::Conf | Subject::Peer | Subject::Service => Answer::allow(),
        };
    }
    match subject {
        Subject::Eip => check(request, |new: &Eip, old| validate::eip(new, old, view)),
        Subject::Address => check(request, |new: &EipAddress, old| {
            validate::address(new, old, view)
        }),
        Subject::Conf => check(request, |new: &BgpConf, old| validate::bgp_conf(new, old)),
        Subject::Peer => check(request, |new: &BgpPeer, old| {
            validate::bgp_peer(new, old, view)
        }),
        Subject::Service => check(request, |new: &Service, old| {
            let mut verdict = validate::service(new, old, view);
            if validate::asks_anew(new, old) {
                sharing::check(new, view, &mut verdict);
            }
            verdict
        }),
    }
}

/// Asks a rule about a creation or a change.
fn check<K: DeserializeOwned>(
    request: &Request,
    rule: impl FnOnce(&K, Option<&K>) -> Verdict,
) -> Answer {
    match read::<K>(&request.object) {
        Ok(Some(new)) => {
            // An old object that cannot be read any more is as good as none.
            let old = read::<K>(&request.old_object).ok().flatten();
            answer(rule(&new, old.as_ref()))
        }
        Ok(None) => Answer::deny("the review has no object"),
        Err(_) if unchanged(&request.object, &request.old_object) => Answer::allow(),
        Err(error) => Answer::deny(error),
    }
}

/// Asks a rule about a deletion. What cannot be read is in nobody's use.
fn check_deletion<K: DeserializeOwned>(
    request: &Request,
    rule: impl FnOnce(&K) -> Verdict,
) -> Answer {
    match read::<K>(&request.old_object) {
        Ok(Some(old)) => answer(rule(&old)),
        Ok(None) | Err(_) => Answer::allow(),
    }
}

fn answer(verdict: Verdict) -> Answer {
    Answer {
        denials: verdict.denials,
        forbidden: verdict.in_use,
        warnings: verdict.warnings,
        patch: Patch::default(),
    }
}

/// Completes an object. One that cannot be read is left to the rules, which say why.
fn complete<K: DeserializeOwned>(
    request: &Request,
    rule: impl FnOnce(&K, Option<&K>) -> Vec<Change>,
) -> Answer {
    let Ok(Some(new)) = read::<K>(&request.object) else {
        return Answer::allow();
    };
    let old = read::<K>(&request.old_object).ok().flatten();
    let changes = rule(&new, old.as_ref());
    if changes.is_empty() {
        return Answer::allow();
    }
    let mut object: Value = request.object.clone();
    for change in &changes {
        change.apply(&mut object);
    }
    Answer {
        patch: json_patch::diff(&request.object, &object),
        ..Answer::default()
    }
}
