//! The BFD control packet (RFC 5880 §4.1).

use std::time::Duration;

use crate::snapshot::BfdState;

/// Octets of a packet without authentication.
pub(crate) const LEN: usize = 24;

/// Diagnostic codes that this implementation gives (RFC 5880 §4.1).
pub(crate) mod diagnostic {
    /// No reason.
    pub(crate) const NONE: u8 = 0;
    /// The peer was silent for the detection time.
    pub(crate) const EXPIRED: u8 = 1;
    /// The peer said that it is down.
    pub(crate) const NEIGHBOR_DOWN: u8 = 3;
    /// Taken down on purpose.
    pub(crate) const ADMIN_DOWN: u8 = 7;
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "flags of the wire format")]
pub(crate) struct Packet {
    pub diagnostic: u8,
    pub state: BfdState,
    pub poll: bool,
    pub final_: bool,
    pub control_plane_independent: bool,
    pub demand: bool,
    pub multiplier: u8,
    pub my_discriminator: u32,
    pub your_discriminator: u32,
    /// In microseconds, as the two below.
    pub desired_min_tx: u32,
    pub required_min_rx: u32,
    pub required_min_echo_rx: u32,
}

/// Why octets are no packet that is to be looked at (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("shorter than a control packet or than it says")]
    Length,
    #[error("not version 1")]
    Version,
    #[error("the multipoint bit is set")]
    Multipoint,
    #[error("authentication is not agreed on")]
    Authentication,
    #[error("the multiplier is zero")]
    Multiplier,
    #[error("a discriminator is missing")]
    Discriminator,
}

fn field(octets: &[u8; LEN], at: usize) -> u32 {
    octets
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

impl Packet {
    /// Reads and checks a packet.
    pub(crate) fn decode(datagram: &[u8]) -> Result<Self, PacketError> {
        let octets: &[u8; LEN] = datagram.first_chunk().ok_or(PacketError::Length)?;
        let [first, flags, multiplier, length, ..] = *octets;
        if first >> 5 != 1 {
            return Err(PacketError::Version);
        }
        if usize::from(length) < LEN || usize::from(length) > datagram.len() {
            return Err(PacketError::Length);
        }
        if flags & 0x04 != 0 {
            return Err(PacketError::Authentication);
        }
        if flags & 0x01 != 0 {
            return Err(PacketError::Multipoint);
        }
        if multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        let state = match flags >> 6 {
            0 => BfdState::AdminDown,
            1 => BfdState::Down,
            2 => BfdState::Init,
            _ => BfdState::Up,
        };
        let packet = Self {
            diagnostic: first & 0x1f,
            state,
            poll: flags & 0x20 != 0,
            final_: flags & 0x10 != 0,
            control_plane_independent: flags & 0x08 != 0,
            demand: flags & 0x02 != 0,
            multiplier,
            my_discriminator: field(octets, 4),
            your_discriminator: field(octets, 8),
            desired_min_tx: field(octets, 12),
            required_min_rx: field(octets, 16),
            required_min_echo_rx: field(octets, 20),
        };
        let names_nobody = packet.your_discriminator == 0
            && !matches!(state, BfdState::Down | BfdState::AdminDown);
        if packet.my_discriminator == 0 || names_nobody {
            return Err(PacketError::Discriminator);
        }
        Ok(packet)
    }

    /// Writes the packet.
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let state: u8 = match self.state {
            BfdState::AdminDown => 0,
            BfdState::Down => 1,
            BfdState::Init => 2,
            BfdState::Up => 3,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut octets = [0; LEN];
        let head = [
            1 << 5 | self.diagnostic & 0x1f,
            state << 6
                | flag(self.poll, 0x20)
                | flag(self.final_, 0x10)
                | flag(self.control_plane_independent, 0x08)
                | flag(self.demand, 0x02),
            self.multiplier,
            24,
        ];
        let fields = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        let all = head
            .into_iter()
            .chain(fields.into_iter().flat_map(u32::to_be_bytes));
        for (octet, value) in octets.iter_mut().zip(all) {
            *octet = value;
        }
        octets
    }
}

/// A time as a field of the packet.
pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            diagnostic: diagnostic::EXPIRED,
            state: BfdState::Up,
            poll: true,
            final_: false,
            control_plane_independent: false,
            demand: false,
            multiplier: 3,
            my_discriminator: 0x0102_0304,
            your_discriminator: 0x0506_0708,
            desired_min_tx: 50_000,
            required_min_rx: 100_000,
            required_min_echo_rx: 0,
        }
    }

    #[test]
    fn octets_are_those_of_the_rfc() {
        let octets = packet().encode();
        assert_eq!(
            octets,
            [
                0x21, 0xe0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0xc3, 0x50, 0, 1, 0x86, 0xa0, 0,
                0, 0, 0
            ]
        );
        assert_eq!(Packet::decode(&octets), Ok(packet()));
    }

    #[test]
    fn what_section_6_8_6_discards_is_discarded() {
        let good = packet().encode();
        let broken = |at: usize, value: u8| {
            let mut octets = good;
            octets[at] = value;
            Packet::decode(&octets)
        };
        assert_eq!(Packet::decode(&good[..23]), Err(PacketError::Length));
        assert_eq!(broken(0, 0x41), Err(PacketError::Version));
        assert_eq!(broken(3, 23), Err(PacketError::Length));
        assert_eq!(broken(3, 25), Err(PacketError::Length));
        assert_eq!(broken(1, 0xe4), Err(PacketError::Authentication));
        assert_eq!(broken(1, 0xe1), Err(PacketError::Multipoint));
        assert_eq!(broken(2, 0), Err(PacketError::Multiplier));
        let mut octets = good;
        octets[4..8].fill(0);
        assert_eq!(Packet::decode(&octets), Err(PacketError::Discriminator));
        let mut octets = good;
        octets[8..12].fill(0);
        assert_eq!(Packet::decode(&octets), Err(PacketError::Discriminator));
        octets[1] = 0x40;
        assert!(Packet::decode(&octets).is_ok());
    }
}
