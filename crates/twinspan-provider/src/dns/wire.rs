//! Questions for addresses and their answers as they travel: what a stub resolver and a server of a
//! few names need of RFC 1035 and RFC 3596, and no more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The longest message in a datagram (RFC 1035, section 2.3.4).
pub const DNS_DATAGRAM_BYTES_MAX: usize = 512;
/// The longest message over a stream: its length is two bytes.
pub const DNS_MESSAGE_BYTES_MAX: usize = u16::MAX as usize;
/// Records of one answer that are looked at; a message with more is refused.
const RECORDS_MAX: usize = 256;
/// Names behind which another name stands that are followed in one answer.
const ALIASES_MAX: usize = 8;
/// Pointers of a compressed name that are followed; each leads further to the front.
const POINTERS_MAX: usize = 16;
/// Bytes of a name in text, and of a label.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
const HEADER_BYTES: usize = 12;
/// The class of the internet, and the type of an alias.
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
/// Flags of a header: an answer, cut short, recursion wanted, recursion available.
const IS_REPLY: u16 = 0x8000;
const IS_CUT: u16 = 0x0200;
const WANTS_RECURSION: u16 = 0x0100;
const HAS_RECURSION: u16 = 0x0080;
const KIND_OF_QUERY: u16 = 0x7800;
/// The first name of a message stands here, and others point to it.
const TO_QUESTION: u16 = 0xc000 | HEADER_BYTES as u16;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
}

impl RecordKind {
    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::A),
            28 => Some(Self::Aaaa),
            _ => None,
        }
    }

    /// Whether an address is of this kind.
    pub const fn fits(self, ip: IpAddr) -> bool {
        matches!((self, ip), (Self::A, IpAddr::V4(_)) | (Self::Aaaa, IpAddr::V6(_)))
    }
}

/// A question for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuery {
    /// What its answer is told by.
    pub id: u16,
    /// The name, in small letters and without a dot at its end.
    pub name: String,
    /// Which addresses.
    pub kind: RecordKind,
}

/// How a name server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such a name; it may have no addresses of the kind.
    Known,
    /// There is no such name (NXDOMAIN).
    Unknown,
    /// The server cannot say, by this code: 2 is SERVFAIL, 5 REFUSED.
    Failed(u8),
}

/// The code of a server that failed.
pub const SERVFAIL: u8 = 2;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsReply {
    /// What it answers.
    pub query: DnsQuery,
    /// Whether it did not fit, and is to be asked for over a stream.
    pub is_cut: bool,
    /// What of the name.
    pub verdict: Verdict,
    /// The addresses, in the server's order.
    pub addresses: Vec<IpAddr>,
    /// How long they hold, where there are any: the least that a record on the way said.
    pub ttl: Option<Duration>,
}

/// Why bytes are no message that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsFormatError {
    /// It ends before what it says is in it.
    #[error("the message ends at byte {at}, in the middle of something")]
    Short {
        /// Where.
        at: usize,
    },
    /// A name is no name, or its pointers lead nowhere.
    #[error("the name at byte {at} is none")]
    Name {
        /// Where.
        at: usize,
    },
    /// It is not what was wanted: a question, or an answer.
    #[error("the message is of another kind than the one wanted")]
    Kind,
    /// It has not one question, for addresses.
    #[error("the message has not exactly one question for addresses")]
    Question,
    /// It has more records than are looked at.
    #[error("the message has {0} records; {RECORDS_MAX} are looked at")]
    Records(usize),
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DnsFormatError> {
        let at = self.at;
        let end = at.checked_add(len).ok_or(DnsFormatError::Short { at })?;
        let bytes = self.message.get(at..end).ok_or(DnsFormatError::Short { at })?;
        self.at = end;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, DnsFormatError> {
        let at = self.at;
        self.take(1)?.first().copied().ok_or(DnsFormatError::Short { at })
    }

    fn u16(&mut self) -> Result<u16, DnsFormatError> {
        let at = self.at;
        let bytes = self.take(2)?.first_chunk().ok_or(DnsFormatError::Short { at })?;
        Ok(u16::from_be_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, DnsFormatError> {
        let at = self.at;
        let bytes = self.take(4)?.first_chunk().ok_or(DnsFormatError::Short { at })?;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A name in small letters, without the dot at its end. Pointers only lead to the front, so that
    /// it ends.
    fn name(&mut self) -> Result<String, DnsFormatError> {
        let start = self.at;
        let wrong = DnsFormatError::Name { at: start };
        let mut text = String::new();
        let (mut look, mut pointers, mut first) = (*self, 0, start);
        let mut is_away = false;
        loop {
            let length = look.u8()?;
            match length >> 6 {
                0 if length == 0 => break,
                0 => {
                    let label = look.take(usize::from(length))?;
                    if !text.is_empty() {
                        text.push('.');
                    }
                    if text.len() + label.len() > NAME_BYTES_MAX {
                        return Err(wrong);
                    }
                    for byte in label {
                        if !byte.is_ascii_graphic() || *byte == b'.' {
                            return Err(wrong);
                        }
                        text.push(char::from(byte.to_ascii_lowercase()));
                    }
                }
                3 => {
                    let low = look.u8()?;
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if !is_away {
                        self.at = look.at;
                        is_away = true;
                    }
                    pointers += 1;
                    if pointers > POINTERS_MAX || to >= first {
                        return Err(wrong);
                    }
                    (look.at, first) = (to, to);
                }
                _ => return Err(wrong),
            }
        }
        if !is_away {
            self.at = look.at;
        }
        Ok(text)
    }
}

/// A header: id, flags, and how many questions and answers there are.
fn header(reader: &mut Reader<'_>) -> Result<[u16; 4], DnsFormatError> {
    let fields = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    // What stands behind the answers is not looked at.
    reader.take(4)?;
    Ok(fields)
}

/// The one question of a message.
fn question(reader: &mut Reader<'_>, (id, count): (u16, u16)) -> Result<DnsQuery, DnsFormatError> {
    if count != 1 {
        return Err(DnsFormatError::Question);
    }
    let name = reader.name()?;
    let (kind, class) = (reader.u16()?, reader.u16()?);
    let kind = RecordKind::of(kind).filter(|_| class == CLASS_IN && !name.is_empty());
    Ok(DnsQuery { id, name, kind: kind.ok_or(DnsFormatError::Question)? })
}

fn put_question(out: &mut Vec<u8>, query: &DnsQuery) {
    for label in query.name.split('.').filter(|label| !label.is_empty()) {
        // A label of a name that was checked has 63 bytes at most; of another it is cut.
        let label = label.as_bytes().get(..LABEL_BYTES_MAX).unwrap_or(label.as_bytes());
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
    out.extend_from_slice(&query.kind.number().to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
}

fn put_header(out: &mut Vec<u8>, id: u16, flags: u16, answers: u16) {
    for field in [id, flags, 1, answers, 0, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

impl DnsQuery {
    /// The message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.name.len() + 6);
        put_header(&mut out, self.id, WANTS_RECURSION, 0);
        put_question(&mut out, self);
        out
    }

    /// Reads a question.
    ///
    /// # Errors
    /// [`DnsFormatError`] says why it is none.
    pub fn parse(message: &[u8]) -> Result<Self, DnsFormatError> {
        let mut reader = Reader { message, at: 0 };
        let [id, flags, questions, _] = header(&mut reader)?;
        if flags & (IS_REPLY | KIND_OF_QUERY) != 0 {
            return Err(DnsFormatError::Kind);
        }
        question(&mut reader, (id, questions))
    }
}

impl DnsReply {
    /// An answer to `query` with what `ips` has of the kind that was asked for.
    pub fn known(query: DnsQuery, ips: &[IpAddr], ttl: Duration) -> Self {
        let addresses: Vec<_> = ips.iter().copied().filter(|ip| query.kind.fits(*ip)).collect();
        let ttl = (!addresses.is_empty()).then_some(ttl);
        Self { query, is_cut: false, verdict: Verdict::Known, addresses, ttl }
    }

    /// An answer without addresses.
    pub const fn without(query: DnsQuery, verdict: Verdict) -> Self {
        Self { query, is_cut: false, verdict, addresses: Vec::new(), ttl: None }
    }

    /// The message, of `bytes_max` at most: cut short, and marked so, where it would be longer.
    pub fn to_bytes(&self, bytes_max: usize) -> Vec<u8> {
        let record = |ip: &IpAddr| 12 + if ip.is_ipv4() { 4 } else { 16 };
        let head = HEADER_BYTES + self.query.name.len() + 6;
        let whole = head + self.addresses.iter().map(record).sum::<usize>();
        let is_cut = self.is_cut || whole > bytes_max || self.addresses.len() > RECORDS_MAX;
        let addresses: &[IpAddr] = if is_cut { &[] } else { &self.addresses };
        let code = match self.verdict {
            Verdict::Known => 0,
            Verdict::Unknown => 3,
            Verdict::Failed(code) => u16::from(code & 0xf),
        };
        let cut = if is_cut { IS_CUT } else { 0 };
        let flags = IS_REPLY | cut | WANTS_RECURSION | HAS_RECURSION | code;
        let mut out = Vec::with_capacity(whole.min(bytes_max));
        // Few enough, as was just looked at.
        put_header(&mut out, self.query.id, flags, addresses.len() as u16);
        put_question(&mut out, &self.query);
        let seconds = self.ttl.map_or(0, |ttl| ttl.as_secs().min(i32::MAX as u64)) as u32;
        for ip in addresses {
            let kind = if ip.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
            for field in [TO_QUESTION, kind.number(), CLASS_IN] {
                out.extend_from_slice(&field.to_be_bytes());
            }
            out.extend_from_slice(&seconds.to_be_bytes());
            match ip {
                IpAddr::V4(ip) => {
                    out.extend_from_slice(&4_u16.to_be_bytes());
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.extend_from_slice(&16_u16.to_be_bytes());
                    out.extend_from_slice(&ip.octets());
                }
            }
        }
        out
    }

    /// Reads an answer. Aliases in it are followed, records of other names left out.
    ///
    /// # Errors
    /// [`DnsFormatError`] says why it is none.
    pub fn parse(message: &[u8]) -> Result<Self, DnsFormatError> {
        let mut reader = Reader { message, at: 0 };
        let [id, flags, questions, answers] = header(&mut reader)?;
        if flags & IS_REPLY == 0 || flags & KIND_OF_QUERY != 0 {
            return Err(DnsFormatError::Kind);
        }
        let query = question(&mut reader, (id, questions))?;
        let verdict = match (flags & 0xf) as u8 {
            0 => Verdict::Known,
            3 => Verdict::Unknown,
            code => Verdict::Failed(code),
        };
        let is_cut = flags & IS_CUT != 0;
        let mut reply = Self { is_cut, ..Self::without(query, verdict) };
        // Of what was cut anything may be missing, in the middle of a record too.
        if !is_cut && verdict == Verdict::Known {
            let records = records(&mut reader, usize::from(answers))?;
            reply.choose(&records);
        }
        Ok(reply)
    }

    /// Takes the addresses of the name that was asked for, or of the one that it is an alias of.
    fn choose(&mut self, records: &[Record]) {
        let mut name = &self.query.name;
        let mut ttl = u32::MAX;
        for _ in 0..ALIASES_MAX {
            let alias = records.iter().find_map(|record| match &record.what {
                What::Alias(to) if record.owner == *name => Some((to, record.ttl)),
                _ => None,
            });
            let Some((to, holds)) = alias else { break };
            (name, ttl) = (to, ttl.min(holds));
        }
        let mut addresses = Vec::new();
        for record in records.iter().filter(|record| record.owner == *name) {
            if let What::Address(ip) = record.what
                && self.query.kind.fits(ip)
            {
                addresses.push(ip);
                ttl = ttl.min(record.ttl);
            }
        }
        self.ttl = (!addresses.is_empty()).then(|| Duration::from_secs(u64::from(ttl)));
        self.addresses = addresses;
    }
}

struct Record {
    owner: String,
    ttl: u32,
    what: What,
}

enum What {
    Address(IpAddr),
    Alias(String),
}

fn records(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Record>, DnsFormatError> {
    if count > RECORDS_MAX {
        return Err(DnsFormatError::Records(count));
    }
    let mut records = Vec::new();
    for _ in 0..count {
        let owner = reader.name()?;
        let (kind, class, ttl) = (reader.u16()?, reader.u16()?, reader.u32()?);
        // A time with the highest bit is none (RFC 2181, section 8).
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        let length = usize::from(reader.u16()?);
        let mut inside = *reader;
        let data = reader.take(length)?;
        if class != CLASS_IN {
            continue;
        }
        let what = match (kind, RecordKind::of(kind)) {
            (_, Some(RecordKind::A)) => {
                let Ok(octets) = <[u8; 4]>::try_from(data) else { continue };
                What::Address(Ipv4Addr::from(octets).into())
            }
            (_, Some(RecordKind::Aaaa)) => {
                let Ok(octets) = <[u8; 16]>::try_from(data) else { continue };
                What::Address(Ipv6Addr::from(octets).into())
            }
            (TYPE_CNAME, None) => What::Alias(inside.name()?),
            _ => continue,
        };
        records.push(Record { owner, ttl, what });
    }
    Ok(records)
}

/// The body of a fuzz target: any bytes are messages or name a reason, and what is understood is
/// understood again after it was written.
///
/// # Panics
/// When that does not hold.
pub fn fuzz_dns(bytes: &[u8]) {
    if let Ok(query) = DnsQuery::parse(bytes) {
        assert_eq!(DnsQuery::parse(&query.to_bytes()).as_ref(), Ok(&query));
    }
    if let Ok(reply) = DnsReply::parse(bytes) {
        let again = DnsReply::parse(&reply.to_bytes(DNS_MESSAGE_BYTES_MAX));
        assert_eq!(again.as_ref(), Ok(&reply));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: RecordKind) -> DnsQuery {
        DnsQuery { id: 0x1234, name: name.to_owned(), kind }
    }

    /// A question for `a.bc` as RFC 1035 writes it.
    const QUERY: &[u8] =
        &[0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1];

    #[test]
    fn a_question_is_written_and_read_as_it_stands_in_the_standard() {
        assert_eq!(query("a.bc", RecordKind::A).to_bytes(), QUERY);
        assert_eq!(DnsQuery::parse(QUERY), Ok(query("a.bc", RecordKind::A)));
        let mut shouted = QUERY.to_vec();
        shouted[13] = b'A';
        assert_eq!(DnsQuery::parse(&shouted).unwrap().name, "a.bc");
    }

    #[test]
    fn an_answer_is_written_and_read_as_it_stands_in_the_standard() {
        let ip = [IpAddr::from([10, 0, 0, 7])];
        let ttl = Duration::from_secs(300);
        let reply = DnsReply::known(query("a.bc", RecordKind::A), &ip, ttl);
        let mut wanted = QUERY.to_vec();
        wanted[2..4].copy_from_slice(&[0x81, 0x80]);
        wanted[7] = 1;
        wanted.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x01, 0x2c, 0, 4, 10, 0, 0, 7]);
        assert_eq!(reply.to_bytes(512), wanted);
        assert_eq!(DnsReply::parse(&wanted), Ok(reply));
        assert_eq!(DnsQuery::parse(&wanted), Err(DnsFormatError::Kind));
        assert_eq!(DnsReply::parse(QUERY), Err(DnsFormatError::Kind));
    }

    #[test]
    fn an_alias_is_followed_and_strangers_are_left_out() {
        let mut bytes = QUERY.to_vec();
        bytes[2] = 0x81;
        bytes[7] = 3;
        // a.bc is another name for x.bc, which points into the question; z has an address, too.
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 14]);
        bytes.extend([1, b'z', 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 9, 9, 9, 9]);
        let to_x = 22 + 12;
        bytes.extend([0xc0, to_x, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 8]);
        let reply = DnsReply::parse(&bytes).unwrap();
        assert_eq!(reply.addresses, [IpAddr::from([10, 0, 0, 8])]);
        assert_eq!(reply.ttl, Some(Duration::from_secs(9)), "the least on the way");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        let many: Vec<IpAddr> = (0..40_u8).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let reply = DnsReply::known(query("a.bc", RecordKind::A), &many, Duration::ZERO);
        let cut = DnsReply::parse(&reply.to_bytes(DNS_DATAGRAM_BYTES_MAX)).unwrap();
        assert!(cut.is_cut && cut.addresses.is_empty());
        let whole = DnsReply::parse(&reply.to_bytes(DNS_MESSAGE_BYTES_MAX)).unwrap();
        assert_eq!(whole.addresses, many);
    }

    #[test]
    fn pointers_that_lead_to_themselves_are_no_name() {
        for to in [12_u8, 13, 200] {
            let mut bytes = QUERY[..12].to_vec();
            bytes.extend([0xc0, to, 0, 1, 0, 1]);
            let wrong = DnsFormatError::Name { at: 12 };
            assert_eq!(DnsQuery::parse(&bytes), Err(wrong), "{to}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_name_a_reason(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6),
            len in 0_usize..60,
        ) {
            fuzz_dns(&bytes);
            let ips = [IpAddr::from([10, 0, 0, 7]), IpAddr::from([10, 0, 0, 8])];
            let reply = DnsReply::known(query("a.bc", RecordKind::A), &ips, Duration::from_secs(5));
            let mut near = reply.to_bytes(512);
            for (at, byte) in flips {
                if let Some(place) = near.get_mut(at) {
                    *place = byte;
                }
            }
            near.truncate(len.max(12));
            fuzz_dns(&near);
        }
    }
}
