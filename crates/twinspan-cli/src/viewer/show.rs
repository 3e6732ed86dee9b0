//! What a viewer tells on standard output: JSON lines, or lines for people.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use twinspan_core::time::Timestamp;
use twinspan_viewer::{
    ClientHandle, LoginError, NetworkError, NetworkEvent, SessionSummary, Subscription, WorldEvent,
};

use super::work::Work;
use crate::args::ViewerLoginArgs;
use crate::error::CommandError;

/// How often the traffic is told to people.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(5);

/// The regions that there are circuits to.
#[derive(Default)]
struct Neighbours(Vec<(SocketAddr, String)>);

impl Neighbours {
    fn open(&mut self, address: SocketAddr, name: &str) {
        self.close(address);
        self.0.push((address, name.to_owned()));
    }

    fn close(&mut self, address: SocketAddr) {
        self.0.retain(|(at, _)| *at != address);
    }

    /// The names of all but the one that the avatar is in.
    fn around(&self, own: SocketAddr) -> String {
        let others = self.0.iter().filter(|(at, _)| *at != own);
        let names: Vec<&str> = others.map(|(_, name)| name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// Tells what happens.
pub(super) struct Show {
    began: Timestamp,
    json: bool,
    messages: bool,
    handle: ClientHandle,
    events: Subscription<NetworkEvent>,
    world: Subscription<WorldEvent>,
    /// What is asked of the avatar: what of it fails is told with the rest.
    work: Rc<Work>,
    /// Why the client is not connected any more.
    reason: Option<String>,
    traffic_at: Timestamp,
    neighbours: Neighbours,
    told_in: u64,
}

impl Show {
    pub(super) fn new(args: &ViewerLoginArgs, handle: &ClientHandle, now: Timestamp) -> Self {
        Self {
            began: now,
            json: args.json,
            messages: args.messages,
            events: handle.network_manager.subscribe_named("the lines of viewer login"),
            world: handle.event_bus.subscribe_named("the lines of viewer login"),
            handle: handle.clone(),
            work: Rc::new(Work::new(args)),
            reason: None,
            traffic_at: now.after(TRAFFIC_INTERVAL),
            neighbours: Neighbours::default(),
            told_in: 0,
        }
    }

    /// What is asked of the avatar.
    pub(super) fn work(&self) -> Rc<Work> {
        Rc::clone(&self.work)
    }

    /// Tells everything that waits.
    pub(super) fn drain(&mut self, now: Timestamp) -> Result<(), CommandError> {
        while let Some(event) = self.events.try_recv() {
            if let NetworkEvent::Disconnected { reason } = &event {
                self.reason = Some(reason.to_string());
            }
            if self.json {
                if let Some(value) = network_json(&event, self.messages) {
                    self.line(now, value)?;
                }
            } else if let Some(text) = self.network_text(&event) {
                self.text(now, &text)?;
            }
        }
        while let Some(event) = self.world.try_recv() {
            if self.json {
                self.line(now, world_json(&event))?;
            } else if let Some(text) = world_text(&event) {
                self.text(now, &text)?;
            }
        }
        for (what, error) in self.work.take_failed() {
            self.failed(now, what, &error)?;
        }
        if !self.json && now >= self.traffic_at {
            self.traffic_at = now.after(TRAFFIC_INTERVAL);
            if let Some(region) = self.handle.network_manager.region() {
                let around = self.neighbours.around(region.address);
                let text = format!(
                    "in {}, neighbours: {around}; {} messages heard",
                    region.name, self.told_in,
                );
                self.text(now, &text)?;
            }
        }
        Ok(())
    }

    /// Something that was asked for was not done.
    fn failed(&self, now: Timestamp, what: &str, error: &str) -> Result<(), CommandError> {
        if self.json {
            self.line(now, json!({ "event": "failed", "what": what, "error": error }))
        } else {
            self.text(now, &format!("could not {what}: {error}"))
        }
    }

    /// What the session did.
    pub(super) fn summary(&self, now: Timestamp) -> Result<(), CommandError> {
        let summary = self.handle.network_manager.last_summary().unwrap_or_default();
        let value = summary_json(&summary, self.reason.as_deref());
        if self.json {
            return self.line(now, value);
        }
        let text = format!(
            "{} messages in, {} out, {} resends, {} teleports, {} crossings; {}",
            summary.stats.messages_in,
            summary.stats.messages_out,
            summary.stats.resends_out,
            summary.teleports,
            summary.crossings,
            self.reason.as_deref().unwrap_or("not connected"),
        );
        self.text(now, &text)
    }

    fn line(&self, now: Timestamp, value: Value) -> Result<(), CommandError> {
        let mut map = match value {
            Value::Object(map) => map,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        map.insert("ms".into(), json!(millis(now.since(self.began))));
        write_line(&Value::Object(map).to_string())
    }

    fn text(&self, now: Timestamp, text: &str) -> Result<(), CommandError> {
        let seconds = now.since(self.began).as_secs_f64();
        // What others say may have signs in it that steer a terminal.
        let text: String = text.chars().filter(|sign| !sign.is_control()).collect();
        write_line(&format!("{seconds:9.1} {text}"))
    }

    fn network_text(&mut self, event: &NetworkEvent) -> Option<String> {
        Some(match event {
            NetworkEvent::MessageReceived { .. } => {
                self.told_in += 1;
                return None;
            }
            NetworkEvent::QueueMessage { .. } | NetworkEvent::CircuitConnected { .. } => {
                return None;
            }
            NetworkEvent::StatusChanged { new, .. } => format!("{new}"),
            NetworkEvent::Connected { session } => {
                format!("welcome, {} {}", session.first_name, session.last_name)
            }
            NetworkEvent::RegionKnown { region } => {
                self.neighbours.open(region.address, &region.name);
                format!("there is the region {}", region.name)
            }
            NetworkEvent::RegionEntered { journey, .. } => format!("arrived, by {journey:?}"),
            NetworkEvent::CapabilitiesReceived { names, .. } => {
                format!("{} capabilities", names.len())
            }
            NetworkEvent::CircuitClosed { address, .. } => {
                self.neighbours.close(*address);
                format!("the circuit to {address} is over")
            }
            NetworkEvent::TeleportStarted => "a teleport begins".into(),
            NetworkEvent::TeleportProgress { text } => format!("teleport: {text}"),
            NetworkEvent::TeleportedHere { .. } => "teleported within the region".into(),
            NetworkEvent::TravelFailed { journey, error } => format!("{journey:?}: {error}"),
            NetworkEvent::ReconnectPlanned { attempt, after } => {
                format!("attempt {attempt} to come back in {:.1} s", after.as_secs_f64())
            }
            NetworkEvent::ProxyRestored => "through the proxy again".into(),
            NetworkEvent::CertificatesUnchecked => "certificates are NOT checked".into(),
            NetworkEvent::SocketOpened { socket, .. } => {
                format!("{} bytes of room for datagrams", socket.receive_buffer_bytes)
            }
            NetworkEvent::Disconnected { reason } => format!("not connected: {reason}"),
            NetworkEvent::Error { error } => match shown(error) {
                Some(text) => format!("{error}: {text}"),
                None => format!("{error}"),
            },
            NetworkEvent::Lagged { missed } => format!("{missed} events were missed"),
            other => format!("{other:?}"),
        })
    }
}

fn write_line(line: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

/// What the user is to read before the next login: terms of service, or a message.
fn shown(error: &NetworkError) -> Option<&str> {
    match error {
        NetworkError::Login(error) => match &**error {
            LoginError::TermsOfService { message } | LoginError::CriticalMessage { message } => {
                Some(message)
            }
            _ => None,
        },
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn network_json(event: &NetworkEvent, messages: bool) -> Option<Value> {
    Some(match event {
        NetworkEvent::StatusChanged { old, new } => {
            json!({ "event": "status_changed", "old": old.to_string(), "new": new.to_string() })
        }
        NetworkEvent::Connected { session } => json!({
            "event": "connected",
            "first_name": session.first_name,
            "last_name": session.last_name,
            "agent_id": session.agent_id.to_string(),
        }),
        NetworkEvent::CircuitConnected { address } => {
            json!({ "event": "circuit_connected", "address": address.to_string() })
        }
        NetworkEvent::RegionKnown { region } => json!({
            "event": "region_known", "address": region.address.to_string(), "name": region.name,
        }),
        NetworkEvent::RegionEntered { address, position, journey, .. } => json!({
            "event": "region_entered",
            "address": address.to_string(),
            "position": [position.x, position.y, position.z],
            "journey": format!("{journey:?}").to_lowercase(),
        }),
        NetworkEvent::CapabilitiesReceived { address, names } => json!({
            "event": "capabilities", "address": address.to_string(), "names": **names,
        }),
        NetworkEvent::CircuitClosed { address, reason } => json!({
            "event": "circuit_closed",
            "address": address.to_string(),
            "reason": reason.map(|reason| reason.to_string()),
        }),
        NetworkEvent::TeleportStarted => json!({ "event": "teleport_started" }),
        NetworkEvent::TeleportProgress { text } => {
            json!({ "event": "teleport_progress", "text": text })
        }
        NetworkEvent::TeleportedHere { position } => json!({
            "event": "teleported_here", "position": [position.x, position.y, position.z],
        }),
        NetworkEvent::TravelFailed { journey, error } => json!({
            "event": "travel_failed",
            "journey": format!("{journey:?}").to_lowercase(),
            "error": error.to_string(),
        }),
        NetworkEvent::QueueMessage { address, name, .. } => json!({
            "event": "queue_message", "address": address.to_string(), "name": **name,
        }),
        NetworkEvent::MessageReceived { packet, from } => {
            if !messages {
                return None;
            }
            let name = &packet.layout().name;
            json!({ "event": "message", "name": **name, "from": from.to_string() })
        }
        NetworkEvent::ReconnectPlanned { attempt, after } => json!({
            "event": "reconnect_planned", "attempt": attempt, "after_ms": millis(*after),
        }),
        NetworkEvent::ProxyRestored => json!({ "event": "proxy_restored" }),
        NetworkEvent::CertificatesUnchecked => json!({ "event": "certificates_unchecked" }),
        NetworkEvent::SocketOpened { local, socket } => json!({
            "event": "socket_opened", "local": local.to_string(),
            "receive_buffer_bytes": socket.receive_buffer_bytes,
            "send_buffer_bytes": socket.send_buffer_bytes,
        }),
        NetworkEvent::Disconnected { reason } => {
            json!({ "event": "disconnected", "reason": reason.to_string() })
        }
        NetworkEvent::Error { error } => match shown(error) {
            Some(text) => json!({ "event": "error", "error": error.to_string(), "shown": text }),
            None => json!({ "event": "error", "error": error.to_string() }),
        },
        NetworkEvent::Lagged { missed } => json!({ "event": "lagged", "missed": missed }),
        other => json!({ "event": "other", "text": format!("{other:?}") }),
    })
}

fn world_json(event: &WorldEvent) -> Value {
    match event {
        WorldEvent::Chat(chat) => json!({
            "event": "chat",
            "from": chat.from_name,
            "source_id": chat.source_id.to_string(),
            "text": chat.text,
        }),
        WorldEvent::InstantMessage(message) => json!({
            "event": "instant_message",
            "from": message.from_name,
            "from_id": message.from.to_string(),
            "text": message.text,
        }),
        WorldEvent::Alert(text) => json!({ "event": "alert", "text": text }),
        WorldEvent::AvatarAppeared(avatar) => json!({
            "event": "avatar_appeared", "id": avatar.id.to_string(), "name": avatar.name,
        }),
        WorldEvent::AvatarLeft { id } => json!({ "event": "avatar_left", "id": id.to_string() }),
        WorldEvent::Sat { on } => json!({ "event": "sat", "on": on.to_string() }),
        WorldEvent::Lagged { missed } => json!({ "event": "lagged", "missed": missed }),
        other => json!({ "event": "other", "text": format!("{other:?}") }),
    }
}

fn world_text(event: &WorldEvent) -> Option<String> {
    Some(match event {
        WorldEvent::Chat(chat) if chat.text.is_empty() => return None,
        WorldEvent::Chat(chat) => format!("{}: {}", chat.from_name, chat.text),
        WorldEvent::InstantMessage(message) => {
            format!("{} (to you): {}", message.from_name, message.text)
        }
        WorldEvent::Alert(text) => format!("alert: {text}"),
        WorldEvent::AvatarAppeared(avatar) if avatar.name.is_empty() => {
            format!("an avatar is around: {}", avatar.id)
        }
        WorldEvent::AvatarAppeared(avatar) => format!("{} is around", avatar.name),
        WorldEvent::AvatarLeft { .. } => return None,
        WorldEvent::Sat { .. } => "sits".into(),
        WorldEvent::Lagged { missed } => format!("{missed} events were missed"),
        other => format!("{other:?}"),
    })
}

/// The last line of `--json`.
pub(super) fn summary_json(summary: &SessionSummary, reason: Option<&str>) -> Value {
    let stats = &summary.stats;
    json!({
        "event": "summary",
        "handshake_ms": summary.handshake.map(millis),
        "first_object_ms": summary.first_object.map(millis),
        "regions": summary.regions,
        "circuits": summary.circuits,
        "messages_in": stats.messages_in,
        "messages_out": stats.messages_out,
        "reliable_out": stats.reliable_out,
        "resends_out": stats.resends_out,
        "reliable_in": stats.reliable_in,
        "duplicates_in": stats.duplicates_in,
        "packet_acks_out": stats.packet_acks_out,
        "acks_piggybacked": stats.acks_piggybacked,
        "rtt_ms": summary.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        "receive_buffer_bytes": summary.receive_buffer_bytes,
        "caps": summary.caps,
        "events": summary.queue_messages,
        "seeds_dropped": summary.seeds_dropped,
        "teleports": summary.teleports,
        "crossings": summary.crossings,
        "unknown_messages": summary.messages_unknown,
        "decode_errors": summary.decode_errors,
        "disconnect_reason": reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_all_its_keys() {
        let mut summary = SessionSummary {
            handshake: Some(Duration::from_millis(1_500)),
            rtt: Some(Duration::from_micros(2_500)),
            regions: vec!["Alpha".into()],
            teleports: 3,
            crossings: 4,
            decode_errors: 5,
            seeds_dropped: 6,
            ..SessionSummary::default()
        };
        summary.stats.resends_out = 7;
        let value = summary_json(&summary, Some("logged out"));
        // What programs read: none may go or be named otherwise.
        let wanted = json!({
            "event": "summary", "handshake_ms": 1_500, "first_object_ms": null,
            "regions": ["Alpha"], "circuits": 0, "messages_in": 0, "messages_out": 0,
            "reliable_out": 0, "resends_out": 7, "reliable_in": 0, "duplicates_in": 0,
            "packet_acks_out": 0, "acks_piggybacked": 0, "rtt_ms": 2.5,
            "receive_buffer_bytes": 0, "caps": 0, "events": 0, "seeds_dropped": 6,
            "teleports": 3, "crossings": 4, "unknown_messages": 0, "decode_errors": 5,
            "disconnect_reason": "logged out",
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn neighbours_are_those_with_a_circuit_but_the_own_region() {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let mut known = Neighbours::default();
        assert_eq!(known.around(at(1)), "none");
        known.open(at(1), "Alpha");
        known.open(at(2), "Beta");
        known.open(at(2), "Beta");
        assert_eq!(known.around(at(1)), "Beta");
        known.open(at(3), "Gamma");
        assert_eq!(known.around(at(3)), "Alpha, Beta");
        known.close(at(1));
        assert_eq!(known.around(at(3)), "Beta");
    }
}
