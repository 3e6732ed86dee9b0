use core::time::Duration;
use std::sync::Arc;
use std::task::{Context, Waker};

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::steer::Steering;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{CloseReason, CryptoSuite, ServerIdentity, SessionKey, TokenKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{EntityId, Input, InputBundle};

use super::super::ServerKeys;
use super::super::realm::{Answer, Asked, From, Leaver, Newcomer, Place, Realm};
use super::letters::{CALLS_MAX, HELD_BANS_MAX, HELD_MAX, WORDS_MAX, Word, inputs_max};
use super::member::Member;
use super::office::{Office, connect};
use super::remote::Remote;
use crate::config::ServerConfig;

const NOW: Timestamp = Timestamp::START;

/// A world and its shards without sessions.
fn world(shards: u16, players_max: usize) -> (Office, Vec<Remote>) {
    let mut config = ServerConfig::for_players(20);
    config.session.sessions_max = players_max;
    let steering = Steering::new(1, shards);
    let (office, outposts) = connect(&config, None, steering, Stream::new(1, "world", 0)).unwrap();
    (office, outposts.into_iter().map(|outpost| outpost.remote).collect())
}

fn key(slot: u32) -> SessionKey {
    SessionKey::from_parts(slot, 0)
}

fn join(remote: &mut Remote, slot: u32, user: u64, has_resumed: bool) {
    let newcomer = Newcomer { session: key(slot), user: UserId(user), has_resumed };
    assert_eq!(remote.join(newcomer), Answer::Later);
}

fn seated(office: &mut Office, remote: &mut Remote) -> Option<Place> {
    office.hear(NOW);
    match remote.next_word() {
        Some(Word::Seated { place, .. }) => place,
        other => panic!("{other:?} is no seat"),
    }
}

fn leave(remote: &mut Remote, slot: u32, user: u64, entity: EntityId) {
    let (session, user, entity) = (key(slot), UserId(user), Some(entity));
    remote.leave(NOW, Leaver { session, user, entity, may_resume: true });
}

fn from(slot: u32) -> From {
    From { session: key(slot), user: UserId(7), entity: None }
}

#[test]
fn an_entity_that_waits_may_be_claimed_through_any_shard() {
    let (mut office, mut remotes) = world(3, 10);
    join(&mut remotes[0], 4, 7, false);
    let first = seated(&mut office, &mut remotes[0]).unwrap();
    assert!(!first.has_waited && office.world().contains(first.entity));
    leave(&mut remotes[0], 4, 7, first.entity);
    join(&mut remotes[2], 0, 7, true);
    let again = seated(&mut office, &mut remotes[2]).unwrap();
    assert_eq!(again, Place { entity: first.entity, has_waited: true });
    // Whoever comes with a token begins anew, also where the old entity was another shard's.
    leave(&mut remotes[2], 0, 7, again.entity);
    office.hear(NOW);
    join(&mut remotes[1], 0, 7, false);
    let anew = seated(&mut office, &mut remotes[1]).unwrap();
    assert!(anew.entity != first.entity && !office.world().contains(first.entity));
}

#[test]
fn all_shards_together_hold_as_many_players_as_one_server_may() {
    let (mut office, mut remotes) = world(2, 3);
    for (shard, slot) in [(0, 0), (1, 0), (0, 1)] {
        join(&mut remotes[shard], slot, 10 * shard as u64 + u64::from(slot), false);
        assert!(seated(&mut office, &mut remotes[shard]).is_some());
    }
    join(&mut remotes[1], 1, 99, false);
    assert_eq!(seated(&mut office, &mut remotes[1]), None);
}

#[test]
fn a_place_is_given_back_once_however_its_player_goes() {
    let (mut office, mut remotes) = world(2, 2);
    let places = Arc::clone(&office.places);
    let enter = |office: &mut Office, remotes: &mut [Remote], shard: usize, slot: u32, user| {
        assert!(places.take(false), "there is room for user {user}");
        join(&mut remotes[shard], slot, user, false);
        seated(office, &mut remotes[shard])
    };
    let first = enter(&mut office, &mut remotes, 0, 0, 7).unwrap();
    // The same user through another shard: the first place is given back when the second is had.
    let second = enter(&mut office, &mut remotes, 1, 0, 7).unwrap();
    assert!(!office.world().contains(first.entity));
    assert_eq!(office.places.taken(), 1);
    assert!(matches!(remotes[0].next_word(), Some(Word::End { .. })));
    leave(&mut remotes[0], 0, 7, first.entity);
    office.hear(NOW);
    assert_eq!(office.places.taken(), 1, "it left once");
    // One that comes back in the place of a session has room beside all others.
    enter(&mut office, &mut remotes, 0, 1, 8).unwrap();
    assert!(!office.places.take(false) && office.places.take(true));
    leave(&mut remotes[1], 0, 7, second.entity);
    join(&mut remotes[1], 1, 7, true);
    assert!(seated(&mut office, &mut remotes[1]).is_some());
    assert_eq!(office.places.taken(), 2);
    // A world without room gives it back too.
    assert!(office.places.take(true));
    join(&mut remotes[0], 2, 9, false);
    assert_eq!(seated(&mut office, &mut remotes[0]), None);
    assert_eq!(office.places.taken(), 2);
}

#[test]
fn what_must_not_be_lost_waits_for_a_full_lane_and_keeps_its_order() {
    const MORE: u32 = 500;
    let (mut office, mut remotes) = world(2, 10);
    let remote = &mut remotes[1];
    join(remote, 0, 7, false);
    let actions = CALLS_MAX as u32 + MORE;
    for action in 1..=actions {
        let asked = Asked::Known(ActionOutcome::TooFast);
        assert_eq!(remote.act(from(0), action, asked), Answer::Later);
    }
    assert_eq!(remote.stats.held, u64::from(MORE) + 1);
    assert!(remote.is_held_up());
    let mut answered = 0;
    assert!(seated(&mut office, remote).is_some());
    while answered < actions {
        office.hear(NOW);
        while let Some(word) = remote.next_word() {
            let Word::Acted { action, outcome, was_asked, .. } = word else {
                panic!("{word:?} is no answer")
            };
            answered += 1;
            assert_eq!((action, outcome), (answered, ActionOutcome::TooFast));
            assert!(!was_asked);
        }
    }
    assert!(!remote.is_held_up());
}

#[test]
fn a_world_that_does_not_listen_is_told_so_much_and_ends_are_kept_beyond_it() {
    let (_office, mut remotes) = world(2, 10);
    let remote = &mut remotes[0];
    let mut asked = 0;
    while remote.act(from(0), asked, Asked::Known(ActionOutcome::TooFast)) == Answer::Later {
        asked += 1;
    }
    assert_eq!(asked as usize, CALLS_MAX + HELD_MAX);
    let newcomer = Newcomer { session: key(1), user: UserId(1), has_resumed: false };
    assert_eq!(remote.join(newcomer), Answer::Full);
    let held = remote.stats.held;
    remote.leave(NOW, Leaver { session: key(0), user: UserId(7), entity: None, may_resume: false });
    assert_eq!(remote.stats.held, held + 1);
}

#[test]
fn inputs_that_find_no_room_are_dropped_and_counted() {
    let (_office, mut remotes) = world(2, 10);
    let most = inputs_max(10);
    let input = Input { sequence: 1, ..Input::default() };
    let bundle = InputBundle::new(0, [input].into_iter()).unwrap();
    for _ in 0..most + 10 {
        remotes[1].submit(from(0), &bundle);
    }
    assert_eq!(remotes[1].stats.inputs_dropped, 10);
    assert_eq!(remotes[1].stats.held, 0);
}

#[test]
fn a_ban_reaches_every_other_shard() {
    let (mut office, mut remotes) = world(3, 10);
    remotes[1].ban(UserId(5), Duration::from_secs(60));
    office.hear(NOW);
    for (shard, remote) in remotes.iter_mut().enumerate() {
        let word = remote.next_word();
        let is_ban = matches!(word, Some(Word::Ban { user: UserId(5), .. }));
        assert_eq!(is_ban, shard != 1, "{shard}: {word:?}");
    }
}

#[test]
fn bans_that_wait_for_a_shard_that_does_not_listen_have_a_limit() {
    let (mut office, mut remotes) = world(2, 10);
    // The world does not listen.
    for user in 0..(CALLS_MAX + HELD_BANS_MAX + 5) as u64 {
        remotes[0].ban(UserId(user), Duration::from_secs(60));
    }
    assert_eq!(remotes[0].stats.bans_dropped, 5);
    // Now it does, and the other shard does not.
    for user in 0..WORDS_MAX as u64 {
        office.hear(NOW);
        remotes[0].retry_calls();
        remotes[0].ban(UserId(user), Duration::from_secs(60));
    }
    office.hear(NOW);
    assert_eq!(remotes[0].stats.bans_dropped, 5);
    let dropped = office.links.bans_dropped as usize;
    assert!(dropped > 0 && !remotes[0].is_held_up());
    let heard = hear_all(&mut office, &mut remotes[1]);
    assert!(heard.iter().all(|word| matches!(word, Word::Ban { .. })));
    assert_eq!(heard.len(), WORDS_MAX + HELD_BANS_MAX);
    assert_eq!(heard.len() + dropped, CALLS_MAX + HELD_BANS_MAX + WORDS_MAX);
}

/// What the world has to say to a shard, that which waits among it.
fn hear_all(office: &mut Office, remote: &mut Remote) -> Vec<Word> {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(std::iter::from_fn(|| remote.next_word()));
        if all.len() == before {
            return all;
        }
        office.hear(NOW);
    }
}

#[test]
fn an_effect_that_cannot_be_told_ends_the_session_of_its_target() {
    let (mut office, mut remotes) = world(2, 10);
    join(&mut remotes[0], 0, 7, false);
    let actor = seated(&mut office, &mut remotes[0]).unwrap().entity;
    join(&mut remotes[1], 0, 8, false);
    let target = seated(&mut office, &mut remotes[1]).unwrap().entity;
    let act = |office: &mut Office, remotes: &mut [Remote]| {
        let asked = Asked::Known(ActionOutcome::TooFast);
        assert_eq!(remotes[1].act(from(0), 1, asked), Answer::Later);
        office.hear(NOW);
    };
    // The target's shard asks and asks and reads no answer.
    for _ in 0..WORDS_MAX + HELD_MAX {
        act(&mut office, &mut remotes);
    }
    assert!(office.tell(NOW, target, actor).is_none(), "there is nobody left to tell");
    assert_eq!((office.links.sessions_given_up, office.links.words_dropped), (1, 0));
    assert!(!office.world().contains(target) && office.world().contains(actor));
    let last = hear_all(&mut office, &mut remotes[1]).pop();
    let reason = CloseReason::QueueOverflow;
    assert!(matches!(last, Some(Word::End { reason: why, .. }) if why == reason), "{last:?}");
}

#[test]
fn a_shard_that_is_not_heard_does_not_wake_the_world() {
    let (mut office, mut remotes) = world(2, 10);
    let mut cx = Context::from_waker(Waker::noop());
    let asked = Asked::Known(ActionOutcome::TooFast);
    join(&mut remotes[1], 0, 8, false);
    assert!(office.poll_ready(&mut cx).is_ready());
    for _ in 0..WORDS_MAX + HELD_MAX {
        assert_eq!(remotes[1].act(from(0), 1, asked), Answer::Later);
        office.hear(NOW);
    }
    assert_eq!(remotes[1].act(from(0), 1, asked), Answer::Later);
    assert!(office.poll_ready(&mut cx).is_pending() && office.is_held_up());
    hear_all(&mut office, &mut remotes[1]);
    assert_eq!(remotes[1].act(from(0), 1, asked), Answer::Later);
    assert!(office.poll_ready(&mut cx).is_ready());
}

#[test]
fn a_user_who_comes_to_another_shard_leaves_the_first() {
    let (mut office, mut remotes) = world(2, 10);
    join(&mut remotes[0], 3, 7, false);
    let first = seated(&mut office, &mut remotes[0]).unwrap();
    // With the ticket it takes its entity along, without it begins anew.
    join(&mut remotes[1], 5, 7, true);
    let second = seated(&mut office, &mut remotes[1]).unwrap();
    assert_eq!(second, Place { entity: first.entity, has_waited: true });
    let end = remotes[0].next_word();
    assert!(matches!(end, Some(Word::End { session, .. }) if session == key(3)), "{end:?}");
    // The shard hears of it and says what it always says.
    leave(&mut remotes[0], 3, 7, first.entity);
    office.hear(NOW);
    assert!(office.world().contains(second.entity));
    join(&mut remotes[0], 4, 7, false);
    let third = seated(&mut office, &mut remotes[0]).unwrap();
    assert!(third.entity != second.entity && !office.world().contains(second.entity));
}

/// A shard that never reads holds one image back; the others get theirs all the same.
#[test]
fn a_shard_that_is_late_reads_the_newest_image_and_holds_back_nobody() {
    let (mut office, mut remotes) = world(3, 10);
    let mut at = NOW;
    for tick in 1..=50 {
        office.run_due_ticks(at, false);
        at = office.clock.next_at().unwrap();
        assert_eq!(remotes[0].newest_tick(), tick, "it reads every tick");
    }
    assert_eq!(office.links.images_refused, 0);
    assert_eq!(remotes[1].newest_tick(), 50);
}

/// A world with two shards, and the second of them whole.
fn world_and_member() -> (Office, Member) {
    let config = ServerConfig::for_players(20);
    let steering = Steering::new(1, 2);
    let (office, mut outposts) =
        connect(&config, None, steering, Stream::new(1, "world", 0)).unwrap();
    let mut secrets = Stream::new(1, "secrets", 0);
    let identity = ServerIdentity::new(&mut secrets);
    let keys = ServerKeys { identity, tokens: TokenKey::new(&mut secrets) };
    let (suites, jitter) = (Arc::new(CryptoSuite::CHACHA_FIRST), Stream::new(1, "session", 1));
    let outpost = outposts.pop().unwrap();
    let place = (steering, 1);
    let member =
        Member::new(config, place, suites, keys, Box::new(secrets), jitter, outpost).unwrap();
    (office, member)
}

/// Makes ticks; before each the shard gets sixteen calls of `datagrams` packets of the other shard.
fn run_with_strays(office: &mut Office, member: &mut Member, ticks: u32, datagrams: usize) {
    let pool = PacketPool::new(8);
    let mut batch = DatagramBatch::new(4);
    let other = (1_u32..).find(|id| Steering::new(1, 2).shard_of_id(*id) == 0).unwrap();
    for _ in 0..ticks {
        let mut now = office.clock.next_at().unwrap_or_default();
        for _ in 0..16 {
            for _ in 0..datagrams {
                let mut packet = pool.take().unwrap();
                assert!(packet.fill(&[&other.to_le_bytes()[..], &[7; 40]].concat()));
                let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
                batch.push(Datagram { peer, at: now, packet }).ok().unwrap();
            }
            member.handle_datagrams(now, &mut batch);
            assert!(batch.is_empty());
            now = now.after(Duration::from_millis(1));
        }
        office.run_due_ticks(now, false);
        member.handle_timeout(now);
    }
}

#[test]
fn calls_full_of_what_belongs_to_other_shards_are_full_calls() {
    let (mut office, mut member) = world_and_member();
    run_with_strays(&mut office, &mut member, 120, 3);
    assert_eq!(member.shard.pace.factor(), 1, "calls with room left");
    run_with_strays(&mut office, &mut member, 130, 4);
    assert!(member.shard.pace.factor() > 1, "every call was full for more than a second");
}
