//! What a region says, as messages.

use twinspan_circuit::AgentIds;
use twinspan_lludp::messages::{
    AgentMovementComplete, ChatFromSimulator, KickUser, LogoutReply, ObjectUpdate,
    ObjectUpdateObjectData, RegionHandshake, TeleportFailed, TeleportLocal, TeleportProgress,
};
use twinspan_lludp::{Uuid, Var1, Var2, Vector3};

use crate::grid::{Guest, RegionConfig};

/// An object that is an avatar.
const PCODE_AVATAR: u8 = 47;
/// Text that travels in a field of one length byte, its end included.
const SHORT_BYTES: usize = 255;

/// Text as it travels, cut where the field ends; never within a letter.
fn short(text: &str) -> Var1 {
    let mut end = text.len().min(SHORT_BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Var1::text(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn handshake(region: &RegionConfig, id: Uuid) -> RegionHandshake {
    let mut message = RegionHandshake::default();
    message.region_info.sim_name = short(&region.name);
    message.region_info.water_height = 20.0;
    message.region_info.billable_factor = 1.0;
    message.region_info2.region_id = id;
    message.region_info3.product_name = short("Twinspan");
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

/// The avatar itself: the first object that a viewer sees.
pub(crate) fn avatar(guest: &Guest, handle: u64, position: Vector3) -> ObjectUpdate {
    let place = [position.x, position.y, position.z];
    let mut data = [0; 76];
    // A collision plane first, then the place; speed, rotation and the like are zero.
    for (bytes, value) in data.as_chunks_mut().0.iter_mut().skip(4).zip(place) {
        *bytes = value.to_le_bytes();
    }
    let name = format!(
        "FirstName STRING RW SV {}\nLastName STRING RW SV {}",
        guest.first_name, guest.last_name
    );
    let object = ObjectUpdateObjectData {
        // Not the circuit code, which opens circuits.
        id: guest.ids.agent_id.as_u128() as u32,
        full_id: guest.ids.agent_id,
        p_code: PCODE_AVATAR,
        scale: Vector3::new(0.45, 0.6, 1.9),
        object_data: Var1::new(data).unwrap_or_default(),
        name_value: Var2::text(&name).unwrap_or_default(),
        ..ObjectUpdateObjectData::default()
    };
    let mut message = ObjectUpdate::default();
    message.region_data.region_handle = handle;
    message.region_data.time_dilation = u16::MAX;
    message.object_data = vec![object];
    message
}

pub(crate) fn chat(
    guest: &Guest,
    position: Vector3,
    (text, kind): (&str, u8),
) -> ChatFromSimulator {
    let mut message = ChatFromSimulator::default();
    let data = &mut message.chat_data;
    data.from_name = short(&format!("{} {}", guest.first_name, guest.last_name));
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
        let update = avatar(&guest, 7, Vector3::new(1.0, 2.0, 3.0));
        let mut out = [0; 1_194];
        let len = update.encode(&mut out).unwrap();
        let (read, _) = ObjectUpdate::decode(&out[..len]).unwrap();
        let data = read.object_data[0].object_data.bytes();
        assert_eq!(data.len(), 76);
        assert_eq!(data[16..28], [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64]);
    }
}
