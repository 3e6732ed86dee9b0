//! What people say and ask: chat that carries so far, instant messages, names, the map.

use std::time::Duration;

use twinspan_circuit::SendOptions;
use twinspan_core::time::Timestamp;
use twinspan_lludp::content::{ChatType, Dialog};
use twinspan_lludp::messages::{ImprovedInstantMessage, RegionIDAndHandleReply};
use twinspan_lludp::{Uuid, Var2, Vector3};

use crate::config::{REGION_METRES, RegionId};
use crate::event::GridEvent;
use crate::grid::Grid;
use crate::reply;

/// Bytes of an instant message's text that are passed on.
const MESSAGE_BYTES_MAX: usize = 900;
/// Bytes of what may come with it.
const BUCKET_BYTES_MAX: usize = 128;
/// Regions in one answer about the map; each has up to 92 bytes.
const MAP_REGIONS_PER_MESSAGE: usize = 12;
/// Regions that a search by name finds.
const FOUND_MAX: usize = 8;
/// What people say is tried for longer than the rest: simulators do so for as long as a viewer is there.
const WORDS: SendOptions = SendOptions::RELIABLE.within(Duration::from_secs(20));
/// Names in one answer.
const NAMES_PER_MESSAGE: usize = 7;

/// How far something said is heard, in metres, and as what it is passed on.
const fn reach(kind: u8) -> (f64, ChatType) {
    let kind = ChatType::from_wire(kind);
    match kind {
        ChatType::Whisper => (10.0, kind),
        ChatType::Shout => (100.0, kind),
        ChatType::StartTyping | ChatType::StopTyping => (20.0, kind),
        // What else there is, is not for viewers to say.
        _ => (20.0, ChatType::Normal),
    }
}

impl Grid {
    pub(crate) fn on_chat(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (text, kind, channel): (String, u8, i32),
    ) {
        // On his way somebody may still speak where he is no more: nobody there listens.
        let is_here = self.home(code) == Some(region);
        self.stats.stale += u64::from(!is_here);
        let (metres, kind) = reach(kind);
        let is_typing = matches!(kind, ChatType::StartTyping | ChatType::StopTyping);
        if is_here && channel == 0 && (is_typing || !text.is_empty()) {
            let Some(session) = self.sessions.get(&code) else { return };
            let at = session.avatar.position();
            let message = reply::chat(&session.guest, at, (&text, kind.wire()));
            for hearer in self.within(region, at, metres) {
                self.send_to(now, region, hearer, &message, WORDS);
            }
        }
        if !is_typing {
            self.tell(GridEvent::Chat { code, region, text, channel });
        }
    }

    /// Who is so near to a place of a region, and has a circuit to it: from next door as well.
    fn within(&self, region: RegionId, at: Vector3, metres: f64) -> Vec<u32> {
        let Some(place) = self.regions.get(region.0) else { return Vec::new() };
        let Some(from) = self.on_grid(region, at) else { return Vec::new() };
        let mut near: Vec<u32> = place.seats.held().collect();
        near.retain(|code| {
            let Some(session) = self.sessions.get(code) else { return false };
            let there = session.home.and_then(|home| self.on_grid(home, session.avatar.position()));
            there.is_some_and(|there| {
                let parts = from.iter().zip(there).map(|(one, two)| (one - two) * (one - two));
                parts.sum::<f64>() <= metres * metres
            })
        });
        near
    }

    /// A place in metres of the whole grid.
    fn on_grid(&self, region: RegionId, at: Vector3) -> Option<[f64; 3]> {
        let config = self.region(region)?;
        let corner = |regions: u32| f64::from(regions) * REGION_METRES as f64;
        let (x, y) = (corner(config.x), corner(config.y));
        Some([x + f64::from(at.x), y + f64::from(at.y), f64::from(at.z)])
    }

    /// Somebody writes to somebody. Who it is from is what the grid knows, not what he says.
    pub(crate) fn on_message(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        mut message: ImprovedInstantMessage,
    ) {
        let Some(session) = self.sessions.get(&code) else { return };
        if session.home != Some(region) {
            self.stats.stale += 1;
            return;
        }
        let block = &mut message.message_block;
        let to = block.to_agent_id;
        let dialog = Dialog::from_wire(block.dialog);
        let passes = matches!(
            dialog,
            Dialog::Message | Dialog::BusyAutoResponse | Dialog::TypingStart | Dialog::TypingStop
        );
        if !passes || block.from_group {
            self.stats.unused += 1;
            return;
        }
        let text = reply::cut(&block.message.to_text(), MESSAGE_BYTES_MAX).to_owned();
        let bucket = block.binary_bucket.bytes();
        let bucket = bucket.get(..bucket.len().min(BUCKET_BYTES_MAX)).unwrap_or_default().to_vec();
        block.message = Var2::text(&text).unwrap_or_default();
        block.binary_bucket = Var2::new(bucket).unwrap_or_default();
        block.from_agent_name = reply::full_name(&session.guest);
        block.region_id = self.regions.get(region.0).map_or(Uuid::nil(), |place| place.id);
        block.position = session.avatar.position();
        (block.parent_estate_id, block.offline, block.timestamp) = (1, 0, 0);
        message.agent_data.agent_id = session.guest.ids.agent_id;
        message.agent_data.session_id = Uuid::nil();
        // Older viewers read it unasked.
        message.estate_block.get_or_insert_default().estate_id = 1;
        message.meta_data.clear();
        let from = session.guest.ids.agent_id;
        let hearer = self.code_of(to).and_then(|code| Some((code, self.home(code)?)));
        if let Some((hearer, home)) = hearer {
            self.send_to(now, home, hearer, &message, WORDS);
        } else if dialog == Dialog::Message {
            let message = reply::not_here(from, to, message.message_block.id);
            self.send_to(now, region, code, &message, SendOptions::RELIABLE);
        }
    }

    /// Somebody asks what agents are called. Those who are on the grid have names.
    pub(crate) fn on_names(&mut self, now: Timestamp, region: RegionId, code: u32, ids: &[Uuid]) {
        for part in ids.chunks(NAMES_PER_MESSAGE) {
            let known = part.iter().filter_map(|id| self.guest(self.code_of(*id)?));
            let message = reply::names(known);
            if !message.uuid_name_block.is_empty() {
                self.send_to(now, region, code, &message, SendOptions::RELIABLE);
            }
        }
    }

    /// Somebody looks for regions by the beginning of their name.
    pub(crate) fn on_map_name(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (name, flags): (&str, u32),
    ) {
        let wanted = name.trim().to_lowercase();
        let mut found: Vec<(bool, RegionId)> = self
            .regions()
            .map(|(id, config)| (id, config.name.to_lowercase()))
            .filter(|(_, name)| !wanted.is_empty() && name.starts_with(&wanted))
            .map(|(id, name)| (name != wanted, id))
            .collect();
        // The one of just this name stands first.
        found.sort_unstable();
        found.truncate(FOUND_MAX);
        let found: Vec<RegionId> = found.into_iter().map(|(_, id)| id).collect();
        let message = reply::regions(self.map_blocks(&found), self.agent_id(code), flags, name);
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }

    /// Somebody looks at a part of the map.
    pub(crate) fn on_map_block(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ([min_x, max_x, min_y, max_y], flags): ([u16; 4], u32),
    ) {
        let within = |at: u32, min: u16, max: u16| (u32::from(min)..=u32::from(max)).contains(&at);
        let found: Vec<RegionId> = self
            .regions()
            .filter(|(_, at)| within(at.x, min_x, max_x) && within(at.y, min_y, max_y))
            .map(|(id, _)| id)
            .collect();
        for part in found.chunks(MAP_REGIONS_PER_MESSAGE) {
            let message = reply::regions(self.map_blocks(part), self.agent_id(code), flags, "");
            self.send_to(now, region, code, &message, SendOptions::RELIABLE);
        }
    }

    fn map_blocks(&self, regions: &[RegionId]) -> Vec<reply::OnMap> {
        let block = |id: &RegionId| {
            let config = self.region(*id)?;
            let agents = self.sessions.values().filter(|session| session.home == Some(*id)).count();
            Some(reply::OnMap {
                x: u16::try_from(config.x).ok()?,
                y: u16::try_from(config.y).ok()?,
                name: config.name.clone(),
                agents: u8::try_from(agents).unwrap_or(u8::MAX),
            })
        };
        regions.iter().filter_map(block).collect()
    }

    fn agent_id(&self, code: u32) -> Uuid {
        self.guest(code).map_or(Uuid::nil(), |guest| guest.ids.agent_id)
    }

    /// Somebody asks where the region with an id is.
    pub(crate) fn on_region_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        id: Uuid,
    ) {
        let Some(place) = self.regions.iter().find(|place| place.id == id) else { return };
        let mut message = RegionIDAndHandleReply::default();
        message.reply_block.region_id = id;
        message.reply_block.region_handle = place.config.handle();
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }

    /// Somebody asks what he is called.
    pub(crate) fn on_self_asked(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(guest) = self.guest(code) else { return };
        let message = reply::agent_data(guest);
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }
    /// Somebody asks what he wears, as viewers do before they move on: nothing that the grid knows
    /// of.
    pub(crate) fn on_clothes_asked(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(guest) = self.guest(code) else { return };
        let message = reply::no_clothes(&guest.ids);
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }

    /// Somebody asks what the region is like.
    pub(crate) fn on_here_asked(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let (Some(guest), Some(place)) = (self.guest(code), self.regions.get(region.0)) else {
            return;
        };
        let message = reply::region_info(&guest.ids, &place.config);
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }
}
