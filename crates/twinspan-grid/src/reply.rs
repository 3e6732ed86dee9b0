//! What a region says, as messages.

use twinspan_circuit::AgentIds;
use twinspan_lludp::content::{
    CoarseLocation, Dialog, Faces, Motion, ObjectView, PCode, Shape, TerseUpdate, TextureEntry,
};
use twinspan_lludp::messages::{
    AgentDataUpdate, AgentMovementComplete, AgentWearablesUpdate, AvatarAnimation,
    AvatarAnimationAnimationList, AvatarSitResponse, ChatFromSimulator, CoarseLocationUpdate,
    CoarseLocationUpdateAgentData, ImprovedInstantMessage, ImprovedTerseObjectUpdate, KickUser,
    KillObject, KillObjectObjectData, LogoutReply, MapBlockReply, MapBlockReplyData, ObjectUpdate,
    ObjectUpdateObjectData, RegionHandshake, RegionInfo, TeleportFailed, TeleportLocal,
    TeleportProgress, UUIDNameReply, UUIDNameReplyUUIDNameBlock,
};
use twinspan_lludp::{Uuid, Var1, Var2, Vector3, Vector4};

use crate::assets;
use crate::avatar::{Activity, Avatar, GROUND, Seat};
use crate::config::{Guest, RegionConfig, SESSIONS_MAX};
use crate::scene::Thing;

/// The size of an avatar in metres.
const AVATAR_SCALE: Vector3 = Vector3::new(0.45, 0.6, 1.9);
/// What things are made of.
const WOOD: u8 = 3;
/// A region for everybody, and one that is not there, as maps have it.
const GENERAL: u8 = 13;
const NO_REGION: u8 = 255;
/// The height of the water in metres.
pub(crate) const WATER: f32 = 20.0;
/// Text that travels in a field of one length byte, its end included.
const SHORT_BYTES: usize = 255;

/// As much of a text as so many bytes hold; never half a letter.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Text as it travels, cut where the field ends.
fn short(text: &str) -> Var1 {
    Var1::text(cut(text, SHORT_BYTES - 1)).unwrap_or_default()
}

pub(crate) fn handshake(region: &RegionConfig, id: Uuid) -> RegionHandshake {
    let mut message = RegionHandshake::default();
    message.region_info.sim_name = short(&region.name);
    message.region_info.water_height = WATER;
    message.region_info.sim_access = GENERAL;
    message.region_info.billable_factor = 1.0;
    message.region_info2.region_id = id;
    message.region_info3.product_name = short("Twinspan");
    message
}

/// What a region is like, beyond what its handshake says.
pub(crate) fn region_info(ids: &AgentIds, region: &RegionConfig) -> RegionInfo {
    let mut message = RegionInfo::default();
    message.agent_data.agent_id = ids.agent_id;
    message.agent_data.session_id = ids.session_id;
    let info = &mut message.region_info;
    info.sim_name = short(&region.name);
    // The estate that belongs to the grid, as elsewhere.
    (info.estate_id, info.parent_estate_id) = (1, 1);
    info.sim_access = GENERAL;
    info.max_agents = u8::MAX;
    (info.billable_factor, info.object_bonus_factor) = (1.0, 1.0);
    info.water_height = WATER;
    message.region_info2.product_name = short("Twinspan");
    let agents = u32::try_from(SESSIONS_MAX).unwrap_or(u32::MAX);
    message.region_info2.max_agents32 = agents;
    message.region_info2.hard_max_agents = agents;
    message
}

/// An avatar wears nothing that the grid knows of.
pub(crate) fn no_clothes(ids: &AgentIds) -> AgentWearablesUpdate {
    let mut message = AgentWearablesUpdate::default();
    message.agent_data.agent_id = ids.agent_id;
    message.agent_data.session_id = ids.session_id;
    message.agent_data.serial_num = 1;
    message
}

pub(crate) fn movement_complete(
    ids: &AgentIds,
    handle: u64,
    (position, look_at): (Vector3, Vector3),
) -> AgentMovementComplete {
    let mut message = AgentMovementComplete::default();
    message.agent_data.agent_id = ids.agent_id;
    message.agent_data.session_id = ids.session_id;
    message.data.position = position;
    message.data.look_at = look_at;
    message.data.region_handle = handle;
    message.sim_data.channel_version = Var2::text("Twinspan").unwrap_or_default();
    message
}

/// An avatar, in full.
pub(crate) fn avatar(guest: &Guest, avatar: &Avatar, handle: u64) -> ObjectUpdate {
    let name = format!(
        "FirstName STRING RW SV {}\nLastName STRING RW SV {}",
        guest.first_name, guest.last_name
    );
    let mut motion = motion(avatar);
    let mut parent_id = 0;
    if let Seat::Thing { local_id, offset } = avatar.seat() {
        // Who sits is where his seat is.
        (motion.position, parent_id) = (offset, local_id);
    }
    let object = ObjectView {
        local_id: avatar.local_id,
        full_id: guest.ids.agent_id,
        p_code: PCode::Avatar.wire(),
        scale: AVATAR_SCALE,
        motion,
        parent_id,
        shape: Shape { path_scale_x: 100, path_scale_y: 100, ..Shape::default() },
        name_values: name.as_bytes(),
        ..ObjectView::default()
    };
    objects(object.to_full().ok().into_iter().collect(), handle)
}

/// Things that do not move.
pub(crate) fn things(things: &[Thing], handle: u64) -> ObjectUpdate {
    let entry = TextureEntry { textures: Faces::all(assets::TEXTURE), ..TextureEntry::default() };
    let entry = entry.write();
    let block = |thing: &Thing| {
        let object = ObjectView {
            local_id: thing.local_id,
            full_id: thing.id,
            p_code: PCode::Primitive.wire(),
            material: WOOD,
            scale: thing.scale,
            motion: Motion { position: thing.position, ..Motion::default() },
            shape: Shape::BOX,
            texture_entry: &entry,
            text: thing.text.as_bytes(),
            ..ObjectView::default()
        };
        object.to_full().ok()
    };
    objects(things.iter().filter_map(block).collect(), handle)
}

fn objects(object_data: Vec<ObjectUpdateObjectData>, handle: u64) -> ObjectUpdate {
    let mut message = ObjectUpdate { object_data, ..ObjectUpdate::default() };
    message.region_data.region_handle = handle;
    message.region_data.time_dilation = u16::MAX;
    message
}

fn motion(avatar: &Avatar) -> Motion {
    Motion {
        collision_plane: Some(Vector4::new(0.0, 0.0, 1.0, GROUND)),
        position: avatar.position(),
        velocity: avatar.velocity(),
        rotation: avatar.rotation(),
        ..Motion::default()
    }
}

/// Avatars that moved; those that sit on things are told in full instead.
pub(crate) fn moved<'a>(
    avatars: impl Iterator<Item = &'a Avatar>,
    handle: u64,
) -> ImprovedTerseObjectUpdate {
    let block = |avatar: &Avatar| {
        let mut motion = motion(avatar);
        if let Seat::Thing { offset, .. } = avatar.seat() {
            motion.position = offset;
        }
        let update = TerseUpdate { local_id: avatar.local_id, motion, ..TerseUpdate::default() };
        update.to_block().ok()
    };
    let mut message = ImprovedTerseObjectUpdate::default();
    message.region_data.region_handle = handle;
    message.region_data.time_dilation = u16::MAX;
    message.object_data = avatars.filter_map(block).collect();
    message
}

/// What an avatar does; the number grows with each change.
pub(crate) fn animation(id: Uuid, activity: Activity, number: i32) -> AvatarAnimation {
    let mut message = AvatarAnimation::default();
    message.sender.id = id;
    message.animation_list = vec![AvatarAnimationAnimationList {
        anim_id: activity.animation(),
        anim_sequence_id: number,
    }];
    message
}

/// An object is no longer there.
pub(crate) fn kill(local_id: u32) -> KillObject {
    KillObject { object_data: vec![KillObjectObjectData { id: local_id }] }
}

/// Where somebody may sit on a thing.
pub(crate) fn seat(thing: Uuid, offset: Vector3) -> AvatarSitResponse {
    let mut message = AvatarSitResponse::default();
    message.sit_object.id = thing;
    message.sit_transform.sit_position = offset;
    message
}

/// Who is where.
pub(crate) fn map(avatars: impl Iterator<Item = (Uuid, Vector3)>) -> CoarseLocationUpdate {
    let mut message = CoarseLocationUpdate::default();
    (message.index.you, message.index.prey) = (-1, -1);
    for (agent_id, position) in avatars {
        // Places are within a region; `as` takes the nearest there is.
        let location = CoarseLocation {
            agent_id,
            x: position.x as u8,
            y: position.y as u8,
            z: Some(position.z as u16),
            is_you: false,
            is_prey: false,
        };
        message.location.push(location.to_block());
        message.agent_data.push(CoarseLocationUpdateAgentData { agent_id });
    }
    message
}

/// The name that others see.
pub(crate) fn full_name(guest: &Guest) -> Var1 {
    short(&format!("{} {}", guest.first_name, guest.last_name))
}

/// Somebody who was written to is not there.
pub(crate) fn not_here(to: Uuid, from: Uuid, id: Uuid) -> ImprovedInstantMessage {
    let mut message = ImprovedInstantMessage::default();
    message.agent_data.agent_id = from;
    let block = &mut message.message_block;
    (block.to_agent_id, block.id) = (to, id);
    block.dialog = Dialog::BusyAutoResponse.wire();
    block.from_agent_name = short("Grid");
    block.message = Var2::text("Nobody of that name is on the grid.").unwrap_or_default();
    message.estate_block.get_or_insert_default().estate_id = 1;
    message
}

/// What agents are called.
pub(crate) fn names<'a>(guests: impl Iterator<Item = &'a Guest>) -> UUIDNameReply {
    let block = |guest: &Guest| UUIDNameReplyUUIDNameBlock {
        id: guest.ids.agent_id,
        first_name: short(&guest.first_name),
        last_name: short(&guest.last_name),
    };
    UUIDNameReply { uuid_name_block: guests.map(block).collect() }
}

/// What somebody is called himself.
pub(crate) fn agent_data(guest: &Guest) -> AgentDataUpdate {
    let mut message = AgentDataUpdate::default();
    message.agent_data.agent_id = guest.ids.agent_id;
    message.agent_data.first_name = short(&guest.first_name);
    message.agent_data.last_name = short(&guest.last_name);
    message
}

/// A region on the map.
pub(crate) struct OnMap {
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) name: String,
    pub(crate) agents: u8,
}

/// Regions on the map; when there are none, one that says so for what was asked.
pub(crate) fn regions(found: Vec<OnMap>, agent_id: Uuid, flags: u32, asked: &str) -> MapBlockReply {
    let mut message = MapBlockReply::default();
    (message.agent_data.agent_id, message.agent_data.flags) = (agent_id, flags);
    let block = |region: OnMap| MapBlockReplyData {
        x: region.x,
        y: region.y,
        name: short(&region.name),
        access: GENERAL,
        water_height: WATER as u8,
        agents: region.agents,
        ..MapBlockReplyData::default()
    };
    message.data = found.into_iter().map(block).collect();
    if message.data.is_empty() {
        let name = short(cut(asked, 63));
        let nothing = MapBlockReplyData { name, access: NO_REGION, ..MapBlockReplyData::default() };
        message.data.push(nothing);
    }
    message
}

pub(crate) fn chat(
    guest: &Guest,
    position: Vector3,
    (text, kind): (&str, u8),
) -> ChatFromSimulator {
    let mut message = ChatFromSimulator::default();
    let data = &mut message.chat_data;
    data.from_name = full_name(guest);
    data.source_id = guest.ids.agent_id;
    data.owner_id = guest.ids.agent_id;
    data.source_type = 1;
    data.chat_type = kind;
    data.audible = 1;
    data.position = position;
    data.message = Var2::text(text).unwrap_or_default();
    message
}

pub(crate) fn teleport_local(
    ids: &AgentIds,
    (position, look_at): (Vector3, Vector3),
) -> TeleportLocal {
    let mut message = TeleportLocal::default();
    message.info.agent_id = ids.agent_id;
    message.info.position = position;
    message.info.look_at = look_at;
    message
}

pub(crate) fn teleport_failed(ids: &AgentIds, reason: &str) -> TeleportFailed {
    let mut message = TeleportFailed::default();
    message.info.agent_id = ids.agent_id;
    message.info.reason = short(reason);
    message
}

pub(crate) fn teleport_progress(ids: &AgentIds, text: &str) -> TeleportProgress {
    let mut message = TeleportProgress::default();
    message.agent_data.agent_id = ids.agent_id;
    message.info.message = short(text);
    message
}

pub(crate) fn logout_reply(ids: &AgentIds) -> LogoutReply {
    let mut message = LogoutReply::default();
    message.agent_data.agent_id = ids.agent_id;
    message.agent_data.session_id = ids.session_id;
    message
}

pub(crate) fn kick(ids: &AgentIds, reason: &str) -> KickUser {
    let mut message = KickUser::default();
    message.user_info.agent_id = ids.agent_id;
    message.user_info.session_id = ids.session_id;
    message.user_info.reason = Var2::text(short(reason).to_text().as_ref()).unwrap_or_default();
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::Message;

    #[test]
    fn long_names_are_cut_between_letters() {
        let name = "é".repeat(200);
        assert_eq!(short(&name).bytes().len(), SHORT_BYTES);
        assert_eq!(short(&name).to_text(), "é".repeat(127));
        assert_eq!(short("Alpha").bytes(), b"Alpha\0");
    }

    #[test]
    fn an_avatar_is_where_it_stands() {
        let guest = Guest::example(3);
        let body = Avatar::new(1_007, Vector3::new(1.0, 2.0, 30.0));
        let update = avatar(&guest, &body, 7);
        let mut out = [0; 1_194];
        let len = update.encode(&mut out).unwrap();
        let (read, _) = ObjectUpdate::decode(&out[..len]).unwrap();
        let object = &read.object_data[0];
        assert_eq!((object.id, object.p_code, object.parent_id), (1_007, 47, 0));
        let data = object.object_data.bytes();
        assert_eq!(data.len(), 76);
        assert_eq!(data[16..28], [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 240, 65]);
    }

    #[test]
    fn who_sits_is_told_by_his_place_on_the_seat() {
        let mut body = Avatar::new(1_007, Vector3::new(1.0, 2.0, 30.0));
        body.offer(2, Vector3::new(0.0, 0.0, 0.5));
        assert!(body.sit(|_| Some(Vector3::new(9.0, 9.0, 30.0))));
        let update = avatar(&Guest::example(3), &body, 7);
        let object = &update.object_data[0];
        assert_eq!(object.parent_id, 2);
        let motion = Motion::read_full(object.object_data.bytes()).unwrap();
        assert_eq!(motion.position, Vector3::new(0.0, 0.0, 0.5));
        assert_eq!(body.position(), Vector3::new(9.0, 9.0, 30.5));
    }

    #[test]
    fn the_largest_messages_fit_a_datagram() {
        let mut out = [0; 1_194];
        let places = |n: usize| (0..n).map(|_| (Uuid::nil(), Vector3::new(1.0, 1.0, 22.0)));
        assert!(map(places(crate::scene::MAP_AVATARS_MAX)).encode(&mut out).is_ok());
        let bodies = vec![Avatar::new(1, Vector3::default()); 16];
        assert!(moved(bodies.iter(), 1).encode(&mut out).is_ok());
        let long =
            Guest { first_name: "x".repeat(63), last_name: "y".repeat(63), ..Guest::example(1) };
        assert!(names([&long; 7].into_iter()).encode(&mut out).is_ok());
        let on_map = |_| OnMap { x: 1, y: 1, name: "x".repeat(63), agents: 1 };
        assert!(
            regions((0..12).map(on_map).collect(), Uuid::nil(), 0, "").encode(&mut out).is_ok()
        );
    }

    #[test]
    fn a_region_that_is_not_there_is_told_so() {
        let message = regions(Vec::new(), Uuid::nil(), 2, "Nowhere");
        assert_eq!(message.data[0].access, 255);
        assert_eq!(message.data[0].name.to_text(), "Nowhere");
    }
}
