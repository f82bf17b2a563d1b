//! A real API server with our kinds, and controllers beside it: where address management is tried and measured.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{CustomResourceExt, ResourceExt};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress, EipSpec, name_for};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::process::{Process, Program};
use crate::tools::binary;
use crate::wait::{Deadline, eventually};

/// A control plane that knows our kinds.
pub struct Bed {
    /// The control plane.
    pub control: ControlPlane,
}

impl Bed {
    /// Starts a control plane and installs our kinds.
    ///
    /// # Errors
    /// The control plane does not start, or refuses the kinds.
    pub async fn start() -> Result<Self> {
        Self::on(ControlPlane::start().await?).await
    }

    /// Installs our kinds in a control plane.
    ///
    /// # Errors
    /// It refuses them.
    pub async fn on(control: ControlPlane) -> Result<Self> {
        let bed = Self { control };
        let api: Api<CustomResourceDefinition> = Api::all(bed.client());
        let kinds = [
            Eip::crd(),
            EipAddress::crd(),
            BgpConf::crd(),
            BgpPeer::crd(),
        ];
        for kind in &kinds {
            api.create(&PostParams::default(), kind)
                .await
                .with_context(|| kind.name_any())?;
        }
        for kind in &kinds {
            eventually("an established kind", Deadline::SHORT, async || {
                let found = api.get(&kind.name_any()).await?;
                let conditions = found
                    .status
                    .and_then(|status| status.conditions)
                    .unwrap_or_default();
                ensure!(
                    conditions
                        .iter()
                        .any(|c| c.type_ == "Established" && c.status == "True"),
                    "{conditions:?}"
                );
                Ok(())
            })
            .await?;
        }
        bed.namespace("openelb-system", &[]).await?;
        Ok(bed)
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.control.client()
    }

    /// Starts a controller under this name.
    ///
    /// # Errors
    /// It is not built, or cannot be started.
    pub fn controller(&self, identity: &str) -> Result<Process> {
        self.controller_with(identity, &[])
    }

    /// Starts a controller with more arguments.
    ///
    /// # Errors
    /// It is not built, or cannot be started.
    pub fn controller_with(&self, identity: &str, args: &[&str]) -> Result<Process> {
        Program::new(identity, binary("openelb-operator")?)
            .args(["controller", "--metrics-addr", "0", "--identity", identity])
            .arg("--kubeconfig")
            .arg(self.control.kubeconfig())
            .env("OPENELB_LOG", "info,openelb_operator=debug")
            .args(args)
            .start(self.control.folder().path())
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(())
    }

    /// Creates an Eip of these addresses.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn eip(&self, name: &str, address: &str) -> Result<Eip> {
        self.eip_of(
            name,
            EipSpec {
                address: address.to_owned(),
                ..EipSpec::default()
            },
        )
        .await
    }

    /// Creates an Eip.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn eip_of(&self, name: &str, spec: EipSpec) -> Result<Eip> {
        let eip = Eip::new(name, spec);
        Ok(Api::all(self.client())
            .create(&PostParams::default(), &eip)
            .await?)
    }

    /// Changes an Eip by a merge patch.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch_eip(&self, name: &str, patch: Value) -> Result<Eip> {
        let api: Api<Eip> = Api::all(self.client());
        Ok(api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?)
    }

    /// Creates a Service.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(&self, service: &Service) -> Result<Service> {
        let api = self.services(&service.namespace().unwrap_or_default());
        Ok(api.create(&PostParams::default(), service).await?)
    }

    /// Changes a Service in `default` by a merge patch.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch(&self, name: &str, patch: Value) -> Result<Service> {
        Ok(self
            .services("default")
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?)
    }

    /// Deletes a Service in `default`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.services("default")
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Services of a namespace.
    #[must_use]
    pub fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client(), namespace)
    }

    /// The addresses that a Service in `default` shows.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn shown(&self, name: &str) -> Result<Vec<String>> {
        Ok(addresses(&self.services("default").get(name).await?))
    }

    /// Waits until a Service in `default` shows exactly these addresses.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn shows(&self, name: &str, wanted: &[&str]) -> Result<()> {
        let what = format!("{name} to show {wanted:?}");
        eventually(&what, Deadline::SHORT, async || {
            let service = self.services("default").get(name).await?;
            let shown = addresses(&service);
            ensure!(shown == wanted, "{shown:?}, {:?}", allocated(&service));
            Ok(())
        })
        .await
    }

    /// Waits until a Service in `default` says that it has no address, for this reason; returns the message.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn refuses(&self, name: &str, reason: &str) -> Result<String> {
        let what = format!("{name} to be refused for {reason}");
        eventually(&what, Deadline::SHORT, async || {
            let service = self.services("default").get(name).await?;
            match allocated(&service) {
                Some((status, found, message)) if status == "False" && found == reason => {
                    Ok(message)
                }
                other => Err(anyhow::anyhow!("{other:?}")),
            }
        })
        .await
    }

    /// The record of an address.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn record(&self, address: &str) -> Result<Option<EipAddress>> {
        let address: IpAddr = address.parse()?;
        Ok(Api::all(self.client()).get_opt(&name_for(address)).await?)
    }

    /// Looks at everything at once: each address stands in the status of at most one Service (unless the record names
    /// several), each record's Services show it, and each shown address has a record.
    ///
    /// # Errors
    /// Something is doubled or leaked.
    pub async fn audit(&self) -> Result<usize> {
        let services = Api::<Service>::all(self.client())
            .list(&kube::api::ListParams::default())
            .await?;
        let records = Api::<EipAddress>::all(self.client())
            .list(&kube::api::ListParams::default())
            .await?;
        let mut shown = Holders::new();
        for service in &services {
            let key = format!(
                "{}/{}",
                service.namespace().unwrap_or_default(),
                service.name_any()
            );
            for address in addresses(service) {
                shown.entry(address).or_default().push(key.clone());
            }
        }
        let mut held = Holders::new();
        for record in &records {
            for service in &record.spec.services {
                let key = format!("{}/{}", service.namespace, service.name);
                held.entry(record.spec.address.clone())
                    .or_default()
                    .push(key);
            }
        }
        shown
            .values_mut()
            .chain(held.values_mut())
            .for_each(|keys| keys.sort());
        ensure!(
            shown == held,
            "shown and held differ: {:?}",
            difference(&shown, &held)
        );
        Ok(shown.len())
    }
}

type Holders = std::collections::BTreeMap<String, Vec<String>>;

fn difference(shown: &Holders, held: &Holders) -> Vec<String> {
    let all: std::collections::BTreeSet<_> = shown.keys().chain(held.keys()).collect();
    all.into_iter()
        .filter(|address| shown.get(*address) != held.get(*address))
        .map(|address| {
            format!(
                "{address} shown by {:?}, held by {:?}",
                shown.get(address),
                held.get(address)
            )
        })
        .take(10)
        .collect()
}

/// The addresses that a Service shows.
#[must_use]
pub fn addresses(service: &Service) -> Vec<String> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.clone())
        .collect()
}

/// What a Service says of its allocation: status, reason, message.
#[must_use]
pub fn allocated(service: &Service) -> Option<(String, String, String)> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == keys::conditions::ALLOCATED)?;
    Some((
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    ))
}

/// A Service of type LoadBalancer in `default` that asks us for an address, with port 80 and no node ports.
#[must_use]
pub fn service(name: &str) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            annotations: Some([(keys::OPT_IN.to_owned(), keys::OPT_IN_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            allocate_load_balancer_node_ports: Some(false),
            ports: Some(vec![port(80)]),
            selector: Some([("app".to_owned(), name.to_owned())].into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A TCP port.
#[must_use]
pub fn port(number: i32) -> ServicePort {
    ServicePort {
        name: Some(format!("p{number}")),
        port: number,
        ..ServicePort::default()
    }
}

/// A Service that asks for more.
pub trait Asks: Sized {
    /// From this Eip.
    #[must_use]
    fn eip(self, name: &str) -> Self;
    /// This address, by `spec.loadBalancerIP`.
    #[must_use]
    fn ip(self, address: &str) -> Self;
    /// An annotation.
    #[must_use]
    fn annotation(self, key: &str, value: &str) -> Self;
    /// Another port.
    #[must_use]
    fn port(self, number: i32) -> Self;
    /// Both families, IPv4 first, by this policy.
    #[must_use]
    fn dual_stack(self, policy: &str) -> Self;
    /// Another namespace.
    #[must_use]
    fn within(self, namespace: &str) -> Self;
}

impl Asks for Service {
    fn eip(self, name: &str) -> Self {
        self.annotation(keys::EIP, name)
    }

    fn ip(mut self, address: &str) -> Self {
        self.spec.get_or_insert_default().load_balancer_ip = Some(address.to_owned());
        self
    }

    fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations_mut()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    fn port(mut self, number: i32) -> Self {
        self.spec.get_or_insert_default().ports = Some(vec![port(number)]);
        self
    }

    fn dual_stack(mut self, policy: &str) -> Self {
        let spec = self.spec.get_or_insert_default();
        spec.ip_family_policy = Some(policy.to_owned());
        spec.ip_families = Some(vec!["IPv4".to_owned(), "IPv6".to_owned()]);
        self
    }

    fn within(mut self, namespace: &str) -> Self {
        self.metadata.namespace = Some(namespace.to_owned());
        self
    }
}

/// A merge patch of a Service's spec.
#[must_use]
pub fn spec(fields: &Value) -> Value {
    json!({ "spec": fields })
}
