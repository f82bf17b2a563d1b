//! One condition of an EipAddress, written beside those of others.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

/// What a condition shall say.
pub(super) struct Said {
    pub(super) type_: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Of the object, where the condition speaks of what the object itself says.
    pub(super) generation: Option<i64>,
}

/// The status that says so beside the `conditions` of others, for the object at exactly this version. Nothing where
/// it is said already, or where there never was anything to say.
pub(super) fn written(
    said: Said,
    conditions: &[Condition],
    version: Option<&str>,
    now: Timestamp,
) -> Option<Value> {
    let before = conditions
        .iter()
        .find(|condition| condition.type_ == said.type_);
    let status = if said.holds { "True" } else { "False" };
    let is_same = |before: &Condition| before.status == status && before.message == said.message;
    if before.map_or(!said.holds, is_same) {
        return None;
    }
    let since = before
        .filter(|before| before.status == status)
        .map(|before| before.last_transition_time.clone());
    let condition = Condition {
        type_: said.type_.to_owned(),
        status: status.to_owned(),
        reason: said.reason.to_owned(),
        message: said.message,
        observed_generation: said.generation,
        last_transition_time: since
            .unwrap_or_else(|| Time(now.round(jiff::Unit::Second).unwrap_or(now))),
    };
    // Those of speakers stay; the version makes sure that none is lost.
    let others = conditions
        .iter()
        .filter(|other| other.type_ != condition.type_);
    let all: Vec<&Condition> = others.chain([&condition]).collect();
    Some(json!({
        "metadata": { "resourceVersion": version },
        "status": { "conditions": all },
    }))
}
