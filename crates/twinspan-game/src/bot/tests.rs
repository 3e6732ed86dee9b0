use super::*;
use crate::table::{Table, world};

const INTERVAL: Duration = Duration::from_millis(110);

fn bots(count: usize) -> Table<Bot> {
    let (server, clients) = world(count);
    let config = BotConfig { action_interval: INTERVAL, ..BotConfig::default() };
    let bots = clients.into_iter().enumerate();
    let bots =
        bots.map(|(number, client)| Bot::new(client, config, Stream::new(1, "bot", number as u64)));
    let bots = bots.collect();
    Table::new(server, bots)
}

#[test]
fn a_bot_acts_once_an_interval_and_not_at_all_at_rest() {
    let mut table = bots(3);
    table.run_until(Timestamp::START.after(Duration::from_secs(10)));
    for bot in &table.players {
        let playing = table.now.since(bot.connected_at().unwrap());
        let intervals = (playing.as_nanos() / INTERVAL.as_nanos()) as u32;
        let (sent, answered) = bot.client().actions();
        assert!(sent.abs_diff(intervals) <= 1, "{sent} actions in {intervals} intervals");
        assert_eq!(answered, sent);
        assert!(bot.is_settled());
        assert_eq!(bot.actions_refused(), 0);
    }
    let before: Vec<_> = table.players.iter().map(|bot| bot.client().actions()).collect();
    table.players.iter_mut().for_each(Bot::rest);
    table.run_until(table.now.after(Duration::from_secs(2)));
    let after: Vec<_> = table.players.iter().map(|bot| bot.client().actions()).collect();
    assert_eq!(before, after);
    let walks = |bot: &Bot| bot.client().prediction().body().velocity.x != 0.0;
    assert!(!table.players.iter().any(walks), "resting bots stand");
}

#[test]
fn bots_walk_and_do_not_act_in_step() {
    let mut table = bots(8);
    table.run_until(Timestamp::START.after(Duration::from_secs(1)));
    let position = |bot: &Bot| bot.client().prediction().position();
    let before: Vec<_> = table.players.iter().map(position).collect();
    let mut acts: Vec<_> = table.players.iter().map(|bot| bot.act_at).collect();
    table.run_until(table.now.after(Duration::from_secs(5)));
    let moved = table.players.iter().zip(before);
    let moved = moved.filter(|(bot, before)| position(bot).distance(*before) > 1.0).count();
    assert!(moved >= 6, "{moved} of 8 moved");
    acts.sort_unstable();
    acts.dedup();
    assert_eq!(acts.len(), 8);
}

#[test]
fn a_bot_alone_acts_on_itself() {
    let mut table = bots(1);
    table.run_until(Timestamp::START.after(Duration::from_secs(3)));
    let effects = table.players[0].client().stats().effects_told;
    assert!(effects >= 4, "{effects} effects in three seconds");
    assert_eq!(table.server.player_stats().actions_applied, effects);
}
