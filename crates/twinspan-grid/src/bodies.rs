//! What an event queue says, as LLSD.
//!
//! Numbers without a sign and addresses travel as binary in network order, ports as integers.

use std::net::{IpAddr, SocketAddr};

use twinspan_circuit::{QueueEvent, Seed};
use twinspan_llsd::Value;
use twinspan_lludp::Vector3;

use crate::config::Guest;

/// Anybody may see what is there.
const GENERAL: i32 = 13;
/// A teleport to a place of the map, as viewers know it.
const VIA_LOCATION: u32 = 1 << 4;
/// What kind of place that is.
const LOCATION_ID: u32 = 4;

/// Where an event finds an agent: the place and where he looks.
pub(crate) type Place = (Vector3, Vector3);

/// An event with its name.
pub(crate) fn event(event: &QueueEvent, guest: &Guest, place: Option<Place>) -> Value {
    let (name, body) = match event {
        QueueEvent::EnableSimulator { addr, handle } => {
            let simulator =
                [("Handle", handle_of(*handle)), ("IP", ip(addr)), ("Port", port(addr))];
            ("EnableSimulator", Value::map([("SimulatorInfo", blocks(Value::map(simulator)))]))
        }
        QueueEvent::EstablishAgentCommunication { addr, seed } => {
            let body = [
                ("agent-id", guest.ids.agent_id.into()),
                ("sim-ip-and-port", addr.to_string().into()),
                ("seed-capability", seed.url().into()),
            ];
            ("EstablishAgentCommunication", Value::map(body))
        }
        QueueEvent::CrossedRegion { addr, handle, seed } => {
            let agent = [
                ("AgentID", guest.ids.agent_id.into()),
                ("SessionID", guest.ids.session_id.into()),
            ];
            let region = [
                ("RegionHandle", handle_of(*handle)),
                ("SimIP", ip(addr)),
                ("SimPort", port(addr)),
                ("SeedCapability", seed.as_ref().map(Seed::url).into()),
            ];
            let (position, look_at) = place.unwrap_or_default();
            let info = [("Position", vector(position)), ("LookAt", vector(look_at))];
            let body = [
                ("AgentData", blocks(Value::map(agent))),
                ("RegionData", blocks(Value::map(region))),
                ("Info", blocks(Value::map(info))),
            ];
            ("CrossedRegion", Value::map(body))
        }
        QueueEvent::TeleportFinish { addr, handle, seed } => {
            let info = [
                ("AgentID", guest.ids.agent_id.into()),
                ("LocationID", number(LOCATION_ID)),
                ("SimIP", ip(addr)),
                ("SimPort", port(addr)),
                ("RegionHandle", handle_of(*handle)),
                ("SeedCapability", seed.as_ref().map(Seed::url).into()),
                ("SimAccess", GENERAL.into()),
                ("TeleportFlags", number(VIA_LOCATION)),
            ];
            ("TeleportFinish", Value::map([("Info", blocks(Value::map(info)))]))
        }
        QueueEvent::TeleportFailed { reason } => {
            let info = [("AgentID", guest.ids.agent_id.into()), ("Reason", reason.as_str().into())];
            ("TeleportFailed", Value::map([("Info", blocks(Value::map(info)))]))
        }
        // Events that this grid does not make; viewers pass over what they do not know.
        _ => ("Unknown", Value::Undef),
    };
    Value::map([("message", name.into()), ("body", body)])
}

/// What a poll is answered.
pub(crate) fn answer(id: i32, events: Vec<Value>) -> Value {
    Value::map([("id", id.into()), ("events", events.into())])
}

fn blocks(block: Value) -> Value {
    Value::Array(vec![block])
}

fn handle_of(handle: u64) -> Value {
    handle.to_be_bytes().as_slice().into()
}

fn number(number: u32) -> Value {
    number.to_be_bytes().as_slice().into()
}

fn ip(addr: &SocketAddr) -> Value {
    match addr.ip() {
        IpAddr::V4(ip) => ip.octets().as_slice().into(),
        IpAddr::V6(ip) => ip.octets().as_slice().into(),
    }
}

fn port(addr: &SocketAddr) -> Value {
    addr.port().into()
}

fn vector(vector: Vector3) -> Value {
    [vector.x, vector.y, vector.z].map(Value::from).to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_llsd::Form;

    fn text(what: &QueueEvent) -> String {
        let place = (Vector3::new(1.0, 2.0, 3.0), Vector3::new(0.0, 1.0, 0.0));
        let value = event(what, &Guest::example(1), Some(place));
        String::from_utf8(Form::Notation.write(&value).unwrap()).unwrap()
    }

    #[test]
    fn each_event_has_its_golden_form() {
        let addr = ([10, 0, 0, 1], 9_000).into();
        let handle = 0x0003_e800_0003_e900;
        let seed = Seed::new("http://g/cap/x").unwrap();
        assert_eq!(
            text(&QueueEvent::EnableSimulator { addr, handle }),
            "{'body':{'SimulatorInfo':[{'Handle':b64\"AAPoAAAD6QA=\",'IP':b64\"CgAAAQ==\",\
             'Port':i9000}]},'message':'EnableSimulator'}"
        );
        assert_eq!(
            text(&QueueEvent::EstablishAgentCommunication { addr, seed: seed.clone() }),
            "{'body':{'agent-id':u00000000-0000-0000-0000-0000a9e00001,\
             'seed-capability':'http://g/cap/x','sim-ip-and-port':'10.0.0.1:9000'},\
             'message':'EstablishAgentCommunication'}"
        );
        let crossed = text(&QueueEvent::CrossedRegion { addr, handle, seed: Some(seed.clone()) });
        assert!(crossed.contains("'Position':[r1.0,r2.0,r3.0]"), "{crossed}");
        assert!(crossed.contains("'SessionID':u00000000-0000-0000-0000-00005e550001"), "{crossed}");
        let finish = text(&QueueEvent::TeleportFinish { addr, handle, seed: Some(seed) });
        assert!(finish.contains("'TeleportFlags':b64\"AAAAEA==\""), "{finish}");
        assert!(finish.contains("'SimAccess':i13,'SimIP':b64\"CgAAAQ==\""), "{finish}");
        let failed = text(&QueueEvent::TeleportFailed { reason: "no".into() });
        assert!(failed.contains("'Reason':'no'"), "{failed}");
    }
}
