//! A few addresses, and of which family each is.

/// One address.
pub(super) type Address = u8;

/// A set of addresses, in order of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Addresses(u8);

impl Addresses {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, a: Address) -> bool {
        self.0 & (1 << a) != 0
    }

    /// Those of them that are among `others` too.
    pub(super) fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(super) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(super) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Address> {
        (0..8).filter(move |a| self.contains(*a))
    }
}

impl From<Address> for Addresses {
    fn from(a: Address) -> Self {
        Self(1 << a)
    }
}

impl FromIterator<Address> for Addresses {
    fn from_iter<T: IntoIterator<Item = Address>>(all: T) -> Self {
        all.into_iter().map(Self::from).fold(Self::NONE, Self::with)
    }
}

/// What Services ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    /// Every address is of one family, and a Service has one.
    One,
    /// Addresses with even numbers are of one family, those with odd numbers of another. Services with even numbers
    /// ask for one of each, the others for one of the second family; so that somebody may have the second while
    /// the first was just reserved.
    Two {
        /// Who asks for both has nothing unless it can have both.
        all: bool,
    },
}

impl Families {
    /// The families that a Service asks for, each with its addresses among the first `count`.
    pub(super) fn of(self, service: usize, count: u8) -> Vec<Addresses> {
        let family = |parity: u8| (0..count).filter(|a| a % 2 == parity).collect();
        match self {
            Self::One => vec![(0..count).collect()],
            Self::Two { .. } if service.is_multiple_of(2) => vec![family(0), family(1)],
            Self::Two { .. } => vec![family(1)],
        }
    }

    /// Whether a Service has nothing unless it has one of each family that it asks for.
    pub(super) fn needs_all(self) -> bool {
        self == Self::Two { all: true }
    }
}
