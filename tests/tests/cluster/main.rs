//! The product as users run it: three real nodes, the chart installed by helm with our images, a router, a client.

mod docker;
mod from_openelb;
mod journey;
mod main_job;
mod monitoring;
mod nodes;
mod packaging;
mod pods;
mod quickstart;
mod quickstart_command;
mod rules;
mod uninstall;

use std::time::Duration;

/// Every node.
const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// How many connections may be open when a router spreads its flows anew: it may send the rest of one to another node.
const SPREAD_ANEW: usize = 3;
/// What is found by BFD, or by gossip on a LAN, is over long before this; what a hold time of 90 s or a Lease finds, is not.
const BY_BFD: Duration = Duration::from_secs(5);
/// A router that starts has its sessions back long before the hold times that it forgot would have run out.
const SESSIONS_BACK: Duration = Duration::from_secs(45);
