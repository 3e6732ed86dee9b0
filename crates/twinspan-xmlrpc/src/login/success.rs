//! What an avatar is told when it is let in.

use std::fmt;
use std::net::Ipv4Addr;

use twinspan_llsd::{Map, Uuid, Value};

use super::fields::{
    Fields, filled, id, ip, numbers, numbers_behind, secret, text, u16_of, vector,
};
use super::{LoginReadError, Secret};

/// A folder of an inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryFolder {
    /// The folder.
    pub folder_id: Uuid,
    /// The folder that it is in; nil for the root.
    pub parent_id: Uuid,
    /// Its name.
    pub name: String,
    /// The type of what it is for; -1 for anything.
    pub type_default: i32,
    /// Changes when its contents do.
    pub version: i32,
}

/// Somebody's friend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buddy {
    /// Who it is.
    pub id: Uuid,
    /// What it may do.
    pub rights_has: i32,
    /// What it lets one do.
    pub rights_given: i32,
}

/// A gesture that is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gesture {
    /// The item in the inventory.
    pub item_id: Uuid,
    /// The gesture itself.
    pub asset_id: Uuid,
}

/// Where an avatar lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Home {
    /// The south-west corner of its region, in metres from the west and the south of the grid.
    pub region: [u32; 2],
    /// Metres from that corner.
    pub position: [f32; 3],
    /// Where it looks.
    pub look_at: [f32; 3],
}

/// The avatar is let in. Sessions, capabilities and tokens are secrets; `Debug` shows none of them.
#[derive(Clone, PartialEq)]
pub struct LoginSuccess {
    /// The first name, without the quotes that grids put around it.
    pub first_name: String,
    /// The last name.
    pub last_name: String,
    /// The avatar.
    pub agent_id: Uuid,
    /// Its session, which every message carries.
    pub session_id: Uuid,
    /// What proves the session to services.
    pub secure_session_id: Uuid,
    /// The number that opens circuits.
    pub circuit_code: u32,
    /// Where its simulator is.
    pub sim_ip: Ipv4Addr,
    /// The port of that, for UDP.
    pub sim_port: u16,
    /// The port of that, for HTTP.
    pub http_port: Option<u16>,
    /// Where the capabilities are asked for.
    pub seed_capability: Secret,
    /// Metres of the region from the west of the grid.
    pub region_x: u32,
    /// Metres of the region from the south of the grid.
    pub region_y: u32,
    /// Metres of the region's sides, where they are not 256.
    pub region_size: Option<[u32; 2]>,
    /// Where the avatar looks.
    pub look_at: Option<[f32; 3]>,
    /// Where it is: `last`, `home`, `safe` or another word.
    pub start_location: Option<String>,
    /// Where it lives.
    pub home: Option<Home>,
    /// The grid's clock.
    pub seconds_since_epoch: Option<i64>,
    /// What it may see: `PG`, `M` or `A`.
    pub agent_access: Option<String>,
    /// What it could see at most.
    pub agent_access_max: Option<String>,
    /// To be kept for the next login with a second factor.
    pub mfa_hash: Secret,
    /// The root of its inventory.
    pub inventory_root: Option<Uuid>,
    /// Its folders.
    pub inventory_skeleton: Vec<InventoryFolder>,
    /// The root of the library.
    pub library_root: Option<Uuid>,
    /// Who owns the library.
    pub library_owner: Option<Uuid>,
    /// The folders of the library.
    pub library_skeleton: Vec<InventoryFolder>,
    /// Its active gestures.
    pub gestures: Vec<Gesture>,
    /// Its friends.
    pub buddies: Vec<Buddy>,
    /// Groups that it may be in.
    pub max_agent_groups: Option<u32>,
    /// Where the tiles of the map are.
    pub map_server_url: Option<String>,
    /// Where its page of the web logs in.
    pub openid_url: Option<String>,
    /// And with what.
    pub openid_token: Secret,
    /// A text for the user.
    pub message: Option<String>,
    /// Messages that must not go over UDP.
    pub udp_blacklist: Vec<String>,
    /// All other fields, and those above that may be missing and could not be read.
    pub rest: Map,
}

impl LoginSuccess {
    /// An avatar in a simulator, and nothing besides.
    pub fn new(
        agent_id: Uuid,
        session_id: Uuid,
        secure_session_id: Uuid,
        circuit_code: u32,
        simulator: (Ipv4Addr, u16),
        seed_capability: impl Into<String>,
    ) -> Self {
        Self {
            first_name: String::new(),
            last_name: String::new(),
            agent_id,
            session_id,
            secure_session_id,
            circuit_code,
            sim_ip: simulator.0,
            sim_port: simulator.1,
            http_port: None,
            seed_capability: Secret::new(seed_capability),
            region_x: 0,
            region_y: 0,
            region_size: None,
            look_at: None,
            start_location: None,
            home: None,
            seconds_since_epoch: None,
            agent_access: None,
            agent_access_max: None,
            mfa_hash: Secret::default(),
            inventory_root: None,
            inventory_skeleton: Vec::new(),
            library_root: None,
            library_owner: None,
            library_skeleton: Vec::new(),
            gestures: Vec::new(),
            buddies: Vec::new(),
            max_agent_groups: None,
            map_server_url: None,
            openid_url: None,
            openid_token: Secret::default(),
            message: None,
            udp_blacklist: Vec::new(),
            rest: Map::new(),
        }
    }

    /// The region's handle: its corner in metres, from the west in the high half.
    pub const fn region_handle(&self) -> u64 {
        (self.region_x as u64) << 32 | self.region_y as u64
    }

    pub(super) fn take(mut fields: Fields) -> Result<Self, LoginReadError> {
        let mut success = Self::new(
            fields.required("agent_id", "a UUID", id)?,
            fields.required("session_id", "a UUID", id)?,
            fields.required("secure_session_id", "a UUID", id)?,
            fields.required("circuit_code", "a number of 32 bits", Value::to_u32)?,
            (
                fields.required("sim_ip", "an address of IPv4", ip)?,
                fields.required("sim_port", "a port", u16_of)?,
            ),
            fields.required("seed_capability", "an address", filled)?,
        );
        success.region_x = fields.required("region_x", "a number of metres", Value::to_u32)?;
        success.region_y = fields.required("region_y", "a number of metres", Value::to_u32)?;
        success.take_names(&mut fields);
        success.take_places(&mut fields);
        success.take_inventory(&mut fields);
        success.take_others(&mut fields);
        success.rest = fields.0;
        Ok(success)
    }

    fn take_names(&mut self, fields: &mut Fields) {
        let name = |fields: &mut Fields, field| {
            let name = fields.text(field);
            name.trim().trim_matches('"').to_owned()
        };
        self.first_name = name(fields, "first_name");
        self.last_name = name(fields, "last_name");
    }

    fn take_places(&mut self, fields: &mut Fields) {
        self.http_port = fields.optional("http_port", |value| u16_of(value).filter(|at| *at > 0));
        let sizes = ["region_size_x", "region_size_y"].map(|field| fields.0.get(field));
        if let [Some(x), Some(y)] = sizes
            && let (Some(x), Some(y)) = (x.to_u32(), y.to_u32())
        {
            self.region_size = Some([x, y]);
            fields.0.remove("region_size_x");
            fields.0.remove("region_size_y");
        }
        self.look_at = fields.optional("look_at", vector);
        self.start_location = fields.optional("start_location", filled);
        self.home = fields.optional("home", home);
        self.seconds_since_epoch = fields.optional("seconds_since_epoch", Value::to_i64);
        self.agent_access = fields.optional("agent_access", filled);
        self.agent_access_max = fields.optional("agent_access_max", filled);
    }

    fn take_inventory(&mut self, fields: &mut Fields) {
        self.inventory_root = fields.optional("inventory-root", |value| first(value, "folder_id"));
        self.inventory_skeleton =
            fields.optional("inventory-skeleton", folders).unwrap_or_default();
        self.library_root =
            fields.optional("inventory-lib-root", |value| first(value, "folder_id"));
        self.library_owner =
            fields.optional("inventory-lib-owner", |value| first(value, "agent_id"));
        self.library_skeleton = fields.optional("inventory-skel-lib", folders).unwrap_or_default();
        let gesture = |value: &Value| {
            let (item_id, asset_id) = (id(value.get("item_id")?)?, id(value.get("asset_id")?)?);
            Some(Gesture { item_id, asset_id })
        };
        self.gestures =
            fields.optional("gestures", |value| each(value, gesture)).unwrap_or_default();
        let number = |value: &Value, key| value.get(key).and_then(small).unwrap_or_default();
        let buddy = |value: &Value| {
            Some(Buddy {
                id: id(value.get("buddy_id")?)?,
                rights_has: number(value, "buddy_rights_has"),
                rights_given: number(value, "buddy_rights_given"),
            })
        };
        self.buddies =
            fields.optional("buddy-list", |value| each(value, buddy)).unwrap_or_default();
    }

    fn take_others(&mut self, fields: &mut Fields) {
        self.mfa_hash = fields.optional("mfa_hash", secret).unwrap_or_default();
        self.max_agent_groups = fields.optional("max-agent-groups", Value::to_u32);
        self.map_server_url = fields.optional("map-server-url", filled);
        self.openid_url = fields.optional("openid_url", filled);
        self.openid_token = fields.optional("openid_token", secret).unwrap_or_default();
        self.message = fields.optional("message", filled);
        let names = |value: &Value| {
            let names = filled(value)?;
            Some(names.split(',').map(|name| name.trim().to_owned()).collect())
        };
        self.udp_blacklist = fields.optional("udp_blacklist", names).unwrap_or_default();
    }

    pub(super) fn to_value(&self) -> Value {
        let mut map = self.rest.clone();
        let text = |text: &str| Value::from(text);
        let uuid = |id: &Uuid| Value::from(id.to_string());
        // Numbers without a sign travel as the same bits with one.
        let number = |number: u32| Value::Integer(number.cast_signed());
        let known = [
            ("login", text("true")),
            ("first_name", text(&self.first_name)),
            ("last_name", text(&self.last_name)),
            ("agent_id", uuid(&self.agent_id)),
            ("session_id", uuid(&self.session_id)),
            ("secure_session_id", uuid(&self.secure_session_id)),
            ("circuit_code", number(self.circuit_code)),
            ("sim_ip", self.sim_ip.to_string().into()),
            ("sim_port", self.sim_port.into()),
            ("seed_capability", text(self.seed_capability.reveal())),
            ("region_x", number(self.region_x)),
            ("region_y", number(self.region_y)),
        ];
        map.extend(known.map(|(key, value)| (key.to_owned(), value)));
        let text_of = |text: &Option<String>| text.as_deref().map(Value::from);
        let secret_of = |text: &Secret| (!text.is_empty()).then(|| Value::from(text.reveal()));
        let [size_x, size_y] = match self.region_size {
            Some(size) => size.map(|size| Some(number(size))),
            None => [None, None],
        };
        let list = |list: Vec<Value>| (!list.is_empty()).then_some(Value::Array(list));
        let blacklist = (!self.udp_blacklist.is_empty()).then(|| self.udp_blacklist.join(","));
        let optional = [
            ("http_port", self.http_port.map(Value::from)),
            ("region_size_x", size_x),
            ("region_size_y", size_y),
            ("look_at", self.look_at.map(|at| vector_text(at).into())),
            ("start_location", text_of(&self.start_location)),
            ("home", self.home.map(|home| home_text(&home).into())),
            ("seconds_since_epoch", self.seconds_since_epoch.map(seconds)),
            ("agent_access", text_of(&self.agent_access)),
            ("agent_access_max", text_of(&self.agent_access_max)),
            ("mfa_hash", secret_of(&self.mfa_hash)),
            ("inventory-root", self.inventory_root.map(|id| one("folder_id", id))),
            ("inventory-skeleton", list(folder_values(&self.inventory_skeleton))),
            ("inventory-lib-root", self.library_root.map(|id| one("folder_id", id))),
            ("inventory-lib-owner", self.library_owner.map(|id| one("agent_id", id))),
            ("inventory-skel-lib", list(folder_values(&self.library_skeleton))),
            ("gestures", list(self.gestures.iter().map(gesture_value).collect())),
            ("buddy-list", list(self.buddies.iter().map(buddy_value).collect())),
            ("max-agent-groups", self.max_agent_groups.map(number)),
            ("map-server-url", text_of(&self.map_server_url)),
            ("openid_url", text_of(&self.openid_url)),
            ("openid_token", secret_of(&self.openid_token)),
            ("message", text_of(&self.message)),
            ("udp_blacklist", blacklist.map(Value::from)),
        ];
        let there = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        map.extend(there);
        Value::Map(map)
    }
}

impl fmt::Debug for LoginSuccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginSuccess")
            .field("first_name", &self.first_name)
            .field("last_name", &self.last_name)
            .field("agent_id", &self.agent_id)
            .field("sim_ip", &self.sim_ip)
            .field("sim_port", &self.sim_port)
            .field("region_x", &self.region_x)
            .field("region_y", &self.region_y)
            .field("region_size", &self.region_size)
            .field("start_location", &self.start_location)
            .field("inventory_skeleton", &self.inventory_skeleton.len())
            .field("library_skeleton", &self.library_skeleton.len())
            .field("buddies", &self.buddies.len())
            .field("message", &self.message)
            .field("rest", &self.rest.keys())
            .finish_non_exhaustive()
    }
}

/// The field of the first map of an array.
fn first(value: &Value, key: &str) -> Option<Uuid> {
    id(value.at(0)?.get(key)?)
}

/// Every element of an array, or none when one of them cannot be read.
fn each<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

fn small(value: &Value) -> Option<i32> {
    value.to_i64()?.try_into().ok()
}

fn folders(value: &Value) -> Option<Vec<InventoryFolder>> {
    each(value, |folder| {
        Some(InventoryFolder {
            folder_id: id(folder.get("folder_id")?)?,
            parent_id: folder.get("parent_id").and_then(id).unwrap_or_default(),
            name: folder.get("name").and_then(text).unwrap_or_default(),
            type_default: folder.get("type_default").and_then(small).unwrap_or(-1),
            version: folder.get("version").and_then(small).unwrap_or_default(),
        })
    })
}

/// A map, or a text like one.
fn home(value: &Value) -> Option<Home> {
    let (region, position, look_at) = match value {
        Value::Map(map) => (
            numbers::<2>(map.get("region_handle")?)?,
            numbers::<3>(map.get("position")?)?,
            numbers::<3>(map.get("look_at")?)?,
        ),
        Value::String(text) => (
            numbers_behind::<2>(text, "region_handle")?,
            numbers_behind::<3>(text, "position")?,
            numbers_behind::<3>(text, "look_at")?,
        ),
        _ => return None,
    };
    Some(Home {
        region: region.map(|metres| metres as u32),
        position: position.map(|part| part as f32),
        look_at: look_at.map(|part| part as f32),
    })
}

fn vector_text([x, y, z]: [f32; 3]) -> String {
    format!("[r{x},r{y},r{z}]")
}

fn home_text(home: &Home) -> String {
    let [x, y] = home.region;
    let (position, look_at) = (vector_text(home.position), vector_text(home.look_at));
    format!("{{'region_handle':[r{x},r{y}], 'position':{position}, 'look_at':{look_at}}}")
}

/// A number while it fits 32 bits; a text behind 2038.
fn seconds(seconds: i64) -> Value {
    i32::try_from(seconds).map_or_else(|_| seconds.to_string().into(), Value::Integer)
}

fn one(key: &str, id: Uuid) -> Value {
    Value::Array(vec![Value::map([(key, id.to_string().into())])])
}

fn folder_values(folders: &[InventoryFolder]) -> Vec<Value> {
    let folder = |folder: &InventoryFolder| {
        Value::map([
            ("folder_id", folder.folder_id.to_string().into()),
            ("parent_id", folder.parent_id.to_string().into()),
            ("name", folder.name.as_str().into()),
            ("type_default", folder.type_default.into()),
            ("version", folder.version.into()),
        ])
    };
    folders.iter().map(folder).collect()
}

fn gesture_value(gesture: &Gesture) -> Value {
    Value::map([
        ("item_id", gesture.item_id.to_string().into()),
        ("asset_id", gesture.asset_id.to_string().into()),
    ])
}

fn buddy_value(buddy: &Buddy) -> Value {
    Value::map([
        ("buddy_id", buddy.id.to_string().into()),
        ("buddy_rights_has", buddy.rights_has.into()),
        ("buddy_rights_given", buddy.rights_given.into()),
    ])
}
