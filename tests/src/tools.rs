//! Finding programs: the parts of the world, and what this workspace builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The path of a part of the world, such as `etcd` or `kubectl`: from the folder in `KUBEBUILDER_ASSETS`, else from the
/// folders in `OPENELB_TOOLS` (written like `PATH`; `OPENELB_TOOLS=$PATH` takes what is installed), else from what
/// `hack/tools/build` built; what is not built yet is built now.
///
/// # Errors
/// The part cannot be built; what the build said has been printed.
pub fn tool(name: &str) -> Result<PathBuf> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS")
        .into_iter()
        .chain(std::env::var_os("OPENELB_TOOLS"));
    for folders in given {
        for folder in std::env::split_paths(&folders) {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    let path = built()?.join(name);
    if !path.exists() {
        build(&[name])?;
    }
    Ok(path)
}

/// Whether the oldest supported Kubernetes is asked for (`OPENELB_KUBERNETES=oldest`) and not the current one.
#[must_use]
pub fn oldest() -> bool {
    std::env::var("OPENELB_KUBERNETES").is_ok_and(|release| release == "oldest")
}

/// The path of a binary of this workspace, such as `openelb-operator`: beside the running program in the target
/// directory, or in the folder that `OPENELB_BINARIES` names.
///
/// # Errors
/// It is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("OPENELB_BINARIES") {
        Some(folder) => PathBuf::from(folder),
        None => target()?,
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there: run `cargo build --workspace --bins` first",
            path.display()
        );
    }
    Ok(path)
}

/// The folder of the profile that the running program was built in. A test program lies in its `deps`.
fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program has no path")?;
    let folder = program.parent().context("this program has no folder")?;
    if folder
        .file_name()
        .is_some_and(|name| name == "deps" || name == "examples")
    {
        return Ok(folder
            .parent()
            .context("the target folder has no parent")?
            .to_owned());
    }
    Ok(folder.to_owned())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/tools/build")
}

fn built() -> Result<&'static Path> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder);
    }
    let output = Command::new(script())
        .arg("--where")
        .output()
        .with_context(|| format!("cannot run {}", script().display()))?;
    if !output.status.success() {
        bail!(
            "hack/tools/build --where: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(FOLDER.get_or_init(|| folder))
}

fn build(parts: &[&str]) -> Result<()> {
    let status = Command::new(script())
        .args(parts)
        .stdout(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", script().display()))?;
    if !status.success() {
        bail!("hack/tools/build {} ended with {status}", parts.join(" "));
    }
    Ok(())
}
