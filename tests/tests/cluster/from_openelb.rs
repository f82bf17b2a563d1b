//! A cluster that runs OpenELB 0.6 becomes one of ours, under traffic: its workloads, webhook, Secrets and CRDs are there,
//! its objects carry its finalizers, and its speakers (GoBGP, which it embeds) announce. Every address stays.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use openelb_tests::cluster::{Cluster, Image};
use openelb_tests::product::{NAMESPACE, Product, RELEASE, helm, page};
use openelb_tests::{Deadline, eventually, scenario, tool};
use serde_json::{Value, json};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// OpenELB's release, as our fixtures have it.
const CHART: &str = "tests/fixtures/openelb/release";
/// Neither is the first free one: an address that was given anew would be another.
const BGP: &str = "203.0.113.5";
const NAMED: &str = "203.0.113.9";
const PAGE: &str = "docs/tasks/migrate-from-openelb.md";
/// The key that OpenELB publishes, as a Secret holds it.
const PUBLISHED: &str = "b3BlbmVsYi1zcGVha2Vycw==";

/// OpenELB's release is upgraded to ours.
#[test]
fn a_release_of_openelb_is_upgraded_and_every_address_stays() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3).audit().start().await?;
        let product = Product::new(&cluster).await?;
        openelb_is_prepared(&product).await?;
        let user = product.user();
        let install = [
            "install",
            RELEASE,
            CHART,
            "--namespace",
            NAMESPACE,
            "--wait",
        ];
        user.helm(&install).await?;
        openelb_announces(&product).await?;
        let before = identities(&product).await?;
        let releases = page::follow(user, PAGE, "Before").await?;
        ensure!(releases.contains("openelb-0.6.1"), "{releases}");

        let client = (cluster.network().client(), BGP.parse::<IpAddr>()?);
        product
            .under_traffic(
                "OpenELB 0.6 is replaced by helm upgrade",
                client,
                async || {
                    page::follow(user, PAGE, "OpenELB installed by helm")
                        .await
                        .map(drop)
                },
                async || product.leads_to(BGP.parse()?, &ALL).await,
            )
            .await?;

        ensure!(identities(&product).await? == before, "an address moved");
        nothing_of_openelb_is_left(&product).await?;
        // helm takes away what the old release had and the new one has not; pods made from now on need the key too.
        speakers_start_again(&product).await?;
        new_objects_are_served(&product).await?;
        let shown = page::follow(user, PAGE, "After").await?;
        ensure!(shown.matches(NAMED).count() >= 2, "{shown}");
        product.judge_rights(&[]).await
    });
}

/// OpenELB was applied from its manifest, or belongs to another tool: helm knows nothing of it.
#[test]
fn openelb_from_a_manifest_is_taken_over_as_the_page_says() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3).audit().start().await?;
        let product = Product::new(&cluster).await?;
        openelb_is_prepared(&product).await?;
        let user = product.user();
        let template = ["template", RELEASE, CHART, "--namespace", NAMESPACE];
        let manifest = helm(Some(user.kubeconfig()), &template).await?;
        cluster.apply(&manifest).await?;
        user.rolled_out(NAMESPACE, "daemonset/openelb-speaker")
            .await?;
        openelb_announces(&product).await?;
        let before = identities(&product).await?;

        match user.install(&[]).await {
            Ok(()) => bail!("helm took over what it has not made, without being told to"),
            Err(refused) => ensure!(refused.to_string().contains("ownership"), "{refused:#}"),
        }
        ensure!(identities(&product).await? == before, "an address moved");

        let client = (cluster.network().client(), BGP.parse::<IpAddr>()?);
        product
            .under_traffic(
                "OpenELB 0.6 from a manifest is taken over",
                client,
                async || {
                    page::follow(user, PAGE, "OpenELB from a manifest")
                        .await
                        .map(drop)
                },
                async || product.leads_to(BGP.parse()?, &ALL).await,
            )
            .await?;

        ensure!(identities(&product).await? == before, "an address moved");
        nothing_of_openelb_is_left(&product).await?;
        speakers_start_again(&product).await?;
        new_objects_are_served(&product).await?;
        product.judge_rights(&[]).await
    });
}

/// CRDs, objects with what OpenELB leaves in them, Secrets and images; nothing runs yet but the web server.
async fn openelb_is_prepared(product: &Product<'_>) -> Result<()> {
    let (cluster, user) = (product.cluster(), product.user());
    for (name, program) in [
        ("openelb.invalid/gobgpd:test", tool("gobgpd")?),
        ("openelb.invalid/certgen:test", PathBuf::from("/bin/true")),
    ] {
        let arguments: &[&str] = match name {
            "openelb.invalid/gobgpd:test" => &["--api-hosts", ":50051", "--pprof-disable"],
            _ => &[],
        };
        let image = Image::of_program(name, &program, arguments).await?;
        cluster.load(&image).await?;
    }
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let file = format!("tests/fixtures/openelb/network.kubesphere.io_{kind}.yaml");
        user.apply(&file).await?;
    }
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    user.kubectl(&established).await?;
    user.kubectl(&["create", "namespace", NAMESPACE]).await?;
    user.apply("tests/fixtures/openelb/objects.yaml").await?;
    user.apply("config/samples/web.yaml").await?;
    user.rolled_out("default", "deployment/web").await?;
    for (service, address) in [("web-bgp", BGP), ("web-named", NAMED)] {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        patch_status(product, "service", service, &status).await?;
    }
    let pool = json!({"status": {
        "firstIP": "203.0.113.0", "lastIP": "203.0.113.15", "poolSize": 16, "v4": true, "usage": 2,
        "used": {BGP: "default/web-bgp", NAMED: "default/web-named"},
    }});
    patch_status(product, "eip", "pool", &pool).await?;
    certificates(product).await
}

async fn patch_status(product: &Product<'_>, kind: &str, name: &str, status: &Value) -> Result<()> {
    let patch = format!("--patch={status}");
    let arguments = [
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        &patch,
    ];
    product.user().kubectl(&arguments).await.map(drop)
}

/// The Secret that OpenELB's job makes: for another Service than ours, and without the authority's key.
async fn certificates(product: &Product<'_>) -> Result<()> {
    let host = format!("openelb-controller.{NAMESPACE}.svc");
    let made = rcgen::generate_simple_self_signed(vec![host])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "openelb-admission", "namespace": NAMESPACE},
        "stringData": {"ca": certificate, "cert": certificate, "key": key},
    });
    product.cluster().apply(&secret.to_string()).await
}

/// What OpenELB's speakers do: each node peers with the router and announces the address.
async fn openelb_announces(product: &Product<'_>) -> Result<()> {
    for node in product.cluster().nodes() {
        let address = node.host().v4.to_string();
        let router = ["global", "as", "65001", "router-id", &address];
        eventually("GoBGP to answer", Deadline::LONG, async || {
            gobgp(&address, &router).await
        })
        .await?;
        gobgp(&address, &["neighbor", "add", "10.0.0.1", "as", "65000"]).await?;
        for announced in [BGP, NAMED] {
            let prefix = format!("{announced}/32");
            gobgp(&address, &["global", "rib", "add", &prefix]).await?;
        }
    }
    product.leads_to(BGP.parse()?, &ALL).await
}

async fn gobgp(address: &str, arguments: &[&str]) -> Result<()> {
    let output = tokio::process::Command::new(tool("gobgp")?)
        .args(["--host", address])
        .args(arguments)
        .output()
        .await?;
    if !output.status.success() {
        bail!(
            "gobgp {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Uid and addresses of both Services.
async fn identities(product: &Product<'_>) -> Result<String> {
    let path = "--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.loadBalancer.ingress[*].ip};{end}";
    let user = product.user();
    let found = user
        .kubectl(&["get", "services", "web-bgp", "web-named", path])
        .await?;
    ensure!(found.contains(BGP) && found.contains(NAMED), "{found}");
    Ok(found)
}

async fn nothing_of_openelb_is_left(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    eventually("OpenELB's finalizers to go", Deadline::LONG, async || {
        let kinds = "eips,bgpconfs,bgppeers,services";
        let left = user
            .kubectl(&[
                "get",
                kinds,
                "--output=jsonpath={.items[*].metadata.finalizers}",
            ])
            .await?;
        // Kubernetes has one of its own on Services with a cloud's load balancer; nobody has put it here.
        ensure!(left.trim().is_empty(), "finalizers: {left}");
        anyhow::Ok(())
    })
    .await?;
    let called = user
        .kubectl(&[
            "get",
            "validatingwebhookconfiguration/openelb-admission",
            "--output=jsonpath={.webhooks[*].clientConfig.service.name}",
        ])
        .await?;
    ensure!(
        !called.is_empty() && called.split(' ').all(|name| name == "openelb-webhook"),
        "the API server calls {called}"
    );
    let theirs = user
        .kubectl(&[
            "get",
            "deployments,daemonsets,pods,services,jobs",
            "--namespace",
            NAMESPACE,
            "--selector=app.kubernetes.io/version=0.6.0",
            "--output=name",
        ])
        .await?;
    ensure!(theirs.is_empty(), "left: {theirs}");
    Ok(())
}

async fn speakers_start_again(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    let key = user
        .kubectl(&[
            "get",
            "secret/memberlist",
            "--namespace",
            NAMESPACE,
            "--output=jsonpath={.data.key}",
        ])
        .await
        .context("the speakers' key")?;
    ensure!(
        !key.is_empty() && key != PUBLISHED,
        "everybody knows the key"
    );
    user.kubectl(&[
        "rollout",
        "restart",
        "daemonset/openelb-speaker",
        "--namespace",
        NAMESPACE,
    ])
    .await?;
    user.rolled_out(NAMESPACE, "daemonset/openelb-speaker")
        .await?;
    product.leads_to(BGP.parse()?, &ALL).await
}

/// The webhook is ours and works, and a new Service gets an address that nobody has.
async fn new_objects_are_served(product: &Product<'_>) -> Result<()> {
    let overlapping = "
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: overlapping}
spec: {address: 203.0.113.8/30}
";
    match product.cluster().apply(overlapping).await {
        Ok(()) => bail!("an Eip that overlaps another was accepted"),
        Err(refused) => ensure!(refused.to_string().contains("pool"), "{refused:#}"),
    }
    let service = "
apiVersion: v1
kind: Service
metadata:
  name: new
  annotations: {lb.kubesphere.io/v1alpha1: openelb, eip.openelb.kubesphere.io/v1alpha2: pool}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";
    product.cluster().apply(service).await?;
    let address = product.address("new").await?.to_string();
    ensure!(address != BGP && address != NAMED, "{address} has an owner");
    let held = product
        .user()
        .kubectl(&["get", "eipaddresses", "--output=name"])
        .await?;
    ensure!(held.lines().count() == 3, "{held}");
    let user = product.user();
    user.kubectl(&["delete", "service", "new"]).await?;
    eventually("the address to be free", Deadline::LONG, async || {
        let held = user
            .kubectl(&["get", "eipaddresses", "--output=name"])
            .await?;
        ensure!(held.lines().count() == 2, "{held}");
        anyhow::Ok(())
    })
    .await
}
