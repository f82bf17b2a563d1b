//! Libraries against kernels and routers, in network namespaces; no Kubernetes.

mod bgp;
mod layer2;
