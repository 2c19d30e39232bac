//! Session types that failed by a defect of ours, and are not tried again for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::names::{Kind, Protocol};

/// Two defects within this time in sessions of one type disable the type.
const WITHIN: Duration = Duration::from_secs(1);

/// What becomes of types of session (a protocol in a role) whose code panics. One such session is closed and the rest
/// go on; a second within a second means that peers find the defect at will, and the type is refused from then on.
/// Shared by all shards; sessions that run are left alone.
pub struct SessionTypes {
    epoch: Instant,
    types: [Type; Protocol::ALL.len() * Kind::ALL.len()],
}

#[derive(Default)]
struct Type {
    /// When the last one was, in microseconds since the epoch and one more; 0 is never.
    failed_at: AtomicU64,
    is_disabled: AtomicBool,
}

impl SessionTypes {
    /// All types as they should be. `epoch` is any time before the first call.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, types: Default::default() }
    }

    /// A session of this type met a defect. True when that disabled the type, which is said once.
    pub fn on_defect(&self, now: Instant, protocol: Protocol, kind: Kind) -> bool {
        let Some(it) = self.of(protocol, kind) else { return false };
        let now_us = u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX - 1) + 1;
        let before_us = it.failed_at.swap(now_us, Ordering::AcqRel);
        let within_us = u64::try_from(WITHIN.as_micros()).unwrap_or(u64::MAX);
        let is_again = before_us != 0 && now_us.abs_diff(before_us) <= within_us;
        is_again && !it.is_disabled.swap(true, Ordering::AcqRel)
    }

    /// True while sessions of this type are refused.
    #[must_use]
    pub fn is_disabled(&self, protocol: Protocol, kind: Kind) -> bool {
        self.of(protocol, kind).is_some_and(|it| it.is_disabled.load(Ordering::Acquire))
    }

    /// How many types are refused.
    #[must_use]
    pub fn disabled(&self) -> usize {
        self.types.iter().filter(|it| it.is_disabled.load(Ordering::Acquire)).count()
    }

    /// Tries all of them again: a new configuration was loaded.
    pub fn reset(&self) {
        for it in &self.types {
            it.failed_at.store(0, Ordering::Release);
            it.is_disabled.store(false, Ordering::Release);
        }
    }

    fn of(&self, protocol: Protocol, kind: Kind) -> Option<&Type> {
        let protocol = Protocol::ALL.iter().position(|it| *it == protocol)?;
        let kind = Kind::ALL.iter().position(|it| *it == kind)?;
        self.types.get(protocol * Kind::ALL.len() + kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fa_26_a_second_defect_within_a_second_disables_the_type_and_only_that() {
        let start = Instant::now();
        let types = SessionTypes::new(start);
        assert!(!types.on_defect(start, Protocol::Rtmp, Kind::Publish));
        assert!(!types.on_defect(start, Protocol::Rtmp, Kind::Play));
        let later = start + Duration::from_secs(1);
        assert!(types.on_defect(later, Protocol::Rtmp, Kind::Publish));
        assert!(types.is_disabled(Protocol::Rtmp, Kind::Publish));
        assert!(!types.is_disabled(Protocol::Rtmp, Kind::Play));
        // Said once, and not forgotten by time.
        assert!(!types.on_defect(later, Protocol::Rtmp, Kind::Publish));
        assert!(types.is_disabled(Protocol::Rtmp, Kind::Publish));
        assert_eq!(types.disabled(), 1);
        types.reset();
        assert_eq!(types.disabled(), 0);
        assert!(!types.on_defect(later, Protocol::Rtmp, Kind::Publish), "the defect before the reload counted");
    }

    #[test]
    fn fa_26_defects_further_apart_disable_nothing() {
        let start = Instant::now();
        let types = SessionTypes::new(start);
        for n in 0..20 {
            assert!(!types.on_defect(start + Duration::from_millis(1_001) * n, Protocol::Rtmp, Kind::Play));
        }
        assert_eq!(types.disabled(), 0);
    }
}
