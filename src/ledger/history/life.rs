//! When a session was there, and how what it moved lies in that time.

/// How much earlier than its id says a session may have opened: the id is made when the peer says what it wants,
/// which is at most the stages before it after first contact. A session that took longer is still found; it may only
/// be missing where a range of time ends before it asked.
pub(super) const SKEW_MS: u64 = 15 * 60_000;

/// The times of a session.
#[allow(clippy::struct_field_names)] // The unit comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) opened_ms: u64,
    pub(super) started_ms: Option<u64>,
    pub(super) updated_ms: u64,
    pub(super) closed_ms: Option<u64>,
}

/// From a moment to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Life {
    pub(super) fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }

    /// Whether it was there at any moment of a range. One that runs is there until it is known to have ended; one
    /// that was over at once was there for the millisecond in which it was.
    pub(super) fn is_in(&self, from_ms: Option<u64>, to_ms: Option<u64>) -> bool {
        let until = self.closed_ms.map_or(u64::MAX, |closed| closed.max(self.opened_ms.saturating_add(1)));
        from_ms.is_none_or(|from| until > from) && to_ms.is_none_or(|to| self.opened_ms < to)
    }

    /// From opening to the end; one that runs has lasted until `now_ms`.
    pub(super) fn whole(&self, now_ms: u64) -> Span {
        let end = self.closed_ms.unwrap_or(now_ms.max(self.updated_ms));
        Span { from: self.opened_ms, to: end.max(self.opened_ms) }
    }

    /// From first media to the end; empty without media.
    pub(super) fn with_media(&self, now_ms: u64) -> Span {
        let whole = self.whole(now_ms);
        let from = self.started_ms.unwrap_or(whole.to).clamp(whole.from, whole.to);
        Span { from, ..whole }
    }

    /// The time in which its bytes were moved: to the end, or to the last checkpoint.
    pub(super) fn counted(&self) -> Span {
        let to = self.closed_ms.unwrap_or(self.updated_ms);
        Span { from: self.opened_ms, to: to.max(self.opened_ms) }
    }
}

impl Span {
    /// The part of it that lies in `other`; empty when there is none.
    pub(super) fn within(self, other: Self) -> Self {
        let from = self.from.clamp(other.from, other.to.max(other.from));
        Self { from, to: self.to.min(other.to).max(from) }
    }

    pub(super) fn ms(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// It, or its one moment as a millisecond: whoever was there was there for some time.
    pub(super) fn at_least_a_moment(self) -> Self {
        Self { to: self.to.max(self.from.saturating_add(1)), ..self }
    }

    /// How much of `total`, spread evenly over the span, lies before `at`. What lies between two moments is the
    /// difference, so that parts add up to the whole.
    pub(super) fn before(self, at: u64, total: u64) -> u64 {
        if at >= self.to && at > self.from {
            return total;
        }
        let (passed, whole) = (at.saturating_sub(self.from), self.ms());
        let part = (u128::from(total) * u128::from(passed)).checked_div(u128::from(whole)).unwrap_or(0);
        u64::try_from(part).unwrap_or(total)
    }

    /// How much of `total`, spread evenly over the span, lies in `other`.
    pub(super) fn share(self, other: Self, total: u64) -> u64 {
        self.before(other.to, total).saturating_sub(self.before(other.from, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for (from, to, total) in [(10, 20, 7), (10, 11, 1_000_003), (0, 1_000, 999_983), (5, 5, 42), (3, 90, u64::MAX)]
        {
            let span = Span { from, to };
            let borders = [0, 1, 4, 5, 6, 10, 11, 15, 20, 21, 500, 1_000, 2_000];
            let sum: u64 = borders.windows(2).map(|pair| span.share(Span { from: pair[0], to: pair[1] }, total)).sum();
            assert_eq!(sum, total, "{span:?}");
        }
    }

    #[test]
    fn what_was_over_at_once_was_there_in_its_moment() {
        let life = Life { opened_ms: 10, started_ms: None, updated_ms: 10, closed_ms: Some(10) };
        assert!(life.is_in(Some(10), Some(11)));
        assert!(!life.is_in(Some(11), None));
        assert!(!life.is_in(None, Some(10)));
        assert_eq!(life.counted().share(Span { from: 10, to: 11 }, 5), 5);
        assert_eq!(life.counted().share(Span { from: 9, to: 10 }, 5), 0);
    }

    #[test]
    fn what_runs_is_there_until_it_is_known_to_have_ended() {
        let life = Life { opened_ms: 10, started_ms: Some(20), updated_ms: 50, closed_ms: None };
        assert!(life.is_in(Some(1_000), None));
        assert_eq!(life.whole(100), Span { from: 10, to: 100 });
        assert_eq!(life.with_media(100), Span { from: 20, to: 100 });
        assert_eq!(life.counted(), Span { from: 10, to: 50 });
        assert_eq!(life.whole(30).to, 50, "a clock that was set back");
    }
}
