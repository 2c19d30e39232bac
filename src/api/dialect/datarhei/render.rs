//! The two answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::dialect::datarhei::collect::{Collected, Session, address, location, reference};
use crate::api::dialect::datarhei::writer::Writer;
use crate::api::settings::Datarhei;
use crate::control::view::Totals;

/// Collectors that show the configured limits; the others, and names that are none, show zero.
const LIMITED: [&str; 5] = ["hls", "rtmp", "srt", "ffmpeg", "http"];

/// Writes an object of all `names`.
pub fn write(
    out: &mut Writer,
    names: &BTreeSet<Vec<u8>>,
    collected: &Collected,
    settings: &Datarhei,
    with_summary: bool,
) {
    out.object(|out| {
        for name in names {
            let text = std::str::from_utf8(name).unwrap_or_default();
            let sessions = collected.sessions(text, settings);
            let value = out.key_bytes(name);
            if with_summary {
                let limited = LIMITED.contains(&text);
                value.object(|out| {
                    out.key("active").object(|out| write_active(out, &sessions, settings, limited));
                    out.key("summary").object(|out| write_finished(out, text, collected, settings));
                });
            } else {
                value.list(|out| write_sessions(out, &sessions));
            }
        }
    });
}

fn write_sessions(out: &mut Writer, sessions: &[Session]) {
    for session in sessions {
        out.item().object(|out| {
            out.key("id").text(&session.id);
            out.key("reference").text(&session.reference);
            out.key("created_at").whole(session.created_at);
            out.key("local").text(&session.local);
            out.key("remote").text(&session.remote);
            out.key("extra").text("");
            out.key("bytes_rx").whole(session.bytes_rx);
            out.key("bytes_tx").whole(session.bytes_tx);
            out.key("bandwidth_rx_kbit").number(session.rx_bps / 1_024.0);
            out.key("bandwidth_tx_kbit").number(session.tx_bps / 1_024.0);
        });
    }
}

#[allow(clippy::cast_precision_loss)] // A limit in Mbit/s is far below 2^52.
fn write_active(out: &mut Writer, sessions: &[Session], settings: &Datarhei, limited: bool) {
    const MEGA: f64 = 1_024.0 * 1_024.0;
    let (max_sessions, max_bitrate) =
        if limited { (settings.max_sessions, settings.max_bitrate_mbit as f64) } else { (0, 0.0) };
    out.key("list").list(|out| write_sessions(out, sessions));
    out.key("sessions").whole(sessions.len() as u64);
    out.key("bandwidth_rx_mbit").number(sessions.iter().map(|session| session.rx_bps).sum::<f64>() / MEGA);
    out.key("bandwidth_tx_mbit").number(sessions.iter().map(|session| session.tx_bps).sum::<f64>() / MEGA);
    out.key("max_sessions").whole(max_sessions);
    out.key("max_bandwidth_rx_mbit").number(0.0);
    out.key("max_bandwidth_tx_mbit").number(max_bitrate);
}

fn write_finished(out: &mut Writer, name: &str, collected: &Collected, settings: &Datarhei) {
    let mut total = Totals::default();
    let mut remotes: BTreeMap<String, (Totals, BTreeMap<String, Totals>)> = BTreeMap::new();
    let mut locals: BTreeMap<String, Totals> = BTreeMap::new();
    let mut references: BTreeMap<String, Totals> = BTreeMap::new();
    if let Some(finished) = collected.finished(name) {
        for (kind, key, remote, totals) in &finished.history {
            let local = location(*kind, key);
            let (of_remote, by_local) = remotes.entry(address(*remote)).or_default();
            add(of_remote, totals);
            add(by_local.entry(local.clone()).or_default(), totals);
            add(locals.entry(local).or_default(), totals);
            add(references.entry(reference(key, settings)).or_default(), totals);
            add(&mut total, totals);
        }
        add(&mut total, &finished.folded);
    }
    out.key("remote").object(|out| {
        for (remote, (totals, by_local)) in &remotes {
            out.key(remote).object(|out| {
                write_totals(out, totals);
                out.key("local").object(|out| write_by_name(out, by_local));
            });
        }
    });
    out.key("local").object(|out| write_by_name(out, &locals));
    out.key("reference").object(|out| write_by_name(out, &references));
    write_totals(out, &total);
}

fn write_by_name(out: &mut Writer, all: &BTreeMap<String, Totals>) {
    for (name, totals) in all {
        out.key(name).object(|out| write_totals(out, totals));
    }
}

/// Megabytes are cut off at every level by itself, from exact bytes: parts need not add up.
fn write_totals(out: &mut Writer, totals: &Totals) {
    out.key("sessions").whole(totals.sessions);
    out.key("traffic_rx_mb").whole(totals.rx_bytes >> 20);
    out.key("traffic_tx_mb").whole(totals.tx_bytes >> 20);
}

fn add(to: &mut Totals, more: &Totals) {
    to.sessions += more.sessions;
    to.rx_bytes += more.rx_bytes;
    to.tx_bytes += more.tx_bytes;
}
