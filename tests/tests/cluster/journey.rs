//! A user's way from the first pool to a dual-stack cluster with shared and moved addresses, with kube-proxy in nftables
//! mode; and an API server that is away for two minutes while a node dies.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_tests::cluster::{Cluster, ProxyMode};
use openelb_tests::product::{Loss, Product, page};
use openelb_tests::{Deadline, eventually, scenario};

use crate::{ALL, BY_BFD};

/// One cluster serves all of these.
#[test]
fn from_the_first_pool_to_a_dual_stack_cluster() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3)
            .proxy(ProxyMode::Nftables)
            .audit()
            .start()
            .await?;
        let product = Product::new(&cluster).await?;
        product.install(&[]).await?;
        the_readme(&product).await?;
        the_tutorial(&product).await?;
        let [four, six] = a_service_has_an_address_of_each_family(&product, "bgp-peer").await?;
        a_service_of_one_family_gets_no_other(&product).await?;
        the_lan_knows_both_families(&product).await?;
        two_services_share_an_address(&product, [four, six]).await?;
        a_pool_moves_from_the_lan_to_bgp(&product).await?;
        a_pool_grows_and_shrinks_around_its_users(&product, six).await?;
        product.judge_rights(&[]).await?;
        the_api_server_is_away_for_two_minutes(&product, [four, six]).await
    });
}

/// What the README tells those who have a cluster: a default pool, from which a Service that says nothing is served.
async fn the_readme(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    page::follow(user, "README.md", "A first pool").await?;
    let create = ["create", "service", "loadbalancer", "plain", "--tcp=80"];
    user.kubectl(&create).await?;
    let address = product.address("plain").await?;
    ensure!(
        address == IpAddr::from([192, 168, 0, 91]),
        "the first address of the pool is given, not {address}"
    );
    user.kubectl(&["delete", "service", "plain"]).await?;
    field_becomes(product, &["eip", "pool"], ".status.usage", "0").await?;
    user.kubectl(&["delete", "eip", "pool"]).await.map(drop)
}

/// OpenELB's own tutorial for BGP mode: each step as it is written there, with what its reader should see.
async fn the_tutorial(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    product
        .cluster()
        .apply(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 65001, listenPort: 17900, routerId: 10.0.0.11}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: bgp-peer}
spec:
  conf: {peerAs: 65000, neighborAddress: 10.0.0.1}
  bfd: {enabled: true, transmitInterval: 100, receiveInterval: 100}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: bgp-eip}
spec: {address: 203.0.113.2-203.0.113.10}
",
        )
        .await?;
    user.apply("config/samples/web.yaml").await?;
    user.rolled_out("default", "deployment/web").await?;
    product
        .cluster()
        .apply(
            r"
apiVersion: v1
kind: Service
metadata:
  name: bgp-svc
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    protocol.openelb.kubesphere.io/v1alpha1: bgp
    eip.openelb.kubesphere.io/v1alpha2: bgp-eip
spec:
  type: LoadBalancer
  externalTrafficPolicy: Cluster
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
",
        )
        .await?;
    let address = product.address("bgp-svc").await?;
    ensure!(
        address == IpAddr::from([203, 0, 113, 2]),
        "the first address of the pool is given, not {address}"
    );
    product.leads_to(address, &ALL).await?;
    let client = product.cluster().network().client();
    product.flows(client, address, 100).await?;
    field_becomes(product, &["eip", "bgp-eip"], ".status.usage", "1").await?;

    // Any node passes connections on to the one pod that is left.
    user.kubectl(&["scale", "deployment/web", "--replicas=1"])
        .await?;
    user.rolled_out("default", "deployment/web").await?;
    product.leads_to(address, &ALL).await?;
    // Those that are ending answer until kube-proxy knows it.
    eventually("one pod to answer", Deadline::LONG, async || {
        let report = product.flows(client, address, 200).await?;
        ensure!(report.by_pod().len() == 1, "{:?}", report.by_pod());
        anyhow::Ok(())
    })
    .await?;
    user.kubectl(&["scale", "deployment/web", "--replicas=6"])
        .await?;
    user.rolled_out("default", "deployment/web").await?;

    user.kubectl(&["delete", "service", "bgp-svc"]).await?;
    product.leads_to(address, &[]).await?;
    field_becomes(product, &["eip", "bgp-eip"], ".status.usage", "0").await?;
    user.kubectl(&["delete", "eip", "bgp-eip"]).await.map(drop)
}

/// The session carries both families from then on.
pub(crate) async fn a_service_has_an_address_of_each_family(
    product: &Product<'_>,
    router: &str,
) -> Result<[IpAddr; 2]> {
    let families = r#"--patch={"spec":{"afiSafis":[
        {"config":{"family":{"afi":"AFI_IP","safi":"SAFI_UNICAST"}}},
        {"config":{"family":{"afi":"AFI_IP6","safi":"SAFI_UNICAST"}}}]}}"#;
    product
        .user()
        .kubectl(&["patch", "bgppeer", router, "--type=merge", families])
        .await?;
    product
        .cluster()
        .apply(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: both}
spec: {address: '203.0.113.128/28,2001:db8:100::/120', protocol: bgp}
---
apiVersion: v1
kind: Service
metadata:
  name: web-both
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: both
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
",
        )
        .await?;
    let addresses = two(product, "web-both").await?;
    let client = product.cluster().network().client();
    for address in addresses {
        product.leads_to(address, &ALL).await?;
        let report = product.flows(client, address, 200).await?;
        ensure!(
            report.by_node().len() == 3,
            "{address}: {:?}",
            report.by_node()
        );
        ensure!(report.kept_client(), "{address}: {report}");
    }
    Ok(addresses)
}

pub(crate) async fn a_service_of_one_family_gets_no_other(product: &Product<'_>) -> Result<()> {
    product
        .cluster()
        .apply(
            r"
apiVersion: v1
kind: Service
metadata:
  name: web-six
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: both
spec:
  type: LoadBalancer
  externalTrafficPolicy: Cluster
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv6]
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
",
        )
        .await?;
    let addresses = product.user().addresses("default", "web-six", 1).await?;
    let [address] = addresses.as_slice() else {
        anyhow::bail!("one address, not {addresses:?}");
    };
    ensure!(address.is_ipv6(), "{address}");
    product.leads_to(*address, &ALL).await?;
    let client = product.cluster().network().client();
    product.flows(client, *address, 100).await.map(drop)
}

async fn the_lan_knows_both_families(product: &Product<'_>) -> Result<()> {
    product
        .cluster()
        .apply(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: lan}
spec: {address: '10.0.0.100-10.0.0.109,fd00:10::1:0-fd00:10::1:ff', protocol: layer2}
---
apiVersion: v1
kind: Service
metadata:
  name: web-lan
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: lan
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
",
        )
        .await?;
    let client = product.cluster().network().lan_client();
    for address in two(product, "web-lan").await? {
        // It may still be on its way to the node that shall lead.
        eventually("one node to answer", Deadline::LONG, async || {
            let leader = product.answerer(address).await?;
            let report = product.flows(client, address, 100).await?;
            ensure!(
                report.by_node().keys().eq([&leader]),
                "{leader} answers, but pods of {:?} did",
                report.by_node()
            );
            ensure!(report.kept_client(), "{address}: {report}");
            anyhow::Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A Service that names its address allows others that name it too, on other ports; one that wants a port in use is told
/// who has it.
async fn two_services_share_an_address(
    product: &Product<'_>,
    [address, six]: [IpAddr; 2],
) -> Result<()> {
    let name = format!("eip.openelb.kubesphere.io/v1alpha1={address},{six}");
    product
        .user()
        .kubectl(&["annotate", "service", "web-both", &name])
        .await?;
    let sharing = |name: &str, port: u16| {
        format!(
            r"
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: both
    eip.openelb.kubesphere.io/v1alpha1: {address}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {{app: web}}
  ports: [{{name: http, port: {port}, targetPort: 8080}}]
"
        )
    };
    product.cluster().apply(&sharing("web-8081", 8081)).await?;
    ensure!(product.address("web-8081").await? == address);
    product.leads_to(address, &ALL).await?;
    answers(product, address, 80).await?;
    answers(product, address, 8081).await?;
    let refused = product.cluster().apply(&sharing("web-again", 80)).await;
    let told = refused.err().context("port 80 was given twice")?;
    let told = format!("{told:#}");
    ensure!(told.contains("default/web-both"), "{told}");
    product
        .user()
        .kubectl(&["delete", "service", "web-8081"])
        .await?;
    product.leads_to(address, &ALL).await
}

/// A pool's protocol changes while Services use it: they keep their addresses, and routers learn them instead.
async fn a_pool_moves_from_the_lan_to_bgp(product: &Product<'_>) -> Result<()> {
    let before = two(product, "web-lan").await?;
    let to = |protocol: &str| format!(r#"--patch={{"spec":{{"protocol":"{protocol}"}}}}"#);
    let user = product.user();
    user.kubectl(&["patch", "eip", "lan", "--type=merge", &to("bgp")])
        .await?;
    for address in before {
        product.leads_to(address, &ALL).await?;
    }
    for address in before {
        eventually("silence on the LAN", Deadline::LONG, async || {
            product.silent_on_lan(address).await
        })
        .await?;
    }
    user.kubectl(&["patch", "eip", "lan", "--type=merge", &to("layer2")])
        .await?;
    for address in before {
        product.leads_to(address, &[]).await?;
        product.answerer(address).await?;
    }
    ensure!(two(product, "web-lan").await? == before, "addresses moved");
    Ok(())
}

/// A pool may lose what nobody uses; what a Service holds stays, and the message says who holds it.
async fn a_pool_grows_and_shrinks_around_its_users(
    product: &Product<'_>,
    six: IpAddr,
) -> Result<()> {
    let user = product.user();
    let to = |address: &str| format!(r#"--patch={{"spec":{{"address":"{address}"}}}}"#);
    let patch = async |address: &str| {
        user.kubectl(&["patch", "eip", "both", "--type=merge", &to(address)])
            .await
    };
    patch("203.0.113.128/27,2001:db8:100::/112").await?;
    field_becomes(product, &["eip", "both"], ".status.poolSize", "65568").await?;
    patch("203.0.113.128/29,2001:db8:100::/120").await?;
    field_becomes(product, &["eip", "both"], ".status.poolSize", "264").await?;
    let refused = patch("203.0.113.128/29").await;
    let told = format!("{:#}", refused.err().context("an address in use fell out")?);
    ensure!(
        told.contains(&six.to_string()) && told.contains("default/web-both"),
        "{told}"
    );
    Ok(())
}

/// Nobody gives addresses, and nobody sees Nodes and pods; routers and the LAN are told what is true all the same.
async fn the_api_server_is_away_for_two_minutes(
    product: &Product<'_>,
    [four, six]: [IpAddr; 2],
) -> Result<()> {
    let cluster = product.cluster();
    let network = cluster.network();
    let api_server = cluster.control().api_server();
    let [lan, _] = two(product, "web-lan").await?;
    // It may still be on its way to the node that shall lead.
    let leader = eventually("one node to answer", Deadline::LONG, async || {
        let seen = product.flows(network.lan_client(), lan, 300).await?;
        let leader = product.answerer(lan).await?;
        ensure!(seen.by_node().keys().eq([&leader]), "{:?}", seen.by_node());
        anyhow::Ok(leader)
    })
    .await?;
    let left: Vec<&str> = ALL.into_iter().filter(|node| *node != leader).collect();
    product.watched_by_bfd().await?;
    api_server.kill().await;
    let clients = [
        (network.client(), four),
        (network.client(), six),
        (network.lan_client(), lan),
    ];
    let losses = product
        .under_traffics(
            "a node loses power while the API server is down",
            clients,
            async || cluster.node(&leader)?.power_off().await,
            async || {
                product.leads_to(four, &left).await?;
                product.leads_to(six, &left).await?;
                let next = product.answerer(lan).await?;
                ensure!(next != leader, "{leader} has no power");
                Ok(())
            },
        )
        .await?;
    for loss in losses {
        loss.within(BY_BFD)?;
    }
    let mut probers = Vec::new();
    for (from, address) in clients {
        probers.push(product.traffic(from, address).await?);
    }
    // A hundred a second, for two minutes; each prober goes on while another is waited for.
    let first = probers.first_mut().context("no prober")?;
    for _ in 0..12 {
        first.answered(1_000).await?;
    }
    for prober in probers {
        let report = prober.stop().await?;
        // Where the machine stands still, BFD ends the sessions of both nodes that are left: the router has no route, and
        // refuses until they are back. Each refusal that was seen here fell into such a moment of the speakers' logs.
        let loss = Loss::in_all(&report);
        println!("without the API server: {loss:?}");
        loss.at_most(report.probes().len() / 1_000)
            .and_then(|loss| loss.within(Duration::from_millis(500)))
            .with_context(|| report.to_string())?;
    }
    api_server.restart().await?;
    cluster.control().ready().await?;
    cluster.node(&leader)?.power_on().await?;
    cluster.ready().await?;
    product.leads_to(four, &ALL).await?;
    product.leads_to(six, &ALL).await?;
    ensure!(two(product, "web-both").await? == [four, six]);
    Ok(())
}

/// The two addresses of a Service, v4 first.
async fn two(product: &Product<'_>, service: &str) -> Result<[IpAddr; 2]> {
    let mut addresses = product.user().addresses("default", service, 2).await?;
    addresses.sort();
    let two = <[IpAddr; 2]>::try_from(addresses);
    let two = two.map_err(|addresses| anyhow::anyhow!("two addresses, not {addresses:?}"))?;
    ensure!(two[0].is_ipv4() && two[1].is_ipv6(), "{two:?}");
    Ok(two)
}

/// Somebody answers HTTP there, as the client behind the router sees it.
async fn answers(product: &Product<'_>, address: IpAddr, port: u16) -> Result<()> {
    let url = format!("http://{}/", std::net::SocketAddr::new(address, port));
    let client = product.cluster().network().client().namespace();
    eventually(&url, Deadline::LONG, async || {
        client
            .run(&["curl", "--silent", "--fail", "--max-time", "1", &url])
            .await
            .map(drop)
    })
    .await
}

async fn field_becomes(
    product: &Product<'_>,
    object: &[&str],
    field: &str,
    wanted: &str,
) -> Result<()> {
    let path = format!("--output=jsonpath={{{field}}}");
    let mut args = vec!["get"];
    args.extend(object);
    args.push(&path);
    let what = format!("{field} of {}", object.join(" "));
    eventually(&what, Deadline::LONG, async || {
        let seen = product.user().kubectl(&args).await?;
        ensure!(seen == wanted, "{seen:?}, not {wanted:?}");
        anyhow::Ok(())
    })
    .await
}
