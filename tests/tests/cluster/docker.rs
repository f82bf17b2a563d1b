//! The images by a plain `docker build`, as the documentation has it. There is no Docker daemon: buildah stands in its place,
//! under its name, and takes the same command.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use openelb_tests::product::{page, repository};
use serde_json::Value;

/// A `docker` that is buildah, with a store of its own.
struct Docker {
    folder: tempfile::TempDir,
}

impl Docker {
    fn new() -> Result<Self> {
        let docker = Self {
            folder: tempfile::tempdir()?,
        };
        let store = docker.folder.path().display();
        let script = format!(
            "#!/bin/sh\nexec buildah --storage-driver vfs --root {store}/root --runroot {store}/run \"$@\"\n"
        );
        std::fs::write(docker.program(), script)?;
        std::fs::set_permissions(docker.program(), Permissions::from_mode(0o755))?;
        Ok(docker)
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("docker")
    }

    /// Runs a script in the repository in which `docker` is this one.
    fn follow(&self, script: &str) -> Result<()> {
        let path = std::env::var("PATH")?;
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", script])
            .env("PATH", format!("{}:{path}", self.folder.path().display()));
        said(bash).map(drop)
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program());
        command.args(args);
        said(command)
    }
}

/// What a command says that runs in the repository and must not fail.
fn said(mut command: Command) -> Result<String> {
    let output = command
        // Without a daemon there is nobody else who could make a container.
        .env("BUILDAH_ISOLATION", "chroot")
        .current_dir(repository())
        .output()
        .with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// All files of an image.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_plain_build_makes_the_images_that_the_page_promises() -> Result<()> {
    // Nobody may write the binaries anew meanwhile, as `hack/image` does.
    let images = repository().join("target/image");
    let lock = File::open(images.join("lock")).context("hack/image has not run")?;
    lock.lock_shared()?;

    let docker = Docker::new()?;
    docker.follow(&page::commands("docs/tasks/install.md", "With Docker")?)?;
    for (component, binary, user) in [
        ("webhook", "openelb-webhook", "65532:65532"),
        ("controller", "openelb-operator", "65532:65532"),
        ("speaker", "openelb-operator", "0:0"),
    ] {
        let name = format!("registry.example.com/openelb-rs/openelb-{component}:v0.7.0");
        let answer = docker.run(&["inspect", "--type", "image", &name])?;
        let image: Value = serde_json::from_str(&answer)?;
        let config = image.pointer("/OCIv1/config").context("no configuration")?;
        let says = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
        ensure!(says("/User") == Some(user), "{name}: {config}");
        let program = format!("/{binary}");
        ensure!(says("/Entrypoint/0") == Some(&program), "{name}: {config}");
        let version = "/Labels/org.opencontainers.image.version";
        ensure!(says(version) == Some("v0.7.0"), "{name}: {config}");

        let container = docker.run(&["from", &name])?;
        let root = docker.run(&["mount", &container])?;
        let inside = Path::new(&root).join(binary);
        ensure!(files(Path::new(&root))? == [inside.clone()], "{name}");
        ensure!(std::fs::metadata(&inside)?.mode() & 0o777 == 0o755);
        let built = std::fs::read(images.join("x86_64").join(binary))?;
        ensure!(std::fs::read(&inside)? == built, "{name}");
        // There is nothing beside it, not even a loader, and it needs nothing.
        let mut alone = Command::new("chroot");
        alone.args(["--userspec", user, &root, &program, "--version"]);
        ensure!(said(alone)?.contains("0.7.0"), "{name}");
    }
    Ok(())
}
