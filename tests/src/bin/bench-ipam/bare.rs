//! The bare client: one record and one status patch for each Service that it sees, 32 at a time, with no decision at all.

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use openelb_api::keys;
use openelb_api::v1alpha2::{AddressHolder, EipAddress, EipAddressSpec, HolderPort};
use openelb_tests::ipam::addresses;
use serde_json::json;

use super::PARALLEL;

/// The yardstick: the same two writes for each Service, and nothing else.
pub(crate) async fn client(client: kube::Client) {
    let api: Api<Service> = Api::namespaced(client.clone(), "default");
    let records: Api<EipAddress> = Api::all(client);
    let mut next = match records.list(&ListParams::default()).await {
        Ok(list) => u32::try_from(list.items.len()).unwrap_or(0),
        Err(error) => return eprintln!("the bare client cannot list: {error}"),
    };
    let mut known = std::collections::HashSet::new();
    watcher::watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .filter_map(move |event| {
            let found = match event {
                Ok(Event::Apply(service) | Event::InitApply(service)) => Some(service),
                _ => None,
            };
            let ours = found.filter(|service| {
                service
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
                    && addresses(service).is_empty()
                    && known.insert(service.name_any())
            });
            std::future::ready(ours.map(|service| {
                next += 1;
                (
                    service,
                    std::net::Ipv4Addr::from(0x0a00_0000 + next).to_string(),
                )
            }))
        })
        .for_each_concurrent(PARALLEL, |(service, address)| {
            let (api, records) = (api.clone(), records.clone());
            async move {
                if let Err(error) = two_writes(&api, &records, &service, &address).await {
                    eprintln!("the bare client failed: {error}");
                }
            }
        })
        .await;
}

async fn two_writes(
    api: &Api<Service>,
    records: &Api<EipAddress>,
    service: &Service,
    address: &str,
) -> Result<()> {
    let spec = service.spec.clone().unwrap_or_default();
    let port = |port: &ServicePort| HolderPort {
        protocol: port.protocol.clone().unwrap_or_default(),
        port: port.port,
    };
    let holder = AddressHolder {
        namespace: service.namespace().unwrap_or_default(),
        name: service.name_any(),
        uid: service.uid().unwrap_or_default(),
        ports: spec.ports.iter().flatten().map(port).collect(),
        selector: spec.selector.unwrap_or_default(),
        ..AddressHolder::default()
    };
    let spec = EipAddressSpec {
        address: address.to_owned(),
        eip: "lan".to_owned(),
        services: vec![holder],
        revision: 1,
        ..EipAddressSpec::default()
    };
    records
        .create(&PostParams::default(), &EipAddress::new(address, spec))
        .await?;
    let status = json!({
        "metadata": {
            "uid": service.uid(),
            "resourceVersion": service.resource_version(),
            "labels": {keys::EIP: "lan"},
            "annotations": {keys::HELD: address},
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": address}]},
            "conditions": [{
                "type": keys::conditions::ALLOCATED, "status": "True", "reason": "Allocated",
                "message": format!("{address} from Eip lan"), "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    });
    api.patch_status(
        &service.name_any(),
        &PatchParams::default(),
        &Patch::Strategic(status),
    )
    .await?;
    Ok(())
}
