//! What each process may do, as the chart says, beside what it did, as the API server's audit log says: a request that was
//! refused is a right too few, and a right that no story ever used is one too many.
//!
//! A story adds what was used to a file; whether something was never used is judged over all of them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, figures};
use crate::control_plane::audit::Request;

/// One thing that one account may do: `openelb-controller: patch services/status`. Ordered as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The ServiceAccount's name.
    pub account: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// Plural, with its subresource: `services/status`.
    pub resource: String,
    /// `get`, `list` and so on.
    pub verb: String,
    /// Only in this namespace; everywhere when empty.
    pub namespace: String,
    /// Only objects of these names; of any when empty.
    pub names: Vec<String>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            account,
            group,
            resource,
            verb,
            namespace,
            names,
        } = self;
        let group = if group.is_empty() { "core" } else { group };
        write!(f, "{account}: {verb} {group}/{resource}")?;
        if !namespace.is_empty() {
            write!(f, " in {namespace}")?;
        }
        if !names.is_empty() {
            write!(f, " named {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl Right {
    /// Whether this is what let `request` through.
    #[must_use]
    pub fn allows(&self, request: &Request) -> bool {
        let Some(object) = &request.object_ref else {
            return false;
        };
        let resource = if object.subresource.is_empty() {
            object.resource.clone()
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        account(request) == Some(&self.account)
            && self.verb == request.verb
            && self.group == object.api_group
            && self.resource == resource
            && (self.namespace.is_empty() || self.namespace == object.namespace)
            && (self.names.is_empty() || self.names.contains(&object.name))
    }
}

/// The account of ours that made a request.
fn account(request: &Request) -> Option<&str> {
    let of_ours = request
        .user
        .username
        .strip_prefix("system:serviceaccount:")?;
    let (namespace, account) = of_ours.split_once(':')?;
    (namespace == NAMESPACE).then_some(account)
}

/// Everything that the accounts of a rendered chart may do.
#[must_use]
pub fn granted(objects: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|object| matches!(text(object, "/kind"), "ClusterRoleBinding" | "RoleBinding"))
    {
        let role = objects.iter().find(|object| {
            text(object, "/kind") == text(binding, "/roleRef/kind")
                && text(object, "/metadata/name") == text(binding, "/roleRef/name")
        });
        for subject in array(binding, "/subjects") {
            for rule in role.into_iter().flat_map(|role| array(role, "/rules")) {
                add(
                    &mut rights,
                    rule,
                    text(subject, "/name"),
                    text(binding, "/metadata/namespace"),
                );
            }
        }
    }
    rights
}

/// What says who may do what.
const KINDS: [&str; 5] = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
];

/// The objects that give a component its rights, as one list for `kubectl apply`.
///
/// # Errors
/// The chart cannot be rendered with these values, or has no such component.
pub async fn of(component: &str, values: &[&str]) -> Result<Value> {
    let items: Vec<Value> = super::render(values)
        .await?
        .into_iter()
        .filter(|object| text(object, "/metadata/labels/component") == component)
        .filter(|object| KINDS.contains(&text(object, "/kind")))
        .collect();
    ensure!(!items.is_empty(), "the chart has no component {component}");
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

fn add(rights: &mut BTreeSet<Right>, rule: &Value, account: &str, namespace: &str) {
    let names: Vec<String> = strings(rule, "/resourceNames").map(str::to_owned).collect();
    for group in strings(rule, "/apiGroups") {
        for resource in strings(rule, "/resources") {
            for verb in strings(rule, "/verbs") {
                rights.insert(Right {
                    account: account.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    verb: verb.to_owned(),
                    namespace: namespace.to_owned(),
                    names: names.clone(),
                });
            }
        }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn array<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn strings<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    array(object, pointer).filter_map(Value::as_str)
}

/// Requests of our accounts that were refused for want of a right.
#[must_use]
pub fn denied(requests: &[Request]) -> Vec<&Request> {
    requests
        .iter()
        .filter(|request| {
            account(request).is_some()
                && request
                    .response_status
                    .as_ref()
                    .is_some_and(|status| status.code == 403)
        })
        .collect()
}

/// The rights that requests used.
#[must_use]
pub fn used(rights: &BTreeSet<Right>, requests: &[Request]) -> BTreeSet<Right> {
    let own: Vec<&Request> = requests
        .iter()
        .filter(|request| account(request).is_some())
        .collect();
    rights
        .iter()
        .filter(|right| own.iter().any(|request| right.allows(request)))
        .cloned()
        .collect()
}

/// Fails where one of our processes was refused something, and adds what was used to the file that the environment's
/// `OPENELB_RIGHTS` names, if it does.
///
/// # Errors
/// A request was refused, none was made, or the file cannot be written.
pub fn judge(objects: &[Value], requests: &[Request]) -> Result<()> {
    let denied: BTreeSet<String> = denied(requests).into_iter().map(describe).collect();
    ensure!(denied.is_empty(), "rights too few: {denied:#?}");
    let used = used(&granted(objects), requests);
    ensure!(!used.is_empty(), "no request of ours is in the audit log");
    if let Some(file) = std::env::var_os("OPENELB_RIGHTS") {
        for right in used {
            figures::append_line(Path::new(&file), &right.to_string())?;
        }
    }
    Ok(())
}

fn describe(request: &Request) -> String {
    let who = &request.user.username;
    format!("{who}: {} {}", request.verb, request.uri)
}

/// Rights that no run of the stories can be asked to use, with the reason.
pub const EXEMPT: &[(&str, &str)] = &[
    (
        "openelb-install: create apiextensions.k8s.io/customresourcedefinitions named \
         bgpconfs.network.kubesphere.io, bgppeers.network.kubesphere.io, \
         eipaddresses.network.kubesphere.io, eips.network.kubesphere.io",
        "server-side apply of what is not there needs it, and stands in the log as a patch",
    ),
    (
        "openelb-admission: patch admissionregistration.k8s.io/mutatingwebhookconfigurations \
         named openelb-admission",
        "the webhook itself is faster as a rule: api webhook::jobs",
    ),
    (
        "openelb-admission: patch admissionregistration.k8s.io/validatingwebhookconfigurations \
         named openelb-admission",
        "the webhook itself is faster as a rule: api webhook::jobs",
    ),
    (
        "openelb-controller: patch network.kubesphere.io/eipaddresses/status",
        "only a wrong reservation that got past the webhook is told so: api webhook::recovery",
    ),
    (
        "openelb-webhook: update core/secrets in openelb-system named openelb-admission",
        "certificates are renewed after weeks: api webhook::certificates",
    ),
];

/// The rights of `objects` that no line of `file` names, which [`judge`] wrote.
///
/// # Errors
/// The file cannot be read.
pub fn unused(objects: &[Value], file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("no story wrote {}", file.display()))?;
    let used: BTreeSet<&str> = text.lines().collect();
    let granted: BTreeSet<String> = granted(objects).iter().map(Right::to_string).collect();
    Ok(granted
        .into_iter()
        .filter(|right| !used.contains(right.as_str()))
        .filter(|right| !EXEMPT.iter().any(|(exempt, _)| exempt == right))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Vec<Value> {
        vec![
            json!({"kind": "Role", "metadata": {"name": "lb", "namespace": NAMESPACE}, "rules": [
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"], "verbs": ["get", "update"]},
            ]}),
            json!({"kind": "RoleBinding", "metadata": {"name": "lb", "namespace": NAMESPACE},
                "roleRef": {"kind": "Role", "name": "lb"}, "subjects": [{"name": "lb"}]}),
            json!({"kind": "ClusterRole", "metadata": {"name": "lb"}, "rules": [
                {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
            ]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "lb"},
                "roleRef": {"kind": "ClusterRole", "name": "lb"}, "subjects": [{"name": "lb"}]}),
        ]
    }

    fn request(account: &str, verb: &str, object: &Value, code: u16) -> Request {
        let user = format!("system:serviceaccount:{account}");
        serde_json::from_value(json!({
            "verb": verb,
            "requestURI": "/",
            "user": {"username": user},
            "objectRef": object,
            "responseStatus": {"code": code},
        }))
        .unwrap()
    }

    #[test]
    fn a_right_is_used_by_what_it_lets_through_and_nothing_else() {
        let rights = granted(&chart());
        assert_eq!(rights.len(), 3);
        let ours = format!("{NAMESPACE}:lb");
        let secret = json!({"resource": "secrets", "namespace": NAMESPACE, "name": "key"});
        let other = json!({"resource": "secrets", "namespace": NAMESPACE, "name": "another"});
        let status =
            json!({"resource": "services", "subresource": "status", "namespace": "a", "name": "b"});
        let shown = |requests: &[Request]| {
            let used = used(&rights, requests);
            used.iter().map(Right::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&[request(&ours, "get", &secret, 200)]),
            ["lb: get core/secrets in openelb-system named key"]
        );
        assert_eq!(
            shown(&[request(&ours, "patch", &status, 200)]),
            ["lb: patch core/services/status"]
        );
        assert!(shown(&[request(&ours, "get", &other, 403)]).is_empty());
        assert!(shown(&[request("default:lb", "get", &secret, 200)]).is_empty());
    }

    #[test]
    fn what_was_refused_is_found_and_others_refusals_are_not_ours() {
        let secret = json!({"resource": "secrets", "namespace": NAMESPACE, "name": "another"});
        let ours = format!("{NAMESPACE}:lb");
        let requests = [
            request(&ours, "get", &secret, 403),
            request(&ours, "get", &secret, 404),
            request("default:web", "get", &secret, 403),
        ];
        assert_eq!(denied(&requests).len(), 1);
        let error = judge(&chart(), &requests).unwrap_err().to_string();
        assert!(error.contains("rights too few"), "{error}");
    }

    #[test]
    fn a_right_that_no_story_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rights");
        let text =
            "lb: patch core/services/status\nlb: get core/secrets in openelb-system named key\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(
            unused(&chart(), &file).unwrap(),
            ["lb: update core/secrets in openelb-system named key"]
        );
    }
}
