//! Proof that the check for one crypto provider finds another: it is run on a workspace that has one.
//!
//! `deny.toml` names the providers by hand. A name with a typing error, a section that is read no more or a check that
//! stopped looking would all be green; here each name has to be refused, and ring alone has to pass.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::command::{program, root};

/// Crates that would bring TLS or cryptography beside ring, as they are called in the registry.
const OTHERS: &[&str] = &[
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "boring",
    "boring-sys",
    "native-tls",
    "openssl",
    "openssl-sys",
    "rustls-cng-crypto",
    "rustls-graviola",
    "rustls-mbedcrypto-provider",
    "rustls-openssl",
    "rustls-rustcrypto",
    "rustls-symcrypt",
];

/// Runs `deny` on a workspace with ring, which it has to let through, and on one for each other provider, which it has to
/// refuse. Nothing is downloaded: the crates are empty and only have the names.
///
/// # Errors
/// A provider is let through, or ring is not, or the check cannot run.
pub(crate) fn another_is_refused(deny: &Path) -> Result<()> {
    let folder = root().join("target/providers");
    let (passed, said) = check(deny, &folder, "ring")?;
    ensure!(passed, "ring is refused: {said}");
    for name in OTHERS {
        let (passed, said) = check(deny, &folder, name)?;
        let refused = said.contains(&format!("'{name} = 1.0.0' is explicitly banned"));
        ensure!(!passed && refused, "{name} is let through: {said}");
    }
    Ok(())
}

/// Whether a workspace that depends on a crate of this name passes, and what was said of it.
fn check(deny: &Path, folder: &Path, dependency: &str) -> Result<(bool, String)> {
    let manifest = workspace(folder, dependency)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let output = program(deny)
        .arg("--manifest-path")
        .arg(manifest)
        .args(["--offline", "--color", "never", "--config"])
        .arg(root().join("deny.toml"))
        .args(["check", "bans"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start cargo-deny")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), said))
}

/// Writes a workspace of an empty crate that depends on another empty one; its manifest.
fn workspace(folder: &Path, dependency: &str) -> std::io::Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    for part in ["probe/src", "provider/src"] {
        let part = folder.join(part);
        std::fs::create_dir_all(&part)?;
        std::fs::write(part.join("lib.rs"), "")?;
    }
    let package = |name: &str, version: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n")
    };
    std::fs::write(
        folder.join("probe/Cargo.toml"),
        package("probe", "0.0.0")
            + &format!("[dependencies]\n{dependency} = {{ path = \"../provider\" }}\n"),
    )?;
    std::fs::write(
        folder.join("provider/Cargo.toml"),
        package(dependency, "1.0.0"),
    )?;
    std::fs::write(
        &manifest,
        "[workspace]\nresolver = \"3\"\nmembers = [\"probe\", \"provider\"]\n",
    )?;
    // Of the last workspace; it names another crate.
    match std::fs::remove_file(folder.join("Cargo.lock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(manifest),
    }
}
