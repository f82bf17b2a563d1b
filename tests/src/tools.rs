//! Finding programs: the parts of the world, and what this workspace builds.

use std::ffi::OsString;
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
    let places = ["KUBEBUILDER_ASSETS", "OPENELB_TOOLS"].map(std::env::var_os);
    if let Some(path) = given(name, places.iter().flatten()) {
        return Ok(path);
    }
    let path = built()?.join(name);
    if !path.exists() {
        crate::scenario::build_outside(name).unwrap_or_else(|| build(&[name]))?;
    }
    Ok(path)
}

/// The first program of this name in places that the user gave, each written like `PATH`.
fn given<'a>(name: &str, places: impl Iterator<Item = &'a OsString>) -> Option<PathBuf> {
    places
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether the oldest supported Kubernetes is asked for (`OPENELB_KUBERNETES=oldest`) and not the current one.
#[must_use]
pub fn oldest() -> bool {
    std::env::var("OPENELB_KUBERNETES").is_ok_and(|release| release == "oldest")
}

/// The minor version of the oldest supported Kubernetes, such as 33, as `hack/tools` pins it.
///
/// # Errors
/// The pin is not there.
pub fn oldest_minor() -> Result<u32> {
    let pins = script().with_file_name("kubernetes-oldest/go.mod");
    let text = std::fs::read_to_string(&pins)
        .with_context(|| format!("cannot read {}", pins.display()))?;
    let minor = text.split_once("k8s.io/kubernetes v1.");
    minor
        .and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok())
        .with_context(|| format!("{} pins no Kubernetes", pins.display()))
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

pub(crate) fn build(parts: &[&str]) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_gave_wins_in_the_order_given() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "assets/etcd",
            "path-a/kubelet",
            "path-b/kubelet",
            "path-b/etcd",
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let at = |path: &str| folder.path().join(path);
        let assets = at("assets").into_os_string();
        let path = std::env::join_paths([at("empty"), at("path-a"), at("path-b")]).unwrap();
        let places = [assets, path];
        assert_eq!(given("etcd", places.iter()), Some(at("assets/etcd")));
        assert_eq!(given("kubelet", places.iter()), Some(at("path-a/kubelet")));
        assert_eq!(given("helm", places.iter()), None);
        assert_eq!(given("etcd", [].iter()), None);
    }
}
