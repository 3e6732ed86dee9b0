//! What grids answer viewers, and what regions send them.

use std::net::Ipv4Addr;

use twinspan_circuit::fuzz::{Action, Step, write_step};
use twinspan_core::random::Stream;
use twinspan_llsd::{Form, Value};
use twinspan_lludp::content::{Motion, ObjectView, PCode};
use twinspan_lludp::messages::{
    AlertMessage, ChatFromSimulator, CoarseLocationUpdate, CoarseLocationUpdateAgentData,
    CoarseLocationUpdateLocation, ImprovedInstantMessage, KickUser, KillObject,
    KillObjectObjectData, MapBlockReply, MapBlockReplyData, ObjectUpdate, ObjectUpdateCached,
    ObjectUpdateCachedObjectData, SendXferPacket, TransferInfo, TransferPacket,
};
use twinspan_lludp::{Uuid, Var1, Var2, Vector3};
use twinspan_viewer::fuzz::write_part;
use twinspan_xmlrpc::LoginForm;
use twinspan_xmlrpc::login::{LoginReply, LoginSuccess, Redirect, Refusal};

use super::circuit::{Region, arrival};

fn script(first: Option<u8>, parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut script: Vec<u8> = first.into_iter().collect();
    parts.iter().for_each(|(head, bytes)| write_part(*head, bytes, &mut script));
    script
}

/// Logins that succeed, are sent elsewhere and refused, in both forms.
pub(super) fn logins() -> Vec<Vec<u8>> {
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let simulator = (Ipv4Addr::new(10, 0, 0, 1), 9_000);
    let success = LoginSuccess::new(ids[0], ids[1], ids[2], 7, simulator, "http://a/seed");
    let success = LoginReply::Success(success.into());
    let refused = |reason| LoginReply::Refused(Refusal::new(reason, "so it is"));
    let redirect = LoginReply::Indeterminate(Redirect {
        next_url: "https://b/login".into(),
        next_method: Some("login_there".into()),
        next_duration: Some(2.5),
        message: None,
    });
    let [plain, llsd] = [LoginForm::XmlRpc, LoginForm::Llsd];
    let xml = |reply: &LoginReply| reply.write(plain).unwrap();
    let (again, done) = (xml(&refused("presence")), xml(&success));
    let (away, key) = (xml(&redirect), xml(&refused("key")));
    let (other_away, other_done) = (redirect.write(llsd).unwrap(), success.write(llsd).unwrap());
    vec![
        script(Some(0), &[(0, &again), (0, &done)]),
        script(Some(2), &[(0, &away), (1, b"https://c/login"), (1, b"/here"), (0, &key)]),
        script(Some(1), &[(0, &other_away), (0, &other_done)]),
        script(Some(2), &[(1, b"http://d/")]),
    ]
}

/// What grids tell about themselves: all that OpenSimulator has, a little, and a page; and what a
/// simulator does.
pub(super) fn grid_infos() -> Vec<Vec<u8>> {
    let whole = "<?xml version=\"1.0\"?>\n<gridinfo>\n<platform>OpenSim</platform>\n\
        <login>http://a.example:8002/</login><gridname>A &amp; B</gridname><gridnick>a</gridnick>\n\
        <welcome>http://a.example/w?x=1&amp;y=2</welcome><economy>http://a.example:8008/</economy>\n\
        <about/><register>https://a.example/r</register><help></help><password>no</password>\n\
        <gatekeeper>http://a.example:8002/</gatekeeper><message>Hello</message></gridinfo>\n";
    let small = "<gridinfo><gridname>B</gridname></gridinfo>";
    let page = "<!DOCTYPE html><html><body>Not here</body></html>";
    let simulator = "<llsd><map><key>MeshRezEnabled</key><boolean>1</boolean>\
        <key>MaxMaterialsPerTransaction</key><integer>50</integer><key>OpenSimExtras</key><map>\
        <key>GridName</key><string>A</string><key>GridURL</key><string>http://a/</string>\
        <key>say-range</key><integer>20</integer><key>shout-range</key><real>1.5</real>\
        </map></map></llsd>";
    [whole, small, page, simulator].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// An answer of an event queue with all that concerns circuits.
fn events() -> Vec<u8> {
    let place = [
        ("IP", Value::Binary(vec![10, 0, 0, 2])),
        ("Port", 9_000.into()),
        ("Handle", Value::Binary(vec![0, 3, 0xe9, 0, 0, 3, 0xe8, 0])),
    ];
    let enable = Value::map([("SimulatorInfo", Value::Array(vec![Value::map(place)]))]);
    let establish = Value::map([
        ("agent-id", Value::Uuid(Uuid::from_u128(1))),
        ("sim-ip-and-port", "10.0.0.2:9000".into()),
        ("seed-capability", "http://10.0.0.2/seed".into()),
    ]);
    let there = |names: [&'static str; 4]| {
        Value::map([
            (names[0], Value::Binary(vec![10, 0, 0, 2])),
            (names[1], 9_000.into()),
            (names[2], Value::Binary(vec![0, 3, 0xe9, 0, 0, 3, 0xe8, 0])),
            (names[3], "http://10.0.0.2/seed".into()),
        ])
    };
    let names = ["SimIP", "SimPort", "RegionHandle", "SeedCapability"];
    let finish = Value::map([("Info", Value::Array(vec![there(names)]))]);
    let crossed = Value::map([("RegionData", Value::Array(vec![there(names)]))]);
    let event = |name: &'static str, body| Value::map([("message", name.into()), ("body", body)]);
    let all = vec![
        event("EnableSimulator", enable),
        event("EstablishAgentCommunication", establish),
        event("TeleportFinish", finish),
        event("CrossedRegion", crossed),
        event("TeleportFailed", Value::map([("Info", Value::Array(Vec::new()))])),
        Value::Undef,
    ];
    let answer = Value::map([("events", Value::Array(all)), ("id", 7.into())]);
    Form::Xml.write(&answer).unwrap()
}

pub(super) fn queues() -> Vec<Vec<u8>> {
    let events = events();
    let empty =
        b"<llsd><map><key>events</key><array/><key>id</key><integer>8</integer></map></llsd>";
    // Held for a minute and 502; at once and 502; 404.
    let (held, at_once, gone) = (0x3d, 0x0d, 0x07);
    let refused = vec![(0x06, &b""[..]); 12];
    vec![
        script(
            None,
            &[(0, &events), (0x10, empty), (held, b""), (at_once, b"<html>"), (gone, b"")],
        ),
        script(None, &refused),
        script(None, &[(0, b"{'events':[{'message':'X'}],'id':i1}"), (0, b"<html></html>")]),
    ]
}

/// Seeds, inventories and assets.
pub(super) fn answers() -> Vec<Vec<u8>> {
    let caps = b"{'EventQueueGet':'http://a/eq','GetTexture':'https://a/t?x=1','Odd':'ftp://a/'}";
    let folders = b"{'folders':[{'folder_id':u00000000-0000-0000-0000-000000000001,'version':i5,\
        'categories':[{'category_id':u00000000-0000-0000-0000-000000000002,'name':'Objects'},{}],\
        'items':[{'item_id':'00000000-0000-0000-0000-000000000009','name':'Hat','type':i5}]}],\
        'bad_folders':[{'folder_id':u00000000-0000-0000-0000-000000000007,'error':'Unknown'}]}";
    let emptied = b"{'folders':[{'folder_id':u00000000-0000-0000-0000-000000000001,'version':i6}]}";
    let part = [&[2, 2, 12][..], b"bytes 2-4/26", b"cde"].concat();
    let (whole, partial, unasked) = (2, 8, 65);
    vec![
        script(None, &[(0, caps), (1, folders), (1, emptied)]),
        script(None, &[(partial, &part), (whole, &part), (unasked, &part)]),
        script(None, &[(0, b"[]"), (1, b"{}"), (partial, &part[..9])]),
    ]
}

fn wish(wait: u8, wish: u8, script: &mut Vec<u8>) {
    write_step(Step { peer: 0, wait, action: Action::Wish(wish) }, script);
}

/// What is around: chat, messages, avatars that come, move and go, the map.
fn surroundings(region: &mut Region, script: &mut Vec<u8>) {
    let mut chat = ChatFromSimulator::default();
    chat.chat_data.message = Var2::text("hello").unwrap();
    chat.chat_data.source_type = 1;
    region.say(0, 2, chat, script);
    let mut letter = ImprovedInstantMessage::default();
    letter.message_block.message = Var2::text("a secret").unwrap();
    region.say(0, 1, letter, script);
    let view = ObjectView {
        local_id: 5,
        full_id: Uuid::from_u128(1),
        p_code: PCode::Avatar.wire(),
        motion: Motion { position: Vector3::new(10.0, 20.0, 25.0), ..Default::default() },
        name_values: b"FirstName STRING RW SV Ruth\nLastName STRING RW SV Resident\0",
        ..Default::default()
    };
    let mut update = ObjectUpdate::default();
    update.object_data.push(view.to_full().unwrap());
    region.say(0, 1, update, script);
    let mut cached = ObjectUpdateCached::default();
    cached.object_data.push(ObjectUpdateCachedObjectData { id: 6, crc: 0, update_flags: 0 });
    region.say(0, 1, cached, script);
    let mut map = CoarseLocationUpdate::default();
    map.location.push(CoarseLocationUpdateLocation { x: 9, y: 8, z: 5 });
    map.agent_data.push(CoarseLocationUpdateAgentData { agent_id: Uuid::from_u128(8) });
    region.say(0, 1, map, script);
    let kill = KillObject { object_data: vec![KillObjectObjectData { id: 5 }] };
    region.say(0, 1, kill, script);
    region.say(0, 1, AlertMessage::default(), script);
}

/// An asset and a file, as the region sends them; their ids are those that the body draws.
fn transfers(region: &mut Region, script: &mut Vec<u8>) {
    let mut random = Stream::new(1, "transfers", 0);
    let id = Uuid::from_u64_pair(random.next_u64(), random.next_u64());
    wish(1, 3, script);
    let mut info = TransferInfo::default();
    info.transfer_info.transfer_id = id;
    info.transfer_info.size = 5;
    region.say(0, 2, info, script);
    let mut packet = TransferPacket::default();
    packet.transfer_data.transfer_id = id;
    packet.transfer_data.status = 1;
    packet.transfer_data.data = Var2::new(*b"hello").unwrap();
    region.say(0, 1, packet, script);
    wish(1, 4, script);
    let mut file = SendXferPacket::default();
    file.xfer_id.id = random.next_u64();
    file.xfer_id.packet = 0x8000_0000;
    file.data_packet.data = Var2::new(*b"\x04\0\0\0file").unwrap();
    region.say(0, 2, file, script);
    wish(1, 5, script);
    let mut map = MapBlockReply::default();
    let name = Var1::text("Alpha").unwrap();
    let block = MapBlockReplyData { x: 1_000, y: 1_001, name, access: 13, ..Default::default() };
    map.data.push(block);
    region.say(0, 2, map, script);
}

pub(super) fn regions() -> Vec<Vec<u8>> {
    let began = || {
        let (mut script, mut region) = (Vec::new(), Region::new(1));
        arrival(&mut region, 0, &mut script);
        (script, region)
    };
    let (mut busy, mut region) = began();
    surroundings(&mut region, &mut busy);
    [6, 0x1c, 8, 9, 0x17].into_iter().for_each(|one| wish(3, one, &mut busy));
    region.say(0, 4, KickUser::default(), &mut busy);
    let (mut files, mut region) = began();
    transfers(&mut region, &mut files);
    [8, 10, 11, 13, 14].into_iter().for_each(|one| wish(3, one, &mut files));
    let (mut silent, _) = began();
    [3, 4, 5, 7, 6, 8].into_iter().for_each(|one| wish(1, one, &mut silent));
    wish(7, 0x0f, &mut silent);
    vec![busy, files, silent]
}
