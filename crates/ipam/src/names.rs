//! Names of objects, cheap to copy.

use std::fmt;
use std::sync::{Arc, LazyLock};

/// Namespace and name of a Service. Displays as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// Makes a key.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The words that stand in nearly every Service and record.
static WORDS: LazyLock<[Arc<str>; 8]> = LazyLock::new(|| {
    [
        "TCP",
        "UDP",
        "SCTP",
        "bgp",
        "layer2",
        "vip",
        "Allocated",
        "default",
    ]
    .map(Arc::from)
});

/// A word, kept in memory once where it is one of those that stand everywhere.
#[must_use]
pub fn word(text: &str) -> Arc<str> {
    let known = WORDS.iter().find(|word| &***word == text);
    known.map_or_else(|| text.into(), Arc::clone)
}

/// An object's `metadata.uid`. No two objects ever have the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub Arc<str>);

/// An object's `metadata.resourceVersion`: opaque to the protocol, which only compares for equality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub Arc<str>);

impl Version {
    /// Whether this version is known to be older than `other` of the same object.
    ///
    /// Versions are decimal numbers that grow (Kubernetes 1.35 guarantees it, etcd always did);
    /// where they are not, nothing is known to be older.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(this), Ok(other)) => this < other,
            _ => false,
        }
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_grow_as_numbers() {
        assert!(Version::from("99").is_older_than(&"100".into()));
        assert!(!Version::from("100").is_older_than(&"100".into()));
        assert!(!Version::from("abc").is_older_than(&"100".into()));
    }
}
