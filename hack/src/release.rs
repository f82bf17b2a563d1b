//! `hack release`: everything that a site needs, in one folder: the chart as a package, the manifest, the images as OCI
//! archives for each processor, a bill of materials for each, checksums of all, and signatures where a key is given.
//!
//! All but the signatures are the same whenever and wherever they are made from one commit.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;

use crate::archive::{archive, sha256, shown};
use crate::command::{program, read, root, say};
use crate::image::{self, Arch, Component};
use crate::{manifests, prerequisites, sbom};

/// What to release, and where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The processors to build for; all when none is named.
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// A private key to sign with: ECDSA on P-256 in PEM, without a passphrase.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The folder that everything is written to; it is emptied first.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Leave the images out: chart, manifest, bills of materials and checksums only, which takes seconds.
    #[arg(long)]
    without_images: bool,
}

/// The name of the list of checksums, in the form that `sha256sum --check` reads.
const SUMS: &str = "SHA256SUMS";

/// Makes a release.
///
/// # Errors
/// Something that is needed cannot be installed, a build fails, an image is too large, or `config/` and `deploy/` are not
/// what the chart gives.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| root().join("target/release-files"));
    if let Some(key) = &args.key {
        prerequisites::programs(&[("openssl", "openssl")])?;
        public_key(key)?;
    }
    manifests::check()?;
    empty(&output)?;
    chart(&output)?;
    std::fs::copy(
        root().join("deploy/openelb.yaml"),
        output.join("openelb.yaml"),
    )
    .context("deploy/openelb.yaml is not there")?;
    let every = Arch::value_variants();
    let processors = if args.arch.is_empty() {
        every
    } else {
        &args.arch
    };
    for arch in processors.iter().copied() {
        if !args.without_images {
            let archives = image::released(arch)?;
            for component in Component::value_variants() {
                let name = format!("openelb-{}", component.name());
                std::fs::copy(
                    archives.join(format!("{name}.tar")),
                    output.join(format!("{name}-{}.tar", arch.name())),
                )
                .with_context(|| format!("the archive of {name} is not there"))?;
            }
        }
        for component in Component::value_variants() {
            let name = format!("openelb-{}-{}.cdx.json", component.name(), arch.name());
            sbom::write(component.binary(), arch.target(), &output.join(name))?;
        }
    }
    let files = sums(&output)?;
    if let Some(key) = &args.key {
        for file in files.iter().chain([&SUMS.to_owned()]) {
            sign(key, &output.join(file))?;
        }
        std::fs::write(output.join("openelb.pub"), public_key(key)?)?;
    }
    say(&format!("{} files in {}", files.len() + 1, shown(&output)));
    Ok(ExitCode::SUCCESS)
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        // Somebody's folder with other things in it is not ours to empty.
        let ours = folder.join(SUMS).exists() || std::fs::read_dir(folder)?.next().is_none();
        if !ours {
            bail!("{} holds something else than a release", folder.display());
        }
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The chart as helm packages it, but with fixed times.
fn chart(output: &Path) -> Result<()> {
    let mut build = program(root().join("hack/tools/build"));
    build.arg("helm");
    let tools = PathBuf::from(read(build)?.trim());
    let work = output.join(".chart");
    std::fs::create_dir_all(&work)?;
    let mut package = program(tools.join("helm"));
    package
        .args(["package", "charts/openelb", "--destination"])
        .arg(&work);
    read(package)?;
    let name = format!("openelb-{}.tgz", env!("CARGO_PKG_VERSION"));
    let mut unpack = program("tar");
    unpack.arg("--extract").arg("--file").arg(work.join(&name));
    unpack.arg("--directory").arg(&work);
    read(unpack)?;
    std::fs::remove_file(work.join(&name))?;
    let packed = output.join(format!("openelb-{}.tar", env!("CARGO_PKG_VERSION")));
    archive(&work, &packed)?;
    std::fs::remove_dir_all(&work)?;
    let mut gzip = program("gzip");
    gzip.args(["--no-name", "--best", "--suffix=.gz"])
        .arg(&packed);
    read(gzip)?;
    let zipped = output.join(format!("openelb-{}.tar.gz", env!("CARGO_PKG_VERSION")));
    std::fs::rename(zipped, output.join(name)).context("the chart is not packed")
}

/// Writes the checksums of all files and returns their names.
fn sums(folder: &Path) -> Result<Vec<String>> {
    let mut files = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<String>>>()?;
    files.sort();
    let mut text = String::new();
    for file in &files {
        writeln!(text, "{}  {file}", sha256(&folder.join(file))?)?;
    }
    std::fs::write(folder.join(SUMS), text)?;
    Ok(files)
}

/// The public half of a key.
fn public_key(key: &Path) -> Result<String> {
    let mut openssl = program("openssl");
    openssl.args(["pkey", "-pubout", "-in"]).arg(key);
    read(openssl).with_context(|| format!("{} is no private key in PEM", key.display()))
}

/// Writes `FILE.sig`: base64 of the ASN.1 signature of the file's SHA-256, as `cosign verify-blob` reads it.
fn sign(key: &Path, file: &Path) -> Result<()> {
    let raw = with(file, ".sig.raw");
    let mut sign = program("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(key);
    sign.arg("-out").arg(&raw).arg(file);
    read(sign).with_context(|| format!("cannot sign {}", file.display()))?;
    let mut encode = program("openssl");
    encode.args(["base64", "-A", "-in"]).arg(&raw);
    let text = read(encode)?;
    std::fs::remove_file(&raw)?;
    std::fs::write(with(file, ".sig"), text.trim())
        .with_context(|| format!("cannot write the signature of {}", file.display()))
}

fn with(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("openelb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    #[test]
    fn checksums_are_such_as_sha256sum_checks() {
        let folder = place("sums");
        std::fs::write(folder.join("b"), "b").unwrap();
        std::fs::write(folder.join("a"), "a").unwrap();
        assert_eq!(sums(&folder).unwrap(), ["a", "b"]);
        let check = || {
            let mut check = program("sha256sum");
            check.args(["--check", SUMS]).current_dir(&folder);
            read(check)
        };
        assert!(check().is_ok());
        std::fs::write(folder.join("b"), "c").unwrap();
        assert!(check().is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// With the program that made the key, as it is everywhere; cosign takes the same key and signature.
    #[test]
    fn a_signature_holds_for_its_file_and_no_other() {
        let folder = place("signature");
        let key = folder.join("key.pem");
        let mut make = program("openssl");
        make.args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        make.arg("-out").arg(&key);
        read(make).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "what is signed").unwrap();
        sign(&key, &file).unwrap();
        std::fs::write(folder.join("key.pub"), public_key(&key).unwrap()).unwrap();
        let mut decode = program("openssl");
        decode.args(["base64", "-d", "-A", "-in", "file.sig", "-out", "raw"]);
        decode.current_dir(&folder);
        read(decode).unwrap();
        let verify = || {
            let mut verify = program("openssl");
            verify.args([
                "dgst",
                "-sha256",
                "-verify",
                "key.pub",
                "-signature",
                "raw",
                "file",
            ]);
            verify.current_dir(&folder);
            read(verify)
        };
        assert!(verify().is_ok());
        std::fs::write(&file, "what is not").unwrap();
        assert!(verify().is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_with_other_things_is_not_emptied() {
        let folder = place("other");
        std::fs::write(folder.join("thesis.txt"), "").unwrap();
        assert!(empty(&folder).is_err());
        assert!(folder.join("thesis.txt").exists());
        std::fs::write(folder.join(SUMS), "").unwrap();
        assert!(empty(&folder).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
