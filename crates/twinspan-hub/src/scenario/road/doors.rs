//! The abstract sockets of one machine, whose processes the simulated hosts stand for.
//!
//! What the kernel does with them, and no more: a name is free again when its owner is gone, a
//! connection ends with either end, who comes waits until he is let in, and not too many do.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use twinspan_net::shm::PARTICIPANTS_MAX;

/// Connections that wait to be taken: few, so that it comes to that.
const BACKLOG: usize = 3;
/// Words of one direction that were not heard.
const WORDS_MAX: usize = 8;

/// All names and connections.
#[derive(Default)]
pub(crate) struct Doors {
    /// By topic and place.
    doors: BTreeMap<(usize, u8), Door>,
    chats: BTreeMap<u64, Chat>,
    next: u64,
}

struct Door {
    user: u32,
    waiting: VecDeque<u64>,
}

/// A connection: who came has the first side.
struct Chat {
    users: [u32; 2],
    words: [VecDeque<Vec<u8>>; 2],
    is_open: [bool; 2],
}

type All = Rc<RefCell<Doors>>;

/// A place that a process has; it is free when this is dropped.
pub(crate) struct Owned {
    all: All,
    topic: usize,
    pub(super) place: u8,
}

/// One end of a connection, which ends when this is dropped.
pub(crate) struct Chatter {
    all: All,
    chat: u64,
    side: usize,
}

/// What a visit found.
pub(super) enum Visited {
    Met(Chatter),
    Nobody,
    Busy,
}

/// What there is to hear.
pub(super) enum Word {
    Said(Vec<u8>),
    Nothing,
    Over,
}

/// Takes the first free place of a topic.
pub(crate) fn take_place(all: &All, topic: usize, user: u32) -> Option<Owned> {
    let mut doors = all.borrow_mut();
    let place = (0..PARTICIPANTS_MAX).find(|place| !doors.doors.contains_key(&(topic, *place)))?;
    doors.doors.insert((topic, place), Door { user, waiting: VecDeque::new() });
    Some(Owned { all: Rc::clone(all), topic, place })
}

/// Goes to a place.
pub(super) fn visit(all: &All, (topic, place): (usize, u8), user: u32) -> Visited {
    let mut doors = all.borrow_mut();
    let key = doors.next;
    let Some(door) = doors.doors.get_mut(&(topic, place)) else { return Visited::Nobody };
    if door.waiting.len() >= BACKLOG {
        return Visited::Busy;
    }
    door.waiting.push_back(key);
    let users = [user, door.user];
    doors.next += 1;
    doors.chats.insert(key, Chat { users, words: Default::default(), is_open: [true; 2] });
    Visited::Met(Chatter { all: Rc::clone(all), chat: key, side: 0 })
}

impl Owned {
    /// Lets one in who waits.
    pub(super) fn accept(&self) -> Option<Chatter> {
        let mut doors = self.all.borrow_mut();
        let chat = doors.doors.get_mut(&(self.topic, self.place))?.waiting.pop_front()?;
        Some(Chatter { all: Rc::clone(&self.all), chat, side: 1 })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut doors = self.all.borrow_mut();
        let door = doors.doors.remove(&(self.topic, self.place));
        for chat in door.into_iter().flat_map(|door| door.waiting) {
            doors.close(chat, 1);
        }
    }
}

impl Doors {
    fn close(&mut self, chat: u64, side: usize) {
        let Some(it) = self.chats.get_mut(&chat) else { return };
        if let Some(is_open) = it.is_open.get_mut(side) {
            *is_open = false;
        }
        if it.is_open == [false; 2] {
            self.chats.remove(&chat);
        }
    }
}

impl Chatter {
    /// The user at the other end.
    pub(super) fn user(&self) -> Option<u32> {
        self.all.borrow().chats.get(&self.chat)?.users.get(1 - self.side).copied()
    }

    /// Says something; false where nobody hears it.
    pub(super) fn send(&self, word: &[u8]) -> bool {
        let mut doors = self.all.borrow_mut();
        let Some(chat) = doors.chats.get_mut(&self.chat) else { return false };
        let is_heard = chat.is_open == [true; 2];
        if let Some(words) = chat.words.get_mut(1 - self.side)
            && is_heard
            && words.len() < WORDS_MAX
        {
            words.push_back(word.to_vec());
            return true;
        }
        false
    }

    /// Hears the next word, also of who has gone since.
    pub(super) fn receive(&self) -> Word {
        let mut doors = self.all.borrow_mut();
        let Some(chat) = doors.chats.get_mut(&self.chat) else { return Word::Over };
        let word = chat.words.get_mut(self.side).and_then(VecDeque::pop_front);
        match word {
            Some(word) => Word::Said(word),
            None if chat.is_open.get(1 - self.side) == Some(&true) => Word::Nothing,
            None => Word::Over,
        }
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.all.borrow_mut().close(self.chat, self.side);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_connections_end_with_their_owners() {
        let all = All::default();
        let first = take_place(&all, 0, 1).unwrap();
        assert_eq!((first.place, take_place(&all, 0, 1).unwrap().place), (0, 1));
        assert!(matches!(visit(&all, (0, 1), 1), Visited::Nobody), "it is free again");
        let Visited::Met(here) = visit(&all, (0, 0), 2) else { panic!("nobody is there") };
        assert!(here.send(b"hello") && matches!(here.receive(), Word::Nothing));
        let there = first.accept().unwrap();
        assert_eq!((there.user(), here.user()), (Some(2), Some(1)));
        drop(here);
        assert!(matches!(there.receive(), Word::Said(word) if word == b"hello"));
        assert!(matches!(there.receive(), Word::Over) && !there.send(b"too late"));
        let Visited::Met(waits) = visit(&all, (0, 0), 2) else { panic!("nobody is there") };
        drop((there, first));
        assert!(matches!(waits.receive(), Word::Over));
        drop(waits);
        assert!(all.borrow().chats.is_empty() && all.borrow().doors.is_empty());
    }

    #[test]
    fn not_too_many_wait_at_a_door() {
        let all = All::default();
        let owned = take_place(&all, 3, 1).unwrap();
        let come = || visit(&all, (3, 0), 1);
        let waiting: Vec<_> = (0..BACKLOG).map(|_| come()).collect();
        assert!(waiting.iter().all(|it| matches!(it, Visited::Met(_))));
        assert!(matches!(come(), Visited::Busy));
        assert!(owned.accept().is_some());
        assert!(matches!(come(), Visited::Met(_)));
    }
}
