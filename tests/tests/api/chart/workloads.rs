//! What keeps the product up while nodes come and go, as the chart asks Kubernetes for it.

use openelb_tests::product::{render, rights};
use serde_json::{Value, json};

use super::{of_kind, workloads};

fn component<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    workloads(objects)
        .into_iter()
        .find(|workload| workload["metadata"]["labels"]["component"] == name)
        .unwrap()
}

fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

#[tokio::test]
async fn speakers_are_replaced_one_at_a_time_and_evicted_last() {
    let objects = render(&[]).await.unwrap();
    let speaker = component(&objects, "speaker");
    let update = &speaker["spec"]["updateStrategy"];
    assert_eq!(update["rollingUpdate"]["maxUnavailable"], 1);
    assert!(update["type"].is_null() || update["type"] == "RollingUpdate");
    assert_eq!(pod(speaker)["priorityClassName"], "system-node-critical");
    for name in ["controller", "webhook"] {
        let workload = component(&objects, name);
        assert_eq!(
            pod(workload)["priorityClassName"],
            "system-cluster-critical"
        );
        assert_eq!(
            workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"],
            0
        );
    }
}

#[tokio::test]
async fn every_workload_runs_on_control_plane_nodes_too() {
    let objects = render(&[]).await.unwrap();
    for workload in workloads(&objects) {
        let tolerations = pod(workload)["tolerations"].as_array().unwrap();
        let wanted = json!({
            "key": "node-role.kubernetes.io/control-plane",
            "operator": "Exists",
            "effect": "NoSchedule",
        });
        assert!(
            tolerations.contains(&wanted),
            "{}",
            workload["metadata"]["name"]
        );
    }
}

#[tokio::test]
async fn every_container_is_probed_by_a_port_that_it_has() {
    let objects = render(&[]).await.unwrap();
    for workload in workloads(&objects) {
        let container = &pod(workload)["containers"][0];
        let ports: Vec<&Value> = container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| &port["name"])
            .collect();
        for (probe, path) in [
            ("startupProbe", "/healthz"),
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{container}");
            assert!(ports.contains(&&get["port"]), "{container}");
        }
    }
}

/// A budget that selects nothing protects nothing, and one that selects two workloads protects neither.
#[tokio::test]
async fn a_disruption_budget_stands_for_each_workload_with_replicas() {
    let objects = render(&[]).await.unwrap();
    let budgets = of_kind(&objects, "PodDisruptionBudget");
    for name in ["controller", "webhook"] {
        let workload = component(&objects, name);
        let found: Vec<&&Value> = budgets
            .iter()
            .filter(|budget| budget["spec"]["selector"] == workload["spec"]["selector"])
            .collect();
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0]["spec"]["maxUnavailable"], 1);
        assert_eq!(
            found[0]["spec"]["unhealthyPodEvictionPolicy"],
            "AlwaysAllow"
        );
    }
    // One replica with a budget could never be drained.
    let alone = render(&["controller.replicas=1", "webhook.replicas=1"])
        .await
        .unwrap();
    assert!(of_kind(&alone, "PodDisruptionBudget").is_empty());
}

#[tokio::test]
async fn replicas_spread_over_nodes_and_zones() {
    let objects = render(&[]).await.unwrap();
    for name in ["controller", "webhook"] {
        let workload = component(&objects, name);
        let selector = &workload["spec"]["selector"];
        let spread = &pod(workload)["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "topology.kubernetes.io/zone");
        assert_eq!(spread["labelSelector"], *selector, "{name}");
        let apart = &pod(workload)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            [0]["podAffinityTerm"];
        assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(apart["labelSelector"], *selector, "{name}");
    }
}

#[tokio::test]
async fn network_policies_open_what_is_served_to_others_and_nothing_else() {
    let objects = render(&["networkPolicy.enable=true"]).await.unwrap();
    let policies = of_kind(&objects, "NetworkPolicy");
    assert_eq!(policies.len(), 2);
    for (name, served) in [
        ("controller", &["metrics"][..]),
        ("webhook", &["webhook", "metrics"]),
    ] {
        let workload = component(&objects, name);
        let policy = policies
            .iter()
            .find(|policy| policy["spec"]["podSelector"] == workload["spec"]["selector"])
            .unwrap();
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        let mut open: Vec<u64> = policy["spec"]["ingress"][0]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|port| port["port"].as_u64())
            .collect();
        let mut ports: Vec<u64> = pod(workload)["containers"][0]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|port| served.iter().any(|name| port["name"] == *name))
            .filter_map(|port| port["containerPort"].as_u64())
            .collect();
        open.sort_unstable();
        ports.sort_unstable();
        assert_eq!(open, ports, "{name}");
    }
}

/// Every process asks the API server, so each has a token; none is anybody else's, least of all the namespace's default.
#[tokio::test]
async fn every_pod_has_an_account_with_rights_of_its_own() {
    let objects = render(&[]).await.unwrap();
    let accounts: Vec<&Value> = of_kind(&objects, "ServiceAccount")
        .into_iter()
        .map(|account| &account["metadata"]["name"])
        .collect();
    let pods = workloads(&objects)
        .into_iter()
        .chain(of_kind(&objects, "Job"));
    for workload in pods {
        let account = &pod(workload)["serviceAccountName"];
        assert!(accounts.contains(&account), "{account}");
        let bound = ["ClusterRoleBinding", "RoleBinding"]
            .iter()
            .flat_map(|kind| of_kind(&objects, kind))
            .filter(|binding| binding["subjects"][0]["name"] == *account);
        for binding in bound {
            assert_eq!(binding["subjects"].as_array().unwrap().len(), 1);
        }
    }
    for role in ["ClusterRole", "Role"] {
        for role in of_kind(&objects, role) {
            assert!(!role.to_string().contains("\"*\""), "{role}");
        }
    }
}

/// A right that no story can be made to use is exempt from being used; what is no right any more needs no exemption.
#[tokio::test]
async fn what_is_exempt_from_being_used_is_a_right() {
    let granted = rights::granted(&render(&[]).await.unwrap());
    let granted: Vec<String> = granted.iter().map(ToString::to_string).collect();
    for (right, reason) in rights::EXEMPT {
        assert!(granted.iter().any(|granted| granted == right), "{right}");
        assert!(!reason.is_empty());
    }
}
