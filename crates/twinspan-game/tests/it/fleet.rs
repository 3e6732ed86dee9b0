//! Many bots behind one socket.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::{Bot, BotConfig, Fleet};
use twinspan_provider::Machine;
use twinspan_session::CloseReason;
use twinspan_world::tick_duration;

use crate::rig::{Rig, SERVER, address, shared};

const FLEET: u32 = 30;

#[test]
fn every_bot_of_a_fleet_keeps_its_schedule_and_its_promises() {
    let conditions = Conditions {
        loss: 0.05,
        delay: Duration::from_millis(15),
        jitter: Duration::from_millis(30),
        duplicate: 0.02,
        reorder: 0.02,
        ..Conditions::CLEAN
    };
    let mut rig = Rig::empty(conditions, |_| {});
    let bots = (1..=FLEET).map(|number| {
        let config =
            BotConfig { action_interval: Duration::from_millis(250), ..BotConfig::default() };
        Bot::new(rig.client(number, SERVER), config, Stream::new(3, "bot", u64::from(number)))
    });
    let bots = bots.collect();
    let start = |index| Timestamp::START.after(Duration::from_millis(3) * index as u32);
    let fleet = shared(Fleet::new(bots, start));
    rig.launch(address(1), fleet.clone());
    rig.wait("the fleet to enter", |_| {
        fleet.borrow().bots().iter().all(|bot| bot.connected_at().is_some())
    });
    for _ in 0..50 {
        rig.run_for(Duration::from_millis(97));
        let fleet = fleet.borrow();
        for bot in fleet.bots() {
            let next = bot.client().next_input_at().unwrap();
            assert!(next > rig.now() && next.since(rig.now()) <= tick_duration());
        }
    }
    fleet.borrow_mut().rest();
    rig.wait("all actions to be answered", |_| fleet.borrow().bots().iter().all(Bot::is_settled));
    for bot in fleet.borrow().bots() {
        let stats = bot.client().stats();
        let entered = bot.connected_at().unwrap();
        let slots = rig.now().since(entered).as_nanos() / tick_duration().as_nanos();
        assert_eq!(stats.inputs_skipped, 0);
        assert!(stats.inputs_sent.abs_diff(slots as u64) <= 1, "{slots} slots: {stats:?}");
        assert_eq!(stats.results_out_of_order, 0);
        assert!(stats.reliable_sent >= 16, "{stats:?}");
        assert_eq!(stats.states_malformed + stats.events_malformed, 0);
    }
    assert_eq!(rig.server.borrow().player_stats().actions_out_of_order, 0);
    assert_eq!(fleet.borrow().strays(), 0);
    assert!(fleet.borrow().ages().down.count() > 1_000);

    let now = rig.now();
    fleet.borrow_mut().close(now);
    rig.wait("the fleet to leave", |_| fleet.borrow().is_done());
    for bot in fleet.borrow().bots() {
        assert_eq!(bot.client().closed(), Some(CloseReason::Normal));
    }
    rig.run_for(Duration::from_secs(1));
    assert_eq!(rig.server.borrow().sessions(), 0);
}
