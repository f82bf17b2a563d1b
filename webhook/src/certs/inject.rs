//! The `caBundle` of the webhook configurations: what must be patched so that API servers trust
//! what we serve.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration,
        WebhookClientConfig,
    },
};
use kube::Resource;
use serde_json::{Value, json};

/// Group of our own kinds.
const OWN_GROUP: &str = openelb_api::keys::GROUP;

/// What one webhook of a configuration is, as far as patches are concerned.
pub struct Entry<'a> {
    name: &'a str,
    ca_bundle: Option<&'a ByteString>,
    failure_policy: Option<&'a str>,
    /// Whether it is about our own kinds only.
    own: bool,
}

/// A kind of webhook configuration.
pub trait Configuration: Resource {
    /// Its webhooks.
    fn entries(&self) -> Vec<Entry<'_>>;

    /// Strategic merge patch that puts `trust` (PEM) into every webhook and, where given, sets
    /// the failure policy of webhooks for our own kinds. `None` if all of it is so already.
    ///
    /// The failure policy of webhooks for other kinds (Services) is never touched: with `Fail`
    /// there, a webhook that is down would stop the cluster.
    fn patch(&self, trust: &str, failure_policy: Option<&str>) -> Option<Value> {
        let version = self.meta().resource_version.as_deref();
        merge_patch(self.entries(), version, trust, failure_policy)
    }
}

/// The kinds have the same members under different types.
macro_rules! configurations {
    ($($kind:ty),+) => {$(
        impl Configuration for $kind {
            fn entries(&self) -> Vec<Entry<'_>> {
                let webhooks = self.webhooks.iter().flatten();
                let entries = webhooks.map(|webhook| {
                    let rules = webhook.rules.as_deref().unwrap_or_default();
                    let policy = webhook.failure_policy.as_deref();
                    Entry::new(&webhook.name, &webhook.client_config, policy, rules)
                });
                entries.collect()
            }
        }
    )+};
}
configurations!(ValidatingWebhookConfiguration, MutatingWebhookConfiguration);

impl<'a> Entry<'a> {
    fn new(
        name: &'a str,
        client: &'a WebhookClientConfig,
        failure_policy: Option<&'a str>,
        rules: &[RuleWithOperations],
    ) -> Self {
        let is_own = |rule: &RuleWithOperations| {
            let groups = rule.api_groups.as_deref();
            groups.is_some_and(|groups| groups.iter().all(|group| group == OWN_GROUP))
        };
        Self {
            name,
            ca_bundle: client.ca_bundle.as_ref(),
            failure_policy,
            own: !rules.is_empty() && rules.iter().all(is_own),
        }
    }
}

fn merge_patch(
    entries: Vec<Entry<'_>>,
    resource_version: Option<&str>,
    trust: &str,
    failure_policy: Option<&str>,
) -> Option<Value> {
    let bundle = ByteString(trust.as_bytes().to_vec());
    let webhooks: Vec<Value> = entries
        .into_iter()
        .filter_map(|entry| {
            let mut change = json!({ "name": entry.name });
            let policy =
                failure_policy.filter(|policy| entry.own && entry.failure_policy != Some(*policy));
            let trusted = entry.ca_bundle == Some(&bundle);
            if trusted && policy.is_none() {
                return None;
            }
            let fields = change.as_object_mut()?;
            if !trusted {
                fields.insert("clientConfig".to_owned(), json!({ "caBundle": bundle }));
            }
            if let Some(policy) = policy {
                fields.insert("failurePolicy".to_owned(), json!(policy));
            }
            Some(change)
        })
        .collect();
    if webhooks.is_empty() {
        return None;
    }
    Some(json!({
        "metadata": { "resourceVersion": resource_version },
        "webhooks": webhooks,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: [Option<&str>; 2]) -> ValidatingWebhookConfiguration {
        let bundle = |text: Option<&str>| text.map(|text| ByteString(text.as_bytes().to_vec()));
        serde_json::from_value(json!({
            "metadata": { "name": "openelb-admission", "resourceVersion": "7" },
            "webhooks": [
                {
                    "name": "validate.eip.network.kubesphere.io", "failurePolicy": "Ignore",
                    "clientConfig": { "caBundle": bundle(bundles[0]) },
                    "rules": [{ "apiGroups": ["network.kubesphere.io"] }],
                    "sideEffects": "None", "admissionReviewVersions": ["v1"],
                },
                {
                    "name": "validate.service.openelb.kubesphere.io", "failurePolicy": "Ignore",
                    "clientConfig": { "caBundle": bundle(bundles[1]) },
                    "rules": [{ "apiGroups": [""] }],
                    "sideEffects": "None", "admissionReviewVersions": ["v1"],
                },
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_configuration_that_is_right_is_left_alone() {
        assert_eq!(configuration([Some("A"), Some("A")]).patch("A", None), None);
    }

    #[test]
    fn only_webhooks_with_another_bundle_are_patched_and_only_this_version_of_the_object() {
        let patch = configuration([Some("A"), None]).patch("A", None).unwrap();
        assert_eq!(
            patch,
            json!({
                "metadata": { "resourceVersion": "7" },
                "webhooks": [{
                    "name": "validate.service.openelb.kubesphere.io",
                    "clientConfig": { "caBundle": "QQ==" },
                }],
            })
        );
    }

    #[test]
    fn the_failure_policy_is_set_for_our_own_kinds_only() {
        let patch = configuration([Some("A"), Some("A")])
            .patch("A", Some("Fail"))
            .unwrap();
        assert_eq!(
            patch["webhooks"],
            json!([{ "name": "validate.eip.network.kubesphere.io", "failurePolicy": "Fail" }])
        );
    }
}
