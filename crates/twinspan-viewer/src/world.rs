//! What is around an avatar: objects and avatars of the regions that it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use twinspan_core::time::Timestamp;
use twinspan_lludp::content::{Audible, ChatSource, ChatType, Dialog};
use twinspan_lludp::content::{
    NameValues, ObjectView, PCode, TerseUpdate, UpdateKind, coarse_locations, object_updates,
};
use twinspan_lludp::messages::{
    AgentAlertMessage, AlertMessage, AvatarSitResponse, ChatFromSimulator, CoarseLocationUpdate,
    ImprovedInstantMessage, KillObject, RequestMultipleObjects, RequestMultipleObjectsObjectData,
};
use twinspan_lludp::{AnyMessage, Message, MessageId, Quaternion, Uuid, Vector3};

use crate::event::{Chat, InstantMessage, WorldEvent};
use crate::transfer::Answers;

/// Objects of all regions together that are kept; further ones are counted.
pub const OBJECTS_MAX: usize = 65_536;
/// Avatars on the map of one region that are kept.
pub const MAP_AVATARS_MAX: usize = 255;
/// Objects that one message asks for.
const ASKED_PER_MESSAGE_MAX: usize = 255;
/// Characters of a text that are kept.
const TEXT_CHARS_MAX: usize = 4_096;

/// An object that a region told of.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenObject {
    /// Its number in its region.
    pub local_id: u32,
    /// Its id.
    pub id: Uuid,
    /// What it is.
    pub kind: PCode,
    /// The number of the object that it is attached to or sits on; 0 for none.
    pub parent_id: u32,
    /// Where it is: in metres from the region's south-west corner, or from its parent.
    pub position: Vector3,
    /// Metres a second.
    pub velocity: Vector3,
    /// How it is turned.
    pub rotation: Quaternion,
    /// How large it is, in metres.
    pub scale: Vector3,
    /// Whose it is, where the region tells.
    pub owner_id: Uuid,
    /// The text above it.
    pub text: String,
    /// Of an avatar, its name.
    pub name: String,
}

/// An avatar that is around.
#[derive(Clone, Debug, PartialEq)]
pub struct Avatar {
    /// Who it is.
    pub id: Uuid,
    /// Its name; empty while only the map shows it.
    pub name: String,
    /// The region that it is in.
    pub region: SocketAddr,
    /// Where it is, in metres from the region's south-west corner. From the map it is whole metres.
    pub position: Vector3,
    /// Its number in its region, once that told of it.
    pub local_id: Option<u32>,
}

/// One region's share.
#[derive(Debug, Default)]
struct Region {
    objects: BTreeMap<u32, SeenObject>,
    /// From the map: roughly where avatars are.
    map: BTreeMap<Uuid, Vector3>,
}

/// What is around.
#[derive(Debug, Default)]
pub struct Surroundings {
    regions: BTreeMap<SocketAddr, Region>,
    len: usize,
    dropped: u64,
    broken: u64,
    first_object: Option<Timestamp>,
}

/// Where what happens is told, and asked for.
pub(crate) struct Told<'a> {
    pub(crate) tell: &'a mut dyn FnMut(WorldEvent),
    pub(crate) out: &'a mut Answers,
    pub(crate) ids: (Uuid, Uuid),
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Surroundings {
    /// Takes a message, if it tells of the world.
    pub(crate) fn handle_message(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        id: MessageId,
        body: &[u8],
        told: &mut Told<'_>,
    ) {
        match id {
            ChatFromSimulator::ID => tell_chat(body, told),
            ImprovedInstantMessage::ID => tell_instant_message(body, told),
            AlertMessage::ID => {
                if let Ok((read, _)) = AlertMessage::decode(body) {
                    (told.tell)(WorldEvent::Alert(short(&read.alert_data.message.to_text())));
                }
            }
            AgentAlertMessage::ID => {
                if let Ok((read, _)) = AgentAlertMessage::decode(body) {
                    (told.tell)(WorldEvent::Alert(short(&read.alert_data.message.to_text())));
                }
            }
            AvatarSitResponse::ID => {
                if let Ok((read, _)) = AvatarSitResponse::decode(body) {
                    (told.tell)(WorldEvent::Sat { on: read.sit_object.id });
                }
            }
            KillObject::ID => self.on_kill(from, body, told),
            CoarseLocationUpdate::ID => self.on_map(from, body, told),
            _ => self.on_objects(now, from, (id, body), told),
        }
    }

    fn on_objects(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (id, body): (MessageId, &[u8]),
        told: &mut Told<'_>,
    ) {
        let mut missing = Vec::new();
        let all = object_updates(id, body, |_, update| match update {
            Ok(UpdateKind::Whole(object)) => {
                self.first_object.get_or_insert(now);
                self.put(from, &object, told);
            }
            Ok(UpdateKind::Moved(update)) => self.on_moved(from, &update),
            Ok(UpdateKind::Cached(object)) => {
                let region = self.regions.get(&from);
                if region.is_none_or(|region| !region.objects.contains_key(&object.local_id)) {
                    missing.push(object.local_id);
                }
            }
            Err(_) => self.broken += 1,
        });
        if matches!(all, Some(Err(_))) {
            self.broken += 1;
        }
        for some in missing.chunks(ASKED_PER_MESSAGE_MAX) {
            told.out.push((from, ask_for(told.ids, some)));
        }
    }

    fn put(&mut self, from: SocketAddr, view: &ObjectView<'_>, told: &mut Told<'_>) {
        let region = self.regions.entry(from).or_default();
        let old = region.objects.get(&view.local_id);
        let is_new = old.is_none();
        if is_new && self.len >= OBJECTS_MAX {
            self.dropped += 1;
            return;
        }
        let object = SeenObject {
            local_id: view.local_id,
            id: view.full_id,
            kind: PCode::from_wire(view.p_code),
            parent_id: view.parent_id,
            position: view.motion.position,
            velocity: view.motion.velocity,
            rotation: view.motion.rotation,
            scale: view.scale,
            owner_id: view.owner_id,
            text: short(String::from_utf8_lossy(view.text).trim_end_matches('\0')),
            name: name_of(view.name_values),
        };
        let appeared = object.kind == PCode::Avatar && old.is_none_or(|old| old.id != object.id);
        let position = object.position;
        let avatar = appeared.then(|| Avatar {
            id: object.id,
            name: object.name.clone(),
            region: from,
            position,
            local_id: Some(object.local_id),
        });
        region.objects.insert(view.local_id, object);
        self.len += usize::from(is_new);
        if let Some(avatar) = avatar {
            (told.tell)(WorldEvent::AvatarAppeared(avatar));
        }
    }

    fn on_moved(&mut self, from: SocketAddr, update: &TerseUpdate<'_>) {
        let region = self.regions.get_mut(&from);
        let Some(object) = region.and_then(|region| region.objects.get_mut(&update.local_id))
        else {
            return;
        };
        object.position = update.motion.position;
        object.velocity = update.motion.velocity;
        object.rotation = update.motion.rotation;
    }

    fn on_kill(&mut self, from: SocketAddr, body: &[u8], told: &mut Told<'_>) {
        let (Ok((kill, _)), Some(region)) = (KillObject::decode(body), self.regions.get_mut(&from))
        else {
            return;
        };
        for block in &kill.object_data {
            let Some(object) = region.objects.remove(&block.id) else { continue };
            self.len -= 1;
            if object.kind == PCode::Avatar {
                region.map.remove(&object.id);
                (told.tell)(WorldEvent::AvatarLeft { id: object.id });
            }
        }
    }

    /// The map shows everybody in the region; who is not on it is gone.
    fn on_map(&mut self, from: SocketAddr, body: &[u8], told: &mut Told<'_>) {
        let Ok((message, _)) = CoarseLocationUpdate::decode(body) else { return };
        let Ok(places) = coarse_locations(&message) else {
            self.broken += 1;
            return;
        };
        let mut map = BTreeMap::new();
        for place in places.take(MAP_AVATARS_MAX).filter(|place| !place.agent_id.is_nil()) {
            let z = f32::from(place.z.unwrap_or_default());
            let position = Vector3::new(f32::from(place.x), f32::from(place.y), z);
            map.insert(place.agent_id, position);
        }
        let region = self.regions.entry(from).or_default();
        let old = std::mem::replace(&mut region.map, map);
        let avatars = region.objects.values().filter(|object| object.kind == PCode::Avatar);
        let seen: BTreeSet<Uuid> = avatars.map(|object| object.id).collect();
        let is_seen = |id: &Uuid| seen.contains(id);
        for (id, position) in &region.map {
            if !old.contains_key(id) && !is_seen(id) {
                let (id, position) = (*id, *position);
                let avatar =
                    Avatar { id, name: String::new(), region: from, position, local_id: None };
                (told.tell)(WorldEvent::AvatarAppeared(avatar));
            }
        }
        for id in old.keys() {
            if !region.map.contains_key(id) && !is_seen(id) {
                (told.tell)(WorldEvent::AvatarLeft { id: *id });
            }
        }
    }

    /// A region is gone, and what was in it.
    pub(crate) fn on_region_gone(&mut self, address: SocketAddr) {
        if let Some(region) = self.regions.remove(&address) {
            self.len -= region.objects.len();
        }
    }

    /// The objects of a region, avatars included, by number.
    pub fn objects(&self, region: SocketAddr) -> impl Iterator<Item = &SeenObject> {
        self.regions.get(&region).into_iter().flat_map(|region| region.objects.values())
    }

    /// An object by its id, with the region that it is in.
    pub fn object(&self, id: Uuid) -> Option<(SocketAddr, &SeenObject)> {
        self.regions.iter().find_map(|(address, region)| {
            let object = region.objects.values().find(|object| object.id == id)?;
            Some((*address, object))
        })
    }

    /// The avatars of a region, by id: those that it told of, and those on its map.
    pub fn avatars(&self, address: SocketAddr) -> Vec<Avatar> {
        let Some(region) = self.regions.get(&address) else { return Vec::new() };
        let mut all: BTreeMap<Uuid, Avatar> = region
            .map
            .iter()
            .map(|(id, position)| {
                let (id, position) = (*id, *position);
                (id, Avatar { id, name: String::new(), region: address, position, local_id: None })
            })
            .collect();
        for object in region.objects.values().filter(|object| object.kind == PCode::Avatar) {
            let avatar = Avatar {
                id: object.id,
                name: object.name.clone(),
                region: address,
                position: self.place_of(address, object),
                local_id: Some(object.local_id),
            };
            all.insert(object.id, avatar);
        }
        all.into_values().collect()
    }

    /// Where an object is in its region; what sits on another is where that is.
    pub fn place_of(&self, address: SocketAddr, object: &SeenObject) -> Vector3 {
        let objects = self.regions.get(&address).map(|region| &region.objects);
        let parent = objects.and_then(|objects| objects.get(&object.parent_id));
        match parent {
            Some(parent) if object.parent_id != 0 => parent.position,
            _ => object.position,
        }
    }

    /// Objects that are kept.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is around.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Objects that were told of when there were [`OBJECTS_MAX`] already.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Updates that could not be read.
    pub const fn broken(&self) -> u64 {
        self.broken
    }

    /// When the first object was told of.
    pub const fn first_object(&self) -> Option<Timestamp> {
        self.first_object
    }
}

/// An avatar's name, from the list of an object's names and values.
fn name_of(name_values: &[u8]) -> String {
    let Ok(values) = NameValues::new(name_values) else { return String::new() };
    let first = values.clone().value("FirstName").unwrap_or_default();
    let last = values.value("LastName").unwrap_or_default();
    short(format!("{first} {last}").trim())
}

/// Asks for all of objects that the region thinks are in a cache.
fn ask_for((agent_id, session_id): (Uuid, Uuid), objects: &[u32]) -> AnyMessage {
    let mut ask = RequestMultipleObjects::default();
    ask.agent_data.agent_id = agent_id;
    ask.agent_data.session_id = session_id;
    let block = |id: &u32| RequestMultipleObjectsObjectData { cache_miss_type: 0, id: *id };
    ask.object_data = objects.iter().map(block).collect();
    ask.into()
}

fn tell_chat(body: &[u8], told: &mut Told<'_>) {
    let Ok((read, _)) = ChatFromSimulator::decode(body) else { return };
    let chat = read.chat_data;
    (told.tell)(WorldEvent::Chat(Chat {
        source_id: chat.source_id,
        from_name: short(&chat.from_name.to_text()),
        owner_id: chat.owner_id,
        source: ChatSource::from_wire(chat.source_type),
        kind: ChatType::from_wire(chat.chat_type),
        audible: Audible::from_wire(chat.audible),
        position: chat.position,
        text: short(&chat.message.to_text()),
    }));
}

fn tell_instant_message(body: &[u8], told: &mut Told<'_>) {
    let Ok((read, _)) = ImprovedInstantMessage::decode(body) else { return };
    let block = read.message_block;
    (told.tell)(WorldEvent::InstantMessage(InstantMessage {
        from: read.agent_data.agent_id,
        from_name: short(&block.from_agent_name.to_text()),
        dialog: Dialog::from_wire(block.dialog),
        session: block.id,
        was_offline: block.offline != 0,
        text: short(&block.message.to_text()),
        bucket: block.binary_bucket.into_bytes(),
    }));
}

#[cfg(test)]
mod tests;
