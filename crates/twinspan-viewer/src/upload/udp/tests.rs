//! Uploads over UDP against regions that keep their word, are silent, or mean no good.

use twinspan_lludp::messages::UpdateCreateInventoryItemInventoryData;
use twinspan_xmlrpc::login::LoginSuccess;

use super::*;
use crate::upload::UploadKind;

const START: Timestamp = Timestamp::from_nanos(1_000_000_000);
const IDS: (Uuid, Uuid) = (Uuid::from_u128(1), Uuid::from_u128(2));
const SECURE: Uuid = Uuid::from_u128(3);

fn region() -> SocketAddr {
    ([10, 0, 0, 2], 9_000).into()
}

fn stranger() -> SocketAddr {
    ([10, 0, 0, 3], 9_000).into()
}

fn file() -> NewFile {
    let (name, description) = ("Bell".into(), String::new());
    NewFile { kind: UploadKind::Animation, name, description, folder: None }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

type Answer = oneshot::Receiver<Result<UploadedFile, UploadError>>;

struct Bench {
    now: Timestamp,
    uploads: UdpUploads,
    out: Answers,
}

impl Bench {
    fn new() -> Self {
        let uploads = UdpUploads::new(Stream::new(1, "uploads", 0));
        Self { now: START, uploads, out: Vec::new() }
    }

    fn begin(&mut self, bytes: Vec<u8>) -> (AssetUploadRequest, Uuid, Answer) {
        let place = ([10, 0, 0, 2].into(), 9_000);
        let login = LoginSuccess::new(IDS.0, IDS.1, SECURE, 7, place, "http://10.0.0.2/seed");
        let info = SessionInfo::of(login).unwrap();
        let (reply, answer) = oneshot::channel();
        let bytes = Bytes::from(bytes);
        self.uploads.check(&file(), &bytes).unwrap();
        let asked = self.uploads.begin(self.now, (region(), &info), (file(), bytes), reply);
        let AnyMessage::AssetUploadRequest(ask) = asked else { panic!("it tells of an asset") };
        let asset_id = combined_id(ask.asset_block.transaction_id, SECURE);
        (ask, asset_id, answer)
    }

    fn give<M: Message>(&mut self, from: SocketAddr, message: &M) {
        let mut body = [0; 2_048];
        let len = message.encode(&mut body).unwrap();
        let who = (from, IDS);
        self.uploads.handle_message(self.now, who, M::ID, &body[..len], &mut self.out);
    }

    fn fetch(&mut self, from: SocketAddr, xfer: u64, asset_id: Uuid, kind: i16) {
        let mut fetch = RequestXfer::default();
        (fetch.xfer_id.id, fetch.xfer_id.v_file_id) = (xfer, asset_id);
        fetch.xfer_id.v_file_type = kind;
        self.give(from, &fetch);
    }

    fn confirm(&mut self, from: SocketAddr, xfer: u64, packet: u32) {
        let mut confirm = ConfirmXferPacket::default();
        (confirm.xfer_id.id, confirm.xfer_id.packet) = (xfer, packet);
        self.give(from, &confirm);
    }

    fn complete(&mut self, from: SocketAddr, uuid: Uuid, success: bool) {
        let mut told = AssetUploadComplete::default();
        (told.asset_block.uuid, told.asset_block.success) = (uuid, success);
        self.give(from, &told);
    }

    fn made(&mut self, from: SocketAddr, callback_id: u32, item_id: Uuid, asset_id: Uuid) {
        let item = UpdateCreateInventoryItemInventoryData {
            callback_id,
            item_id,
            asset_id,
            ..Default::default()
        };
        let told = UpdateCreateInventoryItem { inventory_data: vec![item], ..Default::default() };
        self.give(from, &told);
    }

    /// The packets that leave: their numbers and what is in them.
    fn parts(&mut self) -> Vec<(u32, Vec<u8>)> {
        let parts = self.uploads.take_parts().into_iter().map(|(to, part)| {
            assert_eq!(to, region());
            let AnyMessage::SendXferPacket(part) = part else { panic!("{part:?}") };
            (part.xfer_id.packet, part.data_packet.data.into_bytes())
        });
        parts.collect()
    }

    /// The word by which an item is asked for.
    fn item(&mut self) -> CreateInventoryItem {
        match std::mem::take(&mut self.out).as_slice() {
            [(to, AnyMessage::CreateInventoryItem(ask))] if *to == region() => ask.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.uploads.handle_timeout(self.now, &mut self.out);
    }

    /// Whether the region was told that no more comes.
    fn is_aborted(&self) -> bool {
        matches!(self.out.as_slice(), [(_, AnyMessage::AbortXfer(_))])
    }
}

#[test]
fn a_short_asset_goes_in_the_request_and_becomes_an_item() {
    let mut bench = Bench::new();
    let (ask, asset_id, mut answer) = bench.begin(pattern(1_000));
    assert_eq!(ask.asset_block.asset_data.bytes(), pattern(1_000));
    assert_eq!(ask.asset_block.r#type, 20);
    bench.complete(region(), asset_id, true);
    let item = bench.item();
    let block = &item.inventory_block;
    assert_eq!(
        (block.r#type, block.inv_type, block.transaction_id),
        (20, 19, ask.asset_block.transaction_id)
    );
    assert_eq!(block.name.to_text(), "Bell");
    let item_id = Uuid::from_u128(77);
    bench.made(region(), block.callback_id ^ 2, item_id, asset_id);
    bench.made(stranger(), block.callback_id, item_id, asset_id);
    assert!(answer.try_recv().is_err(), "these are of others");
    bench.made(region(), block.callback_id, item_id, asset_id);
    let wanted = UploadedFile { asset_id, item_id, by: UploadWay::Udp };
    assert_eq!(answer.try_recv().unwrap().unwrap(), wanted);
    assert_eq!(bench.uploads.poll_timeout(), Timestamp::NEVER);
}

#[test]
fn a_long_asset_is_fetched_packet_by_packet() {
    let mut bench = Bench::new();
    let bytes = pattern(2_500);
    let (ask, asset_id, mut answer) = bench.begin(bytes.clone());
    assert!(ask.asset_block.asset_data.bytes().is_empty());
    // Not what was told of, not as what it is, not by whom it was told.
    bench.fetch(region(), 9, Uuid::from_u128(5), 20);
    bench.fetch(region(), 9, asset_id, 7);
    bench.fetch(stranger(), 9, asset_id, 20);
    assert_eq!(bench.parts(), []);
    bench.fetch(region(), 9, asset_id, 20);
    bench.fetch(region(), 9, asset_id, 20);
    let first = [&2_500_u32.to_le_bytes()[..], &bytes[..1_000]].concat();
    assert_eq!(bench.parts(), [(0, first)]);
    // Of another fetch, of later packets, by others: nothing comes of these.
    for (from, xfer, packet) in
        [(region(), 8, 0), (region(), 9, 1), (region(), 9, u32::MAX), (stranger(), 9, 0)]
    {
        bench.confirm(from, xfer, packet);
    }
    assert_eq!(bench.parts(), []);
    bench.confirm(region(), 9, 0);
    bench.confirm(region(), 9, 0);
    assert_eq!(bench.parts(), [(1, bytes[1_000..2_000].to_vec())]);
    bench.confirm(region(), 9, 1);
    assert_eq!(bench.parts(), [(2 | LAST_PACKET, bytes[2_000..].to_vec())]);
    // The word that all is there overtakes the last confirmation.
    bench.complete(region(), asset_id, true);
    bench.confirm(region(), 9, 2);
    let callback = bench.item().inventory_block.callback_id;
    bench.made(region(), callback, Uuid::from_u128(77), asset_id);
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn what_is_not_confirmed_leaves_again_and_not_for_ever() {
    let mut bench = Bench::new();
    let (_, asset_id, mut answer) = bench.begin(pattern(2_500));
    bench.fetch(region(), 9, asset_id, 20);
    assert_eq!(bench.parts().len(), 1);
    let mut left = 0;
    while answer.try_recv().is_err() {
        let due = bench.uploads.poll_timeout();
        assert!(due > bench.now);
        bench.pass(due.since(bench.now));
        left += bench.parts().len();
        assert!(left < 100, "it has no end");
        if bench.uploads.active.is_empty() {
            break;
        }
    }
    assert_eq!(left, CONFIRM_RESENDS_MAX as usize);
    assert!(bench.is_aborted());
}

#[test]
fn a_region_that_is_silent_or_never_ends_is_given_up() {
    // Silent from the first.
    let mut bench = Bench::new();
    let (_, _, mut answer) = bench.begin(pattern(10));
    bench.pass(UDP_UPLOAD_IDLE_MAX);
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::TimedOut)));
    // It begins anew to fetch again and again.
    let (_, asset_id, mut answer) = bench.begin(pattern(2_500));
    let began = bench.now;
    let mut xfer = 0;
    while bench.uploads.poll_timeout() != Timestamp::NEVER {
        xfer += 1;
        bench.fetch(region(), xfer, asset_id, 20);
        assert!(bench.parts().len() <= 1);
        bench.pass(Duration::from_secs(5));
    }
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::TimedOut)));
    assert!(bench.now.since(began) <= UDP_UPLOAD_TIME_MAX + Duration::from_secs(5));
    // It has the asset, and makes no item of it.
    let (_, asset_id, mut answer) = bench.begin(pattern(10));
    bench.complete(region(), asset_id, true);
    bench.pass(UDP_UPLOAD_IDLE_MAX);
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::TimedOut)));
}

#[test]
fn a_region_that_lies_is_found_out() {
    // It says that it has what it was never sent.
    let mut bench = Bench::new();
    let (_, asset_id, mut answer) = bench.begin(pattern(2_500));
    bench.fetch(region(), 9, asset_id, 20);
    bench.complete(stranger(), asset_id, true);
    bench.complete(region(), Uuid::from_u128(5), true);
    assert!(answer.try_recv().is_err(), "these are of others");
    bench.complete(region(), asset_id, true);
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::Broken)));
    assert!(bench.is_aborted());
    // It makes an item of something else, or none at all.
    for (item_id, other) in [(Uuid::from_u128(77), Uuid::from_u128(5)), (Uuid::nil(), asset_id)] {
        let mut bench = Bench::new();
        let (_, asset_id, mut answer) = bench.begin(pattern(10));
        bench.complete(region(), asset_id, true);
        let callback = bench.item().inventory_block.callback_id;
        let of = if item_id.is_nil() { asset_id } else { other };
        bench.made(region(), callback, item_id, of);
        assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::Broken)));
    }
}

#[test]
fn refusals_and_ends_have_names() {
    let mut bench = Bench::new();
    let (_, asset_id, mut answer) = bench.begin(pattern(10));
    bench.complete(region(), asset_id, false);
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::Refused { .. })));
    let (_, asset_id, mut answer) = bench.begin(pattern(2_500));
    bench.fetch(region(), 9, asset_id, 20);
    let mut abort = AbortXfer::default();
    (abort.xfer_id.id, abort.xfer_id.result) = (9, -43);
    bench.give(stranger(), &abort);
    assert!(answer.try_recv().is_err());
    bench.give(region(), &abort);
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::Aborted { code: -43 })));
    let (.., mut answer) = bench.begin(pattern(10));
    bench.uploads.on_region_gone(stranger());
    assert!(answer.try_recv().is_err());
    bench.uploads.on_region_gone(region());
    assert!(matches!(answer.try_recv().unwrap(), Err(UploadError::RegionLost)));
}

#[test]
fn who_gives_up_ends_it_and_the_region_is_told() {
    let mut bench = Bench::new();
    let (_, asset_id, answer) = bench.begin(pattern(2_500));
    bench.fetch(region(), 9, asset_id, 20);
    drop(answer);
    bench.confirm(region(), 9, 0);
    assert!(bench.is_aborted());
    assert_eq!(bench.uploads.poll_timeout(), Timestamp::NEVER);
}

#[test]
fn uploads_are_bounded() {
    let mut bench = Bench::new();
    let check = |bench: &Bench, file: &NewFile, len: usize| {
        bench.uploads.check(file, &vec![0; len]).unwrap_err()
    };
    assert!(matches!(check(&bench, &file(), 0), UploadError::Length { bytes: 0 }));
    let long = NewFile { name: "x".repeat(255), ..file() };
    assert!(matches!(check(&bench, &long, 1), UploadError::Text { bytes: 255 }));
    let answers: Vec<_> = (0..UDP_UPLOADS_MAX).map(|_| bench.begin(pattern(10)).2).collect();
    assert!(matches!(check(&bench, &file(), 1), UploadError::Busy));
    drop(answers);
    bench.pass(UDP_UPLOAD_IDLE_MAX);
    assert!(bench.uploads.check(&file(), b"x").is_ok());
}
