//! Objects read without what nobody here looks at: `metadata.managedFields` is most of a Service.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::runtime::watcher::Event;
use openelb_api::v1alpha2::{EipAddress, EipAddressSpec};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An object of kind `K` with the metadata that is used, and no more of it read than that.
#[derive(Clone, Debug)]
pub(crate) struct Lean<K>(pub(crate) K);

/// The metadata that is used.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Lean<Service> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Meta,
            spec: Option<ServiceSpec>,
            status: Option<ServiceStatus>,
        }
        let parts = Parts::deserialize(deserializer)?;
        Ok(Self(Service {
            metadata: parts.metadata.into(),
            spec: parts.spec,
            status: parts.status,
        }))
    }
}

impl<'de> Deserialize<'de> for Lean<EipAddress> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Meta,
            spec: EipAddressSpec,
        }
        let parts = Parts::deserialize(deserializer)?;
        Ok(Self(EipAddress {
            metadata: parts.metadata.into(),
            spec: parts.spec,
            status: None,
        }))
    }
}

impl<K: Serialize> Serialize for Lean<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<K: Resource> Resource for Lean<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The same event about something else.
pub(crate) fn map<A, B>(event: Event<A>, f: impl FnOnce(A) -> B) -> Event<B> {
    match event {
        Event::Apply(object) => Event::Apply(f(object)),
        Event::Delete(object) => Event::Delete(f(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(f(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelb_ipam::ServiceFacts;
    use serde_json::json;

    #[test]
    fn a_lean_service_says_all_that_is_asked_of_it() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
                "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}, "finalizers": ["x"],
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        let whole: Service = serde_json::from_value(object.clone()).unwrap();
        let Lean(lean): Lean<Service> = serde_json::from_value(object).unwrap();
        assert_eq!(ServiceFacts::read(&lean), ServiceFacts::read(&whole));
        assert_eq!(lean.metadata.managed_fields, None);
    }
}
