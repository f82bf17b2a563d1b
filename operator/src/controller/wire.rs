//! Between API objects and the ledger's plain data.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use openelb_api::keys;
use openelb_api::v1alpha2::{
    AddressHolder, EipAddress, EipAddressSpec, HolderPort, Protocol, RememberedHolder, holders,
    name_for,
};
use openelb_ipam::ledger::{Entry, Record, Stored, Subject};
use openelb_ipam::sharing::{Port, Terms};
use openelb_ipam::{HELD_ANNOTATION, Said, ServiceKey, ServiceStatus, word};
use serde_json::{Value, json};

/// What a watch or an answer says of an address; the reason when the object says nothing usable.
pub(crate) fn stored(object: &EipAddress) -> Result<Stored, String> {
    let meta = &object.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let address = openelb_api::v1alpha2::address_of(name)
        .ok_or_else(|| format!("{name:?} is not the name of an address"))?;
    let (Some(uid), Some(version)) = (meta.uid.as_deref(), meta.resource_version.as_deref()) else {
        return Err(format!("{name} came without uid or resourceVersion"));
    };
    let spec = &object.spec;
    Ok(Stored {
        record: Record {
            address,
            eip: spec.eip.as_str().into(),
            protocol: word(spec.protocol.unwrap_or_default().as_str()),
            entries: spec.services.iter().map(entry).collect(),
            reserved: spec.reserved,
            reserved_for: spec.reserved_for.clone(),
            kept_for: spec
                .remembered
                .as_ref()
                .map(|kept| ServiceKey::new(kept.namespace.as_str(), kept.name.as_str())),
            revision: u64::try_from(spec.revision).unwrap_or(0),
        },
        uid: uid.into(),
        version: version.into(),
    })
}

/// Whether a speaker found, before the first use, that a foreign host has the address, and leaves it alone.
pub(crate) fn is_aside(object: &EipAddress) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status.announcers.is_empty()
            && status.conditions.iter().any(|condition| {
                condition.type_ == keys::conditions::CONFLICT
                    && condition.status == "True"
                    && condition.reason == keys::conditions::SET_ASIDE
            })
    })
}

fn entry(holder: &AddressHolder) -> Entry {
    let mut ports: Vec<_> = holder
        .ports
        .iter()
        .filter_map(|port| {
            Some(Port {
                protocol: word(&port.protocol),
                number: u16::try_from(port.port).ok()?,
            })
        })
        .collect();
    ports.sort_unstable();
    Entry {
        service: ServiceKey::new(word(&holder.namespace), holder.name.as_str()),
        uid: holder.uid.as_str().into(),
        terms: Arc::new(Terms {
            ports,
            local: holder.local,
            selector: holder.selector.iter().collect(),
            by_name: holder.requested,
        }),
    }
}

fn holder(entry: &Entry) -> AddressHolder {
    AddressHolder {
        namespace: entry.service.namespace.to_string(),
        name: entry.service.name.to_string(),
        uid: entry.uid.0.to_string(),
        ports: entry
            .terms
            .ports
            .iter()
            .map(|port| HolderPort {
                protocol: port.protocol.to_string(),
                port: port.number.into(),
            })
            .collect(),
        local: entry.terms.local,
        selector: entry.terms.selector.to_map(),
        requested: entry.terms.by_name,
    }
}

fn protocol(record: &Record) -> Protocol {
    match &*record.protocol {
        "layer2" => Protocol::Layer2,
        "vip" => Protocol::Vip,
        _ => Protocol::Bgp,
    }
}

fn remembered(record: &Record) -> Option<RememberedHolder> {
    record.kept_for.as_ref().map(|key| RememberedHolder {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        since: Some(Time(jiff::Timestamp::now())),
    })
}

/// The object to create. An adopted address has been in use: nobody probes it.
pub(crate) fn object(record: &Record, adopted: bool) -> EipAddress {
    let mark = || [(keys::ADOPTED.to_owned(), "true".to_owned())].into();
    let services: Vec<_> = record.entries.iter().map(holder).collect();
    EipAddress {
        metadata: ObjectMeta {
            name: Some(name_for(record.address)),
            annotations: adopted.then(mark),
            ..ObjectMeta::default()
        },
        spec: EipAddressSpec {
            address: record.address.to_string(),
            eip: record.eip.to_string(),
            protocol: Some(protocol(record)),
            holders: holders(&services),
            services,
            reserved: record.reserved,
            reserved_for: record.reserved_for.clone(),
            remembered: remembered(record),
            revision: i64::try_from(record.revision).unwrap_or(i64::MAX),
        },
        status: None,
    }
}

/// The merge patch that makes an object say this, and fails unless it is the very one that was read.
pub(crate) fn record_patch(stored: &Stored) -> Value {
    let record = &stored.record;
    let services: Vec<_> = record.entries.iter().map(holder).collect();
    json!({
        "metadata": {"uid": &*stored.uid.0, "resourceVersion": &*stored.version.0},
        "spec": {
            "eip": &*record.eip,
            "protocol": protocol(record),
            "holders": holders(&services),
            "services": services,
            "remembered": remembered(record),
            "revision": record.revision,
        }
    })
}

/// The strategic merge patch of a Service's status, label and annotation, which fails unless the
/// Service is the very one that was read.
pub(crate) fn status_patch(
    subject: &Subject,
    status: &ServiceStatus,
    before: Option<&Said>,
    generation: Option<i64>,
    now: jiff::Timestamp,
) -> Value {
    let ingress: Vec<_> = status
        .addresses
        .iter()
        .map(|address| json!({"ip": address}))
        .collect();
    let held = (!status.held.is_empty()).then(|| list(&status.held));
    let conditions: Vec<_> = status
        .allocated
        .iter()
        .map(|said| condition(keys::conditions::ALLOCATED, said, before, generation, now))
        .collect();
    json!({
        "metadata": {
            "uid": &*subject.uid.0,
            "resourceVersion": subject.version.as_ref().map(|version| &*version.0),
            "labels": {keys::EIP: status.eip.as_deref()},
            "annotations": {HELD_ANNOTATION: held},
        },
        "status": {
            "loadBalancer": {"ingress": ingress},
            "conditions": conditions,
        }
    })
}

/// A condition of a patch; the time of its last change is left as it is when it did not change.
pub(crate) fn condition(
    kind: &str,
    said: &Said,
    before: Option<&Said>,
    generation: Option<i64>,
    now: jiff::Timestamp,
) -> Value {
    let mut value = json!({
        "type": kind,
        "status": if said.holds { "True" } else { "False" },
        "reason": &*said.reason,
        "message": &*said.message,
    });
    if let Value::Object(fields) = &mut value {
        if let Some(generation) = generation.filter(|generation| *generation > 0) {
            fields.insert("observedGeneration".to_owned(), json!(generation));
        }
        if before.is_none_or(|before| before.holds != said.holds) {
            fields.insert("lastTransitionTime".to_owned(), json!(time(now)));
        }
    }
    value
}

/// A time as Kubernetes writes it.
pub(crate) fn time(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            address: "2001:db8::1".parse().unwrap(),
            eip: "lan".into(),
            protocol: "layer2".into(),
            entries: vec![Entry {
                service: ServiceKey::new("default", "web"),
                uid: "u1".into(),
                terms: Arc::new(Terms {
                    ports: vec![Port {
                        protocol: "TCP".into(),
                        number: 80,
                    }],
                    local: true,
                    selector: [("app", "web")].into_iter().collect(),
                    by_name: true,
                }),
            }],
            reserved: false,
            reserved_for: vec![],
            kept_for: None,
            revision: 7,
        }
    }

    #[test]
    fn a_record_survives_the_wire() {
        let mut object = object(&record(), false);
        assert_eq!(
            object.metadata.name.as_deref(),
            Some("2001-0db8-0000-0000-0000-0000-0000-0001")
        );
        object.metadata.uid = Some("o1".to_owned());
        object.metadata.resource_version = Some("5".to_owned());
        let stored = stored(&object).unwrap();
        assert_eq!(stored.record, record());
        assert_eq!(object.spec.holders, "default/web");
        assert_eq!(
            record_patch(&stored).pointer("/spec/holders"),
            Some(&json!("default/web"))
        );
    }

    #[test]
    fn an_adopted_address_is_marked_so_that_nobody_probes_it() {
        assert_eq!(object(&record(), false).metadata.annotations, None);
        let marks = object(&record(), true).metadata.annotations.unwrap();
        assert!(marks.contains_key(keys::ADOPTED));
    }

    #[test]
    fn an_address_is_aside_while_the_speaker_says_so_and_nobody_announces_it() {
        let said = |status: &str, reason: &str, announcers: Value| {
            let mut object = object(&record(), false);
            let status = json!({"announcers": announcers, "conditions": [{
                "type": keys::conditions::CONFLICT, "status": status, "reason": reason,
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
            }]});
            object.status = serde_json::from_value(status).unwrap();
            is_aside(&object)
        };
        assert!(said("True", "SetAside", json!([])));
        assert!(!said("False", "NoConflict", json!([])));
        assert!(!said("True", "ForeignClaim", json!([])));
        assert!(!said("True", "SetAside", json!([{"node": "n1"}])));
        assert!(!is_aside(&object(&record(), false)));
    }

    #[test]
    fn an_object_named_after_nothing_is_refused() {
        let mut object = object(&record(), false);
        object.metadata.name = Some("web".to_owned());
        assert!(stored(&object).is_err());
    }

    #[test]
    fn a_condition_keeps_its_time_unless_it_turned() {
        let said = |holds| Said {
            holds,
            reason: "R".into(),
            message: "m".into(),
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let same = condition("T", &said(true), Some(&said(true)), Some(3), now);
        assert_eq!(same.get("lastTransitionTime"), None);
        let turned = condition("T", &said(true), Some(&said(false)), None, now);
        assert_eq!(
            turned.get("lastTransitionTime"),
            Some(&json!("1970-01-01T00:00:00Z"))
        );
    }
}
