//! The Secret and the webhook configurations at the API server.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::Secret,
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::{
    bundle::{Bundle, OVERLAP_UNTIL},
    decide::Reading,
    inject::Configuration,
};

/// Name under which we write.
const FIELD_MANAGER: &str = "openelb-webhook";

/// Where the certificates are kept and used.
#[derive(Clone)]
pub struct Store {
    client: Client,
    namespace: String,
    secrets: Api<Secret>,
    secret_name: String,
    validating: Api<ValidatingWebhookConfiguration>,
    mutating: Api<MutatingWebhookConfiguration>,
    webhook_name: String,
}

/// Which webhook configurations to patch, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patching {
    /// Patch the validating configuration.
    pub validating: bool,
    /// Patch the mutating configuration.
    pub mutating: bool,
    /// Failure policy to set for webhooks of our own kinds.
    pub failure_policy: Option<String>,
}

/// What patching found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patched {
    /// Configurations that exist.
    pub found: usize,
    /// Configurations that had to be changed.
    pub changed: usize,
}

/// The Secret as read, with what a compare-and-swap needs.
pub struct Stored {
    /// What it says.
    pub reading: Reading,
    /// The object, if there is one.
    secret: Option<Secret>,
}

impl Stored {
    /// The version that was read.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.secret.as_ref()?.metadata.resource_version.as_deref()
    }
}

impl Store {
    /// Reads and writes as `client` may.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, secret_name: &str, webhook_name: &str) -> Self {
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            secrets: Api::namespaced(client.clone(), namespace),
            secret_name: secret_name.to_owned(),
            validating: Api::all(client.clone()),
            mutating: Api::all(client.clone()),
            webhook_name: webhook_name.to_owned(),
        }
    }

    /// Reads the Secret.
    pub async fn read(&self) -> kube::Result<Stored> {
        let secret = self.secrets.get_opt(&self.secret_name).await?;
        let reading = match &secret {
            None => Reading::Absent,
            Some(secret) => {
                Bundle::from_secret(secret).map_or_else(Reading::Broken, Reading::Found)
            }
        };
        Ok(Stored { reading, secret })
    }

    /// Writes the bundle in place of exactly what was read; fails with a conflict if somebody
    /// else wrote meanwhile.
    pub async fn write(&self, read: &Stored, bundle: &Bundle) -> kube::Result<()> {
        let mut secret = read.secret.clone().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(self.secret_name.clone()),
                labels: Some(BTreeMap::from([("app".to_owned(), "openelb".to_owned())])),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        });
        let annotations = secret.metadata.annotations.get_or_insert_default();
        match bundle.overlap_until {
            Some(until) => annotations.insert(OVERLAP_UNTIL.to_owned(), until.to_string()),
            None => annotations.remove(OVERLAP_UNTIL),
        };
        // Keys that others put there stay.
        secret.data.get_or_insert_default().extend(bundle.to_data());
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        if read.secret.is_some() {
            self.secrets
                .replace(&self.secret_name, &params, &secret)
                .await?;
        } else {
            self.secrets.create(&params, &secret).await?;
        }
        Ok(())
    }

    /// Puts the trusted authorities into the webhook configurations where they are missing.
    pub async fn trust(&self, bundle: &Bundle, patching: &Patching) -> kube::Result<Patched> {
        let trust = bundle.trust_pem();
        let policy = patching.failure_policy.as_deref();
        let mut patched = Patched::default();
        if patching.validating {
            patch(
                &self.validating,
                &self.webhook_name,
                &trust,
                policy,
                &mut patched,
            )
            .await?;
        }
        if patching.mutating {
            patch(
                &self.mutating,
                &self.webhook_name,
                &trust,
                policy,
                &mut patched,
            )
            .await?;
        }
        Ok(patched)
    }

    /// Something happened to the Secret or to a webhook configuration.
    pub fn changes(&self) -> impl Stream<Item = ()> + use<> {
        let secret: Api<PartialObjectMeta<Secret>> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let validating: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> =
            Api::all(self.client.clone());
        let mutating: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
            Api::all(self.client.clone());
        stream::select(
            happened(secret, &self.secret_name),
            stream::select(
                happened(validating, &self.webhook_name),
                happened(mutating, &self.webhook_name),
            ),
        )
    }
}

fn happened<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> impl Stream<Item = ()> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
{
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher::watcher(api, only)
        .default_backoff()
        .filter_map(|event| std::future::ready(event.ok().map(|_| ())))
}

async fn patch<K>(
    api: &Api<K>,
    name: &str,
    trust: &str,
    policy: Option<&str>,
    patched: &mut Patched,
) -> kube::Result<()>
where
    K: Configuration + Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let Some(configuration) = api.get_opt(name).await? else {
        return Ok(());
    };
    patched.found += 1;
    if let Some(change) = configuration.patch(trust, policy) {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch(name, &params, &Patch::Strategic(change)).await?;
        patched.changed += 1;
    }
    Ok(())
}
