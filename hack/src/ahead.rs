//! The parts of the test world are built beside the tiers that need none of them: on a machine that has none yet, that is
//! most of what the first run waits for, and half of it is downloading.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use crate::command::{program, root, say};

/// Installs and builds, at the lowest priority. Whoever needs a part earlier builds it, or waits for the one that is being
/// built; what fails here fails again there, where it is shown.
const SCRIPT: &str = r#"
trap 'trap - TERM; kill 0' TERM
{
    hack/tools/apt cluster
    hack/tools/build $PARTS
    [ -z "$OLDEST" ] || OPENELB_KUBERNETES=oldest hack/tools/build $OLDEST
} &
wait
"#;

/// What is being built; dropped, it is ended, and goes on another time.
pub(crate) struct Ahead(Child);

impl Ahead {
    /// Begins to build these parts, and these of the oldest Kubernetes that is supported.
    pub(crate) fn start(parts: &[&str], oldest: &[&str]) -> Option<Self> {
        let folder = root().join("target");
        std::fs::create_dir_all(&folder).ok()?;
        let output = File::create(folder.join("tools.log")).ok()?;
        let mut build: Command = program("setpriv");
        build
            // It ends with us, however that is.
            .args(["--pdeathsig", "TERM", "--"])
            .args(["nice", "-n", "19", "setsid", "bash", "-c", SCRIPT])
            .env("PARTS", parts.join(" "))
            .env("OLDEST", oldest.join(" "))
            .stdout(Stdio::from(output.try_clone().ok()?))
            .stderr(Stdio::from(output));
        let child = build.spawn().ok()?;
        say("what later tiers need is built beside the first ones (target/tools.log)");
        Some(Self(child))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut end = program("kill");
        end.arg(self.0.id().to_string()).stderr(Stdio::null());
        let _ = end.status();
        let _ = self.0.wait();
    }
}
