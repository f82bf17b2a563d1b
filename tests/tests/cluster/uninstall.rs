//! What `helm uninstall` takes and what it leaves, and that the documented clean-up leaves nothing.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use openelb_tests::product::{NAMESPACE, Product, page};
use openelb_tests::{Deadline, eventually};
use serde_json::Value;

const PAGE: &str = "docs/tasks/install.md";
/// What may not outlive the release.
const TAKEN: [&str; 2] = [
    "deployments,daemonsets,replicasets,pods,jobs,services,poddisruptionbudgets,serviceaccounts,roles,rolebindings",
    "validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles,clusterrolebindings",
];

/// `untouched` is what nodes had before the chart was installed.
pub(crate) async fn leaves_objects_and_takes_the_rest(
    product: &Product<'_>,
    addresses: [IpAddr; 2],
    untouched: &[(String, String)],
) -> Result<()> {
    let user = product.user();
    let [bgp, lan] = addresses;
    let mine = objects(product).await?;
    page::follow(user, PAGE, "Uninstall").await?;

    // Nobody announces.
    product.leads_to(bgp, &[]).await?;
    eventually("silence on the LAN", Deadline::LONG, async || {
        product.silent_on_lan(lan).await
    })
    .await?;
    // helm waits for what it made, not for what was made of that.
    eventually("all that runs to go", Deadline::LONG, async || {
        for kinds in TAKEN {
            let get = ["get", kinds, "--namespace", NAMESPACE, "--output=name"];
            let left = user.kubectl(&get).await?;
            let left: Vec<&str> = left
                .lines()
                .filter(|name| name.contains("openelb"))
                .collect();
            ensure!(left.is_empty(), "left: {left:?}");
        }
        anyhow::Ok(())
    })
    .await?;
    eventually("nodes as they were", Deadline::LONG, async || {
        for (before, after) in untouched.iter().zip(what_nodes_have(product).await?) {
            let added: Vec<&str> = after
                .1
                .lines()
                .filter(|line| !before.1.lines().any(|known| known == *line))
                .collect();
            ensure!(added.is_empty(), "on {}: {added:#?}", after.0);
        }
        anyhow::Ok(())
    })
    .await?;

    // What users made stays, with the addresses that they have.
    let left = objects(product).await?;
    ensure!(left == mine, "{mine}\nthen\n{left}");
    for kind in ["eip/bgp", "eip/lan", "bgpconf/default", "bgppeer/router"] {
        user.kubectl(&["get", kind]).await?;
    }
    for address in addresses {
        user.kubectl(&["get", "eipaddress", &address.to_string()])
            .await?;
    }
    ensure!(product.address("web-bgp").await? == bgp);
    ensure!(product.address("web-lan").await? == lan);

    // What the documentation says removes the rest.
    page::follow(user, PAGE, "Remove what is left").await?;
    nothing_of_ours_is_left(product).await
}

/// Our kinds' objects and what Services show.
async fn objects(product: &Product<'_>) -> Result<String> {
    let user = product.user();
    let names = [
        "get",
        "eips,eipaddresses,bgpconfs,bgppeers,crds",
        "--output=name",
    ];
    let status = [
        "get",
        "services",
        "web-bgp",
        "web-lan",
        "--output=jsonpath={.items[*].status.loadBalancer}",
    ];
    Ok(user.kubectl(&names).await? + &user.kubectl(&status).await?)
}

async fn nothing_of_ours_is_left(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    let services = ["get", "services", "web-bgp", "web-lan", "--output=json"];
    let services: Value = serde_json::from_str(&user.kubectl(&services).await?)?;
    for service in services
        .pointer("/items")
        .and_then(Value::as_array)
        .context("no list")?
    {
        let shown = service.pointer("/status").map(Value::to_string);
        let shown = shown.unwrap_or_default();
        ensure!(
            !shown.contains("ip") && !shown.contains("openelb"),
            "{shown}"
        );
        for field in ["labels", "finalizers"] {
            let of = service.pointer(&format!("/metadata/{field}"));
            let of = of.map(Value::to_string).unwrap_or_default();
            ensure!(!of.contains("kubesphere"), "{field}: {of}");
        }
        // What users wrote is theirs.
        let annotations = service
            .pointer("/metadata/annotations")
            .and_then(Value::as_object);
        let ours = ["openelb.kubesphere.io/addresses"];
        let left = ours
            .iter()
            .find(|key| annotations.is_some_and(|all| all.contains_key(**key)));
        ensure!(left.is_none(), "{left:?}");
    }
    let kinds = user
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .await?;
    let kinds = kinds
        .lines()
        // Events tell what was; they go by themselves.
        .filter(|kind| !kind.starts_with("events") && !kind.starts_with("componentstatuses"))
        .collect::<Vec<_>>()
        .join(",");
    let all = ["get", &kinds, "--all-namespaces", "--output=name"];
    let left = user.kubectl(&all).await?;
    let ours: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("openelb") || name.contains("kubesphere"))
        .collect();
    ensure!(ours.is_empty(), "left: {ours:?}");
    Ok(())
}

/// What an administrator finds on each node: settings of interfaces, addresses, groups, rules, routes, neighbours for
/// which the node answers. Groups of the node's own addresses are left out: a boot joins them in another way.
pub(crate) async fn what_nodes_have(product: &Product<'_>) -> Result<Vec<(String, String)>> {
    const LOOK: &str = r"
        sysctl --all 2>/dev/null | grep -E '^net\.ipv[46]\.(conf|neigh)\.(all|default|eth0|lo)\.'
        ip -o addr show dev eth0 scope global | sed 's/valid_lft.*//'
        ip maddr show dev eth0 | grep -vE 'ff02::1:ff00:(0|[bcd])$'
        ip rule; ip -6 rule
        ip route show dev eth0; ip -6 route show dev eth0
        ip neigh show proxy; ip -6 neigh show proxy";
    let mut found = Vec::new();
    for node in product.cluster().nodes() {
        let namespace = node.host().namespace();
        let text = namespace.run(&["sh", "-c", LOOK]).await?;
        found.push((node.name().to_owned(), text));
    }
    Ok(found)
}
