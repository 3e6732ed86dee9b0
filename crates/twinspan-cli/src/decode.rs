//! `twinspan decode`: what captured packets say.

use std::io::{self, BufWriter, Write};

use serde_json::{Map, Value};
use twinspan_lludp::{
    AnyMessage, Flags, Frame, PAYLOAD_BYTES_MAX, Payload, Sequence, Tail, ZeroCoding, append_acks,
    write_packet,
};

use crate::args::{DecodeCommand, DecodeLludpArgs};
use crate::error::CommandError;

mod capture;
mod json;

#[cfg(test)]
pub(crate) use capture::datagrams_of;
use capture::{Datagram, Skipped};

/// Why a capture cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Open {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no capture.
    #[error("{file}: {what}; save it again with a program that writes pcap or pcapng")]
    Format {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There was nothing to check.
    #[error(
        "{file}: no packet was checked: {tcp} of TCP, {ports} of other ports and {others} others \
         were passed over; see what --port is, and how the file was captured"
    )]
    NothingChecked {
        /// The file.
        file: String,
        /// Packets of TCP.
        tcp: u64,
        /// Datagrams of other ports.
        ports: u64,
        /// Other protocols, fragments, packets that were cut, links that are not known.
        others: u64,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Decodes and prints; the status is 1 when a check found a packet that is not written again as it
/// was. A check that found no packet at all is an error.
///
/// # Errors
/// [`CommandError::Decode`], [`CommandError::Output`]
pub fn run(command: &DecodeCommand) -> Result<u8, CommandError> {
    let DecodeCommand::Lludp(args) = command;
    lludp(args).map_err(|error| match error {
        DecodeError::Output(error) => CommandError::Output(error),
        error => CommandError::Decode(error),
    })
}

#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    identical: u64,
    errors: u64,
    other_ports: u64,
}

fn lludp(args: &DecodeLludpArgs) -> Result<u8, DecodeError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut counts = Counts::default();
    let mut space = Space::default();
    let skipped = capture::read(&args.file, &mut |datagram| {
        if args.port.is_some_and(|port| !datagram.ports.contains(&port)) {
            counts.other_ports += 1;
            return Ok(());
        }
        counts.packets += 1;
        let told = space.packet(&datagram, args.check);
        counts.errors += u64::from(told.error);
        counts.identical += u64::from(told.identical);
        if args.check && told.identical {
            return Ok(());
        }
        tell(&mut out, &told.object, args.json)
    })?;
    summary(&mut out, &counts, skipped, args)?;
    out.flush()?;
    if args.check && counts.packets == 0 {
        return Err(DecodeError::NothingChecked {
            file: args.file.display().to_string(),
            tcp: skipped.tcp,
            ports: counts.other_ports,
            others: skipped.others,
        });
    }
    Ok(u8::from(args.check && counts.identical < counts.packets))
}

fn summary(
    out: &mut impl Write,
    counts: &Counts,
    skipped: Skipped,
    args: &DecodeLludpArgs,
) -> Result<(), DecodeError> {
    let mut object = Map::new();
    object.insert("packets".into(), counts.packets.into());
    if args.check {
        object.insert("identical".into(), counts.identical.into());
    }
    object.insert("errors".into(), counts.errors.into());
    object.insert("skipped_tcp".into(), skipped.tcp.into());
    object.insert("skipped_ports".into(), counts.other_ports.into());
    object.insert("skipped_others".into(), skipped.others.into());
    if args.json {
        writeln!(out, "{}", Value::from(object))?;
    } else {
        let words: Vec<String> = object
            .iter()
            .map(|(name, count)| format!("{}: {count}", name.replace('_', " ")))
            .collect();
        writeln!(out, "{}", words.join(", "))?;
    }
    Ok(())
}

/// One line of a packet.
fn tell(
    out: &mut impl Write,
    object: &Map<String, Value>,
    as_json: bool,
) -> Result<(), DecodeError> {
    if as_json {
        serde_json::to_writer(&mut *out, object).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    let text = |name: &str| match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let what = [text("message"), text("error"), text("why")];
    let what: Vec<&str> = what.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    writeln!(
        out,
        "{:>7} {} > {} {:>4} {:>8} {}",
        text("number"),
        text("from"),
        text("to"),
        text("flags"),
        text("sequence"),
        what.join(": ")
    )?;
    Ok(())
}

/// What there is to say of a packet.
struct Told {
    object: Map<String, Value>,
    error: bool,
    identical: bool,
}

/// Space for packets, used again for each.
struct Space {
    expanded: Box<[u8; PAYLOAD_BYTES_MAX]>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            expanded: Box::new([0; PAYLOAD_BYTES_MAX]),
            plain: vec![0; PAYLOAD_BYTES_MAX],
            out: vec![0; 3 * PAYLOAD_BYTES_MAX],
        }
    }
}

impl Space {
    fn packet(&mut self, datagram: &Datagram<'_>, check: bool) -> Told {
        let mut object = json::head(datagram);
        let failed = |mut object: Map<String, Value>, error: String| {
            object.insert("error".into(), error.into());
            object.insert("bytes".into(), json::hex(datagram.payload).into());
            Told { object, error: true, identical: false }
        };
        let frame = match Frame::parse(datagram.payload) {
            Ok(frame) => frame,
            Err(error) => return failed(object, error.to_string()),
        };
        json::frame(&mut object, &frame);
        let Self { expanded, plain, out } = self;
        let payload = match frame.open(expanded) {
            Ok(payload) => payload,
            Err(error) => return failed(object, error.to_string()),
        };
        let (message, tail) = match AnyMessage::decode(payload.id, payload.body) {
            Ok(decoded) => decoded,
            Err(error) => return failed(object, error.to_string()),
        };
        json::message(&mut object, &payload, &message, tail);
        let mut identical = false;
        if check {
            match rewritten(&frame, &payload, &message, tail, plain, out) {
                Ok(again) if again == datagram.payload => identical = true,
                Ok(again) => {
                    let why = difference(&frame, &payload, plain, again, datagram.payload);
                    object.insert("why".into(), why.into());
                }
                Err(error) => return failed(object, format!("cannot be written again: {error}")),
            }
        }
        Told { object, error: false, identical }
    }
}

/// Writes a packet as it was told, with the same flags, extra header and acks. Leaves the payload in
/// `plain`.
fn rewritten<'a>(
    frame: &Frame<'_>,
    payload: &Payload<'_>,
    message: &AnyMessage,
    tail: Tail<'_>,
    plain: &mut Vec<u8>,
    out: &'a mut [u8],
) -> Result<&'a [u8], twinspan_lludp::WriteError> {
    let id = payload.id.wire().to_be_bytes();
    plain.clear();
    plain.extend_from_slice(id.get(id.len() - payload.id.wire_bytes()..).unwrap_or_default());
    plain.extend_from_slice(payload.extra);
    let head = plain.len();
    // Counts of blocks that were absent are written before they are taken back.
    plain.resize(PAYLOAD_BYTES_MAX + usize::from(u8::MAX), 0);
    let body = plain.get_mut(head..).unwrap_or_default();
    let len = message.encode_with(tail, body)?;
    plain.truncate(head + len);
    let zero_coded = frame.flags.has(Flags::ZERO_CODED);
    let coding = if zero_coded { ZeroCoding::Always } else { ZeroCoding::Never };
    let (flags, sequence) = (frame.flags, frame.sequence);
    let mut len = write_packet(out, flags, sequence, frame.extra_bytes, plain, coding)?;
    if frame.flags.has(Flags::ACKS) {
        let acks: Vec<Sequence> = frame.acks.iter().collect();
        len = append_acks(out, len, &acks)?;
    }
    Ok(out.get(..len).unwrap_or_default())
}

/// Why two packets that say the same are not the same.
fn difference(
    frame: &Frame<'_>,
    payload: &Payload<'_>,
    plain: &[u8],
    again: &[u8],
    was: &[u8],
) -> String {
    let first = |one: &[u8], other: &[u8]| {
        let equal = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        format!("from byte {equal} on ({} bytes, written {})", other.len(), one.len())
    };
    let head = payload.id.wire_bytes() + payload.extra.len();
    let body = plain.get(head..).unwrap_or_default();
    if body != payload.body {
        return format!("the body differs {}", first(body, payload.body));
    }
    let coded = if frame.flags.has(Flags::ZERO_CODED) { "the zero-coding" } else { "the packet" };
    format!("{coded} differs {}", first(again, was))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use twinspan_lludp::messages::ImprovedInstantMessage;
    use twinspan_lludp::{Message, Var2};

    use super::*;

    fn check(payload: &[u8]) -> Told {
        let (from, to) = ("a:1".to_owned(), "b:2".to_owned());
        let ports = [1, 2];
        let datagram = Datagram { number: 1, time: 0.0, from, to, ports, relayed: false, payload };
        Space::default().packet(&datagram, true)
    }

    #[test]
    fn what_is_not_written_again_as_it_was_says_why() {
        // StartPingCheck, reliable, with extra header and two acks.
        let ping = [0x50, 0, 0, 0, 1, 2, 1, 9, 8, 7, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6, 2];
        let told = check(&ping);
        assert!(told.identical, "{:?}", told.object);
        assert_eq!(told.object["extra"], "0908");
        assert_eq!(told.object["acks"], json!([5, 6]));
        assert_eq!(told.object["blocks"]["PingID"][0]["OldestUnacked"], 1);
        // A run in two pairs.
        let odd = check(&[0x80, 0, 0, 0, 1, 0, 1, 7, 0, 2, 0, 2]);
        assert!(!odd.identical && !odd.error);
        let why = "the zero-coding differs from byte 9 on (12 bytes, written 10)";
        assert_eq!(odd.object["why"], why);
        // A true that is 2: AgentAnimation with one animation.
        let body = [&[5][..], &[0; 32], &[1], &[0; 16], &[2, 0]].concat();
        let odd = check(&[&[0, 0, 0, 0, 1, 0][..], &body].concat());
        let why = "the body differs from byte 49 on (51 bytes, written 51)";
        assert_eq!(odd.object["why"], why);
    }

    #[test]
    fn the_longest_payload_whose_last_block_is_absent_is_written_again() {
        let estate_block = Some(Default::default());
        let mut im = ImprovedInstantMessage { estate_block, ..Default::default() };
        let mut body = [0; PAYLOAD_BYTES_MAX];
        let fewest = 4 + im.encode(&mut body).unwrap() - 1;
        im.message_block.binary_bucket = Var2::new(vec![0; PAYLOAD_BYTES_MAX - fewest]).unwrap();
        let mut body = vec![0; PAYLOAD_BYTES_MAX];
        let len = im.encode_with(Tail::Absent(1), &mut body).unwrap();
        let id = ImprovedInstantMessage::ID.wire().to_be_bytes();
        let plain = [&id[..], &body[..len]].concat();
        assert_eq!(plain.len(), PAYLOAD_BYTES_MAX);
        let mut packet = [0; 1_200];
        let (flags, number) = (Flags::RELIABLE, Sequence(1));
        let coding = ZeroCoding::Always;
        let len = write_packet(&mut packet, flags, number, 0, &plain, coding).unwrap();
        let told = check(&packet[..len]);
        assert!(told.identical, "{:?}", told.object);
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for (bytes, what) in [
            (&[0_u8, 1][..], "a packet has 7 at least"),
            (&[0, 0, 0, 0, 1, 0, 1, 7], "StartPingCheck ends in PingID[0].OldestUnacked"),
            (&[0x80, 0, 0, 0, 1, 0, 1, 0], "zero-coded payload"),
            (&[0, 0, 0, 0, 1, 0, 0xFE], "no message is numbered high 254"),
        ] {
            let told = check(bytes);
            assert!(told.error && !told.identical);
            let error = told.object["error"].as_str().unwrap();
            assert!(error.contains(what), "{error}");
        }
    }
}
