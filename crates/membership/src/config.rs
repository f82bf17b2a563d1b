//! What a membership is started with, and how quickly it then notices a death.
//!
//! # The bound
//!
//! A node that falls silent is known to be dead to all others after, at worst,
//!
//! ```text
//!   (2·(n-1) - 1) · probe_period    until one of the n-1 others probes it (each takes all in turn, in an
//!                                   order that is shuffled each round)
//! + probe_period                    until that probe and its indirect ones count as failed
//! + suspicion                       in which a living node would refute
//! + gossip_period                   until the others are told
//! ```
//!
//! and the delays of the network. In larger clusters the first term is not the one of a single
//! prober: that none of n-1 others, which pick one of n-1 each, picks the dead one in seven periods
//! has a chance of e⁻⁷, one in a thousand. [`Parameters::noticed_within`] has the sum:
//!
//! | profile | 2 nodes | 3 nodes | 5 and more |
//! |---|---|---|---|
//! | `fast` | 175 ms | 235 ms | 355 ms |
//! | `default` | 420 ms | 500 ms | 660 ms |
//! | `calm` | 3.7 s | 4.7 s | 6.7 s |
//!
//! An observer that was late itself (starved of CPU) gives every suspect as much time more, at most
//! another `suspicion`: it must not accuse others of its own delay. So scheduling delays of the
//! observers add to the bound, and those of the suspect are tolerated up to `suspicion`.
//!
//! # Two leaders
//!
//! Two nodes may both lead an address by their own views
//!
//! - while they cannot talk to each other, and until 10 s after they can again (those who were given up
//!   are asked every half second whether they live; one that comes back waits until it is steady);
//! - while news are on their way: 0.1 s at most where no message is lost, and until the next repetition
//!   (60 ms, 250 ms, then every 5 s) where one is.
//!
//! A process that was paused trusts nothing it knew before, so it is none of two. Where the LAN lives
//! though membership does not, the layer 2 responder hears the other claim the address and ends it
//! sooner: whoever is outranked is silent at once.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use ring::hkdf;

/// How quickly a silent death is noticed, against how much delay and loss is tolerated.
///
/// The parameters are those of SWIM (see [`Profile::parameters`]); what follows from them is in the
/// module's table, and what was measured in `docs/tasks/layer2.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// For LANs as they are: noticed within 0.7 s (p99).
    #[default]
    Default,
    /// For quiet, quick networks and nodes with idle CPU.
    Fast,
    /// For overloaded nodes and lossy networks; takes seconds.
    Calm,
}

/// The profile is none of `default`, `fast` and `calm`.
#[derive(Debug, thiserror::Error)]
#[error("unknown membership profile {0:?}: use \"default\", \"fast\" or \"calm\"")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Ok(Self::Default),
            "fast" => Ok(Self::Fast),
            "calm" => Ok(Self::Calm),
            other => Err(UnknownProfile(other.to_owned())),
        }
    }
}

/// The parameters of a [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Each node probes one other this often.
    pub probe_period: Duration,
    /// After this long without an answer others are asked to probe.
    pub probe_rtt: Duration,
    /// How long a suspect may refute before it counts as dead.
    pub suspicion: Duration,
    /// How often news are passed on besides riding on probes.
    pub gossip_period: Duration,
    /// How long a node must have been a member before it takes an address from another.
    pub steady_after: Duration,
}

impl Profile {
    /// The parameters of this profile.
    #[must_use]
    pub const fn parameters(self) -> Parameters {
        let ms = Duration::from_millis;
        match self {
            Self::Fast => Parameters {
                probe_period: ms(30),
                probe_rtt: ms(10),
                suspicion: ms(90),
                gossip_period: ms(25),
                steady_after: ms(2_000),
            },
            Self::Default => Parameters {
                probe_period: ms(40),
                probe_rtt: ms(15),
                suspicion: ms(310),
                gossip_period: ms(30),
                steady_after: ms(3_000),
            },
            Self::Calm => Parameters {
                probe_period: ms(500),
                probe_rtt: ms(200),
                suspicion: ms(2_500),
                gossip_period: ms(200),
                steady_after: ms(10_000),
            },
        }
    }
}

impl Parameters {
    /// How long at most a silent death goes unnoticed by any of the others in a cluster of so many
    /// nodes, this one included (see the module's documentation for the terms, and for the chance of
    /// one in a thousand that it takes longer with six nodes or more).
    #[must_use]
    pub fn noticed_within(&self, nodes: u32) -> Duration {
        let others = nodes.saturating_sub(1).max(1);
        let turns = (2 * others - 1).min(7);
        self.probe_period * (turns + 1) + self.suspicion + self.gossip_period
    }
}

/// The secret that all speakers of a cluster share.
///
/// Every packet is encrypted and authenticated with keys derived from it (HKDF-SHA256), so any
/// 16 bytes or more will do.
#[derive(Clone)]
pub struct Key(pub(crate) hkdf::Prk);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a secret is refused. There is no mode without one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Fewer than 16 bytes.
    #[error(
        "the membership key has {0} bytes, at least 16 are needed; put 32 random bytes into the Secret `memberlist`, key `key`"
    )]
    Short(usize),
    /// The key that every OpenELB manifest contained.
    #[error(
        "the membership key is the one published in OpenELB's manifests; put 32 random bytes into the Secret `memberlist`, key `key`"
    )]
    Published,
}

impl Key {
    /// The key in OpenELB's published manifests, known to everybody.
    pub const PUBLISHED: &'static [u8] = b"openelb-speakers";

    /// Checks a secret and makes it usable.
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < 16 {
            return Err(KeyError::Short(secret.len()));
        }
        if secret.strip_suffix(b"\n").unwrap_or(secret) == Self::PUBLISHED {
            return Err(KeyError::Published);
        }
        Ok(Self(
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"openelb membership 1").extract(secret),
        ))
    }
}

/// What [`crate::Membership::spawn`] needs to know.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// This node's name, at most 253 bytes; unique in the cluster.
    pub node: String,
    /// The UDP address to listen on.
    pub bind: SocketAddr,
    /// The address under which the other speakers reach this one.
    pub advertise: SocketAddr,
    /// The cluster's secret.
    pub key: Key,
    /// Speed against tolerance.
    pub profile: Profile,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_short_or_published_key_is_refused() {
        assert_eq!(Key::new(b"").unwrap_err(), KeyError::Short(0));
        assert_eq!(
            Key::new(b"fifteen bytes..").unwrap_err(),
            KeyError::Short(15)
        );
        assert_eq!(
            Key::new(b"openelb-speakers").unwrap_err(),
            KeyError::Published
        );
        assert_eq!(
            Key::new(b"openelb-speakers\n").unwrap_err(),
            KeyError::Published
        );
        assert!(Key::new(&[7; 16]).is_ok());
    }

    #[test]
    fn a_key_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Key::new(&[65; 32]).unwrap()), "Key(..)");
    }

    #[test]
    fn a_silent_death_is_noticed_within_the_promise() {
        let within = |profile: Profile, nodes| profile.parameters().noticed_within(nodes);
        let ms = Duration::from_millis;
        for nodes in [2, 3, 5, 100, 1000] {
            assert!(within(Profile::Default, nodes) < ms(700), "{nodes}");
        }
        let table = [Profile::Fast, Profile::Default, Profile::Calm]
            .map(|profile| [2, 3, 5].map(|nodes| within(profile, nodes)));
        assert_eq!(
            table,
            [
                [ms(175), ms(235), ms(355)],
                [ms(420), ms(500), ms(660)],
                [ms(3_700), ms(4_700), ms(6_700)],
            ]
        );
    }

    #[test]
    fn a_probe_leaves_time_for_its_indirect_round() {
        for profile in [Profile::Default, Profile::Fast, Profile::Calm] {
            let p = profile.parameters();
            assert!(p.probe_rtt * 2 < p.probe_period, "{profile:?}");
            assert!(p.suspicion >= p.probe_period * 3, "{profile:?}");
        }
    }
}
