//! Transfers packet by packet, in and out of order, too long and too late.

use super::*;

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn region() -> SocketAddr {
    ([10, 0, 0, 2], 9_000).into()
}

type Answer = oneshot::Receiver<Result<Vec<u8>, TransferError>>;

struct Bench {
    transfers: Transfers,
    out: Answers,
}

impl Bench {
    fn new() -> Self {
        Self { transfers: Transfers::new(Stream::new(1, "transfers", 0)), out: Vec::new() }
    }

    fn begin(&mut self, request: TransferRequest) -> (Result<AnyMessage, TransferError>, Answer) {
        let (reply, answer) = oneshot::channel();
        let [agent_id, session_id] = [1, 2].map(Uuid::from_u128);
        let ids = AgentIds { agent_id, session_id, circuit_code: 3 };
        (self.transfers.begin(NOW, region(), &ids, request, reply), answer)
    }

    fn give<M: Message>(&mut self, from: SocketAddr, message: &M) {
        let mut body = [0; 2_048];
        let len = message.encode(&mut body).unwrap();
        self.transfers.handle_message(NOW, from, M::ID, &body[..len], &mut self.out);
    }
}

fn asset() -> TransferRequest {
    TransferRequest::Asset { id: Uuid::from_u128(9), kind: 0 }
}

fn id_of(asked: AnyMessage) -> Uuid {
    let AnyMessage::TransferRequest(ask) = asked else { panic!("it asks for a transfer") };
    ask.transfer_info.transfer_id
}

fn packet(id: Uuid, number: i32, status: i32, data: &[u8]) -> TransferPacket {
    let mut packet = TransferPacket::default();
    packet.transfer_data.transfer_id = id;
    packet.transfer_data.packet = number;
    packet.transfer_data.status = status;
    packet.transfer_data.data = Var2::new(data).unwrap();
    packet
}

#[test]
fn packets_of_a_transfer_come_in_any_order() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let id = id_of(asked.unwrap());
    bench.give(region(), &packet(id, 2, 1, b"!"));
    bench.give(region(), &packet(id, 0, 0, b"hello "));
    assert!(answer.try_recv().is_err());
    bench.give(([10, 0, 0, 9], 9_000).into(), &packet(id, 1, 0, b"forged"));
    bench.give(region(), &packet(id, 1, 0, b"world"));
    bench.give(region(), &packet(id, 1, 0, b"again"));
    assert_eq!(answer.try_recv().unwrap(), Ok(b"hello world!".to_vec()));
    assert_eq!(bench.transfers.poll_timeout(), Timestamp::NEVER);
}

#[test]
fn a_transfer_that_is_refused_says_why() {
    for (status, wanted) in [
        (-2, TransferError::NotFound),
        (-3, TransferError::NotPermitted),
        (-1, TransferError::Aborted { code: -1 }),
    ] {
        let mut bench = Bench::new();
        let (asked, mut answer) = bench.begin(asset());
        let mut info = TransferInfo::default();
        info.transfer_info.transfer_id = id_of(asked.unwrap());
        info.transfer_info.status = status;
        bench.give(region(), &info);
        assert_eq!(answer.try_recv().unwrap(), Err(wanted));
    }
}

#[test]
fn more_than_was_announced_ends_a_transfer() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let id = id_of(asked.unwrap());
    let mut info = TransferInfo::default();
    info.transfer_info.transfer_id = id;
    info.transfer_info.size = 10;
    bench.give(region(), &info);
    bench.give(region(), &packet(id, 5, 0, &[0; 11]));
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::TooLong { max: 10 }));
    assert!(matches!(bench.out.as_slice(), [(_, AnyMessage::TransferAbort(_))]));
}

#[test]
fn an_xfer_confirms_each_packet_and_what_came_again() {
    let mut bench = Bench::new();
    let request = TransferRequest::File { name: "inventory.tmp".into(), delete: true };
    let (asked, mut answer) = bench.begin(request);
    let AnyMessage::RequestXfer(ask) = asked.unwrap() else { panic!("it asks for a file") };
    assert!(ask.xfer_id.delete_on_completion);
    let give = |bench: &mut Bench, number: u32, data: &[u8]| {
        let mut packet = SendXferPacket::default();
        packet.xfer_id.id = ask.xfer_id.id;
        packet.xfer_id.packet = number;
        packet.data_packet.data = Var2::new(data).unwrap();
        bench.give(region(), &packet);
    };
    give(&mut bench, 0, b"\x05\0\0\0abc");
    give(&mut bench, 0, b"\x05\0\0\0abc");
    give(&mut bench, 1 | LAST_PACKET, b"de");
    assert_eq!(answer.try_recv().unwrap(), Ok(b"abcde".to_vec()));
    let confirmed: Vec<u32> = bench
        .out
        .iter()
        .map(|(_, message)| match message {
            AnyMessage::ConfirmXferPacket(confirm) => confirm.xfer_id.packet,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(confirmed, [0, 0, 1]);
}

#[test]
fn nothing_for_too_long_and_a_lost_region_end_transfers() {
    let mut bench = Bench::new();
    let (_, mut answer) = bench.begin(asset());
    let end = bench.transfers.poll_timeout();
    assert_eq!(end, NOW.after(TRANSFER_IDLE_MAX));
    bench.transfers.handle_timeout(end, &mut bench.out);
    assert!(matches!(bench.out.as_slice(), [(_, AnyMessage::TransferAbort(_))]));
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::TimedOut));
    let (_, mut answer) = bench.begin(asset());
    bench.transfers.on_region_gone(region());
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::RegionLost));
}

#[test]
fn what_ends_before_its_length_is_no_file() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let id = id_of(asked.unwrap());
    let mut info = TransferInfo::default();
    info.transfer_info.transfer_id = id;
    info.transfer_info.size = 10;
    bench.give(region(), &info);
    bench.give(region(), &packet(id, 0, 1, b"short"));
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::Short { have: 5, need: 10 }));
}

#[test]
fn lengths_that_no_file_has_end_a_transfer() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let mut info = TransferInfo::default();
    info.transfer_info.transfer_id = id_of(asked.unwrap());
    info.transfer_info.size = i32::MAX;
    bench.give(region(), &info);
    let too_long = Err(TransferError::TooLong { max: TRANSFER_BYTES_MAX });
    assert_eq!(answer.try_recv().unwrap(), too_long);

    let file = TransferRequest::File { name: "x".into(), delete: false };
    for (first, wanted) in
        [(b"\xff\xff\xff\xffa".as_slice(), too_long), (b"\x01\0", Err(TransferError::Broken))]
    {
        let mut bench = Bench::new();
        let (asked, mut answer) = bench.begin(file.clone());
        let AnyMessage::RequestXfer(ask) = asked.unwrap() else { panic!("it asks for a file") };
        let mut part = SendXferPacket::default();
        part.xfer_id.id = ask.xfer_id.id;
        part.data_packet.data = Var2::new(first).unwrap();
        bench.give(region(), &part);
        assert_eq!(answer.try_recv().unwrap(), wanted);
        assert!(matches!(bench.out.last(), Some((_, AnyMessage::AbortXfer(_)))));
    }
}

#[test]
fn a_file_without_an_end_is_given_up_however_much_comes_of_it() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let id = id_of(asked.unwrap());
    // Nothing in a thousand packets a second: its time is over all the same.
    let mut now = NOW;
    for number in 0..100 {
        now = now.after(TRANSFER_TIME_MAX / 99);
        let mut body = [0; 64];
        let len = packet(id, number, 0, b"").encode(&mut body).unwrap();
        let body = &body[..len];
        bench.transfers.handle_message(now, region(), TransferPacket::ID, body, &mut bench.out);
        bench.transfers.handle_timeout(now, &mut bench.out);
        if let Ok(outcome) = answer.try_recv() {
            assert_eq!(outcome, Err(TransferError::TimedOut));
            assert!(now >= NOW.after(TRANSFER_TIME_MAX));
            return;
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn packets_far_ahead_are_bounded() {
    let mut bench = Bench::new();
    let (asked, mut answer) = bench.begin(asset());
    let id = id_of(asked.unwrap());
    for number in 1..=AHEAD_PACKETS_MAX as i32 + 1 {
        assert!(answer.try_recv().is_err(), "{number}");
        bench.give(region(), &packet(id, number, 0, b"x"));
    }
    let outcome = answer.try_recv().unwrap();
    assert_eq!(outcome, Err(TransferError::TooLong { max: TRANSFER_BYTES_MAX }));
}

#[test]
fn the_name_of_a_list_is_asked_for_and_an_empty_one_ends_it() {
    let mut bench = Bench::new();
    let object = Uuid::from_u128(77);
    let contents = TransferRequest::Contents { object, local_id: 5 };
    let (asked, mut answer) = bench.begin(contents.clone());
    let AnyMessage::RequestTaskInventory(ask) = asked.unwrap() else {
        panic!("it asks for a list")
    };
    assert_eq!(ask.inventory_data.local_id, 5);
    assert_eq!(bench.begin(contents.clone()).0, Err(TransferError::Twice));
    let mut reply = ReplyTaskInventory::default();
    reply.inventory_data.task_id = object;
    // From elsewhere it means nothing.
    bench.give(([10, 0, 0, 9], 9_000).into(), &reply);
    assert!(answer.try_recv().is_err());
    bench.give(region(), &reply);
    assert_eq!(answer.try_recv().unwrap(), Ok(Vec::new()));

    let (_, mut answer) = bench.begin(contents);
    reply.inventory_data.filename = Var1::text("list.tmp").unwrap();
    bench.give(region(), &reply);
    let Some((_, AnyMessage::RequestXfer(ask))) = bench.out.pop() else { panic!("it asks for it") };
    assert_eq!(ask.xfer_id.filename.to_text(), "list.tmp");
    let mut part = SendXferPacket::default();
    (part.xfer_id.id, part.xfer_id.packet) = (ask.xfer_id.id, LAST_PACKET);
    part.data_packet.data = Var2::new(*b"\x02\0\0\0hi").unwrap();
    bench.give(region(), &part);
    assert_eq!(answer.try_recv().unwrap(), Ok(b"hi".to_vec()));
}

#[test]
fn transfers_and_names_are_bounded() {
    let mut bench = Bench::new();
    let mut answers = Vec::new();
    for _ in 0..TRANSFERS_MAX {
        let (asked, answer) = bench.begin(asset());
        assert!(asked.is_ok());
        answers.push(answer);
    }
    assert!(matches!(bench.begin(asset()).0, Err(TransferError::Full)));
    for bytes in [0, 255] {
        let mut bench = Bench::new();
        let request = TransferRequest::File { name: "x".repeat(bytes), delete: false };
        assert!(matches!(bench.begin(request).0, Err(TransferError::Name { .. })));
    }
}

proptest::proptest! {
    #[test]
    fn any_packets_are_taken_without_a_panic_and_stay_within_the_limit(
        packets in proptest::collection::vec((-2..9_i32, 0..3_i32, 0..64_usize), 0..64),
    ) {
        let mut bench = Bench::new();
        let (asked, _answer) = bench.begin(asset());
        let id = id_of(asked.unwrap());
        for (number, status, len) in packets {
            bench.give(region(), &packet(id, number, status, &vec![7; len]));
        }
    }
}
