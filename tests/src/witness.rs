//! What is seen of a network while a test runs, for people who look at one that failed: the last frames that passed, and
//! what each host's kernel knew at the end.

use anyhow::{Result, ensure};

use crate::folder::Folder;
use crate::namespace::Namespace;
use crate::process::{Process, Program};
use crate::record::Registration;
use crate::wait::{Deadline, eventually};

/// Somebody who watches. Dropped, it lets all others write down what they know, and watches no longer.
#[derive(Debug)]
pub struct Witness {
    capture: Process,
    _record: Registration,
}

impl Witness {
    /// Watches an interface, and all hosts of this world, from when this returns. What was seen goes to the folder.
    ///
    /// # Errors
    /// tcpdump is missing or does not start.
    pub async fn start(namespace: &Namespace, interface: &str, folder: &Folder) -> Result<Self> {
        let capture = capture(interface, folder);
        let capture = namespace.program(capture).start(folder.path())?;
        eventually("tcpdump to listen", Deadline::SHORT, async || {
            capture.check()?;
            let said = capture.log();
            ensure!(said.contains("listening on"), "{said}");
            anyhow::Ok(())
        })
        .await?;
        let folder = folder.path().to_owned();
        let record = crate::record::register(move |now| {
            crate::record::run(RECORD, &[folder.as_os_str(), now.as_ref()]);
        });
        Ok(Self {
            capture,
            _record: record,
        })
    }

    /// An error when no frame is kept any more.
    ///
    /// # Errors
    /// tcpdump has ended.
    pub fn check(&self) -> Result<()> {
        self.capture.check()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        crate::record::before_the_end();
    }
}

/// Keeps the last frames, in two files of 20 MB that take turns.
fn capture(interface: &str, folder: &Folder) -> Program {
    Program::new("tcpdump", "tcpdump")
        .args(["-i", interface, "-n", "-U", "--immediate-mode"])
        .args(["-s", "200", "-C", "20", "-W", "2", "-Z", "root", "-w"])
        .arg(folder.join("segment.pcap"))
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
