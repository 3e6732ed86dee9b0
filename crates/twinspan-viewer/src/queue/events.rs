//! What event queues say that concerns circuits, read from LLSD.

use std::net::{Ipv4Addr, SocketAddr};

use twinspan_circuit::{QueueEvent, Seed};
use twinspan_llsd::Value;
use twinspan_lludp::Uuid;

use super::QueueMessage;

/// Characters of a grid's text that are kept.
const TEXT_CHARS_MAX: usize = 1_024;

/// Why a message of a queue could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A field is missing or of no use.
    #[error("the field `{field}` is missing or of no use")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// It is for somebody else.
    #[error("it is for another agent")]
    NotForUs,
}

/// What a message means for circuits; `None` when it concerns something else.
///
/// # Errors
/// [`EventError`] names the field that is missing or of no use.
pub fn circuit_event(
    message: &QueueMessage,
    agent: Uuid,
) -> Option<Result<QueueEvent, EventError>> {
    let body = &message.body;
    Some(match message.name.as_str() {
        "EnableSimulator" => enable_simulator(body),
        "EstablishAgentCommunication" => establish(body, agent),
        "TeleportFinish" => teleport_finish(body, agent),
        "CrossedRegion" => crossed_region(body, agent),
        "TeleportFailed" => teleport_failed(body, agent),
        _ => return None,
    })
}

/// A field of the first of the blocks with this name; some servers leave the array out.
fn field<'a>(body: &'a Value, block: &str, name: &str) -> Option<&'a Value> {
    let block = body.get(block)?;
    block.at(0).unwrap_or(block).get(name)
}

/// As [`field`], read by `read`.
fn read<T>(
    body: &Value,
    block: &str,
    name: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<T, EventError> {
    field(body, block, name).and_then(read).ok_or(EventError::Field { field: name })
}

/// Four bytes in network order, a text, or a number.
fn ip(value: &Value) -> Option<Ipv4Addr> {
    let ip = match value {
        Value::String(text) => text.trim().parse().ok()?,
        Value::Binary(bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?),
        value => Ipv4Addr::from(value.to_u32()?),
    };
    let usable = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
    usable.then_some(ip)
}

fn port(value: &Value) -> Option<u16> {
    value.to_i64()?.try_into().ok().filter(|port| *port != 0)
}

fn handle(value: &Value) -> Option<u64> {
    value.to_u64().filter(|handle| *handle != 0)
}

fn seed(value: &Value) -> Option<Seed> {
    let url = value.as_text()?.trim();
    (url.starts_with("http://") || url.starts_with("https://")).then(|| Seed::new(url)).flatten()
}

/// That a field names this agent; one that is not there names nobody else.
fn is_for(agent: Uuid, value: Option<&Value>) -> Result<(), EventError> {
    match value {
        None => Ok(()),
        Some(value) if value.to_uuid() == Some(agent) => Ok(()),
        Some(_) => Err(EventError::NotForUs),
    }
}

fn enable_simulator(body: &Value) -> Result<QueueEvent, EventError> {
    let block = "SimulatorInfo";
    let ip = read(body, block, "IP", ip)?;
    let port = read(body, block, "Port", port)?;
    let handle = read(body, block, "Handle", handle)?;
    Ok(QueueEvent::EnableSimulator { addr: (ip, port).into(), handle })
}

fn establish(body: &Value, agent: Uuid) -> Result<QueueEvent, EventError> {
    is_for(agent, body.get("agent-id"))?;
    let name = "sim-ip-and-port";
    let addr = body.get(name).and_then(Value::as_text).and_then(|text| {
        let addr: SocketAddr = text.trim().parse().ok()?;
        let ip = Value::String(addr.ip().to_string());
        // The same rules as for all other addresses; only IPv4 is spoken.
        (self::ip(&ip).is_some() && addr.port() != 0).then_some(addr)
    });
    let addr = addr.ok_or(EventError::Field { field: name })?;
    let name = "seed-capability";
    let seed = body.get(name).and_then(seed).ok_or(EventError::Field { field: name })?;
    Ok(QueueEvent::EstablishAgentCommunication { addr, seed })
}

fn teleport_finish(body: &Value, agent: Uuid) -> Result<QueueEvent, EventError> {
    let block = "Info";
    is_for(agent, field(body, block, "AgentID"))?;
    let addr = (read(body, block, "SimIP", ip)?, read(body, block, "SimPort", port)?).into();
    let handle = read(body, block, "RegionHandle", handle)?;
    let seed = field(body, block, "SeedCapability").and_then(seed);
    Ok(QueueEvent::TeleportFinish { addr, handle, seed })
}

fn crossed_region(body: &Value, agent: Uuid) -> Result<QueueEvent, EventError> {
    is_for(agent, field(body, "AgentData", "AgentID"))?;
    let block = "RegionData";
    let addr = (read(body, block, "SimIP", ip)?, read(body, block, "SimPort", port)?).into();
    let handle = read(body, block, "RegionHandle", handle)?;
    let seed = field(body, block, "SeedCapability").and_then(seed);
    Ok(QueueEvent::CrossedRegion { addr, handle, seed })
}

fn teleport_failed(body: &Value, agent: Uuid) -> Result<QueueEvent, EventError> {
    is_for(agent, field(body, "Info", "AgentID"))?;
    let reason = read(body, "Info", "Reason", |value| {
        value.to_text().map(|text| text.chars().take(TEXT_CHARS_MAX).collect())
    })?;
    Ok(QueueEvent::TeleportFailed { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Uuid = Uuid::from_u128(7);

    fn told(name: &str, notation: &str) -> Option<Result<QueueEvent, EventError>> {
        let limits = twinspan_llsd::Limits::DEFAULT;
        let form = twinspan_llsd::Form::Notation;
        let body = twinspan_llsd::parse(notation.as_bytes(), form, &limits).unwrap();
        circuit_event(&QueueMessage { name: name.into(), body }, AGENT)
    }

    /// 256000, 256256.
    const HANDLE: u64 = (256_000 << 32) | 256_256;

    #[test]
    fn neighbours_are_named_as_second_life_and_as_opensimulator_do() {
        let addr = ([10, 0, 0, 2], 9_001).into();
        let wanted = Some(Ok(QueueEvent::EnableSimulator { addr, handle: HANDLE }));
        let handle = "b16\"0003E8000003E900\"";
        for text in [
            format!(
                "{{'SimulatorInfo':[{{'Handle':{handle},'IP':b16\"0A000002\",'Port':i9001}}]}}"
            ),
            format!("{{'SimulatorInfo':{{'Handle':{handle},'IP':'10.0.0.2','Port':'9001'}}}}"),
            format!("{{'SimulatorInfo':[{{'Handle':{handle},'IP':i167772162,'Port':r9001}}]}}"),
        ] {
            assert_eq!(told("EnableSimulator", &text), wanted, "{text}");
        }
    }

    #[test]
    fn a_seed_comes_with_its_simulator() {
        let text = "{'agent-id':u00000000-0000-0000-0000-000000000007,\
            'sim-ip-and-port':'10.0.0.2:9001','seed-capability':'http://10.0.0.2/CAPS/x'}";
        let seed = Seed::new("http://10.0.0.2/CAPS/x").unwrap();
        let addr = ([10, 0, 0, 2], 9_001).into();
        let wanted = QueueEvent::EstablishAgentCommunication { addr, seed };
        assert_eq!(told("EstablishAgentCommunication", text), Some(Ok(wanted)));
        let other = text.replace("000000000007", "000000000008");
        let told = told("EstablishAgentCommunication", &other);
        assert_eq!(told, Some(Err(EventError::NotForUs)));
    }

    #[test]
    fn journeys_name_their_ends() {
        let place = "'SimIP':b16\"0A000003\",'SimPort':i9002,'RegionHandle':b16\"0003E8000003E900\",\
            'SeedCapability':'https://10.0.0.3/CAPS/y'";
        let addr: SocketAddr = ([10, 0, 0, 3], 9_002).into();
        let seed = Seed::new("https://10.0.0.3/CAPS/y");
        let finish = told("TeleportFinish", &format!("{{'Info':[{{{place},'TeleportFlags':!}}]}}"));
        let wanted = QueueEvent::TeleportFinish { addr, handle: HANDLE, seed: seed.clone() };
        assert_eq!(finish, Some(Ok(wanted)));
        let crossed =
            told("CrossedRegion", &format!("{{'RegionData':[{{{place}}}],'Info':[{{}}]}}"));
        assert_eq!(crossed, Some(Ok(QueueEvent::CrossedRegion { addr, handle: HANDLE, seed })));
        let failed = told("TeleportFailed", "{'Info':[{'Reason':'no_host'}]}");
        assert_eq!(failed, Some(Ok(QueueEvent::TeleportFailed { reason: "no_host".into() })));
    }

    #[test]
    fn what_is_of_no_use_is_named() {
        for (ip, port, handle, wanted) in [
            ("'0.0.0.0'", "i1", "b16\"0000000100000000\"", "IP"),
            ("'224.1.1.1'", "i1", "b16\"0000000100000000\"", "IP"),
            ("b16\"0A00\"", "i1", "b16\"0000000100000000\"", "IP"),
            ("'10.0.0.1'", "i0", "b16\"0000000100000000\"", "Port"),
            ("'10.0.0.1'", "i70000", "b16\"0000000100000000\"", "Port"),
            ("'10.0.0.1'", "i1", "i0", "Handle"),
        ] {
            let text =
                format!("{{'SimulatorInfo':[{{'Handle':{handle},'IP':{ip},'Port':{port}}}]}}");
            let told = told("EnableSimulator", &text);
            assert_eq!(told, Some(Err(EventError::Field { field: wanted })), "{text}");
        }
        assert_eq!(told("ParcelProperties", "{}"), None);
    }

    #[test]
    fn a_seed_is_spoken_over_http() {
        let text = "{'sim-ip-and-port':'10.0.0.2:9001','seed-capability':'file:///etc/passwd'}";
        let wanted = Some(Err(EventError::Field { field: "seed-capability" }));
        assert_eq!(told("EstablishAgentCommunication", text), wanted);
    }
}
