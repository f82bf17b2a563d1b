//! What is seen of a network while a test runs, for people who look at one that failed: the last frames that passed, and
//! what each host's kernel knew at the end.

use anyhow::Result;

use crate::capture::listens;
use crate::folder::Folder;
use crate::namespace::Namespace;
use crate::process::{Process, Program};
use crate::record::Record;

/// Where frames pass that are kept: an interface, and the name of what it leads to.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    /// What the files with its frames are called, such as `segment`.
    pub name: &'a str,
    /// Where the interface is.
    pub namespace: &'a Namespace,
    /// The interface.
    pub interface: &'a str,
}

/// Somebody who watches. Dropped, it lets all others write down what they know, and watches no longer.
#[derive(Debug)]
pub struct Witness {
    _record: Record,
    captures: Vec<Process>,
}

impl Witness {
    /// Watches wires, and all hosts of this world, from when this returns. What was seen goes to the folder.
    ///
    /// # Errors
    /// tcpdump is missing or does not start.
    pub async fn start(wires: &[Wire<'_>], folder: &Folder) -> Result<Self> {
        let captures = wires
            .iter()
            .map(|wire| wire.capture(folder))
            .collect::<Result<Vec<_>>>()?;
        for capture in &captures {
            listens(capture).await?;
        }
        let folder = folder.path().to_owned();
        let record = Record::new(move |now| {
            crate::record::run(RECORD, &[folder.as_os_str(), now.as_ref()]);
        });
        Ok(Self {
            _record: record,
            captures,
        })
    }

    /// An error when the frames of a wire are not kept any more.
    ///
    /// # Errors
    /// A tcpdump has ended.
    pub fn check(&self) -> Result<()> {
        self.captures.iter().try_for_each(Process::check)
    }
}

impl Wire<'_> {
    /// Keeps the last frames, in two files of 20 MB that take turns.
    fn capture(&self, folder: &Folder) -> Result<Process> {
        let program = Program::new(&format!("tcpdump-{}", self.name), "tcpdump")
            .args(["-i", self.interface, "-n", "-U", "--immediate-mode"])
            .args(["-s", "200", "-C", "20", "-W", "2", "-Z", "root", "-w"])
            .arg(folder.join(format!("{}.pcap", self.name)));
        self.namespace.program(program).start(folder.path())
    }
}

/// What every host's kernel knows; written to a folder, with the time.
const RECORD: &str = r#"
for file in /proc/self/ns/net /run/netns/*; do
    host=$(basename "$file")
    case $file in /proc/*) host=world ;; */cni-*) continue ;; esac
    {
        echo "==== $2"
        for what in "-d addr" "route show table all" "-6 route show table all" "neigh" "-6 neigh"; do
            echo "== ip $what"
            nsenter --net="$file" ip $what
        done
    } >>"$1/kernel-$host.txt" 2>&1
done
true
"#;
