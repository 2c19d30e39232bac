//! C1, S1, C2 and S2: random bytes, and the digests that Flash-era peers put into them.
//!
//! Those peers sign their first packet with a key that everybody knows, and want the second one signed in return;
//! nothing is proven by it, but players from that time on refuse a server that does not. The digest lies at a place that
//! four bytes of the packet tell, in either of two layouts.

use std::hash::{BuildHasher, Hasher, RandomState};

use sha2::{Digest, Sha256};

/// Length of C1, S1, C2 and S2 (RTMP 1.0 §5.2.3, §5.2.4).
pub(super) const PACKET: usize = 1536;

/// Which packets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// S1 and S2.
    Server,
    /// C1 and C2.
    Client,
}

/// Where the four bytes are that tell the digest's place: the layouts of clients and of servers. Peers use both.
const CLIENT_LAYOUT: usize = 8;
const SERVER_LAYOUT: usize = 772;
/// The digest lies so many places at most behind those four bytes.
const PLACES: usize = 728;

const DIGEST: usize = 32;
const PLAYER_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";
/// The second packet is signed with the key and this behind it.
const KEY_TAIL: [u8; 32] = [
    0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57, 0x6e, 0xec, 0x5d,
    0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
];
/// What stands where the specification has zeros: the version of a program that signs. Peers look at no more than that
/// it is not zero, or at least 3.
const SIGNING_VERSION: [u8; 4] = [128, 0, 7, 2];

impl Side {
    fn key(self) -> &'static [u8] {
        match self {
            Self::Server => SERVER_KEY,
            Self::Client => PLAYER_KEY,
        }
    }

    fn peer(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }

    fn layout(self) -> usize {
        match self {
            Self::Server => SERVER_LAYOUT,
            Self::Client => CLIENT_LAYOUT,
        }
    }
}

/// The digest in the peer's first packet. `None` where there is none, or a wrong one: then the simple form is spoken.
pub(super) fn peer_digest(side: Side, packet: &[u8; PACKET]) -> Option<[u8; DIGEST]> {
    // In the simple form these are zero (RTMP 1.0 §5.2.3), and nobody need look for a digest.
    if packet.get(4..8) == Some(&[0; 4]) {
        return None;
    }
    [CLIENT_LAYOUT, SERVER_LAYOUT].into_iter().find_map(|layout| {
        let (before, rest) = packet.split_at_checked(place(packet, layout)?)?;
        let (digest, after) = rest.split_first_chunk::<DIGEST>()?;
        (hmac(side.peer().key(), &[before, after]) == *digest).then_some(*digest)
    })
}

/// Appends C1 or S1, signed or in the simple form. The time is zero, as everybody's is.
pub(super) fn write_first(side: Side, is_signed: bool, out: &mut Vec<u8>) {
    let mut packet = [0; PACKET];
    if let Some((head, noise)) = packet.split_first_chunk_mut::<8>() {
        Noise::new().fill(noise);
        if is_signed && let Some(version) = head.last_chunk_mut() {
            *version = SIGNING_VERSION;
        }
    }
    if is_signed
        && let Some(at) = place(&packet, side.layout())
        && let Some((before, rest)) = packet.split_at_mut_checked(at)
        && let Some((digest, after)) = rest.split_first_chunk_mut::<DIGEST>()
    {
        *digest = hmac(side.key(), &[before, after]);
    }
    out.extend_from_slice(&packet);
}

/// Appends C2 or S2 for a peer whose first packet was signed with `digest`.
pub(super) fn write_signed_second(side: Side, digest: &[u8; DIGEST], out: &mut Vec<u8>) {
    let mut packet = [0; PACKET];
    if let Some((noise, signature)) = packet.split_last_chunk_mut::<DIGEST>() {
        Noise::new().fill(noise);
        // `hmac` takes keys of any length; these are longer than a block (RFC 2104 §2).
        let key: Vec<u8> = [side.key(), &KEY_TAIL].concat();
        *signature = hmac(&hmac(&key, &[digest]), &[noise]);
    }
    out.extend_from_slice(&packet);
}

/// Where the digest is in a packet of a layout.
fn place(packet: &[u8; PACKET], layout: usize) -> Option<usize> {
    let four: &[u8; 4] = packet.get(layout..)?.first_chunk()?;
    let sum: usize = four.iter().map(|byte| usize::from(*byte)).sum();
    layout.checked_add(4)?.checked_add(sum.checked_rem(PLACES)?)
}

/// HMAC-SHA256 of `parts` one behind the other (RFC 2104).
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    if let Some(start) = block.get_mut(..key.len()) {
        start.copy_from_slice(key);
    } else if let Some(start) = block.first_chunk_mut::<DIGEST>() {
        *start = Sha256::digest(key).into();
    }
    let mut inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36));
    for part in parts {
        inner.update(part);
    }
    Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// Bytes that differ from packet to packet, so that an answer can be told from a greeting. They are no secret and need
/// not be hard to guess (RTMP 1.0 §5.2.3). The sequence is `SplitMix64`'s.
struct Noise(u64);

impl Noise {
    fn new() -> Self {
        // Every `RandomState` has keys of its own, made from the operating system's random numbers.
        Self(RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.next().to_le_bytes();
        }
        for byte in rest {
            [*byte, ..] = self.next().to_le_bytes();
        }
    }
}
