//! `GET /v1/streams` and `GET /v1/streams/{vhost}/{app}/{stream}`.

use std::ops::Bound;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::native::sessions::PageParams;
use crate::api::native::wire::{millis, rfc3339};
use crate::api::native::{json, page};
use crate::api::query::{Params, decode};
use crate::api::{Problem, Shared};
use crate::control::View;
use crate::control::view::StreamRow;
use crate::names::{Name, StreamKey};
use crate::stdx::clock::WallAnchor;

/// A page of streams, by name.
#[derive(Serialize, ToSchema)]
pub struct StreamPage {
    /// The streams.
    streams: Vec<Stream>,
    /// Where the next page begins, as in `next`; null on the last.
    cursor: Option<String>,
    /// The address of the next page; null on the last.
    next: Option<String>,
}

/// A stream that is published, played, or waits for its publisher to come back.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names)] // It is the word for it.
pub struct Stream {
    /// Its virtual host.
    vhost: String,
    /// Its application.
    app: String,
    /// Its name.
    stream: String,
    /// Somebody publishes right now.
    published: bool,
    /// Who.
    publisher: Option<Publisher>,
    /// Since when.
    #[schema(format = DateTime)]
    online_at: Option<String>,
    /// For how long.
    online_ms: Option<u64>,
    /// Players on all shards.
    viewers: usize,
    /// Players on each shard that has any.
    viewers_by_shard: Vec<ShardViewers>,
    /// The picture; null while unknown.
    video: Option<Video>,
    /// The sound; null while unknown.
    audio: Option<Audio>,
    /// Media bits a second.
    bitrate_bps: u64,
    /// Bytes held for newcomers and slow players.
    cache_bytes: u64,
    /// Frames since the stream began on its home shard.
    frames: u64,
    /// Timestamp jumps that were smoothed over.
    discontinuities: u64,
}

/// Who publishes a stream.
#[derive(Serialize, ToSchema)]
pub struct Publisher {
    /// The session.
    #[schema(format = Uuid)]
    session: String,
    /// Where.
    shard: u16,
    /// From where; null when the session has just ended.
    remote: Option<String>,
}

/// Players on one shard.
#[derive(Serialize, ToSchema)]
pub struct ShardViewers {
    /// Which shard.
    shard: u16,
    /// How many.
    viewers: usize,
}

/// What is known of the picture.
#[derive(Serialize, ToSchema)]
pub struct Video {
    /// Four characters.
    codec: String,
    /// Zero while unknown.
    width: u32,
    /// Zero while unknown.
    height: u32,
    /// Pictures a second, measured.
    frame_rate: f64,
    /// Bits a second, measured.
    bitrate_bps: u64,
    /// Length of the newest complete group of pictures.
    gop_ms: u64,
    /// Pictures in it.
    gop_frames: u32,
}

/// What is known of the sound.
#[derive(Serialize, ToSchema)]
pub struct Audio {
    /// Four characters.
    codec: String,
    /// In Hz; zero while unknown.
    sample_rate: u32,
    /// Zero while unknown.
    channels: u32,
    /// Bits a second, measured.
    bitrate_bps: u64,
}

/// Lists streams.
#[utoipa::path(get, path = "/v1/streams", tag = "streams",
    params(
        ("vhost" = Option<String>, Query, description = "Streams on this virtual host"),
        ("app" = Option<String>, Query, description = "Streams in this application"),
        ("stream" = Option<String>, Query, description = "Streams of this name"),
        ("published" = Option<bool>, Query, description = "Streams that somebody publishes, or that nobody does"),
        PageParams),
    responses((status = 200, description = "A page of streams", body = StreamPage)))]
pub(crate) async fn list(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let known: [&str; 6] = ["vhost", "app", "stream", "published", "limit", "cursor"];
    let mut params = Params::parse(query.as_deref(), &[&known])?;
    let limit = page::limit(params.take("limit"))?;
    let given = params.take("cursor");
    let filter = StreamFilter {
        vhost: params.take("vhost"),
        app: params.take("app"),
        stream: params.take("stream"),
        published: params.take_flag("published")?,
    };
    let list = format!("streams {filter:?}");
    let mut after = given.map(|text| key_of(&page::read_cursor(&list, &text)?)).transpose()?;
    let (mut streams, mut more) = (Vec::new(), true);
    let now = Instant::now();
    while more && streams.len() < limit {
        let (found, newest, rest) =
            api.control.view(|view| slice(view, &filter, after.as_ref(), limit - streams.len(), now));
        streams.extend(found);
        after = newest.or(after);
        more = rest;
        tokio::task::yield_now().await;
    }
    let cursor = after
        .filter(|_| more)
        .map(|key| page::cursor(&list, format!("{}\0{}\0{}", key.vhost(), key.app(), key.stream()).as_bytes()));
    let next = cursor.as_deref().map(|cursor| page::next_link("/v1/streams", query.as_deref(), cursor));
    Ok(json(&StreamPage { streams, cursor, next }))
}

/// One stream. An app or a name that has slashes may be written with them, or with `%2F`, which is never
/// ambiguous; of several readings the one with the longest app is tried first.
#[utoipa::path(get, path = "/v1/streams/{vhost}/{app}/{stream}", tag = "streams",
    params(("vhost" = String, Path, description = "Its virtual host", min_length = 1),
        ("app" = String, Path, description = "Its application", min_length = 1),
        ("stream" = String, Path, description = "Its name", min_length = 1)),
    responses((status = 200, description = "The stream", body = Stream)))]
pub(crate) async fn one(State(api): State<Shared>, uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let rest = uri.path().strip_prefix("/v1/streams/").unwrap_or_default();
    let missing = || Problem::not_found("no stream has this name");
    let parts: Option<Vec<String>> = rest.split('/').map(|part| decode(part, false)).collect();
    let parts =
        parts.ok_or_else(|| Problem::parameter("stream", "the path has a broken percent escape or is not UTF-8"))?;
    let (vhost, names) = parts.split_first().ok_or_else(missing)?;
    let now = Instant::now();
    // Each reading costs one look-up, and a name is too short for many.
    if names.len() > crate::names::STREAM_BYTES_MAX {
        return Err(missing());
    }
    (1..names.len())
        .rev()
        .filter_map(|at| {
            let (app, stream) = names.split_at(at);
            let vhost = Name::app(vhost).ok()?;
            Some(StreamKey::new(&vhost, &Name::app(&app.join("/")).ok()?, &Name::stream(&stream.join("/")).ok()?))
        })
        .find_map(|key| api.control.view(|view| view.streams.get(&key).map(|row| Stream::new(view, &key, row, now))))
        .map(|stream| json(&stream))
        .ok_or_else(missing)
}

#[derive(Debug)]
struct StreamFilter {
    vhost: Option<String>,
    app: Option<String>,
    stream: Option<String>,
    published: Option<bool>,
}

impl StreamFilter {
    fn matches(&self, key: &StreamKey, row: &StreamRow) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        is(&self.vhost, key.vhost())
            && is(&self.app, key.app())
            && is(&self.stream, key.stream())
            && self.published.is_none_or(|wanted| wanted == row.publisher.is_some())
    }
}

fn slice(
    view: &View,
    filter: &StreamFilter,
    after: Option<&StreamKey>,
    room: usize,
    now: Instant,
) -> (Vec<Stream>, Option<StreamKey>, bool) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (mut streams, mut last) = (Vec::new(), None);
    for (looked_at, (key, row)) in view.streams.range::<StreamKey, _>((from, Bound::Unbounded)).enumerate() {
        if looked_at == page::SLICE || streams.len() == room {
            return (streams, last, true);
        }
        last = Some(key.clone());
        if filter.matches(key, row) {
            streams.push(Stream::new(view, key, row, now));
        }
    }
    (streams, last, false)
}

fn key_of(bytes: &[u8]) -> Result<StreamKey, Problem> {
    let read = || {
        let mut parts = std::str::from_utf8(bytes).ok()?.split('\0');
        let (vhost, app, stream) = (parts.next()?, parts.next()?, parts.next()?);
        Some(StreamKey::new(&Name::app(vhost).ok()?, &Name::app(app).ok()?, &Name::stream(stream).ok()?))
    };
    read().ok_or_else(|| Problem::parameter("cursor", "this is not a cursor of this list"))
}

impl Stream {
    fn new(view: &View, key: &StreamKey, row: &StreamRow, now: Instant) -> Self {
        let sample = &row.sample;
        let wall: &WallAnchor = &view.wall;
        let known = |codec: &str| !codec.is_empty();
        Self {
            vhost: key.vhost().to_owned(),
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
            published: row.publisher.is_some(),
            publisher: row.publisher.map(|(session, shard)| Publisher {
                session: session.to_string(),
                shard: shard.0,
                remote: view.sessions.get(&session).map(|row| row.facts.remote.to_string()),
            }),
            online_at: row.online_at.map(|at| rfc3339(wall.since_epoch(at))),
            online_ms: row.online_at.map(|at| millis(now.saturating_duration_since(at))),
            viewers: row.players.values().sum(),
            viewers_by_shard: row
                .players
                .iter()
                .map(|(shard, viewers)| ShardViewers { shard: shard.0, viewers: *viewers })
                .collect(),
            video: known(&sample.video_codec).then(|| Video {
                codec: sample.video_codec.clone(),
                width: sample.width,
                height: sample.height,
                frame_rate: thousandths(sample.frame_rate),
                bitrate_bps: sample.video_bps,
                gop_ms: sample.gop_ms,
                gop_frames: sample.gop_frames,
            }),
            audio: known(&sample.audio_codec).then(|| Audio {
                codec: sample.audio_codec.clone(),
                sample_rate: sample.sample_rate,
                channels: sample.channels,
                bitrate_bps: sample.audio_bps,
            }),
            bitrate_bps: sample.video_bps.saturating_add(sample.audio_bps),
            cache_bytes: sample.cache_bytes,
            frames: sample.frames,
            discontinuities: sample.discontinuities,
        }
    }
}

/// Digits that mean something.
fn thousandths(value: f64) -> f64 {
    if value.is_finite() { (value * 1_000.0).round() / 1_000.0 } else { 0.0 }
}
