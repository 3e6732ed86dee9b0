//! Fuzz bodies: what holds for anything that a grid answers or a region sends.

use twinspan_core::fuzz::{Body, digest};
use twinspan_http::{Bytes, StatusCode};

use crate::assets::{ByteRange, taken};
use crate::caps::{CAPABILITIES_MAX, Capabilities, SeedError};
use crate::inventory::{Fetched, Inventory};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("viewer-login", crate::login::fuzz_login),
    ("viewer-grid-info", crate::grid_info::fuzz_grid_info),
    ("viewer-queue", crate::queue::fuzz_queue),
    ("viewer-answer", fuzz_answer),
    ("viewer-region", crate::core::fuzz_region),
];

/// Parts of one script that are taken.
const PARTS_MAX: usize = 32;

/// Writes a part of a script, for seeds: one answer and what is to be known of it. Bytes past 65,535
/// are cut off.
pub fn write_part(head: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.push(head);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
}

/// Reads parts until the bytes end; one that is said to be longer than what is left ends with it.
pub(crate) fn parts(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&head, rest) = data.split_first()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (part, rest) = rest.split_at_checked(len)?;
        data = rest;
        Some((head, part))
    })
    .take(PARTS_MAX)
}

/// A status from a few bits.
pub(crate) fn status(bits: u8) -> StatusCode {
    const STATUSES: [u16; 16] =
        [200, 200, 206, 204, 301, 400, 403, 404, 410, 416, 499, 500, 502, 503, 504, 101];
    let status = STATUSES.get(usize::from(bits % 16)).copied().unwrap_or(200);
    StatusCode::from_u16(status).unwrap_or_default()
}

/// Any bytes are what a capability answers, or name a reason: a seed, an inventory, an asset.
fn fuzz_answer(data: &[u8]) -> u64 {
    let mut inventory = Inventory::default();
    let mut seen = 0_u64;
    for (head, bytes) in parts(data) {
        let came = match head % 3 {
            0 => read_seed(bytes),
            1 => read_folders(&mut inventory, bytes),
            _ => read_asset(head >> 2, bytes),
        };
        seen = seen.wrapping_mul(31).wrapping_add(came);
    }
    seen
}

fn read_seed(bytes: &[u8]) -> u64 {
    let read = Capabilities::read(bytes);
    if let Ok(caps) = &read {
        assert!(caps.len() <= CAPABILITIES_MAX);
        for name in caps.names() {
            let scheme = caps.get(name).map(twinspan_http::Url::scheme);
            assert!(matches!(scheme, Some("http" | "https")), "{name} is at {scheme:?}");
        }
    }
    let names = read.map(|caps| caps.names().map(str::to_owned).collect::<Vec<_>>());
    digest(&names.map_err(|error: SeedError| error.to_string()))
}

fn read_folders(inventory: &mut Inventory, bytes: &[u8]) -> u64 {
    let fetched = match Fetched::read(bytes) {
        Ok(fetched) => fetched,
        Err(error) => return digest(&error.to_string()),
    };
    for contents in &fetched.folders {
        inventory.apply(contents);
        let id = contents.folder_id;
        assert!(inventory.folder(id).is_some(), "what was fetched is known");
        let items = inventory.items().filter(|item| item.parent_id == id).count();
        assert!(items <= contents.items.len(), "a folder has what was told and no more");
    }
    let counts =
        (inventory.folders().len(), inventory.items().len(), inventory.unfetched().count());
    digest(&(&fetched, counts))
}

/// Bytes: the range that was asked for, the length of what the server says it is, that, the rest.
fn read_asset(bits: u8, bytes: &[u8]) -> u64 {
    let Some((&[from, to, text], rest)) = bytes.split_first_chunk() else { return 0 };
    let (text, body) = rest.split_at(usize::from(text).min(rest.len()));
    let last = (to > 0).then_some(u64::from(from) + u64::from(to));
    let range = (bits & 0x10 == 0).then_some(ByteRange { from: u64::from(from), to: last });
    let part = std::str::from_utf8(text).ok();
    let asset = taken(status(bits), part, Bytes::copy_from_slice(body), range);
    if let (Ok(asset), Some(range)) = (&asset, range) {
        assert_eq!(asset.from, range.from);
        assert!(asset.bytes.len() <= body.len());
    }
    digest(&asset.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_written() {
        let mut script = Vec::new();
        write_part(7, b"abc", &mut script);
        write_part(0, b"", &mut script);
        assert_eq!(parts(&script).collect::<Vec<_>>(), [(7, &b"abc"[..]), (0, b"")]);
        assert_eq!(parts(&[1, 9, 0, 5]).collect::<Vec<_>>(), [(1, &[5][..])]);
        assert_eq!(parts(&[1, 9]).count(), 0);
    }
}
