//! An example of each kind, as the reference shows it. Tests apply them to a real API server.

/// Examples of a kind, as a YAML stream.
#[must_use]
pub fn example(kind: &str) -> Option<&'static str> {
    match kind {
        "Eip" => Some(EIP),
        "EipAddress" => Some(EIP_ADDRESS),
        "BgpConf" => Some(BGP_CONF),
        "BgpPeer" => Some(BGP_PEER),
        _ => None,
    }
}

const EIP: &str = r#"# On the nodes' own network: ten addresses and an IPv6 network.
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: lan
  annotations:
    eip.openelb.kubesphere.io/is-default-eip: "true"
spec:
  address: 192.168.0.91-192.168.0.100, 2001:db8:0:1::/64
  protocol: layer2
  interface: eth0
  exclude: ["192.168.0.95"]
---
# Behind routers, for the Services of some namespaces.
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: public
spec:
  address: 203.0.113.0/24
  avoidBuggyIPs: true
  namespaces: [shop]
  namespaceSelector:
    team: web
  serviceSelector:
    matchLabels:
      exposure: public
  priority: 10
  sticky: true
  sharing: Never
  bgp:
    communities: ["65000:100", no-export]
    largeCommunities: ["65000:1:2"]
    extendedCommunities: ["rt:65000:100"]
    localPref: 200
    med: 10
    asPathPrepend: 1
    aggregationLength: 32
    peers: [router]
"#;

const EIP_ADDRESS: &str = "# Kept for one Service.
apiVersion: network.kubesphere.io/v1alpha2
kind: EipAddress
metadata:
  name: 192.168.0.99
spec:
  address: 192.168.0.99
  eip: lan
  reserved: true
  reservedFor: [shop/web]
---
# Given to nobody.
apiVersion: network.kubesphere.io/v1alpha2
kind: EipAddress
metadata:
  name: 2001-0db8-0000-0001-0000-0000-0000-0001
spec:
  address: 2001:db8:0:1::1
  eip: lan
  reserved: true
";

const BGP_CONF: &str = "apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata:
  name: default
spec:
  as: 64512
  listenPort: 17900
  asPerRack:
    rack-1: 64513
  gracefulRestart:
    enabled: true
    restartTime: 120
";

const BGP_PEER: &str = r#"# Every field is written as OpenELB has it: timers are strings, families have GoBGP's names.
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata:
  name: router
spec:
  conf:
    neighborAddress: 192.168.0.1
    peerAs: 64500
  timers:
    config:
      holdTime: "9"
      keepaliveInterval: "3"
  afiSafis:
    - config:
        family: {afi: AFI_IP, safi: SAFI_UNICAST}
    - config:
        family: {afi: AFI_IP6, safi: SAFI_UNICAST}
  bfd:
    enabled: true
    transmitInterval: 100
    receiveInterval: 100
    detectMultiplier: 3
  passwordSecretRef:
    name: router-password
  nodeSelector:
    matchLabels:
      openelb.kubesphere.io/rack: rack-1
---
# Over several hops, from an address of ours.
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata:
  name: far-router
spec:
  conf:
    neighborAddress: 2001:db8:ffff::1
  dynamicAsn: external
  sourceAddress: 2001:db8:0:1::10
  ebgpMultihop:
    enabled: true
    multihopTtl: 4
"#;
