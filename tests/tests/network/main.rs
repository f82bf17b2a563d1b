//! Libraries against kernels and routers, in network namespaces; no Kubernetes.

mod layer2;
