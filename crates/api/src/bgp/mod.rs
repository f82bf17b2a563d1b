//! BGP as the objects describe it, understood: what BgpConf, BgpPeer and `Eip.spec.bgp` mean on any node.
//!
//! Made from the wire types by `TryFrom`, which names every field that cannot be used, its value, and what is allowed.
//! Nothing here knows a BGP implementation. [`ignored`] names what is accepted without effect.

mod attributes;
mod community;
mod families;
pub mod ignored;
mod peer;
mod read;
mod session;
mod speaker;

pub use attributes::PathAttributes;
pub use community::{Community, CommunityError, ExtendedCommunity, LargeCommunity};
pub use families::{Families, Unannounced};
pub use peer::{Neighbor, Password, Peer, RemoteAs};
pub use session::{Bfd, GracefulRestart, Hops, Timers};
pub use speaker::Speaker;
