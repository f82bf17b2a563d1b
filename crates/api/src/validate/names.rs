//! Keys that the rules look at.

/// Opt-in annotation.
pub(super) const OPT_IN: &str = "lb.kubesphere.io/v1alpha1";
/// Its value.
pub(super) const OPT_IN_VALUE: &str = "openelb";
/// Load balancer class.
pub(super) const CLASS: &str = "openelb.kubesphere.io/openelb";
/// Requested address.
pub(super) const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
/// Requested Eip.
pub(super) const EIP: &str = "eip.openelb.kubesphere.io/v1alpha2";
/// Requested protocol.
pub(super) const PROTOCOL: &str = "protocol.openelb.kubesphere.io/v1alpha1";
/// NodeProxy mode.
pub(super) const NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/type";
