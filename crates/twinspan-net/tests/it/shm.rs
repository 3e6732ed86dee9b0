//! Topics of shared memory under several users.

use std::thread;

use twinspan_net::ReactorEnv;
use twinspan_net::shm::{
    Access, Form, Identity, JoinError, MachineTopics, Namesakes, TopicConfig, join,
};
use twinspan_provider::conformance;

/// A user that owns nothing.
const NOBODY: libc::c_long = 65_534;

fn config(topic: &str) -> TopicConfig {
    let name = "test".to_owned();
    let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name };
    TopicConfig::new(format!("{topic}/{}", std::process::id()), identity, 100)
}

/// Does something on a thread that belongs to another user; `None` when this one may not do that.
fn as_nobody<R: Send>(work: impl FnOnce() -> R + Send) -> Option<R> {
    let changed = || {
        // The system call, and not the C library's function: that changes all threads.
        // SAFETY: no argument is a pointer; what changes is the user of the calling thread.
        let status = unsafe { libc::syscall(libc::SYS_setresuid, -1, NOBODY, -1) };
        (status == 0).then(work)
    };
    thread::scope(|scope| scope.spawn(changed).join().unwrap())
}

#[test]
fn another_user_s_topic_is_refused_with_the_user_s_number() {
    let config = config("test/users");
    let ours = join(&config).unwrap();
    let Some(theirs) = as_nobody(|| join(&config)) else {
        println!("skipped: this user may not become another one");
        return;
    };
    let error = theirs.map(|_| ()).unwrap_err();
    let own = rustix::process::geteuid().as_raw();
    assert!(matches!(error, JoinError::AnotherUser { uid, .. } if uid == own), "{error}");
    assert!(error.to_string().contains(&format!("belongs to user {own}")));
    let beside = TopicConfig { namesakes: Namesakes::Ignore, ..config.clone() };
    let theirs = as_nobody(|| join(&beside).unwrap()).unwrap();
    assert_eq!((ours.member.publishers(), theirs.member.publishers()), (0, 0));
    // Who joins where both are joins its own.
    let again = join(&config).unwrap();
    assert_eq!((again.member.publishers(), theirs.member.publishers()), (1, 0));
}

#[test]
fn members_of_a_group_that_both_allow_share_a_topic() {
    let group = rustix::process::getegid().as_raw();
    let config = TopicConfig { access: Access::Group(group), ..config("test/groups") };
    let ours = join(&config).unwrap();
    let Some(theirs) = as_nobody(|| join(&config).unwrap()) else {
        println!("skipped: this user may not become another one");
        return;
    };
    assert_eq!((ours.member.publishers(), theirs.member.publishers()), (1, 1));
    ours.publisher.unwrap().publish(b"shared").unwrap();
    let mut text = Vec::new();
    assert!(theirs.subscriber.unwrap().take(&mut text, None).is_some());
    assert_eq!(text, b"shared");
}

#[test]
fn topics_of_this_machine_conform() {
    let env = ReactorEnv::new(Some(1)).unwrap();
    let name = format!("conformance/{}", std::process::id());
    env.block_on(conformance::topics::all(&env, &MachineTopics, &name));
}
