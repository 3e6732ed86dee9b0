use super::*;

#[test]
fn errors_are_sorted_by_what_they_mean_for_the_socket() {
    let error = io::Error::from_raw_os_error;
    for passing in [
        libc::EMSGSIZE,
        libc::ENOBUFS,
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::EPERM,
        libc::EACCES,
    ] {
        assert_eq!(Failure::of_send(&error(passing)), Failure::Passing, "{}", error(passing));
        assert_eq!(Failure::of_receive(&error(passing)), Failure::Passing, "{}", error(passing));
    }
    for (number, send, receive) in [
        (libc::EAGAIN, Failure::Again, Failure::Again),
        (libc::EINTR, Failure::Interrupted, Failure::Interrupted),
        (libc::EINVAL, Failure::Passing, Failure::Fatal),
        (libc::EBADF, Failure::Fatal, Failure::Fatal),
        (libc::ENOSYS, Failure::Fatal, Failure::Fatal),
    ] {
        assert_eq!(Failure::of_send(&error(number)), send, "{}", error(number));
        assert_eq!(Failure::of_receive(&error(number)), receive, "{}", error(number));
    }
}

#[test]
fn a_ring_that_is_gone_when_a_socket_wants_it_leaves_batches_and_says_so() {
    let costs = PathCosts::default();
    let refused = || Err(io::ErrorKind::OutOfMemory.into());
    let ladder = |best| Ladder { costs, best, reason: "cheapest of those measured" };
    for (best, name, reason) in [
        (IoPath::Ring, "recvmmsg/sendmmsg", RING_LOST),
        (IoPath::Batch, "recvmmsg/sendmmsg", "cheapest of those measured"),
        (IoPath::Plain, "recvfrom/sendto", "cheapest of those measured"),
    ] {
        let (way, why) = Way::on(ladder(best), refused);
        assert_eq!((way.name(), why), (name, reason), "{best:?}");
    }
}
