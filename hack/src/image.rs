//! `hack image`: static binaries, one image `FROM scratch` per component, and an OCI archive of each that containerd takes.
//!
//! No daemon is needed: buildah puts a binary and a configuration together, and the archive goes to a node with
//! `ctr --namespace k8s.io images import FILE`. The same Containerfiles work with `docker build` once the binaries are
//! there (`hack/image --binaries-only`).
//!
//! A build is reproducible: time stamps are fixed, and released binaries do not know where they were compiled.
//! `hack/image --twice` shows it.

mod compile;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::archive::{archive, bytes_to_mb, digest_of, sha256, shown, small_enough};
use crate::command::{program, read, root, say};
use crate::prerequisites;
use compile::compile;

/// What stands before `openelb-COMPONENT` in the images' names, as the chart has it.
const REPOSITORY: &str = "docker.io/openelb-rs";
/// No released image may be larger.
const LIMIT: u64 = 15_000_000;

/// What an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Component {
    /// Admission reviews and their certificates.
    Webhook,
    /// Addresses and status.
    Controller,
    /// BGP, BFD, ARP and NDP on each node.
    Speaker,
}

impl Component {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Controller => "controller",
            Self::Speaker => "speaker",
        }
    }

    pub(crate) fn binary(self) -> &'static str {
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
pub(crate) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub(crate) fn name(self) -> &'static str {
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

    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// What compiles ring's C for musl.
    fn c_compiler(self) -> &'static str {
        match self {
            Self::X86_64 => "musl-gcc",
            Self::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// The compiler and the headers that it includes, each with the Debian package that has it.
    fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::X86_64 => &[("musl-gcc", "musl-tools")],
            Self::Aarch64 => &[
                ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
                (
                    "/usr/aarch64-linux-gnu/include/stdint.h",
                    "libc6-dev-arm64-cross",
                ),
            ],
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
    /// Build everything a second time in another folder, and fail unless both builds are the same, byte by byte.
    #[arg(long, conflicts_with = "binaries_only")]
    twice: bool,
}

/// Builds all images as the lab takes them, quickly.
///
/// # Errors
/// As [`run`].
pub(crate) fn for_the_lab() -> Result<()> {
    all(Profile::Lab, Arch::X86_64).map(drop)
}

/// Builds all images as they are released, and returns the folder of their archives (`openelb-COMPONENT.tar`).
///
/// # Errors
/// As [`run`].
pub(crate) fn released(arch: Arch) -> Result<PathBuf> {
    all(Profile::Release, arch)
}

/// Compiles the product's binaries as they are released, static, and returns the folder that holds them.
///
/// # Errors
/// What they need cannot be installed, or the build fails.
pub(crate) fn released_binaries() -> Result<PathBuf> {
    let arch = Arch::X86_64;
    build(&Args {
        binaries_only: true,
        ..everything(Profile::Release, arch)
    })?;
    Ok(root().join("target/image").join(arch.name()))
}

fn all(profile: Profile, arch: Arch) -> Result<PathBuf> {
    build(&everything(profile, arch))
}

fn everything(profile: Profile, arch: Arch) -> Args {
    Args {
        components: Vec::new(),
        profile,
        arch,
        repository: REPOSITORY.to_owned(),
        tag: None,
        output: None,
        binaries_only: false,
        twice: false,
    }
}

/// Builds what was asked for and says where it is.
///
/// # Errors
/// Something that is needed cannot be installed, a build fails, buildah does, or a second build differs from the first.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build(args).map(|_| ExitCode::SUCCESS)
}

fn build(args: &Args) -> Result<PathBuf> {
    let started = Instant::now();
    let components = if args.components.is_empty() {
        Component::value_variants().to_vec()
    } else {
        args.components.clone()
    };
    let place = root().join("target/image");
    let binaries = place.join(args.arch.name());
    let _alone = alone(&place)?;
    compile(args, &components, &binaries, None)?;
    say(&format!(
        "binaries in {} ({:.1} s)",
        shown(&binaries),
        started.elapsed().as_secs_f32()
    ));
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| place.join("archives").join(args.arch.name()));
    if args.binaries_only {
        return Ok(output);
    }
    prerequisites::programs(&[("buildah", "buildah")])?;
    let first = archives(args, &components, &binaries, &output)?;
    if args.twice {
        let binaries = place.join("again").join(args.arch.name());
        compile(
            args,
            &components,
            &binaries,
            Some(&root().join("target/again")),
        )?;
        let second = archives(args, &components, &binaries, &place.join("again/archives"))?;
        if first != second {
            bail!("the second build differs: {first:?} became {second:?}");
        }
        say("both builds are the same, byte by byte");
    }
    Ok(output)
}

/// Waits until nobody else makes images there, and keeps others out until the file is dropped.
fn alone(place: &Path) -> Result<std::fs::File> {
    std::fs::create_dir_all(place).with_context(|| shown(place))?;
    let path = place.join("lock");
    let file = std::fs::File::create(&path).with_context(|| shown(&path))?;
    file.lock().with_context(|| shown(&path))?;
    Ok(file)
}

/// Makes an image of each component and an archive of it; returns the images' digests and the archives' sums.
fn archives(
    args: &Args,
    components: &[Component],
    binaries: &Path,
    output: &Path,
) -> Result<Vec<(String, String)>> {
    std::fs::create_dir_all(output)
        .with_context(|| format!("cannot make the folder {}", output.display()))?;
    let tag = args
        .tag
        .clone()
        .unwrap_or_else(|| format!("v{}", env!("CARGO_PKG_VERSION")));
    let mut made = Vec::new();
    for component in components.iter().copied() {
        let image = Image {
            component,
            name: format!("{}/openelb-{}:{tag}", args.repository, component.name()),
            archive: output.join(format!("openelb-{}.tar", component.name())),
        };
        let digest = image.build(args.arch, binaries, &tag)?;
        if args.profile == Profile::Release {
            small_enough(&image.archive, LIMIT)?;
        }
        made.push((digest, sha256(&image.archive)?));
    }
    Ok(made)
}

struct Image {
    component: Component,
    name: String,
    archive: PathBuf,
}

impl Image {
    /// Makes the image and its archive, and returns the image's digest.
    fn build(&self, arch: Arch, context: &Path, tag: &str) -> Result<String> {
        let started = Instant::now();
        let file = root()
            .join("images")
            .join(format!("{}.Containerfile", self.component.name()));
        let key = self.key(arch, &[&file, &context.join(self.component.binary())])?;
        let made = self.archive.with_extension("tar.made-from");
        let before = std::fs::read_to_string(&made).unwrap_or_default();
        if let Some(digest) = before.strip_prefix(&key)
            && digest.starts_with("sha256:")
            && self.archive.exists()
        {
            say(&format!("{} is as it was", shown(&self.archive)));
            return Ok(digest.to_owned());
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
        let layout = self.archive.with_extension("oci");
        if layout.exists() {
            std::fs::remove_dir_all(&layout)
                .with_context(|| format!("cannot replace {}", layout.display()))?;
        }
        let mut push = buildah();
        push.args(["push", "--quiet", &self.name]).arg(format!(
            "oci:{}:{}",
            layout.display(),
            self.name
        ));
        read(push).with_context(|| format!("{} cannot be written", layout.display()))?;
        let digest = digest_of(&layout)?;
        archive(&layout, &self.archive)?;
        std::fs::remove_dir_all(&layout)?;
        let size = std::fs::metadata(&self.archive)?.len();
        let binary = std::fs::metadata(context.join(self.component.binary()))?.len();
        say(&format!(
            "{}@{digest} in {} ({:.1} MB, unpacked {:.1} MB, {:.1} s)",
            self.name,
            shown(&self.archive),
            bytes_to_mb(size),
            bytes_to_mb(binary),
            started.elapsed().as_secs_f32()
        ));
        std::fs::write(&made, format!("{key}{digest}"))
            .with_context(|| format!("cannot write {}", made.display()))?;
        Ok(digest)
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
    fn every_processors_compiler_is_installed_where_it_is_missing() {
        for arch in Arch::value_variants() {
            let compiler = arch.c_compiler();
            let mut needs = arch.needs().iter();
            assert!(needs.any(|(program, _)| *program == compiler), "{compiler}");
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
    #[test]
    fn every_image_says_what_it_is() {
        for component in Component::value_variants() {
            let path = root()
                .join("images")
                .join(format!("{}.Containerfile", component.name()));
            let text = std::fs::read_to_string(&path).unwrap();
            for label in ["title", "description", "licenses", "version", "revision"] {
                let label = format!("org.opencontainers.image.{label}=");
                assert!(text.contains(&label), "{label} in {}", path.display());
            }
        }
    }
}
