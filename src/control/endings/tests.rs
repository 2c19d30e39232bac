use super::*;
use crate::control::Filter;
use crate::control::testing::{id, key, row, with_facts};
use crate::names::Kind;
use crate::session::Reason;
use crate::stdx::clock::WallAnchor;

const ORDER: Duration = Duration::from_secs(1);

struct Desk {
    endings: Endings,
    view: View,
    ids: OrderIds,
    now: Instant,
    out: Vec<(ShardId, ToShard)>,
}

impl Desk {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            endings: Endings::new(ORDER),
            view: View::new(WallAnchor::now(), now, 2),
            ids: OrderIds::default(),
            now,
            out: Vec::new(),
        }
    }

    fn open(&mut self, n: u64, shard: u16, kind: Kind, path: &str, remote: &str) {
        let row = with_facts(row(n, kind, path, remote), |facts| facts.shard = ShardId(shard));
        self.view.sessions.insert(id(n), row);
    }

    fn begin(&mut self, what: Terminate) -> oneshot::Receiver<Result<Terminated, CommandError>> {
        let (reply, answer) = oneshot::channel();
        let shards = [ShardId(0), ShardId(1)];
        self.endings.begin(self.now, &self.view, &shards, what, reply, &mut self.ids, &mut self.out);
        answer
    }

    fn done(&mut self, order: OrderId, count: usize) {
        self.endings.done(self.now, order, count, &self.view, &mut self.ids, &mut self.out);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.endings.expire(self.now, &self.view, &mut self.ids, &mut self.out);
    }

    fn bans(&mut self) -> Vec<(ShardId, OrderId, Vec<Ban>)> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .map(|(to, mail)| match mail {
                ToShard::Ban { order, bans } => (to, order, bans.to_vec()),
                _ => panic!("not a ban"),
            })
            .collect()
    }

    fn closes(&mut self) -> Vec<(ShardId, OrderId, Vec<SessionId>)> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .map(|(to, mail)| match mail {
                ToShard::Close { order, sessions, .. } => (to, order, sessions),
                _ => panic!("not a close"),
            })
            .collect()
    }
}

fn terminate(terms: &[(&str, &str)]) -> Terminate {
    let mut filter = Filter::default();
    for (field, value) in terms {
        filter.add(field, value).unwrap();
    }
    Terminate { filter, reason: Reason::Kicked.into(), ban_for: None, dry_run: false }
}

#[test]
fn ap_10_nothing_that_matches_is_nothing_to_do() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    let mut answer = desk.begin(terminate(&[("id", &id(9).to_string())]));
    assert_eq!(answer.try_recv().unwrap(), Ok(Terminated::default()));
    assert!(desk.out.is_empty());
}

#[test]
fn a_dry_run_says_which_and_touches_nothing() {
    let mut desk = Desk::new();
    desk.open(2, 1, Kind::Play, "live/a", "192.0.2.1:1");
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    desk.open(3, 0, Kind::Publish, "live/a", "192.0.2.1:1");
    let what = Terminate { dry_run: true, ban_for: Some(ORDER), ..terminate(&[("kind", "play")]) };
    let outcome = desk.begin(what).try_recv().unwrap().unwrap();
    assert_eq!((outcome.ids, outcome.matched, outcome.closed, outcome.banned), (vec![id(1), id(2)], 2, 0, 0));
    assert!(desk.out.is_empty());
}

#[test]
fn sessions_are_closed_on_their_shards_and_counted() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    desk.open(2, 1, Kind::Play, "live/a", "192.0.2.1:1");
    desk.open(3, 1, Kind::Play, "live/a", "192.0.2.1:1");
    let mut answer = desk.begin(terminate(&[]));
    let closes = desk.closes();
    assert_eq!(
        closes.iter().map(|(to, _, ids)| (to.0, ids.clone())).collect::<Vec<_>>(),
        [(0, vec![id(1)]), (1, vec![id(2), id(3)])]
    );
    desk.done(closes[0].1, 1);
    assert!(answer.try_recv().is_err(), "the other shard has not answered");
    // One of the two had ended by itself.
    desk.done(closes[1].1, 1);
    let outcome = answer.try_recv().unwrap().unwrap();
    assert_eq!((outcome.matched, outcome.closed), (3, 2));
    assert!(desk.endings.pending.is_empty() && desk.endings.orders.is_empty());
}

#[test]
fn every_shard_knows_the_bans_before_any_session_is_closed() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    desk.open(2, 0, Kind::Play, "live/a", "[::ffff:192.0.2.1]:2");
    desk.open(3, 0, Kind::Play, "live/b", "192.0.2.1:3");
    let mut answer = desk.begin(Terminate { ban_for: Some(Duration::from_mins(1)), ..terminate(&[("app", "live")]) });
    let bans = desk.bans();
    assert_eq!(bans.iter().map(|(to, ..)| to.0).collect::<Vec<_>>(), [0, 1], "also the shard without a match");
    let until = desk.now + Duration::from_mins(1);
    for (_, _, bans) in &bans {
        assert_eq!(bans.len(), 2, "one for each peer, role and stream: {bans:?}");
        for path in ["live/a", "live/b"] {
            let address = "192.0.2.1".parse().unwrap();
            assert!(bans.contains(&Ban { whom: Whom::exactly(address, Kind::Play, key(path)), until }));
        }
    }
    desk.done(bans[0].1, 2);
    assert!(desk.out.is_empty(), "one shard does not know the bans yet");
    desk.done(bans[1].1, 2);
    let closes = desk.closes();
    assert_eq!(closes.len(), 1);
    desk.done(closes[0].1, 3);
    let outcome = answer.try_recv().unwrap().unwrap();
    assert_eq!((outcome.matched, outcome.closed, outcome.banned), (3, 3, 2));
}

#[test]
fn a_ban_of_a_peer_that_is_not_here_is_over_when_every_shard_knows_it() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    let (reply, mut answer) = oneshot::channel();
    let whom = Whom { address: "192.0.2.7".parse().unwrap(), kind: None, key: None };
    let ban = Ban { whom, until: desk.now + Duration::from_mins(1) };
    let shards = [ShardId(0), ShardId(1)];
    desk.endings.ban(desk.now, &desk.view, &shards, ban, reply, &mut desk.ids, &mut desk.out);
    let bans = desk.bans();
    assert_eq!(bans.len(), 2);
    for (_, order, _) in bans {
        assert!(answer.try_recv().is_err(), "a shard does not know it yet");
        desk.done(order, 1);
    }
    let outcome = answer.try_recv().unwrap().unwrap();
    assert_eq!((outcome.banned, outcome.matched, outcome.closed), (1, 0, 0));
    assert!(desk.closes().is_empty());
}

#[test]
fn a_banned_peer_that_slipped_in_meanwhile_is_closed_too() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    let mut answer = desk.begin(Terminate { ban_for: Some(ORDER), ..terminate(&[("stream", "a")]) });
    let bans = desk.bans();
    desk.open(2, 1, Kind::Play, "live/a", "192.0.2.1:2");
    desk.open(3, 1, Kind::Play, "live/a", "192.0.2.99:2");
    for (_, order, _) in bans {
        desk.done(order, 1);
    }
    let closes = desk.closes();
    let ended: Vec<_> = closes.iter().flat_map(|(_, _, ids)| ids.clone()).collect();
    assert_eq!(ended, [id(1), id(2)], "the peer that is not banned stays");
    for (_, order, _) in closes {
        desk.done(order, 1);
    }
    assert_eq!(answer.try_recv().unwrap().unwrap().closed, 2);
}

#[test]
fn many_sessions_go_in_batches() {
    let mut desk = Desk::new();
    for n in 0..2_500 {
        desk.open(n, 0, Kind::Play, "live/a", &format!("10.0.{}.{}:1", n / 250, n % 250));
    }
    let mut answer = desk.begin(Terminate { ban_for: Some(ORDER), ..terminate(&[]) });
    let bans = desk.bans();
    assert_eq!(bans.iter().map(|(_, _, bans)| bans.len()).collect::<Vec<_>>(), [1_000, 1_000, 1_000, 1_000, 500, 500]);
    for (_, order, bans) in bans {
        desk.done(order, bans.len());
    }
    let closes = desk.closes();
    assert_eq!(closes.iter().map(|(_, _, ids)| ids.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    for (_, order, ids) in closes {
        desk.done(order, ids.len());
    }
    let outcome = answer.try_recv().unwrap().unwrap();
    assert_eq!((outcome.matched, outcome.closed, outcome.banned, outcome.ids.len()), (2_500, 2_500, 2_500, 1_000));
}

#[test]
fn fa_26_a_shard_that_does_not_answer_is_told_to_the_caller_and_holds_up_nobody() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    let mut answer = desk.begin(Terminate { ban_for: Some(ORDER), ..terminate(&[]) });
    let bans = desk.bans();
    desk.done(bans[0].1, 1);
    assert_eq!(desk.endings.next_due(), Some(desk.now + ORDER));
    desk.pass(ORDER);
    let closes = desk.closes();
    assert_eq!(closes.len(), 1, "the shard that answers closes its part all the same");
    assert!(answer.try_recv().is_err());
    desk.done(bans[1].1, 1);
    desk.done(closes[0].1, 1);
    assert_eq!(answer.try_recv().unwrap(), Err(CommandError::Timeout));
    assert!(desk.endings.pending.is_empty() && desk.endings.orders.is_empty());

    let mut answer = desk.begin(terminate(&[]));
    desk.pass(ORDER);
    assert_eq!(answer.try_recv().unwrap(), Err(CommandError::Timeout));
    assert!(desk.endings.pending.is_empty() && desk.endings.orders.is_empty());
}

#[test]
fn ap_11_a_ban_lasts_a_year_at_most_and_none_for_zero() {
    let mut desk = Desk::new();
    desk.open(1, 0, Kind::Play, "live/a", "192.0.2.1:1");
    let _answer = desk.begin(Terminate { ban_for: Some(Duration::MAX), ..terminate(&[]) });
    assert_eq!(desk.bans()[0].2[0].until, desk.now + BAN_MAX);
    let _answer = desk.begin(Terminate { ban_for: Some(Duration::ZERO), ..terminate(&[]) });
    assert_eq!(desk.closes().len(), 1);
}

#[test]
fn a_ban_names_the_stream_that_was_asked_for_as_well() {
    let mut desk = Desk::new();
    let identity = crate::session::Identity { key: key("live/given"), user: None, labels: std::sync::Arc::default() };
    let asked = row(1, Kind::Play, "live/asked", "192.0.2.1:5000");
    let given = with_facts(asked.clone(), |facts| *facts = facts.identified(identity));
    desk.view.sessions.insert(id(1), given);
    let _answer = desk.begin(Terminate { ban_for: Some(ORDER), ..terminate(&[("stream", "given")]) });
    let bans = desk.bans();
    let mut named: Vec<String> = bans[0].2.iter().map(|ban| ban.whom.key.as_ref().unwrap().to_string()).collect();
    named.sort();
    assert_eq!(named, [key("live/asked").to_string(), key("live/given").to_string()]);
    // Who slips in under the first name is found.
    desk.view.sessions.insert(id(2), with_facts(asked, |facts| facts.id = id(2)));
    for (_, order, bans) in bans {
        desk.done(order, bans.len());
    }
    let closed: Vec<SessionId> = desk.closes().into_iter().flat_map(|(_, _, sessions)| sessions).collect();
    assert_eq!(closed, [id(1)], "the filter is about the stream");
}

#[test]
fn a_ban_of_somebody_who_is_not_here_is_over_when_every_shard_knows_it() {
    let mut desk = Desk::new();
    let (reply, mut answer) = oneshot::channel();
    let whom = Whom::exactly("192.0.2.7".parse().unwrap(), Kind::Play, key("live/a"));
    let ban = Ban { whom, until: desk.now + Duration::from_mins(1) };
    desk.endings.ban(desk.now, &desk.view, &[ShardId(0), ShardId(1)], ban, reply, &mut desk.ids, &mut desk.out);
    for (_, order, _) in desk.bans() {
        assert!(answer.try_recv().is_err());
        desk.done(order, 1);
    }
    let told = answer.try_recv().unwrap().unwrap();
    assert_eq!((told.banned, told.matched, told.closed), (1, 0, 0));
    assert_eq!(desk.endings.next_due(), None);
}
