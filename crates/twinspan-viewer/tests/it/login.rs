//! Logins across both ends, in both forms: each outcome that a grid has, as its viewer learns it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::{
    Account, GridServer, GridServerConfig, LoginScript, LoginStats, ScriptedAnswer,
};
use twinspan_http::{ClientConfig, HttpClient, StatusCode};
use twinspan_provider::Env;
use twinspan_viewer::{
    AccountName, AuthenticationService, CustomGrid, DisconnectReason, Grid, LoginConfig,
    LoginCredentials, LoginError, LoginForm, MfaStore, NetworkEvent, ReconnectPolicy, Secret,
    SessionInfo, ViewerConfig,
};
use twinspan_xmlrpc::Fault;
use twinspan_xmlrpc::login::{LoginReadError, Refusal};

use crate::rig::{GRID_IP, PASSWORD, World, next, start_grid, start_viewer};

const FORMS: [LoginForm; 2] = [LoginForm::XmlRpc, LoginForm::Llsd];
const CODE: &str = "123456";
const NAME: &str = "Ruth Tester";

/// A grid with one account that has this script.
async fn grid_of<E: Env>(env: &E, ip: IpAddr, script: LoginScript) -> GridServer<E> {
    let mut account = Account::new(AccountName::parse(NAME).expect("a name"), PASSWORD);
    account.script = script;
    let config = GridServerConfig {
        listen: (ip, 0).into(),
        accounts: vec![account],
        ..GridServerConfig::default()
    };
    start_grid(env, config).await
}

/// The account's owner, at this grid in this form.
fn owner<E: Env>(server: &GridServer<E>, form: LoginForm) -> LoginCredentials {
    let grid = match Grid::custom("own", server.login_url()) {
        Grid::Custom(own) => Grid::Custom(CustomGrid { form, ..own }),
        other => other,
    };
    LoginCredentials::new(NAME, PASSWORD).with_grid(grid)
}

fn service<E: Env>(env: &E, mfa: MfaStore) -> AuthenticationService<E> {
    let http = HttpClient::new(env.clone(), ClientConfig::default()).expect("a client");
    let presence_retry_after = Duration::from_millis(100);
    let config = LoginConfig { presence_retry_after, ..LoginConfig::default() };
    AuthenticationService::new(env.clone(), http, config, mfa)
}

/// Logs in once; whom the grid let in, and how often it did not, are counted at its end.
async fn try_once<E: Env>(
    env: &E,
    credentials: &LoginCredentials,
) -> Result<SessionInfo, LoginError> {
    service(env, MfaStore::default()).login(credentials).await
}

fn counted<E: Env>(server: &GridServer<E>) -> (u64, u64) {
    let LoginStats { let_in, refused, .. } = server.login_stats();
    (let_in, refused)
}

/// A code is asked for once; what it leaves is enough from then on.
async fn second_factor<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    let script = LoginScript { second_factor: Some(Secret::new(CODE)), ..LoginScript::default() };
    let server = grid_of(&grid, ip, script).await;
    let owner = owner(&server, form);
    let service = service(&env, MfaStore::default());
    let asked = service.login(&owner).await;
    assert!(matches!(asked, Err(LoginError::MfaChallenge { message }) if !message.is_empty()));
    assert_eq!(service.mfa(), MfaStore::default());
    let wrong = service.login(&owner.clone().with_mfa_token("000000")).await;
    assert!(matches!(wrong, Err(LoginError::MfaChallenge { .. })));
    let session = service.login(&owner.clone().with_mfa_token(CODE)).await.expect("let in");
    assert!(!session.mfa_hash().is_empty());
    assert_eq!(counted(&server), (1, 2));
    // By the service itself, by one that was given its store, and by hand.
    service.login(&owner).await.expect("let in without a code");
    self::service(&env, service.mfa()).login(&owner).await.expect("let in by the store");
    let by_hand = owner.clone().with_mfa_hash(session.mfa_hash().reveal());
    try_once(&env, &by_hand).await.expect("let in by the hash");
    assert_eq!(counted(&server), (4, 2));
    let stranger = owner.with_mfa_hash("cafe");
    let refused = try_once(&env, &stranger).await;
    assert!(matches!(refused, Err(LoginError::MfaChallenge { .. })), "{refused:?}");
}

/// Five redirects are followed, the sixth is not.
async fn redirects<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    for redirects in [1, 5] {
        let script = LoginScript { redirects, ..LoginScript::default() };
        let server = grid_of(&grid, ip, script).await;
        try_once(&env, &owner(&server, form)).await.expect("let in behind the redirects");
        assert_eq!(counted(&server), (1, u64::from(redirects)));
    }
    for redirects in [6, u32::MAX] {
        let script = LoginScript { redirects, ..LoginScript::default() };
        let server = grid_of(&grid, ip, script).await;
        let refused = try_once(&env, &owner(&server, form)).await;
        assert!(matches!(refused, Err(LoginError::TooManyRedirects { .. })), "{refused:?}");
        assert_eq!(counted(&server), (0, 6));
    }
}

/// An avatar that is still in is tried once more, and once alone.
async fn presence<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    for refusals in [1, 2] {
        let refusal = ScriptedAnswer::Refusal(Refusal::new("presence", "You are in already."));
        let answers = vec![refusal; refusals].into();
        let server = grid_of(&grid, ip, LoginScript { answers, ..LoginScript::default() }).await;
        let outcome = try_once(&env, &owner(&server, form)).await;
        if refusals == 1 {
            outcome.expect("let in by the second attempt");
            assert_eq!(counted(&server), (1, 1));
        } else {
            let Err(LoginError::Present { message }) = outcome else { panic!("{outcome:?}") };
            assert_eq!((message.as_str(), counted(&server)), ("You are in already.", (0, 2)));
        }
    }
}

/// Terms and messages come one after the other, each with its text, until they are agreed to.
async fn terms<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    let (terms, critical) = (Some("Be kind & <fair>.".into()), Some("Down at noon.".into()));
    let script = LoginScript { terms, critical, ..LoginScript::default() };
    let server = grid_of(&grid, ip, script).await;
    let owner = owner(&server, form);
    let shown = try_once(&env, &owner).await;
    let Err(LoginError::TermsOfService { message }) = shown else { panic!("{shown:?}") };
    assert_eq!(message, "Be kind & <fair>.");
    let owner = owner.with_terms_accepted();
    let shown = try_once(&env, &owner).await;
    let Err(LoginError::CriticalMessage { message }) = shown else { panic!("{shown:?}") };
    assert_eq!(message, "Down at noon.");
    try_once(&env, &owner.with_critical_message_read()).await.expect("let in");
    assert_eq!(counted(&server), (1, 2));
}

/// Every refusal, fault and page is a reason of its own, and tells whether to try again.
async fn refusals<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    let words = ["key", "update", "optional", "connect", "disabled", "moon"];
    let refusal = |word: &&str| ScriptedAnswer::Refusal(Refusal::new(word, format!("no: {word}")));
    let mut answers: Vec<_> = words.iter().map(refusal).collect();
    answers.push(ScriptedAnswer::Fault(Fault { code: -32_603, message: "broken".into() }));
    for status in [503, 200] {
        let html = "<!DOCTYPE html><html><body>Down</body></html>".into();
        answers.push(ScriptedAnswer::Page { status, html });
    }
    let all = answers.len();
    let script = LoginScript { answers: answers.into(), ..LoginScript::default() };
    let server = grid_of(&grid, ip, script).await;
    let owner = owner(&server, form);
    let mut told = Vec::new();
    for _ in 0..all {
        let error = try_once(&env, &owner).await.expect_err("each of them refuses");
        told.push((error.is_passing(), error));
    }
    let text = |message: &str, word: &str| message == format!("no: {word}");
    use LoginError as E;
    assert!(matches!(&told[0], (false, E::BadCredentials { message }) if text(message, "key")));
    assert!(matches!(&told[1], (false, E::UpdateRequired { message }) if text(message, "update")));
    assert!(matches!(&told[2], (false, E::UpdateOffered { message }) if text(message, "optional")));
    assert!(matches!(&told[3], (true, E::GridUnreachable { message }) if text(message, "connect")));
    assert!(matches!(&told[4], (false, E::Disabled { message }) if text(message, "disabled")));
    let (passing, E::Refused { reason, message }) = &told[5] else { panic!("{told:?}") };
    assert!(!passing && reason == "moon" && text(message, "moon"));
    match form {
        LoginForm::XmlRpc => {
            assert!(matches!(&told[6], (true, E::Reply(LoginReadError::Fault(fault)))
                if fault.code == -32_603));
        }
        // LLSD has no faults.
        LoginForm::Llsd => {
            assert!(matches!(&told[6], (false, E::BadCredentials { message })
                if message == "broken"));
        }
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    assert!(matches!(&told[7], (true, E::Status { status: told }) if *told == status));
    assert!(matches!(&told[8], (true, E::Reply(LoginReadError::XmlRpc(_)))), "{:?}", told[8]);
    try_once(&env, &owner).await.expect("let in when all was said");
    assert_eq!(counted(&server), (1, all as u64));
}

/// A whole session that begins with a login in this form; another login ends it.
async fn session<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    let server = grid_of(&grid, ip, LoginScript::default()).await;
    let owner = owner(&server, form);
    let config = || {
        let presence_retry_after = Duration::from_millis(100);
        let login = LoginConfig { presence_retry_after, ..LoginConfig::default() };
        ViewerConfig { login, reconnect: ReconnectPolicy::NEVER, ..ViewerConfig::default() }
    };
    let mut first = start_viewer(&env, config());
    let session = first.handle.network_manager.connect(owner.clone()).await.expect("let in");
    assert_eq!((session.first_name.as_str(), session.last_name.as_str()), ("Ruth", "Tester"));
    let folders = session.inventory.iter().map(|folder| folder.folder_id);
    assert!(folders.clone().count() > 3 && session.inventory_root.is_some());
    assert!(folders.clone().any(|id| Some(id) == session.inventory_root));
    first.handle.bot().say("hello").await.expect("said");
    assert_eq!(server.login_stats().in_llsd, u64::from(form == LoginForm::Llsd));

    // The same avatar from elsewhere: refused because it is in, which removes it, and then let in.
    let second = start_viewer(&env, config());
    second.handle.network_manager.connect(owner).await.expect("let in in place of the first");
    assert_eq!(counted(&server), (2, 1));
    let reason = next(&mut first.events, |event| match event {
        NetworkEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.await;
    assert!(matches!(&reason, DisconnectReason::Ended(_)), "{reason}");
    assert_eq!(reason.to_string(), "kicked: You logged in elsewhere.");
    second.handle.bot().say("here I am").await.expect("said");
    second.handle.network_manager.disconnect().await;
    first.handle.network_manager.disconnect().await;
}

/// All of it in one form.
async fn all_outcomes<E: Env>(grid: E, env: E, ip: IpAddr, form: LoginForm) {
    session(grid.clone(), env.clone(), ip, form).await;
    second_factor(grid.clone(), env.clone(), ip, form).await;
    redirects(grid.clone(), env.clone(), ip, form).await;
    presence(grid.clone(), env.clone(), ip, form).await;
    terms(grid.clone(), env.clone(), ip, form).await;
    refusals(grid, env, ip, form).await;
}

#[test]
fn every_outcome_of_a_login_is_what_its_viewer_is_told_in_the_simulator() {
    for (seed, form) in (31..).zip(FORMS) {
        let mut world = World::new(seed, Conditions::CLEAN);
        let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
        world.run(all_outcomes(grid, viewer, GRID_IP, form));
    }
}

#[test]
fn every_outcome_of_a_login_is_the_same_at_20_percent_loss() {
    for (seed, form) in (41..).zip(FORMS) {
        let mut world = World::new(seed, Conditions { loss: 0.2, ..Conditions::WIFI });
        let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
        world.run(all_outcomes(grid, viewer, GRID_IP, form));
    }
}

#[test]
fn every_outcome_of_a_login_is_what_its_viewer_is_told_on_loopback() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for form in FORMS {
        twinspan_provider::run(|env| all_outcomes(env.clone(), env, ip, form)).unwrap();
    }
}
