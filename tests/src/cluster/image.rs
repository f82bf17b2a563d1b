//! Container images without a registry: an archive that `ctr images import` takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// An image in an archive.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name that pods use; `docker.io/library/` stands before it where it has no registry.
    pub name: String,
    archive: PathBuf,
}

impl Image {
    /// The image in an archive that somebody else made (`docker save`, `buildah push`, `hack/image`).
    #[must_use]
    pub fn archive(name: &str, archive: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            archive: archive.into(),
        }
    }

    /// An image of one program of this machine, with the libraries it is linked to and nothing else. It starts the
    /// program with these arguments.
    ///
    /// # Errors
    /// It is not called inside a [`crate::scenario`], the program is not there, or `tar`, `ldd` or `sha256sum` fails.
    pub async fn of_program(name: &str, program: &Path, args: &[&str]) -> Result<Self> {
        let images = crate::scenario::scratch()?.join("images");
        let work = images.join(name.replace(['/', ':'], "-"));
        std::fs::create_dir_all(&work)?;
        let mut files = vec![program.display().to_string()];
        files.extend(libraries(program).await?);
        let layer = work.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args([
            "--create",
            "--dereference",
            "--absolute-names",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
        ])
        .arg("--transform")
        .arg(format!("s|^{}$|program|;s|^/||", program.display()))
        .arg("--file")
        .arg(&layer)
        .args(&files);
        output(tar).await?;
        let mut sum = Command::new("sha256sum");
        sum.arg(&layer);
        let digest = output(sum).await?.chars().take(64).collect::<String>();
        let mut entrypoint = vec!["/program"];
        entrypoint.extend(args);
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": entrypoint },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        std::fs::write(work.join("config.json"), config.to_string())?;
        let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
        std::fs::write(work.join("manifest.json"), manifest.to_string())?;
        let archive = work.join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&work)
            .args(["manifest.json", "config.json", "layer.tar"]);
        output(tar).await?;
        Ok(Self {
            name: name.to_owned(),
            archive,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.archive
    }
}

/// The files a program is linked to, as `ldd` finds them; none for a static one.
async fn libraries(program: &Path) -> Result<Vec<String>> {
    let answer = Command::new("ldd")
        .arg(program)
        .output()
        .await
        .context("cannot run ldd")?;
    Ok(String::from_utf8_lossy(&answer.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect())
}

async fn output(mut command: Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
