//! What runs on the hosts of a test LAN: a speaker without Kubernetes, an echo server, and the prober that judges.

mod ask;
mod echo;
mod node;
mod probe;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Lead and answer addresses as the speaker does, without Kubernetes.
    Node(node::Args),
    /// Answer UDP datagrams with the own name, and TCP connections likewise.
    Echo(echo::Args),
    /// Time the answers to ARP requests.
    Ask(ask::Args),
    /// Send a datagram every few milliseconds and write who answered.
    Probe(probe::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match Command::parse() {
        Command::Node(args) => node::run(args).await,
        Command::Echo(args) => echo::run(args).await,
        Command::Ask(args) => ask::run(args).await,
        Command::Probe(args) => probe::run(args).await,
    }
}
