use twinspan_provider::ResolveError;

use super::*;

fn peer() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

/// Sends `bytes`, then the end, and returns what comes back.
async fn ask(env: SimEnv, bytes: &'static [u8]) -> Result<Vec<u8>, io::ErrorKind> {
    let connected = env.connect(peer(), &TcpOptions::default()).await;
    let mut stream = connected.map_err(|error| error.kind())?;
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut answer).await
    };
    asked.await.map_err(|error| error.kind())?;
    Ok(answer)
}

fn hello() -> Script {
    let steps = [Step::expect("hello"), Step::ExpectEnd, Step::give("world")];
    Script::new(1).connection(peer(), steps)
}

#[test]
fn a_script_that_is_followed_gives_what_the_code_ended_with() {
    assert_eq!(hello().run(|env| ask(env, b"hello")), Ok(Ok(b"world".to_vec())));
}

#[test]
fn what_is_not_expected_is_named() {
    let parted = |bytes| match hello().run(|env| ask(env, bytes)) {
        Err(ScriptError::Parted { connection: 0, step, read, error, .. }) => (step, read, error),
        other => panic!("{other:?}"),
    };
    assert_eq!(parted(b"help"), (0, b"help".to_vec(), None));
    assert_eq!(parted(b"hell"), (0, b"hell".to_vec(), Some(io::ErrorKind::UnexpectedEof)));
    assert_eq!(parted(b"hello!"), (1, b"!".to_vec(), None));
}

#[test]
fn a_connection_that_nobody_makes_is_named() {
    let outcome = hello().connection(peer(), []).run(|env| ask(env, b"hello"));
    assert_eq!(outcome, Err(ScriptError::Left { peer: peer(), connections: 1 }));
}

#[test]
fn connections_go_by_turns_and_then_are_refused() {
    let outcome = hello().connection(peer(), [Step::Reset]).run(async |env| {
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(ask(env.clone(), b"hello").await);
        }
        outcomes
    });
    let wanted = [
        Ok(b"world".to_vec()),
        Err(io::ErrorKind::ConnectionReset),
        Err(io::ErrorKind::ConnectionRefused),
    ];
    assert_eq!(outcome.unwrap(), wanted);
}

#[test]
fn refusals_silence_and_names_are_scripted_too() {
    let refused = Script::new(1).refusal(peer()).run(|env| ask(env, b""));
    assert_eq!(refused, Ok(Err(io::ErrorKind::ConnectionRefused)));
    let silent = Script::new(1).silence(peer().ip()).run(|env| ask(env, b""));
    assert_eq!(silent, Ok(Err(io::ErrorKind::TimedOut)));
    let script = Script::new(1).name("a.example", &[peer().ip()]);
    let script = script.name_failure("b.example", NameFailure::ServerFailure);
    let names = script
        .run(async |env| (env.resolve("a.example", 80).await, env.resolve("b.example", 80).await));
    let (known, failed) = names.unwrap();
    assert_eq!(known.unwrap().addresses, [peer()]);
    assert!(matches!(failed, Err(ResolveError::ServerFailure { .. })));
}

#[test]
fn code_that_never_ends_is_told_with_its_seed() {
    let outcome = Script::new(9).run(|_| std::future::pending::<()>());
    assert_eq!(outcome, Err(ScriptError::Unfinished(RunError::Unfinished { seed: 9 })));
}
