//! `hack image`: static binaries, one image `FROM scratch` per component, and an archive of each that containerd takes.
//!
//! No daemon is needed: buildah puts a binary and a configuration together, and the archive goes to a node with
//! `ctr --namespace k8s.io images import FILE`. The same Containerfiles work with `docker build` once the binaries are
//! there (`hack/image --binaries-only`).
//!
//! A build is reproducible: time stamps are fixed, and released binaries do not know where they were compiled.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::command::{cargo, program, read, root, say, show};
use crate::prerequisites;

/// What stands before `openelb-COMPONENT` in the images' names, as the chart has it.
const REPOSITORY: &str = "docker.io/openelb-rs";

/// What an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Component {
    /// Admission reviews and their certificates.
    Webhook,
    /// Addresses and status.
    Controller,
    /// BGP, BFD, ARP and NDP on each node.
    Speaker,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Controller => "controller",
            Self::Speaker => "speaker",
        }
    }

    fn binary(self) -> &'static str {
        match self {
            Self::Webhook => "openelb-webhook",
            Self::Controller | Self::Speaker => "openelb-operator",
        }
    }
}

/// How the binaries are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As released: small, slow to compile.
    Release,
    /// For the lab: quick to compile.
    Lab,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Lab => "lab",
        }
    }
}

/// The processor that the images are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As image configurations name it.
    fn platform(self) -> &'static str {
        match self {
            Self::X86_64 => "linux/amd64",
            Self::Aarch64 => "linux/arm64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// What compiles ring's C for musl, and the Debian package that has it.
    fn c_compiler(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("musl-gcc", "musl-tools"),
            Self::Aarch64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        }
    }
}

/// Which images, how built, and where they go.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The components to build; all of them when none is named.
    #[arg(value_enum)]
    components: Vec<Component>,
    /// How to compile.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// The processor to build for.
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// What stands before `openelb-COMPONENT` in the image's name.
    #[arg(long, default_value = REPOSITORY)]
    repository: String,
    /// The tag; `v` and the version of this tree when not given, as the chart has it.
    #[arg(long)]
    tag: Option<String>,
    /// The folder that the archives are written to.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Compile and collect the binaries for `docker build`, and make no image.
    #[arg(long)]
    binaries_only: bool,
}

/// Builds all images as the lab takes them, quickly.
///
/// # Errors
/// As [`run`].
pub(crate) fn for_the_lab() -> Result<()> {
    all(Profile::Lab)
}

/// Builds all images as they are released.
///
/// # Errors
/// As [`run`].
pub(crate) fn released() -> Result<()> {
    all(Profile::Release)
}

fn all(profile: Profile) -> Result<()> {
    run(&Args {
        components: Vec::new(),
        profile,
        arch: Arch::X86_64,
        repository: REPOSITORY.to_owned(),
        tag: None,
        output: None,
        binaries_only: false,
    })
    .map(drop)
}

/// Builds what was asked for and says where it is.
///
/// # Errors
/// Something that is needed cannot be installed, a build fails, or buildah does.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let components = if args.components.is_empty() {
        Component::value_variants().to_vec()
    } else {
        args.components.clone()
    };
    let binaries = compile(args.arch, args.profile, &components)?;
    say(&format!(
        "binaries in {} ({:.1} s)",
        shown(&binaries),
        started.elapsed().as_secs_f32()
    ));
    if args.binaries_only {
        return Ok(ExitCode::SUCCESS);
    }
    prerequisites::programs(&[("buildah", "buildah")])?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| root().join("target/image/archives").join(args.arch.name()));
    std::fs::create_dir_all(&output)
        .with_context(|| format!("cannot make the folder {}", output.display()))?;
    let tag = args
        .tag
        .clone()
        .unwrap_or_else(|| format!("v{}", env!("CARGO_PKG_VERSION")));
    for component in components {
        let image = Image {
            component,
            name: format!("{}/openelb-{}:{tag}", args.repository, component.name()),
            archive: output.join(format!("openelb-{}.tar", component.name())),
        };
        image.build(args.arch, &binaries, &tag)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Compiles the components' binaries and links them into one folder, the build context of the Containerfiles.
fn compile(arch: Arch, profile: Profile, components: &[Component]) -> Result<PathBuf> {
    let (compiler, package) = arch.c_compiler();
    prerequisites::programs(&[(compiler, package)])?;
    rust_target(arch.target())?;
    let mut binaries: Vec<&str> = components.iter().map(|c| c.binary()).collect();
    binaries.sort_unstable();
    binaries.dedup();
    let mut build = cargo();
    build
        .env(format!("CC_{}", arch.target().replace('-', "_")), compiler)
        .args(["build", "--locked", "--profile", profile.name()])
        .args(["--target", arch.target()]);
    if arch == Arch::Aarch64 {
        build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    }
    if profile == Profile::Release {
        build.env("RUSTFLAGS", anonymous_paths());
    }
    for binary in &binaries {
        build.args(["--package", binary]);
    }
    show(build)?;
    let folder = target_dir()?.join(arch.target()).join(profile.name());
    let context = root().join("target/image").join(arch.name());
    std::fs::create_dir_all(&context)
        .with_context(|| format!("cannot make the folder {}", context.display()))?;
    for binary in binaries {
        std::fs::copy(folder.join(binary), context.join(binary))
            .with_context(|| format!("{binary} is not where cargo puts it"))?;
    }
    Ok(context)
}

/// Flags that keep this machine's folders out of the binaries, so that every machine makes the same ones.
fn anonymous_paths() -> String {
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    format!(
        "--remap-path-prefix={}=/openelb --remap-path-prefix={}=/cargo",
        root().display(),
        cargo_home.display()
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

struct Image {
    component: Component,
    name: String,
    archive: PathBuf,
}

impl Image {
    fn build(&self, arch: Arch, context: &Path, tag: &str) -> Result<()> {
        let started = Instant::now();
        let file = root()
            .join("images")
            .join(format!("{}.Containerfile", self.component.name()));
        let key = self.key(arch, &[&file, &context.join(self.component.binary())])?;
        let made = self.archive.with_extension("tar.made-from");
        if self.archive.exists() && std::fs::read_to_string(&made).is_ok_and(|of| of == key) {
            say(&format!("{} is as it was", shown(&self.archive)));
            return Ok(());
        }
        // What is there, or will be there when we are stopped, is not made from this.
        let _ = std::fs::remove_file(&made);
        let mut build = buildah();
        build
            .args(["build", "--quiet", "--isolation", "chroot"])
            .args(["--timestamp", "0", "--platform", arch.platform()])
            .args(["--build-arg", &format!("VERSION={tag}")])
            .args(["--build-arg", &format!("REVISION={}", revision())])
            .args(["--tag", &self.name, "--file"])
            .arg(&file)
            .arg(context);
        read(build).with_context(|| format!("{} cannot be built", self.name))?;
        // An archive is not overwritten but appended to, which buildah refuses.
        if self.archive.exists() {
            std::fs::remove_file(&self.archive)
                .with_context(|| format!("cannot replace {}", self.archive.display()))?;
        }
        let mut push = buildah();
        push.args(["push", "--quiet", &self.name]).arg(format!(
            "docker-archive:{}:{}",
            self.archive.display(),
            self.name
        ));
        read(push).with_context(|| format!("{} cannot be written", self.archive.display()))?;
        let size = std::fs::metadata(&self.archive)?.len();
        if size == 0 {
            bail!("{} is empty", self.archive.display());
        }
        say(&format!(
            "{} in {} ({:.1} MB, {:.1} s)",
            self.name,
            shown(&self.archive),
            bytes_to_mb(size),
            started.elapsed().as_secs_f32()
        ));
        std::fs::write(&made, key).with_context(|| format!("cannot write {}", made.display()))
    }

    /// All that the archive is made from: two that are made from the same are the same.
    fn key(&self, arch: Arch, files: &[&Path]) -> Result<String> {
        let mut sums = program("sha256sum");
        sums.args(files);
        Ok(format!(
            "{} {} {}\n{}",
            self.name,
            arch.platform(),
            revision(),
            read(sums)?
        ))
    }
}

/// buildah with its storage in our own target folder, so that it shares nothing with what else is on the machine.
fn buildah() -> Command {
    let storage = root().join("target/image/storage");
    let mut command = program("buildah");
    command
        .args(["--storage-driver", "vfs", "--root"])
        .arg(storage.join("root"))
        .arg("--runroot")
        .arg(storage.join("run"));
    command
}

/// The commit that is built, or `unknown` outside a repository.
fn revision() -> String {
    let mut git = program("git");
    git.args(["rev-parse", "HEAD"]);
    read(git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people to read")]
fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_a_containerfile_that_starts_its_binary() {
        for component in Component::value_variants() {
            let path = root()
                .join("images")
                .join(format!("{}.Containerfile", component.name()));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("\nFROM scratch\n"), "{}", path.display());
            let entry = format!("ENTRYPOINT [\"/{}\"]", component.binary());
            assert!(text.contains(&entry), "{}", path.display());
        }
    }

    #[test]
    fn only_the_speaker_runs_as_root() {
        for component in Component::value_variants() {
            let path = root()
                .join("images")
                .join(format!("{}.Containerfile", component.name()));
            let text = std::fs::read_to_string(&path).unwrap();
            let root_user = text.contains("\nUSER 0:0\n");
            assert_eq!(root_user, *component == Component::Speaker);
        }
    }
}
