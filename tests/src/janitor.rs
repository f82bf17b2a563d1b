//! What cleans up after this program, however it ends.
//!
//! Namespaces and processes go by themselves; folders and control groups do not. A small shell program outside every
//! world, in a session of its own so that Ctrl-C does not reach it, is told of each folder. It removes a folder, and
//! the control groups named after it, when it is told to, and all it still knows of when its input ends: that is when
//! the last program that holds the other side is gone.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

const SCRIPT: &str = r#"
clean() {
    for attempt in $(seq 300); do
        left=
        for group in /sys/fs/cgroup/*/"$(basename "$1")"-* /sys/fs/cgroup/"$(basename "$1")"-*; do
            [ -d "$group" ] || continue
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$group" ] && left=yes
        done
        [ "$2" = groups ] || rm -rf "$1" 2>/dev/null || left=yes
        [ "$left" ] || return
        sleep 0.1
    done
}
declare -A known
while read -r verb folder; do
    case $verb in
    watch) known[$folder]=yes ;;
    keep) unset "known[$folder]"; clean "$folder" groups & ;;
    remove) unset "known[$folder]"; clean "$folder" & ;;
    esac
done
for folder in "${!known[@]}"; do clean "$folder" & done
wait
"#;

static INPUT: LazyLock<Mutex<Option<ChildStdin>>> = LazyLock::new(|| {
    let janitor = Command::new("setsid")
        .args(["bash", "-c", SCRIPT, "openelb-janitor"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Mutex::new(janitor.ok().and_then(|mut janitor| janitor.stdin.take()))
});

/// Says what shall become of a folder: `watch`, `keep` or `remove`. Inside a world the folder is part of the world's
/// own, and nothing is to be done.
fn tell(verb: &str, folder: &Path) {
    if crate::scenario::inside().is_some() {
        return;
    }
    let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(input) = input.as_mut() {
        // A janitor that is gone cleans nothing up, and is no reason to fail a test.
        let _ = writeln!(input, "{verb} {}", folder.display());
    }
}

/// Remembers a folder, to be removed should this program die.
pub(crate) fn watch(folder: &Path) {
    tell("watch", folder);
}

/// Leaves a folder where it is; its control groups go.
pub(crate) fn keep(folder: &Path) {
    tell("keep", folder);
}

/// Removes a folder and its control groups, as soon as they are free.
pub(crate) fn remove(folder: &Path) {
    tell("remove", folder);
}
