//! A folder for logs, keys and data, which vanishes when all went well.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::janitor;

/// The part of a folder that is never kept: what is large and explains nothing, such as images.
pub(crate) const SCRATCH: &str = "scratch";

/// A folder that is removed on drop, also when this program is killed, unless the test is failing or `OPENELB_KEEP` is set: then its place is printed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    what: String,
    keep: bool,
}

impl Folder {
    /// Makes a folder with a name of its own under the system's place for temporary files.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(what: &str) -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("openelb-{what}-"))
            .tempdir()
            .with_context(|| format!("cannot make a folder for {what}"))?
            .keep();
        janitor::watch(&path);
        Ok(Self {
            path,
            what: what.to_owned(),
            keep: std::env::var_os("OPENELB_KEEP").is_some(),
        })
    }

    /// Where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry of the folder.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file into the folder, with the folders above it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Keeps the folder whatever happens.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Inside a world, the world's folder is kept or removed as a whole, from outside.
        let inside = crate::scenario::inside().is_some();
        if !inside && (self.keep || std::thread::panicking()) {
            // It need not be there.
            let _ = std::fs::remove_dir_all(self.path.join(SCRATCH));
            println!("{}: logs are kept in {}", self.what, self.path.display());
            janitor::keep(&self.path);
        } else if !inside {
            let _ = std::fs::remove_dir_all(&self.path);
            janitor::remove(&self.path);
        }
    }
}
