//! What a change of the picture concerns, so that no more than that is worked out anew.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::BitOrAssign;

/// What a change concerns; each kind includes those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Nothing: all is as it was.
    #[default]
    Nothing,
    /// Settings, passwords, statuses: not who may announce which address.
    Settings,
    /// Who may announce these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// Who may announce any address.
    Everything,
}

impl Touched {
    /// Whether anything differs.
    pub(crate) fn any(&self) -> bool {
        *self != Self::Nothing
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Settings => 1,
            Self::Addresses(_) => 2,
            Self::Everything => 3,
        }
    }

    /// Settings, if something differs.
    pub(crate) fn settings(differs: bool) -> Self {
        if differs {
            Self::Settings
        } else {
            Self::Nothing
        }
    }

    /// Everything, if something differs.
    pub(crate) fn everything(differs: bool) -> Self {
        if differs {
            Self::Everything
        } else {
            Self::Nothing
        }
    }
}

/// Nothing where there are none.
impl From<BTreeSet<IpAddr>> for Touched {
    fn from(addresses: BTreeSet<IpAddr>) -> Self {
        if addresses.is_empty() {
            Self::Nothing
        } else {
            Self::Addresses(addresses)
        }
    }
}

/// Both together.
impl BitOrAssign for Touched {
    fn bitor_assign(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Addresses(some), Self::Addresses(more)) => some.extend(more),
            (some, more) if some.rank() < more.rank() => *some = more,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> Touched {
        let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last]));
        Touched::from(addresses.collect::<BTreeSet<_>>())
    }

    #[test]
    fn two_changes_concern_what_either_does() {
        let kinds = [
            Touched::Nothing,
            Touched::Settings,
            addresses(&[1]),
            Touched::Everything,
        ];
        for (i, one) in kinds.iter().enumerate() {
            for (j, other) in kinds.iter().enumerate() {
                let mut both = one.clone();
                both |= other.clone();
                assert_eq!(both, kinds[i.max(j)], "{one:?} {other:?}");
            }
        }
        let mut both = addresses(&[1, 2]);
        both |= addresses(&[2, 3]);
        assert_eq!(both, addresses(&[1, 2, 3]));
        assert_eq!(addresses(&[]), Touched::Nothing);
    }
}
