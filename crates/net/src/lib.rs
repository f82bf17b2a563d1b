//! Sockets and links: every unsafe line of openelb-rs, each with its reason.

mod links;
mod links_watch;
mod mac;

pub use links::{Link, Links, Route};
pub use links_watch::{LinksError, LinksWatch};
pub use mac::{MacAddr, ParseMacError};
