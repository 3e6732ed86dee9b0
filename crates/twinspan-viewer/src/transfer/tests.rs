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
    bench.transfers.handle_timeout(end);
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::TimedOut));
    let (_, mut answer) = bench.begin(asset());
    bench.transfers.on_region_gone(region());
    assert_eq!(answer.try_recv().unwrap(), Err(TransferError::RegionLost));
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
