//! Every annotation, label, finalizer and name that has a meaning, with who reads and who writes it.
//!
//! Keys of Porter, as OpenELB was called up to 0.4.3 (`eip.porter.kubesphere.io/v1alpha1` and its like, the value
//! `porter`), have none: OpenELB stopped reading them too.

/// The API group of all our kinds.
pub const GROUP: &str = "network.kubesphere.io";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha2";

/// Service annotation, set by users or the webhook, read by all: the opt-in; the value must be [`OPT_IN_VALUE`].
pub const OPT_IN: &str = "lb.kubesphere.io/v1alpha1";
/// The value of [`OPT_IN`] that asks for us.
pub const OPT_IN_VALUE: &str = "openelb";
/// `spec.loadBalancerClass` of a Service that is ours without an annotation.
pub const LOAD_BALANCER_CLASS: &str = "openelb.kubesphere.io/openelb";

/// Service annotation (set by users): the name of the Eip to take the address from.
/// Service **label** of the same key (written by the controller): the Eip that gave the address.
pub const EIP: &str = "eip.openelb.kubesphere.io/v1alpha2";
/// Service annotation, set by users: the address wanted, or several separated by commas (one for each family). Wins
/// over `spec.loadBalancerIP`.
pub const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
/// Service annotation, written by the controller beside the status and read by it: the addresses that the Service has,
/// so that they are found again when somebody clears the status or restores the Service from a backup without one.
pub const HELD: &str = "openelb.kubesphere.io/addresses";
/// Annotation of an EipAddress whose address was in use before openelb-rs knew of it: it is never probed.
pub const ADOPTED: &str = "openelb.kubesphere.io/adopted";
/// Service annotation from OpenELB 0.5, set by users: narrows the automatic choice to Eips of this protocol.
pub const PROTOCOL: &str = "protocol.openelb.kubesphere.io/v1alpha1";
/// Service annotation from OpenELB 0.5, set by users: the node that should announce by Layer 2 when it is able.
pub const LAYER2_NODE: &str = "layer2.openelb.kubesphere.io/v1alpha1";
/// Service annotation, set by users and read by the controller: NodeProxy mode (`deployment` or `daemonset`); such a
/// Service gets no address.
pub const NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/type";

/// Eip annotation, set by users, read by webhook and controller: `"true"` makes it the default pool.
pub const DEFAULT_EIP: &str = "eip.openelb.kubesphere.io/is-default-eip";
/// Annotation on an Eip or EipAddress, set by users and read by the webhook: `"true"` lets it be deleted although it is
/// in use.
pub const FORCE_DELETE: &str = "openelb.kubesphere.io/force-delete";
/// Namespace label, set by users, read by the API server for the webhook: `"disabled"` keeps the webhook from opting
/// Services of the namespace in.
pub const DEFAULTING: &str = "openelb.kubesphere.io/default-eip";

/// Label on BgpConf and BgpPeer, set by users and read by speaker and controller, any value: hands off, the CNI looks
/// after it.
pub const CNI: &str = "openelb.kubesphere.io/cni";
/// Node label, set by users and read by speakers: the rack, see `BgpConf.spec.asPerRack`.
pub const RACK: &str = "openelb.kubesphere.io/rack";
/// Node label of Kubernetes, set by users and read by speakers: no load balancer may send traffic to this node.
pub const EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Finalizer that OpenELB left on Services, BgpConfs and BgpPeers; we take it off when met and never add it.
pub const OPENELB_FINALIZER: &str = "finalizer.lb.kubesphere.io/v1alpha1";
/// Finalizer that OpenELB left on Services in NodeProxy mode; we take it off when met and never add it.
pub const OPENELB_NODE_PROXY_FINALIZER: &str = "node-proxy.openelb.kubesphere.io/finalizer";
/// Every finalizer that OpenELB left on Services.
pub const OPENELB_SERVICE_FINALIZERS: [&str; 2] = [OPENELB_FINALIZER, OPENELB_NODE_PROXY_FINALIZER];
/// Finalizer that OpenELB left on Eips; we take it off when met and never add it.
pub const OPENELB_IPAM_FINALIZER: &str = "finalizer.ipam.kubesphere.io/v1alpha1";

/// The only BgpConf that counts.
pub const BGP_CONF: &str = "default";
/// The namespace we are installed in unless told otherwise.
pub const NAMESPACE: &str = "openelb-system";
/// The Lease of the leading controller: OpenELB's own, so that the two never allocate side by side.
pub const CONTROLLER_LEASE: &str = "openelb-controller";
/// Annotation on [`ADMISSION_SECRET`], written and read by the webhook: until when authorities other than the signing one
/// stay in the bundle (RFC 3339).
pub const CA_OVERLAP_UNTIL: &str = "openelb.kubesphere.io/ca-overlap-until";
/// The Secret with the webhook's certificates: OpenELB's own, which is taken over.
pub const ADMISSION_SECRET: &str = "openelb-admission";
/// The webhook configurations' name.
pub const ADMISSION_CONFIGURATION: &str = "openelb-admission";
/// The Secret with the gossip key of the speakers, in its data key [`MEMBERLIST_KEY`]; made by the installation.
pub const MEMBERLIST_SECRET: &str = "memberlist";
/// Prefix of the Leases of speakers with `--membership lease`, followed by the node's name.
pub const SPEAKER_LEASE: &str = "openelb-speaker-";
/// Label on the Leases of speakers, written and read by them; the value is of no meaning.
pub const SPEAKER_LEASE_LABEL: &str = "openelb.kubesphere.io/speaker";
/// Annotation on the Lease of a speaker, written and read by speakers: what it says about itself, as JSON.
pub const SPEAKER_FACTS: &str = "openelb.kubesphere.io/speaker-facts";
/// The data key of [`MEMBERLIST_SECRET`].
pub const MEMBERLIST_KEY: &str = "key";

/// Condition types.
pub mod conditions {
    /// On our own kinds: the object is understood and in force.
    pub const READY: &str = "Ready";
    /// On BgpConf and BgpPeer: what of it is honoured, and what is not.
    pub const ACCEPTED: &str = "Accepted";
    /// On an Eip: another, older Eip holds some of its addresses.
    pub const OVERLAPPING: &str = "Overlapping";
    /// On an Eip: no address is free.
    pub const EXHAUSTED: &str = "Exhausted";
    /// On an Eip: its spec cannot be used. On an EipAddress: it was made by hand and breaks the rules of reservations.
    pub const INVALID: &str = "Invalid";
    /// On an Eip: `status.used` lists only the first addresses.
    pub const USED_TRUNCATED: &str = "UsedTruncated";
    /// On an EipAddress: a foreign host claims the address.
    pub const CONFLICT: &str = "Conflict";
    /// Its reason where the address is not announced for that: it was found before the first use, and the Eip says
    /// `probe: Avoid`. The controller gives the Service another address.
    pub const SET_ASIDE: &str = "SetAside";
    /// On an EipAddress: it lies in no subnet of the interface that it is announced on.
    pub const OUTSIDE_SUBNET: &str = "OutsideSubnet";
    /// On an EipAddress: the kernel of the announcing node answers ARP for it by itself, and so do those of other nodes
    /// that are set up alike.
    pub const KERNEL_ANSWERS: &str = "KernelAnswers";
    /// On an EipAddress that a Service holds or that is kept for one: no Eip contains the address any more.
    pub const ORPHANED: &str = "Orphaned";
    /// On a Service: it has the addresses that it asks for.
    pub const ALLOCATED: &str = "openelb.kubesphere.io/Allocated";
    /// On a Service: the network knows where its addresses live.
    pub const ANNOUNCED: &str = "openelb.kubesphere.io/Announced";
}

/// Reasons of conditions that say how an object was understood.
pub mod reasons {
    /// Everything that the object says is in force.
    pub const VALID: &str = "Valid";
    /// The object cannot be used; the message says which fields, what they hold, and what is allowed.
    pub const INVALID: &str = "Invalid";
    /// The object is in use, without what the message names: it breaks rules that the webhook would have refused it by.
    pub const PARTLY_USED: &str = "PartlyUsed";
    /// On BgpConf and BgpPeer: every field is honoured.
    pub const ACCEPTED: &str = "Accepted";
    /// On BgpConf and BgpPeer: the message names fields that OpenELB's objects may have and that do nothing here.
    pub const WITHOUT_EFFECT: &str = "FieldsWithoutEffect";
    /// On a Service and on an EipAddress: the address was taken out of its Eip.
    pub const ADDRESS_REMOVED: &str = "AddressRemoved";
    /// On a Service: its Eip has protocol vip, whose addresses are given and not announced.
    pub const NOT_SUPPORTED_YET: &str = "NotSupportedYet";
}
