//! Static binaries for the images, the same on every machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Arch, Args, Component, Profile};
use crate::command::{cargo, program, read, root, show};
use crate::prerequisites;

/// Compiles the components' binaries and copies them into `context`, the build context of the Containerfiles. `target` is
/// where cargo builds, if not where it always does.
pub(super) fn compile(
    args: &Args,
    components: &[Component],
    context: &Path,
    target: Option<&Path>,
) -> Result<()> {
    let (arch, profile) = (args.arch, args.profile);
    prerequisites::programs(arch.needs())?;
    rust_target(arch.target())?;
    let mut binaries: Vec<&str> = components.iter().map(|c| c.binary()).collect();
    binaries.sort_unstable();
    binaries.dedup();
    let target = match target {
        Some(target) => target.to_owned(),
        None => target_dir()?,
    };
    let mut build = cargo();
    build
        .env("CARGO_TARGET_DIR", &target)
        .env(
            format!("CC_{}", arch.target().replace('-', "_")),
            arch.c_compiler(),
        )
        .args(["build", "--locked", "--profile", profile.name()])
        .args(["--target", arch.target()]);
    if arch == Arch::Aarch64 {
        build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    }
    if profile == Profile::Release {
        build.env("RUSTFLAGS", anonymous_paths(&target));
    }
    for binary in &binaries {
        build.args(["--package", binary]);
    }
    show(build)?;
    let folder = target.join(arch.target()).join(profile.name());
    std::fs::create_dir_all(context)
        .with_context(|| format!("cannot make the folder {}", context.display()))?;
    for binary in binaries {
        std::fs::copy(folder.join(binary), context.join(binary))
            .with_context(|| format!("{binary} is not where cargo puts it"))?;
    }
    Ok(())
}

/// Flags that keep this machine's folders out of the binaries, so that every machine makes the same ones.
fn anonymous_paths(target: &Path) -> String {
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    format!(
        "--remap-path-prefix={}=/openelb --remap-path-prefix={}=/cargo --remap-path-prefix={}=/target",
        root().display(),
        cargo_home.display(),
        // The last one that fits wins.
        target.display()
    )
}

/// The folder that cargo builds in, which a user may have moved.
fn target_dir() -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Metadata = serde_json::from_str(&read(metadata)?)?;
    Ok(metadata.target_directory)
}

/// Adds the standard library for `target` where rustup is in charge; otherwise the toolchain is trusted to have it.
fn rust_target(target: &str) -> Result<()> {
    let mut list = program("rustup");
    list.args(["target", "list", "--installed"]);
    let Ok(installed) = read(list) else {
        return Ok(());
    };
    if installed.lines().any(|line| line.trim() == target) {
        return Ok(());
    }
    let mut add = program("rustup");
    add.args(["target", "add", target]);
    show(add).map(drop)
}
