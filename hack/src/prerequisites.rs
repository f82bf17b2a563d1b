//! What the tiers need beyond Rust: installed where it is missing, and said.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, program, read, root, say, show};

/// The version of cargo-deny that the checks are written for.
const CARGO_DENY: &str = "0.20.2";

/// Whether this process may make network namespaces without help.
pub(crate) fn is_root() -> bool {
    let mut id = program("id");
    id.arg("-u");
    read(id).is_ok_and(|uid| uid.trim() == "0")
}

/// Where built tools are kept: outside the source tree, so that a fresh clone finds them again.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("OPENELB_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
            home.join(".cache/openelb")
        },
        PathBuf::from,
    )
}

/// The path of cargo-deny in our own cache, built there once.
///
/// # Errors
/// It cannot be built.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let home = cache().join(format!("cargo-deny-{CARGO_DENY}"));
    let path = home.join("bin/cargo-deny");
    if !path.exists() {
        say(&format!(
            "building cargo-deny {CARGO_DENY} (once, about two minutes)"
        ));
        let mut install = cargo();
        install
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                CARGO_DENY,
                "--root",
            ])
            .arg(&home)
            .arg("cargo-deny");
        show(install).context("cargo-deny is needed by the lint tier")?;
    }
    Ok(path)
}

/// Adds rustfmt and clippy where the Rust toolchain came without them.
///
/// # Errors
/// They are missing and there is no rustup, or rustup cannot add them.
pub(crate) fn rust_components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let mut version = cargo();
        version.args([command, "--version"]);
        if read(version).is_ok() {
            continue;
        }
        say(&format!("adding {component} to the Rust toolchain"));
        let mut add = program("rustup");
        add.args(["component", "add", component]);
        show(add).with_context(|| {
            format!("the lint tier needs {component}: install it with the Rust toolchain")
        })?;
    }
    Ok(())
}

/// Fetches the source of every package in `Cargo.lock`, also of those that only other platforms build: cargo-deny reads
/// the licence of each, and runs without a network so that it never changes what it judges.
///
/// # Errors
/// The registry cannot be reached, or `Cargo.lock` is out of date.
pub(crate) fn sources() -> Result<()> {
    let mut fetch = cargo();
    fetch.args(["fetch", "--quiet", "--locked"]);
    show(fetch)
        .map(drop)
        .context("the licence check reads the source of every package")
}

/// Installs the Debian packages that a tier uses, where they are missing.
///
/// # Errors
/// apt fails, or packages are missing and we are not root.
pub(crate) fn apt_packages(tier: &str) -> Result<()> {
    let script = root().join("hack/tools/apt");
    let mut install = program(script);
    install.arg(tier);
    show(install).map(drop)
}

/// Builds the parts of the test world that a tier uses, where they are missing; those of Kubernetes of this release
/// (`current`, `oldest`), or of the one that the environment names.
///
/// # Errors
/// A part cannot be built.
pub(crate) fn tools(parts: &[&str], release: Option<&str>) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut build = program(root().join("hack/tools/build"));
    build.args(parts);
    if let Some(release) = release {
        build.env("OPENELB_KUBERNETES", release);
    }
    show(build).map(drop)
}

/// Installs the Debian package of each program that is not on the path, or of each file that is not there:
/// `(program or absolute path, package)`.
///
/// # Errors
/// apt fails, or a program is missing and we are not root.
pub(crate) fn programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(name, _)| !on_path(name))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "these Debian packages are missing, and installing them needs root: {}",
            missing.join(" ")
        );
    }
    say(&format!("installing {}", missing.join(" ")));
    // A new machine has no package lists yet. Old ones may still do, so that a failure here is not the end.
    let mut lists = program("apt-get");
    lists.args(["update", "--quiet=2"]);
    if show(lists).is_err() {
        say("the package lists could not be refreshed; trying with what is there");
    }
    let mut install = program("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--quiet=2", "--no-upgrade"])
        .arg("--no-install-recommends")
        .args(&missing);
    show(install).map(drop)
}

fn on_path(name: &str) -> bool {
    // An absolute path stands for itself, whatever it is joined to.
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}
