//! Archives that are the same whenever and by whom they are made, and what is asked of them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{program, read, root};

/// Fails when a file is larger than `limit` bytes.
///
/// # Errors
/// It is, or it is not there.
pub(crate) fn small_enough(archive: &Path, limit: u64) -> Result<()> {
    let size = std::fs::metadata(archive)?.len();
    if size > limit {
        bail!(
            "{} has {:.1} MB, and no image may have more than {:.1}",
            shown(archive),
            bytes_to_mb(size),
            bytes_to_mb(limit)
        );
    }
    Ok(())
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let mut sum = program("sha256sum");
    sum.arg(file);
    Ok(read(sum)?.chars().take(64).collect())
}

/// The digest of the one image in an OCI layout.
///
/// # Errors
/// There is no layout, or it holds more or less than one image.
pub(crate) fn digest_of(layout: &Path) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Index {
        manifests: Vec<Manifest>,
    }
    #[derive(serde::Deserialize)]
    struct Manifest {
        digest: String,
    }
    let text = std::fs::read_to_string(layout.join("index.json"))
        .with_context(|| format!("{} is no OCI layout", layout.display()))?;
    let index: Index = serde_json::from_str(&text)?;
    match <[Manifest; 1]>::try_from(index.manifests) {
        Ok([manifest]) => Ok(manifest.digest),
        Err(manifests) => bail!("{} images in one layout", manifests.len()),
    }
}

/// Packs a folder so that the same content is the same archive, whenever and by whom it was made.
///
/// # Errors
/// `tar` fails.
pub(crate) fn archive(folder: &Path, file: &Path) -> Result<()> {
    let mut tar = program("tar");
    tar.args(["--create", "--sort=name", "--mtime=@0", "--format=ustar"])
        .args([
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=u=rwX,go=rX",
        ])
        .arg("--file")
        .arg(file)
        .arg("--directory")
        .arg(folder);
    let mut entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    tar.args(entries);
    read(tar)
        .map(drop)
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// A path as people read it: from the root of the repository.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people to read")]
pub(crate) fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_too_large_is_refused() {
        let file = root().join("LICENSE");
        let size = std::fs::metadata(&file).unwrap().len();
        assert!(small_enough(&file, size).is_ok());
        let error = small_enough(&file, size - 1).unwrap_err().to_string();
        assert!(error.contains("LICENSE has"), "{error}");
    }

    #[test]
    fn the_same_content_is_the_same_archive() {
        let place = std::env::temp_dir().join(format!("openelb-archive-{}", std::process::id()));
        let mut sums = Vec::new();
        for name in ["one", "other"] {
            let folder = place.join(name);
            std::fs::create_dir_all(folder.join("blobs")).unwrap();
            // In another order, and so at other times.
            for entry in if name == "one" {
                ["a", "b"]
            } else {
                ["b", "a"]
            } {
                std::fs::write(folder.join("blobs").join(entry), entry).unwrap();
            }
            std::fs::write(folder.join("index.json"), "{}").unwrap();
            let file = place.join(format!("{name}.tar"));
            archive(&folder, &file).unwrap();
            sums.push(sha256(&file).unwrap());
        }
        assert_eq!(sums[0], sums[1]);
        assert_eq!(sums[0].len(), 64);
        std::fs::remove_dir_all(&place).unwrap();
    }
}
