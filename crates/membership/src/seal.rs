//! Encryption, authentication and protection against replay of every packet.
//!
//! Each process run is a *session* with a random id; its key is derived from the shared secret and
//! that id, and its packets carry a counter, so no nonce is ever used twice. A receiver takes a
//! session's packets only after the session has answered a challenge: packets recorded from an
//! earlier run of any process are worthless, and within a session a sliding window refuses each
//! counter the second time. No clock needs to agree with another.
//!
//! ```text
//! packet: version 1 │ session 16 │ counter 8 │ ChaCha20-Poly1305(kind 1 │ body) │ tag 16
//! ```

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::Prk,
    hmac,
};

const VERSION: u8 = 1;
const HEADER: usize = 25;
/// Bytes that sealing adds, the kind included.
pub(crate) const OVERHEAD: usize = HEADER + 1 + 16;

/// How many sessions are remembered; the longest unused is forgotten first.
const MAX_SESSIONS: usize = 4096;
/// A challenge is valid for one to two of these.
const EPOCH: Duration = Duration::from_secs(10);

type SessionId = [u8; 16];
/// What a session must send back in order to be admitted.
pub(crate) type Challenge = [u8; 16];

const KIND_DATA: u8 = 0;
const KIND_CHALLENGE: u8 = 1;
const KIND_RESPONSE: u8 = 2;

/// What became of a received packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Genuine and new.
    Data(Vec<u8>),
    /// Send this back to where the packet came from.
    Reply(Vec<u8>),
    /// The session is admitted from now on.
    Admitted,
    /// Authentic, but seen before.
    Replayed,
    /// Not sealed with our key, or damaged.
    Refused,
}

/// The sealing half and the opening half of one process.
#[derive(Debug)]
pub(crate) struct Seal {
    secret: Prk,
    session: SessionId,
    key: LessSafeKey,
    counter: u64,
    /// Makes challenges that need no memory.
    challenges: hmac::Key,
    started: Instant,
    sessions: HashMap<SessionId, Session>,
}

#[derive(Debug)]
struct Session {
    key: LessSafeKey,
    window: Window,
    used: Instant,
}

impl Seal {
    /// A new session. `session` and `challenge_key` must be random.
    pub(crate) fn new(
        secret: Prk,
        session: SessionId,
        challenge_key: &[u8; 32],
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            key: derive(&secret, &session)?,
            secret,
            session,
            counter: 0,
            challenges: hmac::Key::new(hmac::HMAC_SHA256, challenge_key),
            started: now,
            sessions: HashMap::new(),
        })
    }

    /// Seals a body; `None` if it is beyond the AEAD's bound of many gigabytes.
    pub(crate) fn seal(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        self.seal_kind(KIND_DATA, body)
    }

    fn seal_kind(&mut self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        self.counter = self.counter.checked_add(1)?;
        let mut header = Vec::with_capacity(OVERHEAD + body.len());
        header.push(VERSION);
        header.extend_from_slice(&self.session);
        header.extend_from_slice(&self.counter.to_be_bytes());
        let mut sealed = Vec::with_capacity(body.len() + 17);
        sealed.push(kind);
        sealed.extend_from_slice(body);
        self.key
            .seal_in_place_append_tag(nonce(self.counter), Aad::from(&header), &mut sealed)
            .ok()?;
        header.extend_from_slice(&sealed);
        Some(header)
    }

    /// Opens a packet.
    pub(crate) fn open(&mut self, packet: &[u8], now: Instant) -> Opened {
        let Some((header, sealed)) = packet.split_at_checked(HEADER) else {
            return Opened::Refused;
        };
        let Some((version, session, counter)) = read(header) else {
            return Opened::Refused;
        };
        if version != VERSION || session == self.session {
            return Opened::Refused;
        }
        let mut sealed = sealed.to_vec();
        let known = self.sessions.get_mut(&session);
        let admitted = known.is_some();
        let derived;
        let key = if let Some(known) = &known {
            &known.key
        } else {
            let Some(key) = derive(&self.secret, &session) else {
                return Opened::Refused;
            };
            derived = key;
            &derived
        };
        let opened = key.open_in_place(nonce(counter), Aad::from(header), &mut sealed);
        let Ok(plain) = opened else {
            return Opened::Refused;
        };
        let Some((kind, body)) = plain.split_first() else {
            return Opened::Refused;
        };
        if let Some(known) = known {
            known.used = now;
            if !known.window.accept(counter) {
                return Opened::Replayed;
            }
        }
        match (*kind, admitted) {
            (KIND_CHALLENGE, _) if body.len() == 16 => {
                let body = body.to_vec();
                self.seal_kind(KIND_RESPONSE, &body)
                    .map_or(Opened::Refused, Opened::Reply)
            }
            (KIND_DATA, true) => Opened::Data(body.to_vec()),
            (KIND_DATA, false) => {
                let challenge = self.challenge(&session, self.epoch(now));
                self.seal_kind(KIND_CHALLENGE, &challenge)
                    .map_or(Opened::Refused, Opened::Reply)
            }
            (KIND_RESPONSE, false) => {
                let epoch = self.epoch(now);
                let genuine = [Some(epoch), epoch.checked_sub(1)]
                    .into_iter()
                    .flatten()
                    .any(|epoch| self.challenge(&session, epoch) == body);
                if genuine {
                    self.admit(session, counter, now)
                } else {
                    Opened::Refused
                }
            }
            // A response that was asked for twice.
            (KIND_RESPONSE, true) => Opened::Admitted,
            _ => Opened::Refused,
        }
    }

    fn admit(&mut self, session: SessionId, counter: u64, now: Instant) -> Opened {
        let Some(key) = derive(&self.secret, &session) else {
            return Opened::Refused;
        };
        if self.sessions.len() >= MAX_SESSIONS {
            let oldest = self
                .sessions
                .iter()
                .min_by_key(|(_, s)| s.used)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.sessions.remove(&oldest);
            }
        }
        let window = Window {
            highest: counter,
            seen: 1,
        };
        self.sessions.insert(
            session,
            Session {
                key,
                window,
                used: now,
            },
        );
        Opened::Admitted
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.duration_since(self.started).as_secs() / EPOCH.as_secs()
    }

    fn challenge(&self, session: &SessionId, epoch: u64) -> Challenge {
        let mut context = hmac::Context::with_key(&self.challenges);
        context.update(session);
        context.update(&epoch.to_be_bytes());
        let mut challenge = Challenge::default();
        for (to, from) in challenge.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        challenge
    }
}

fn read(header: &[u8]) -> Option<(u8, SessionId, u64)> {
    let (version, rest) = header.split_first()?;
    let (session, counter) = rest.split_first_chunk::<16>()?;
    Some((
        *version,
        *session,
        u64::from_be_bytes(counter.try_into().ok()?),
    ))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    for (to, from) in bytes.iter_mut().skip(4).zip(counter.to_be_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(bytes)
}

fn derive(secret: &Prk, session: &SessionId) -> Option<LessSafeKey> {
    let info = [b"openelb membership session".as_slice(), session.as_slice()];
    let key = secret.expand(&info, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

/// Refuses each counter the second time, and those too old to tell.
#[derive(Debug)]
struct Window {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u128,
}

impl Window {
    fn accept(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let shift = counter - self.highest;
            self.seen = u32::try_from(shift)
                .ok()
                .and_then(|s| self.seen.checked_shl(s))
                .unwrap_or(0);
            self.seen |= 1;
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        let Some(bit) = u32::try_from(behind)
            .ok()
            .and_then(|b| 1_u128.checked_shl(b))
        else {
            return false;
        };
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Key;

    fn seal(secret: &[u8], id: u8, now: Instant) -> Seal {
        Seal::new(Key::new(secret).unwrap().0, [id; 16], &[id; 32], now).unwrap()
    }

    /// Lets `b` admit `a`.
    fn introduce(a: &mut Seal, b: &mut Seal, now: Instant) {
        let packet = a.seal(b"hello").unwrap();
        let Opened::Reply(challenge) = b.open(&packet, now) else {
            panic!("no challenge")
        };
        let Opened::Reply(response) = a.open(&challenge, now) else {
            panic!("no response")
        };
        assert_eq!(b.open(&response, now), Opened::Admitted);
    }

    #[test]
    fn a_session_is_heard_after_it_answered_a_challenge() {
        let now = Instant::now();
        let (mut a, mut b) = (seal(&[1; 32], 1, now), seal(&[1; 32], 2, now));
        introduce(&mut a, &mut b, now);
        let packet = a.seal(b"news").unwrap();
        assert_eq!(packet.len(), b"news".len() + OVERHEAD);
        assert_eq!(b.open(&packet, now), Opened::Data(b"news".to_vec()));
        assert_eq!(b.open(&packet, now), Opened::Replayed);
    }

    #[test]
    fn another_key_is_refused() {
        let now = Instant::now();
        let (mut a, mut b) = (seal(&[1; 32], 1, now), seal(&[2; 32], 2, now));
        let packet = a.seal(b"hello").unwrap();
        assert_eq!(b.open(&packet, now), Opened::Refused);
    }

    #[test]
    fn a_recorded_session_does_not_get_in_again() {
        let now = Instant::now();
        let (mut a, mut b) = (seal(&[1; 32], 1, now), seal(&[1; 32], 2, now));
        let first = a.seal(b"hello").unwrap();
        let Opened::Reply(challenge) = b.open(&first, now) else {
            panic!("no challenge")
        };
        let Opened::Reply(response) = a.open(&challenge, now) else {
            panic!("no response")
        };
        b.open(&response, now);
        let data = a.seal(b"secret").unwrap();
        b.open(&data, now);

        // The receiver restarts; the sender is gone. All that was said is said again.
        let mut again = seal(&[1; 32], 3, now);
        assert!(matches!(again.open(&first, now), Opened::Reply(_)));
        assert_eq!(again.open(&response, now), Opened::Refused);
        assert!(!matches!(again.open(&data, now), Opened::Data(_)));
        // An old challenge answered late is no way in either.
        let late = now + EPOCH * 3;
        let mut fresh = seal(&[1; 32], 4, now);
        let Opened::Reply(challenge) = fresh.open(&first, now) else {
            panic!("no challenge")
        };
        let Opened::Reply(response) = a.open(&challenge, now) else {
            panic!("no response")
        };
        assert_eq!(fresh.open(&response, late), Opened::Refused);
    }

    #[test]
    fn sessions_are_bounded() {
        let now = Instant::now();
        let mut b = seal(&[1; 32], 2, now);
        for n in 0..u64::try_from(MAX_SESSIONS).unwrap() + 100 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id[15] = 1;
            b.admit(id, 1, now + Duration::from_millis(n));
        }
        assert_eq!(b.sessions.len(), MAX_SESSIONS);
    }

    proptest! {
        #[test]
        fn the_window_accepts_each_counter_at_most_once(
            counters in prop::collection::vec(0_u64..400, 1..300),
        ) {
            let mut window = Window { highest: 200, seen: 1 };
            let mut accepted = HashSet::from([200]);
            for counter in counters {
                let fresh = !accepted.contains(&counter);
                let recent = window.highest.saturating_sub(counter) < 128;
                let took = window.accept(counter);
                prop_assert!(!took || fresh);
                prop_assert_eq!(took, fresh && recent);
                accepted.insert(counter);
            }
        }

        #[test]
        fn a_damaged_packet_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let now = Instant::now();
            let (mut a, mut b) = (seal(&[1; 32], 1, now), seal(&[1; 32], 2, now));
            introduce(&mut a, &mut b, now);
            let mut packet = a.seal(b"news").unwrap();
            let at = at.index(packet.len());
            packet[at] ^= 1 << bit;
            prop_assert_eq!(b.open(&packet, now), Opened::Refused);
        }
    }
}
