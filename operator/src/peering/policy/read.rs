//! GoBGP's form of a policy, read.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use ipnet::IpNet;
use openelb_bgp::{Family, NextHop};
use serde::Deserialize;
use toml::Value;

use super::{Action, Change, Neighbors, Policy, Prefixes, Statement};

/// Keys that are not read, by name.
type Rest = BTreeMap<String, Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    global: Global,
    defined_sets: DefinedSets,
    policy_definitions: Vec<Definition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Global {
    apply_policy: ApplyPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct ApplyPolicy {
    config: Assignment,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Assignment {
    import_policy_list: Vec<String>,
    default_import_policy: String,
    export_policy_list: Vec<String>,
    default_export_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct DefinedSets {
    prefix_sets: Vec<PrefixSet>,
    neighbor_sets: Vec<NeighborSet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PrefixSet {
    prefix_set_name: String,
    prefix_list: Vec<PrefixEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PrefixEntry {
    ip_prefix: String,
    masklength_range: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct NeighborSet {
    neighbor_set_name: String,
    neighbor_info_list: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Definition {
    name: String,
    statements: Vec<Written>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Written {
    name: String,
    conditions: Conditions,
    actions: Actions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Conditions {
    match_prefix_set: MatchSet,
    match_neighbor_set: MatchSet,
    #[serde(rename = "bgp-conditions")]
    bgp: BgpConditions,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MatchSet {
    prefix_set: String,
    neighbor_set: String,
    #[serde(rename = "match-set-options")]
    options: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct BgpConditions {
    afi_safi_in_list: Vec<String>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Actions {
    route_disposition: String,
    #[serde(rename = "bgp-actions")]
    bgp: BgpActions,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct BgpActions {
    set_community: SetCommunity,
    set_ext_community: SetCommunity,
    set_large_community: SetCommunity,
    set_med: Option<Value>,
    set_local_pref: Option<u32>,
    set_next_hop: String,
    set_as_path_prepend: Option<Prepend>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct SetCommunity {
    options: String,
    #[serde(
        alias = "set-ext-community-method",
        alias = "set-large-community-method"
    )]
    set_community_method: Method,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Method {
    communities_list: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Prepend {
    #[serde(rename = "as")]
    number: Option<Value>,
    repeat_n: u8,
}

/// What the text is wrong in.
pub(crate) type Fault = String;

impl FromStr for Policy {
    type Err = Fault;

    /// Fails where the text is no policy at all, or names what it does not define. Statements and actions that
    /// are not understood are left out and named.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.unwrap_or_default().matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        })?;
        let assignment = &file.global.apply_policy.config;
        let mut policy = Self {
            reject: disposition(&assignment.default_export_policy)? == Some(false),
            ..Self::default()
        };
        if !assignment.import_policy_list.is_empty() || !assignment.default_import_policy.is_empty()
        {
            let import = "import policies (no route is taken from peers)";
            policy.left_out.push(import.to_owned());
        }
        for name in &assignment.export_policy_list {
            let mut defined = file.policy_definitions.iter();
            let definition = defined
                .find(|definition| definition.name == *name)
                .ok_or_else(|| format!("export-policy-list: no policy {name:?} is defined"))?;
            for (position, written) in definition.statements.iter().enumerate() {
                let place = match written.name.as_str() {
                    "" => format!("{name}, statement {}", position + 1),
                    own => format!("{name}, statement {own}"),
                };
                statement(&file.defined_sets, written, &place, &mut policy)?;
            }
        }
        Ok(policy)
    }
}

fn statement(
    sets: &DefinedSets,
    written: &Written,
    place: &str,
    policy: &mut Policy,
) -> Result<(), Fault> {
    let conditions = &written.conditions;
    let unknown: Vec<&str> = conditions
        .rest
        .keys()
        .chain(conditions.bgp.rest.keys())
        .map(String::as_str)
        .collect();
    // A condition that is not understood may hold or not: the whole statement is not applied.
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        policy
            .left_out
            .push(format!("{place}, because of {unknown}"));
        return Ok(());
    }
    let mut families = Vec::new();
    for name in &conditions.bgp.afi_safi_in_list {
        match name.as_str() {
            "ipv4-unicast" => families.push(Family::Ipv4),
            "ipv6-unicast" => families.push(Family::Ipv6),
            _ => {}
        }
    }
    if families.is_empty() && !conditions.bgp.afi_safi_in_list.is_empty() {
        // It is for families that are not announced.
        return Ok(());
    }
    let found = Statement {
        prefixes: prefixes(sets, &conditions.match_prefix_set)?,
        neighbors: neighbors(sets, &conditions.match_neighbor_set)?,
        families,
        accept: disposition(&written.actions.route_disposition)?,
        actions: actions(&written.actions, place, &mut policy.left_out)?,
    };
    policy.statements.push(found);
    Ok(())
}

/// What becomes of a route; `None` where that is left open.
fn disposition(text: &str) -> Result<Option<bool>, Fault> {
    match text {
        "accept-route" => Ok(Some(true)),
        "reject-route" => Ok(Some(false)),
        "" | "none" => Ok(None),
        other => Err(format!(
            "{other:?} must be accept-route, reject-route or none"
        )),
    }
}

fn inverts(options: &str) -> Result<bool, Fault> {
    match options.to_ascii_lowercase().as_str() {
        "" | "any" => Ok(false),
        "invert" => Ok(true),
        _ => Err(format!(
            "match-set-options: {options:?} must be any or invert"
        )),
    }
}

fn prefixes(sets: &DefinedSets, wanted: &MatchSet) -> Result<Option<Prefixes>, Fault> {
    let name = &wanted.prefix_set;
    if name.is_empty() {
        return Ok(None);
    }
    let set = sets.prefix_sets.iter();
    let set = set
        .filter(|set| set.prefix_set_name == *name)
        .map(|set| &set.prefix_list)
        .next()
        .ok_or_else(|| format!("no prefix-set {name:?} is defined"))?;
    let mut entries = Vec::new();
    for entry in set {
        let text = &entry.ip_prefix;
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("prefix-set {name}: {text:?} is no prefix"))?;
        let range = &entry.masklength_range;
        let lengths = if range.is_empty() {
            net.prefix_len()..=net.prefix_len()
        } else {
            let ends = range.split_once("..");
            let ends = ends.and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
            let (low, high) = ends.ok_or_else(|| {
                format!("prefix-set {name}: masklength-range {range:?} must be two lengths such as 24..32")
            })?;
            low..=high
        };
        entries.push((net.trunc(), lengths));
    }
    if entries
        .windows(2)
        .any(|two| matches!(two, [(a, _), (b, _)] if Family::of(a) != Family::of(b)))
    {
        return Err(format!("prefix-set {name}: holds both families"));
    }
    Ok(Some(Prefixes {
        entries,
        invert: inverts(&wanted.options)?,
    }))
}

fn neighbors(sets: &DefinedSets, wanted: &MatchSet) -> Result<Option<Neighbors>, Fault> {
    let name = &wanted.neighbor_set;
    if name.is_empty() {
        return Ok(None);
    }
    let mut all = sets.neighbor_sets.iter();
    let set = all
        .find(|set| set.neighbor_set_name == *name)
        .ok_or_else(|| format!("no neighbor-set {name:?} is defined"))?;
    let mut addresses = Vec::new();
    for text in &set.neighbor_info_list {
        let host = text.parse::<std::net::IpAddr>().map(IpNet::from);
        let net = host.or_else(|_| text.parse());
        addresses.push(
            net.map_err(|_| format!("neighbor-set {name}: {text:?} is no address or prefix"))?,
        );
    }
    Ok(Some(Neighbors {
        addresses,
        invert: inverts(&wanted.options)?,
    }))
}

fn actions(
    written: &Actions,
    place: &str,
    left_out: &mut Vec<String>,
) -> Result<Vec<Action>, Fault> {
    let bgp = &written.bgp;
    let mut found = Vec::new();
    let plain = set(&bgp.set_community, "set-community", place, left_out)?;
    found.extend(plain.map(|(change, set)| Action::Communities(change, set)));
    let large = set(
        &bgp.set_large_community,
        "set-large-community",
        place,
        left_out,
    )?;
    found.extend(large.map(|(change, set)| Action::Large(change, set)));
    let extended = set(&bgp.set_ext_community, "set-ext-community", place, left_out)?;
    found.extend(extended.map(|(change, set)| Action::Extended(change, set)));
    match &bgp.set_med {
        None => {}
        Some(value) => {
            let text = plain_text(value);
            let relative = text.starts_with(['+', '-']);
            let wrong =
                || format!("{place}: set-med {text:?} must be a number, +number or -number");
            found.push(if relative {
                Action::MedBy(text.parse().map_err(|_| wrong())?)
            } else {
                Action::Med(text.parse().map_err(|_| wrong())?)
            });
        }
    }
    found.extend(bgp.set_local_pref.map(Action::LocalPref));
    match bgp.set_next_hop.as_str() {
        "" => {}
        "self" => found.push(Action::NextHop(NextHop::Local)),
        text => match text.parse() {
            Ok(address) => found.push(Action::NextHop(NextHop::Address(address))),
            Err(_) => left_out.push(format!("{place}, set-next-hop {text}")),
        },
    }
    if let Some(prepend) = &bgp.set_as_path_prepend {
        let text = prepend.number.as_ref().map(plain_text).unwrap_or_default();
        match text.parse() {
            Ok(number) => found.push(Action::Prepend(number, prepend.repeat_n)),
            // Our routes have no AS that stands last: GoBGP does nothing either.
            Err(_) => left_out.push(format!("{place}, set-as-path-prepend of {text:?}")),
        }
    }
    let unknown = written.rest.keys().chain(bgp.rest.keys());
    left_out.extend(unknown.map(|key| format!("{place}, {key}")));
    Ok(found)
}

/// A change of a set of communities; `None` where nothing is asked for.
fn set<T: FromStr + Ord>(
    written: &SetCommunity,
    what: &str,
    place: &str,
    left_out: &mut Vec<String>,
) -> Result<Option<(Change, BTreeSet<T>)>, Fault> {
    let list = &written.set_community_method.communities_list;
    let change = match written.options.to_ascii_lowercase().as_str() {
        "" if list.is_empty() => return Ok(None),
        "" | "add" => Change::Add,
        "remove" => Change::Remove,
        "replace" => Change::Replace,
        other => {
            return Err(format!(
                "{place}: {what}: {other:?} must be add, remove or replace"
            ));
        }
    };
    let mut communities = BTreeSet::new();
    for text in list {
        match text.parse() {
            Ok(community) => {
                communities.insert(community);
            }
            // GoBGP takes regular expressions to remove by, and more names than there are here.
            Err(_) => left_out.push(format!("{place}, {what} {text}")),
        }
    }
    Ok(Some((change, communities)))
}

/// A value that is a number or a text, as text.
fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
