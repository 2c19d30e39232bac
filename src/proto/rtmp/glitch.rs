//! Things that are legal and suspicious, by the rule that noticed them.

/// What was noticed. Each costs a point of the connection's score and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glitch {
    /// A chunk size below the protocol's start, or one change too many (RT-24).
    ChunkSize,
    /// One Abort too many (RT-26).
    Abort,
    /// A control message with more bytes than it has meaning (RT-25).
    Longer,
    /// A message type without a meaning (RT-31).
    UnknownType,
    /// A command that cannot be read.
    Command,
    /// Media or data where nobody publishes (RT-35).
    Stream,
    /// An aggregate or a decoder configuration that is not as it should be (RT-32, MD-04).
    Media,
}

impl Glitch {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::ChunkSize, Self::Abort, Self::Longer, Self::UnknownType, Self::Command, Self::Stream, Self::Media];

    /// The name used in metrics and traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChunkSize => "chunk_size",
            Self::Abort => "abort",
            Self::Longer => "longer",
            Self::UnknownType => "unknown_type",
            Self::Command => "command",
            Self::Stream => "stream",
            Self::Media => "media",
        }
    }
}

/// How often each was noticed on one connection since somebody last asked. Small, because every connection has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glitches([u16; Glitch::ALL.len()]);

impl Glitches {
    /// Adds some.
    pub fn add(&mut self, what: Glitch, count: u32) {
        if let Some(slot) = self.0.get_mut(what as usize) {
            *slot = slot.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        }
    }

    /// Those that were noticed at least once.
    pub fn iter(&self) -> impl Iterator<Item = (Glitch, u32)> + '_ {
        Glitch::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| (what, u32::from(count)))
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(u32::from(*count)))
    }
}

/// How often each was noticed on all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlitchCounts([u64; Glitch::ALL.len()]);

impl GlitchCounts {
    /// Adds those of a connection.
    pub fn add(&mut self, glitches: &Glitches) {
        for (slot, more) in self.0.iter_mut().zip(glitches.0) {
            *slot = slot.saturating_add(u64::from(more));
        }
    }

    /// Each and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Glitch, u64)> + '_ {
        Glitch::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_own_count_and_name() {
        let mut glitches = Glitches::default();
        for (count, what) in (1..).zip(Glitch::ALL).skip(1) {
            glitches.add(what, count);
        }
        assert!(glitches.iter().map(|(what, _)| what).eq(Glitch::ALL.into_iter().skip(1)));
        assert_eq!(glitches.total(), 27);
        let mut counts = GlitchCounts::default();
        counts.add(&glitches);
        counts.add(&glitches);
        assert!(counts.iter().map(|(_, count)| count).eq([0, 4, 6, 8, 10, 12, 14]));
        let mut names = Glitch::ALL.map(Glitch::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Glitch::ALL.len());
    }
}
