//! Sockets and links: every unsafe line of openelb-rs, each with its reason.

mod groups;
mod links;
mod links_watch;
mod mac;
pub mod neighbours;
mod packet;
pub mod tcp;
pub mod udp;

pub use groups::Groups;
pub use links::{Link, Links, Route};
pub use links_watch::{LinksError, LinksWatch};
pub use mac::{MacAddr, ParseMacError};
pub use packet::{Instruction, MAX_INSTRUCTIONS, PacketSocket, Received};
