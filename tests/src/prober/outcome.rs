//! What became of a probe, as precisely as the kernel tells.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;

use nix::errno::Errno;

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The node of the pod that answered.
        node: String,
        /// The pod that answered.
        pod: String,
        /// The address the pod saw.
        seen: IpAddr,
    },
    /// Nobody answered in time.
    Lost,
    /// The connection was reset or closed.
    Reset,
    /// The port was refused.
    Refused(Refusal),
    /// Somebody, or the own kernel, said that no way leads there.
    Unreachable(Refusal),
    /// The prober could not ask, for a reason of its own: no free port, too many open files. [`super::Prober::stop`] fails then.
    Failed(Errno),
}

/// Who said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A TCP segment with the flag RST: a host without a listener, or without the connection.
    Reset,
    /// An ICMP message: a packet filter that rejects, a router without a route, a host without a listener (UDP).
    Icmp {
        /// Who sent it.
        from: Option<IpAddr>,
        /// The type of the message.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// Not known. For a datagram it was always a message of ICMP.
    Untold,
}

impl Outcome {
    /// Whether it was answered.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Answered { .. })
    }

    /// What an error of a socket means. `refusal` is what is known of who caused it.
    pub(super) fn of(error: &std::io::Error, refusal: Refusal) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => return Self::Lost,
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                return Self::Reset;
            }
            _ => {}
        }
        let errno = error
            .raw_os_error()
            .map_or(Errno::UnknownErrno, Errno::from_raw);
        match (errno, refusal) {
            (Errno::ECONNREFUSED, _) => Self::Refused(refusal),
            // The kernel translates codes of ICMP to many numbers, some of which mean something else without it.
            (_, Refusal::Icmp { .. })
            | (
                Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENETDOWN
                | Errno::ENONET,
                _,
            ) => Self::Unreachable(match refusal {
                Refusal::Reset => Refusal::Untold,
                other => other,
            }),
            _ => Self::Failed(errno),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { node, pod, .. } => write!(out, "answered by {pod} on {node}"),
            Self::Lost => out.write_str("lost"),
            Self::Reset => out.write_str("reset"),
            Self::Refused(refusal) => write!(out, "refused {refusal}"),
            Self::Unreachable(refusal) => write!(out, "unreachable {refusal}"),
            Self::Failed(errno) => write!(out, "not asked: {}", errno.desc()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => out.write_str("by a RST"),
            Self::Icmp { from, kind, code } => {
                write!(out, "by ICMP type {kind} code {code}")?;
                from.map_or(Ok(()), |from| write!(out, " from {from}"))
            }
            Self::Untold => out.write_str("by whom is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICMP: Refusal = Refusal::Icmp {
        from: None,
        kind: 3,
        code: 13,
    };

    fn of(errno: Errno, refusal: Refusal) -> Outcome {
        Outcome::of(&std::io::Error::from(errno), refusal)
    }

    #[test]
    fn losses_refusals_missing_routes_and_own_failures_are_told_apart() {
        assert_eq!(of(Errno::ETIMEDOUT, Refusal::Untold), Outcome::Lost);
        assert_eq!(of(Errno::ECONNRESET, Refusal::Untold), Outcome::Reset);
        for refusal in [Refusal::Reset, ICMP] {
            let refused = of(Errno::ECONNREFUSED, refusal);
            assert_eq!(refused, Outcome::Refused(refusal));
        }
        for errno in [Errno::EHOSTUNREACH, Errno::ENETUNREACH] {
            let missing = Outcome::Unreachable(Refusal::Untold);
            assert_eq!(of(errno, Refusal::Reset), missing);
        }
        for errno in [Errno::EADDRNOTAVAIL, Errno::EMFILE, Errno::EACCES] {
            assert_eq!(of(errno, Refusal::Reset), Outcome::Failed(errno));
        }
        // IPv6 reports a filter that rejects as EACCES, and then an ICMP message is there.
        assert_eq!(of(Errno::EACCES, ICMP), Outcome::Unreachable(ICMP));
    }

    #[test]
    fn the_timeline_names_who_refused() {
        let from = Some([10, 0, 0, 1].into());
        let icmp = Refusal::Icmp {
            from,
            kind: 3,
            code: 1,
        };
        assert_eq!(
            Outcome::Refused(Refusal::Reset).to_string(),
            "refused by a RST"
        );
        assert_eq!(
            Outcome::Unreachable(icmp).to_string(),
            "unreachable by ICMP type 3 code 1 from 10.0.0.1"
        );
    }
}
