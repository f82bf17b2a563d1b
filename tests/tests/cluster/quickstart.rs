//! The tour of the README: a cluster, the chart, the samples, traffic, and a node without power.
//!
//! `hack/quickstart` runs this and shows what it prints.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, shown};
use openelb_tests::{Host, scenario, tool};

#[test]
fn tour() {
    scenario(async || -> Result<()> {
        let began = Instant::now();
        let cluster = step(
            "three nodes with containerd, kubelet and kube-proxy, a router with FRR",
            Box::pin(Cluster::start(3)),
        )
        .await?;
        let product = step("our images on every node", Product::new(&cluster)).await?;
        step(
            "helm upgrade --install openelb charts/openelb --namespace openelb-system --create-namespace --wait",
            product.install(&[]),
        )
        .await?;
        let (bgp, lan) = step("kubectl apply --filename config/samples", product.samples()).await?;
        step("the router learns the address from every node", async {
            product.leads_to(bgp, &["n1", "n2", "n3"]).await?;
            product.watched_by_bfd().await
        })
        .await?;
        step("one node answers for the LAN's address", async {
            product.answerer(lan).await.map(drop)
        })
        .await?;
        let network = cluster.network();
        step("both addresses answer, through every node", async {
            product.answers(network.client(), bgp).await?;
            product.answers(network.lan_client(), lan).await
        })
        .await?;
        show_objects(&product).await?;
        show_network(&product, bgp, lan).await?;
        lose_a_node(&product, bgp).await?;
        if std::env::var_os("OPENELB_KEEP_WORLD").is_some() {
            how_to_go_on(&product).await?;
        }
        say(&format!("all of it took {}", shown(began.elapsed())));
        // `hack/quickstart` waits for these words.
        say("the tour is complete");
        Ok(())
    });
}

/// Does something, and says what and how long it took.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    println!("... {what}");
    let began = Instant::now();
    let done = work.await.with_context(|| format!("failed: {what}"))?;
    println!(" ok {} ({})", what, shown(began.elapsed()));
    Ok(done)
}

fn say(text: &str) {
    println!("==> {text}");
}

async fn show_objects(product: &Product<'_>) -> Result<()> {
    for args in [
        &["get", "eip,eipaddress,svc,bgppeer"][..],
        &["get", "pods", "--namespace", NAMESPACE, "--output=wide"],
    ] {
        say(&format!("kubectl {}", args.join(" ")));
        println!("{}", product.user().kubectl(args).await?);
    }
    Ok(())
}

async fn show_network(product: &Product<'_>, bgp: IpAddr, lan: IpAddr) -> Result<()> {
    let network = product.cluster().network();
    say(&format!("ip route show {bgp}, on the router"));
    let route = ["ip", "route", "show", &bgp.to_string()];
    println!("{}", network.router().namespace().run(&route).await?);
    say(&format!(
        "curl http://{bgp}/, six times from the client behind the router"
    ));
    for _ in 0..6 {
        print!("{}", curl(network.client(), bgp).await?);
    }
    say(&format!(
        "curl http://{lan}/, three times from the client on the LAN"
    ));
    for _ in 0..3 {
        print!("{}", curl(network.lan_client(), lan).await?);
    }
    say(&format!("ip neighbor show {lan}, on that client"));
    let neighbor = ["ip", "neighbor", "show", &lan.to_string()];
    println!("{}", network.lan_client().namespace().run(&neighbor).await?);
    Ok(())
}

async fn curl(from: &Host, address: IpAddr) -> Result<String> {
    let url = format!("http://{address}/");
    from.namespace()
        .run(&["curl", "--silent", "--show-error", "--max-time", "2", &url])
        .await
}

async fn lose_a_node(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    say("node n3 loses its power, under 100 new connections a second");
    let loss = product
        .under_traffic(
            "a node loses power (BFD 3 × 100 ms)",
            (cluster.network().client(), bgp),
            async || cluster.node("n3")?.power_off().await,
            async || product.leads_to(bgp, &["n1", "n2"]).await,
        )
        .await?;
    say(&format!(
        "traffic goes on over n1 and n2; connections failed for {}: {} of {}",
        shown(loss.trouble),
        loss.failed,
        loss.tried
    ));
    ensure!(loss.trouble < Duration::from_secs(30), "{loss:?}");
    Ok(())
}

/// For a world that stays: its node comes back, and whoever enters it is told where things are.
async fn how_to_go_on(product: &Product<'_>) -> Result<()> {
    let cluster = product.cluster();
    let back = async {
        cluster.node("n3")?.power_on().await?;
        cluster.ready().await
    };
    step("node n3 has its power again", back).await?;
    let tools = tool("kubectl")?;
    let tools = tools.parent().context("kubectl has no folder")?;
    say("inside this world:");
    println!(
        "  export KUBECONFIG={} PATH={}:$PATH",
        product.user().kubeconfig().display(),
        tools.display()
    );
    println!("  kubectl get nodes            the cluster");
    println!("  ip netns exec n1 bash        a node; also n2, n3");
    println!("  ip netns exec router bash    the router");
    println!(
        "  ip netns exec client bash    the client behind the router; `lan` is on the nodes' network"
    );
    Ok(())
}
