//! The live feed: server-sent events that always carry the newest picture.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use twinspan_core::link::Conditions;

use super::board::{Board, MetricsFrame, MetricsLog, SessionRow, WorldFrame};
use super::conditions;
use super::server::stop;

/// Pages that may follow the feed at once; the next one is told to come back later.
pub const EVENT_READERS_MAX: usize = 64;

/// A comment is sent after this much silence, so that a dead connection is noticed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Events rendered once and sent to every reader.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    world: Mutex<Option<(Arc<WorldFrame>, Bytes)>>,
    sessions: Mutex<Option<(Arc<Vec<SessionRow>>, Bytes)>>,
}

impl Rendered {
    fn world(&self, frame: &Arc<WorldFrame>) -> Bytes {
        once(&self.world, frame, |frame| event("world", &world_json(frame)))
    }

    fn sessions(&self, rows: &Arc<Vec<SessionRow>>) -> Bytes {
        once(&self.sessions, rows, |rows| event("sessions", &sessions_json(rows).to_string()))
    }
}

/// The bytes kept for `source`, rendered if the ones kept are another's.
fn once<T>(
    kept: &Mutex<Option<(Arc<T>, Bytes)>>,
    source: &Arc<T>,
    render: impl FnOnce(&T) -> Bytes,
) -> Bytes {
    // A render that panicked left the former pair, which is still whole.
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    match &*kept {
        Some((known, bytes)) if Arc::ptr_eq(known, source) => bytes.clone(),
        _ => {
            let bytes = render(source);
            *kept = Some((Arc::clone(source), bytes.clone()));
            bytes
        }
    }
}

/// One page that follows the feed.
///
/// It holds no queue: when hyper has room for more, it takes what is newest then. A slow page
/// therefore misses frames of the world, but no second of the metrics that the board still keeps.
#[derive(Debug)]
struct Reader {
    rendered: Arc<Rendered>,
    world: watch::Receiver<Arc<WorldFrame>>,
    metrics: watch::Receiver<MetricsLog>,
    metrics_seen: u64,
    sessions: watch::Receiver<Arc<Vec<SessionRow>>>,
    conditions: watch::Receiver<Conditions>,
    stopped: watch::Receiver<bool>,
    /// Gives the reader's place back when the reader goes.
    _place: OwnedSemaphorePermit,
}

/// The body of `GET /events`.
pub(super) fn feed(
    board: &Board,
    rendered: Arc<Rendered>,
    stopped: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Body {
    let mut reader = Reader {
        rendered,
        world: board.world.subscribe(),
        metrics: board.metrics.subscribe(),
        metrics_seen: 0,
        sessions: board.sessions.subscribe(),
        conditions: board.conditions.subscribe(),
        stopped,
        _place: place,
    };
    // What was published before the page came is news to it.
    reader.world.mark_changed();
    reader.metrics.mark_changed();
    reader.sessions.mark_changed();
    reader.conditions.mark_changed();
    Body::from_stream(stream::unfold(reader, |mut reader| async {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(bytes), reader))
    }))
}

impl Reader {
    /// The next event; nothing after the server's stop.
    ///
    /// # Cancel safety
    ///
    /// An event counts as seen only when it is returned.
    async fn next(&mut self) -> Option<Bytes> {
        // The rare ones first: ten worlds a second must not keep them waiting.
        tokio::select! {
            biased;
            () = stop(&mut self.stopped) => None,
            Ok(()) = self.conditions.changed() => {
                let now = *self.conditions.borrow_and_update();
                Some(event("conditions", &conditions::to_json(&now).to_string()))
            }
            Ok(()) = self.metrics.changed() => {
                let (frames, seen) = self.metrics.borrow_and_update().since(self.metrics_seen);
                self.metrics_seen = seen;
                Some(event("metrics", &metrics_json(&frames).to_string()))
            }
            Ok(()) = self.sessions.changed() => {
                let rows = Arc::clone(&self.sessions.borrow_and_update());
                Some(self.rendered.sessions(&rows))
            }
            Ok(()) = self.world.changed() => {
                let frame = Arc::clone(&self.world.borrow_and_update());
                Some(self.rendered.world(&frame))
            }
            () = tokio::time::sleep(SILENCE_MAX) => Some(Bytes::from_static(b": silence\n\n")),
        }
    }
}

/// One event in the format of server-sent events; JSON text never holds a raw line break.
fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The compact form of a frame: `e` holds seven integers for each entity, id, kind, x and z in
/// centimetres, heading in degrees, flags and health.
fn world_json(frame: &WorldFrame) -> String {
    let mut text = String::with_capacity(96 + frame.entities.len() * 36);
    let (side, cell) = (json!(frame.side), json!(frame.cell));
    // Writing to a string cannot fail.
    let _ = write!(text, "{{\"tick\":{},\"side\":{side},\"cell\":{cell},\"e\":[", frame.tick);
    for (index, dot) in frame.entities.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Float casts saturate and make zero of NaN, so the text is valid whatever came.
        // Down, not to the nearest: so that who stands short of a cell's edge stays in it.
        let centimetres = |metres: f32| (f64::from(metres) * 100.0).floor() as i64;
        let (x, z) = (centimetres(dot.x), centimetres(dot.z));
        let yaw = dot.yaw.round() as i32;
        let _ = write!(
            text,
            "{comma}{},{},{x},{z},{yaw},{},{}",
            dot.id, dot.kind, dot.flags, dot.health
        );
    }
    text.push_str("]}");
    text
}

/// The table: column names once, then one array a session.
pub(super) fn sessions_json(rows: &[SessionRow]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                row.id,
                row.entity,
                // A script's numbers end at 2^53, a user's do not.
                row.user.to_string(),
                row.peer,
                row.cipher,
                row.rtt_ms,
                row.loss,
                row.packets_in,
                row.packets_out,
                row.bytes_in,
                row.bytes_out,
                row.unacknowledged,
            ])
        })
        .collect();
    json!({
        "columns": [
            "id", "entity", "user", "peer", "cipher", "rtt_ms", "loss", "packets_in",
            "packets_out", "bytes_in", "bytes_out", "unacknowledged"
        ],
        "rows": rows,
    })
}

/// The frames that a page lacks, oldest first.
fn metrics_json(frames: &[MetricsFrame]) -> Value {
    json!(frames)
}

#[cfg(test)]
mod tests {
    use super::super::board::EntityDot;
    use super::*;

    #[test]
    fn a_world_event_holds_seven_integers_for_each_entity() {
        let dots = [
            EntityDot { id: 7, kind: 0, x: 1.25, z: 640.0, yaw: 359.6, flags: 1, health: 99 },
            EntityDot { id: 9, kind: 2, x: f32::NAN, z: -0.5, yaw: 0.4, flags: 0, health: 0 },
        ];
        let frame = WorldFrame {
            tick: 60,
            side: 640.0,
            cell: 32.0,
            entities: dots.to_vec(),
            interests: Vec::new(),
        };
        assert_eq!(
            world_json(&frame),
            r#"{"tick":60,"side":640.0,"cell":32.0,"e":[7,0,125,64000,360,1,99,9,2,0,-50,0,0,0]}"#
        );
    }

    #[test]
    fn the_same_frame_is_rendered_once() {
        let rendered = Rendered::default();
        let frame = Arc::new(WorldFrame::default());
        let first = rendered.world(&frame);
        assert_eq!(first.as_ptr(), rendered.world(&frame).as_ptr());
        let other = rendered.world(&Arc::new(WorldFrame { tick: 1, ..WorldFrame::default() }));
        assert!(other.starts_with(b"event: world\ndata: {\"tick\":1,"));
    }

    #[test]
    fn a_hostile_word_in_a_row_stays_inside_its_string() {
        let row = SessionRow {
            peer: "\n\nevent: world\ndata: \"<b>".to_owned(),
            ..SessionRow::default()
        };
        let bytes = Rendered::default().sessions(&Arc::new(vec![row]));
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn a_user_beyond_the_numbers_of_a_script_is_sent_as_text() {
        let row = SessionRow { user: u64::MAX, ..SessionRow::default() };
        assert_eq!(sessions_json(&[row])["rows"][0][2], "18446744073709551615");
    }
}
