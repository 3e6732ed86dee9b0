use super::*;
use twinspan_core::random::Stream;
use twinspan_lludp::messages::SetStartLocationRequest;
use twinspan_xmlrpc::login::{AccountName, Password, RefusalReason};

use crate::account::{FAILURES_MAX, LoginScript};
use crate::config::{GridConfig, RegionConfig};
use crate::event::GridEvent;
use crate::homes::HomeAsk;

struct Bench {
    grid: Grid,
    desk: LoginDesk,
    now: Timestamp,
}

fn secrets(instance: u64) -> Box<dyn SecretSource> {
    Box::new(Stream::new(1, "secrets", instance))
}

fn bench(script: LoginScript) -> Bench {
    let config = GridConfig { caps_url: "http://10.0.0.1:80".into(), ..GridConfig::default() };
    let mut grid = Grid::new(config, Stream::new(1, "grid", 0), secrets(0)).unwrap();
    for (name, x) in [("Alpha", 1_000), ("Beta", 1_001)] {
        let addr = ([10, 0, 0, 1], 9_000 + x as u16).into();
        grid.add_region(RegionConfig { name: name.into(), x, y: 1_000, addr }).unwrap();
    }
    let name = AccountName::parse("Ruth Tester").unwrap();
    let account = Account { script, ..Account::new(name, "sesame") };
    let login_url = "http://10.0.0.1:80/".into();
    let addresses = Addresses { ip: Ipv4Addr::new(10, 0, 0, 1), http_port: 80, login_url };
    let desk = LoginDesk::new(vec![account], addresses, secrets(1));
    Bench { grid, desk, now: Timestamp::START }
}

fn request() -> LoginRequest {
    let name = AccountName::parse("ruth tester").unwrap();
    LoginRequest::new(name, Password::new("sesame"), "Test", "1")
}

impl Bench {
    fn post(&mut self, path: &str, form: LoginForm, body: &[u8]) -> ServerResponse {
        let attempt = Attempt {
            now: self.now,
            wall: 1_700_000_000,
            from: [10, 0, 0, 9].into(),
            path,
            content_type: form.content_type(),
            body,
        };
        self.desk.answer(&mut self.grid, &attempt)
    }

    fn ask_at(&mut self, path: &str, request: &LoginRequest) -> LoginReply {
        let body = request.write(LoginForm::XmlRpc).unwrap();
        let response = self.post(path, LoginForm::XmlRpc, &body);
        assert_eq!(response.status, StatusCode::OK);
        LoginReply::read(&response.body, LoginForm::XmlRpc, &LIMITS).unwrap()
    }

    fn ask(&mut self, request: &LoginRequest) -> LoginReply {
        self.ask_at("/", request)
    }

    fn success(&mut self, request: &LoginRequest) -> LoginSuccess {
        match self.ask(request) {
            LoginReply::Success(success) => *success,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&mut self, request: &LoginRequest) -> RefusalReason {
        match self.ask(request) {
            LoginReply::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_is_let_in_is_told_all_that_a_viewer_needs_in_both_forms() {
    for form in [LoginForm::XmlRpc, LoginForm::Llsd] {
        let mut bench = bench(LoginScript::default());
        let body = request().write(form).unwrap();
        let response = bench.post("/", form, &body);
        let reply = LoginReply::read(&response.body, form, &LIMITS).unwrap();
        let LoginReply::Success(success) = reply else { panic!("{reply:?}") };
        assert_eq!((success.first_name.as_str(), success.last_name.as_str()), ("Ruth", "Tester"));
        assert_eq!((success.region_x, success.region_y), (256_000, 256_000));
        assert_eq!((success.sim_ip.octets(), success.sim_port), ([10, 0, 0, 1], 10_000));
        assert!(success.seed_capability.reveal().starts_with("http://10.0.0.1:80/cap/"));
        assert_eq!(success.seconds_since_epoch, Some(1_700_000_000));
        assert_eq!(success.inventory_skeleton.len(), 16);
        assert_eq!(success.inventory_root, Some(success.inventory_skeleton[0].folder_id));
        assert_eq!(success.session_id.get_version_num(), 4);
        let code = bench.grid.code_of(success.agent_id).unwrap();
        assert_eq!(code, success.circuit_code);
        let in_llsd = u64::from(form == LoginForm::Llsd);
        assert_eq!(bench.desk.stats, LoginStats { let_in: 1, in_llsd, ..LoginStats::default() });
    }
}

#[test]
fn a_wrong_name_and_a_wrong_password_are_told_alike() {
    let mut bench = bench(LoginScript::default());
    let wrong = LoginRequest { password: Password::new("guess"), ..request() };
    let unknown = LoginRequest { name: AccountName::new("No", "Body"), ..request() };
    assert_eq!(bench.ask(&wrong), bench.ask(&unknown));
    assert_eq!(bench.refusal(&wrong), RefusalReason::Key);
    assert_eq!(bench.desk.stats.wrong_keys, 3);
}

#[test]
fn who_guesses_is_not_let_in_for_a_while_even_with_the_right_password() {
    let mut bench = bench(LoginScript::default());
    let wrong = LoginRequest { password: Password::new("guess"), ..request() };
    for _ in 0..FAILURES_MAX {
        bench.ask(&wrong);
    }
    assert_eq!(bench.refusal(&request()), RefusalReason::Key);
    bench.now = bench.now.after(crate::account::FAILURES_WINDOW);
    bench.success(&request());
}

#[test]
fn who_is_in_is_removed_and_told_so_and_who_has_not_arrived_makes_room() {
    let mut bench = bench(LoginScript::default());
    let first = bench.success(&request());
    // He has not opened a circuit.
    let second = bench.success(&request());
    assert_ne!(first.session_id, second.session_id);
    assert_eq!(
        (bench.grid.code_of(first.agent_id), bench.grid.len()),
        (Some(second.circuit_code), 1)
    );
    let region = bench.grid.regions().next().unwrap().0;
    bench.grid.on_arrive(bench.now, region, second.circuit_code);
    assert_eq!(bench.refusal(&request()), RefusalReason::Presence);
    assert!(bench.grid.is_empty());
    let told = std::iter::from_fn(|| bench.grid.poll_event());
    assert_eq!(told.filter(|event| matches!(event, GridEvent::Left { .. })).count(), 2);
    bench.success(&request());
}

#[test]
fn terms_and_messages_are_to_be_agreed_to_one_after_the_other() {
    let (terms, critical) = (Some("Be kind.".into()), Some("Maintenance.".into()));
    let mut bench = bench(LoginScript { terms, critical, ..LoginScript::default() });
    assert_eq!(bench.refusal(&request()), RefusalReason::TermsOfService);
    let agreed = LoginRequest { agree_to_tos: true, ..request() };
    assert_eq!(bench.refusal(&agreed), RefusalReason::CriticalMessage);
    bench.success(&LoginRequest { read_critical: true, ..agreed });
}

#[test]
fn a_second_factor_is_asked_for_once() {
    let second_factor = Some(Secret::new("123456"));
    let mut bench = bench(LoginScript { second_factor, ..LoginScript::default() });
    assert_eq!(bench.refusal(&request()), RefusalReason::MfaChallenge);
    let wrong = LoginRequest { token: Secret::new("000000"), ..request() };
    assert_eq!(bench.refusal(&wrong), RefusalReason::MfaChallenge);
    let success = bench.success(&LoginRequest { token: Secret::new("123456"), ..request() });
    assert!(!success.mfa_hash.is_empty());
    let known = LoginRequest { mfa_hash: success.mfa_hash.clone(), ..request() };
    assert_eq!(bench.success(&known).mfa_hash, success.mfa_hash);
}

#[test]
fn redirects_lead_to_the_answer_or_never_end() {
    for (redirects, ends) in [(2, true), (u32::MAX, false)] {
        let mut bench = bench(LoginScript { redirects, ..LoginScript::default() });
        let mut path = "/".to_owned();
        let mut hops = 0;
        let ended = loop {
            match bench.ask_at(&path, &request()) {
                LoginReply::Indeterminate(redirect) => {
                    path = redirect.next_url.strip_prefix("http://10.0.0.1:80").unwrap().into();
                    assert!(LoginDesk::is_path(&path), "{path}");
                }
                LoginReply::Success(_) => break true,
                other => panic!("{other:?}"),
            }
            hops += 1;
            if hops == 50 {
                break false;
            }
        };
        assert_eq!((ended, if ends { hops } else { 2 }), (ends, 2));
    }
}

#[test]
fn scripted_answers_are_given_once_each() {
    let answers = [
        ScriptedAnswer::Refusal(Refusal::new("update", "Too old.")),
        ScriptedAnswer::Fault(Fault { code: -32_603, message: "broken".into() }),
        ScriptedAnswer::Page { status: 503, html: "<html>".into() },
    ];
    let mut bench = bench(LoginScript { answers: answers.into(), ..LoginScript::default() });
    assert_eq!(bench.refusal(&request()), RefusalReason::Update);
    let body = request().write(LoginForm::XmlRpc).unwrap();
    let fault = bench.post("/", LoginForm::XmlRpc, &body);
    let fault = LoginReply::read(&fault.body, LoginForm::XmlRpc, &LIMITS);
    assert!(fault.unwrap_err().to_string().contains("-32603"));
    let page = bench.post("/", LoginForm::XmlRpc, &body);
    assert_eq!((page.status.as_u16(), page.body.as_ref()), (503, &b"<html>"[..]));
    bench.success(&request());
}

#[test]
fn one_begins_where_he_asked_to_or_where_he_was() {
    let mut bench = bench(LoginScript::default());
    let beta = StartLocation::Region { name: "beta".into(), position: [10, 20, 30] };
    let success = bench.success(&LoginRequest { start: beta, ..request() });
    assert_eq!((success.region_x, success.start_location.as_deref()), (256_256, Some("url")));
    let code = success.circuit_code;
    let (region, _) = bench.grid.regions().nth(1).unwrap();
    bench.grid.on_arrive(bench.now, region, code);
    assert_eq!(bench.grid.position(code), Some(Vector3::new(10.0, 20.0, 30.0)));
    bench.grid.kick(bench.now, code, "out");
    let again = bench.success(&request());
    assert_eq!(again.region_x, 256_256);
    assert_eq!(bench.grid.position(again.circuit_code), Some(Vector3::new(10.0, 20.0, 30.0)));
    let nowhere = StartLocation::Region { name: "Nowhere".into(), position: [1, 1, 1] };
    let safe = bench.success(&LoginRequest { start: nowhere, ..request() });
    assert_eq!((safe.region_x, safe.start_location.as_deref()), (256_000, Some("safe")));
}

#[test]
fn a_login_at_home_goes_where_home_was_set() {
    let mut bench = bench(LoginScript::default());
    let at_home = LoginRequest { start: StartLocation::Home, ..request() };
    let first = bench.success(&at_home);
    assert_eq!((first.region_x, first.start_location.as_deref()), (256_000, Some("home")));
    assert_eq!(bench.grid.position(first.circuit_code), Some(Vector3::new(128.0, 128.0, 22.0)));
    bench.grid.kick(bench.now, first.circuit_code, "out");
    let beta = StartLocation::Region { name: "beta".into(), position: [10, 20, 30] };
    let there = bench.success(&LoginRequest { start: beta, ..request() });
    let (region, code) = (bench.grid.regions().nth(1).unwrap().0, there.circuit_code);
    bench.grid.on_arrive(bench.now, region, code);
    let mut ask = SetStartLocationRequest::default();
    let data = &mut ask.start_location_data;
    data.location_pos = Vector3::new(30.0, 40.0, 25.0);
    data.location_look_at = Vector3::new(0.0, 1.0, 0.0);
    // His last place is not his to tell, nor anything of a region where he is not.
    let first_region = bench.grid.regions().next().unwrap().0;
    for (id, where_to) in [(0, region), (7, region), (1, first_region)] {
        ask.start_location_data.location_id = id;
        let stale = bench.grid.stats().stale;
        bench.grid.on_home_set(bench.now, where_to, code, HomeAsk::of(&ask));
        assert_eq!(bench.grid.stats().stale, stale + 1);
    }
    assert_eq!(bench.grid.home_of(there.agent_id).0, first_region);
    ask.start_location_data.location_id = 1;
    bench.grid.on_home_set(bench.now, region, code, HomeAsk::of(&ask));
    bench.grid.kick(bench.now, code, "out");
    let home = bench.success(&at_home);
    assert_eq!((home.region_x, home.start_location.as_deref()), (256_256, Some("home")));
    assert_eq!(bench.grid.position(home.circuit_code), Some(Vector3::new(30.0, 40.0, 25.0)));
    let told = home.home.unwrap();
    assert_eq!(told.region, [256_256, 256_000]);
    assert_eq!((told.position, told.look_at), ([30.0, 40.0, 25.0], [0.0, 1.0, 0.0]));
}

#[test]
fn what_cannot_be_read_is_a_fault_and_lets_nobody_in() {
    let mut bench = bench(LoginScript::default());
    for body in [&b""[..], b"<html>", b"<?xml version=\"1.0\"?><methodCall/>", &[0xFF; 100]] {
        for form in [LoginForm::XmlRpc, LoginForm::Llsd] {
            let response = bench.post("/", form, body);
            let reply = LoginReply::read(&response.body, form, &LIMITS);
            assert!(!matches!(reply, Ok(LoginReply::Success(_))));
        }
    }
    let long = vec![b' '; LIMITS.bytes_max + 1];
    bench.post("/", LoginForm::XmlRpc, &long);
    assert_eq!((bench.desk.stats.unreadable, bench.grid.len()), (9, 0));
}

#[test]
fn codes_are_above_zero_whatever_is_drawn() {
    for draw in 0..1_000 {
        let ids = draw_ids(Uuid::nil(), secrets(draw).as_mut());
        assert!((1..=i32::MAX as u32).contains(&ids.circuit_code));
    }
}
