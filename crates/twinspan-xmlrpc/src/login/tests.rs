//! Logins both ways, as grids send them, and broken ones.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use twinspan_llsd::{Limits, Map, Uuid, Value};

use super::*;
use crate::{Call, Fault, ReadError, write_call, write_response};

const FORMS: [LoginForm; 2] = [LoginForm::XmlRpc, LoginForm::Llsd];

fn request() -> LoginRequest {
    let name = AccountName::new("Test", "User");
    let mut request = LoginRequest::new(name, Password::new("hunter2"), "Twinspan", "0.1.0");
    request.start = StartLocation::Region { name: "Alpha & Beta".into(), position: [1, 2, 3] };
    request.hardware = HardwareIds::hashed("00:11:22:33:44:55", "disk");
    request.last_exec_session_id = Some(Uuid::from_u128(5));
    request.token = Secret::new("123456");
    request.mfa_hash = Secret::new("hash");
    request.agree_to_tos = true;
    request.rest.insert("unknown".into(), "kept".into());
    request
}

fn folder(id: u128, name: &str) -> InventoryFolder {
    InventoryFolder {
        folder_id: Uuid::from_u128(id),
        parent_id: Uuid::from_u128(id / 2),
        name: name.into(),
        type_default: 8,
        version: 3,
    }
}

fn success() -> LoginSuccess {
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let simulator = (Ipv4Addr::new(10, 0, 0, 1), 9_000);
    let seed = "http://10.0.0.1:9000/CAPS/secret-seed";
    let mut success = LoginSuccess::new(ids[0], ids[1], ids[2], 4_000_000_000, simulator, seed);
    success.first_name = "Test".into();
    success.last_name = "User".into();
    success.http_port = Some(9_001);
    (success.region_x, success.region_y) = (256_000, 256_256);
    success.region_size = Some([512, 512]);
    success.look_at = Some([0.5, -1.0, 0.0]);
    success.start_location = Some("last".into());
    success.home = Some(Home {
        region: [256_000, 256_000],
        position: [128.5, 128.0, 21.0],
        look_at: [0.0, 1.0, 0.0],
    });
    success.seconds_since_epoch = Some(5_000_000_000);
    success.agent_access = Some("M".into());
    success.mfa_hash = Secret::new("mfa-secret");
    success.inventory_root = Some(Uuid::from_u128(7));
    success.inventory_skeleton = vec![folder(7, "My Inventory"), folder(14, "Clothing <&>")];
    success.library_root = Some(Uuid::from_u128(8));
    success.library_owner = Some(Uuid::from_u128(9));
    success.library_skeleton = vec![folder(8, "Library")];
    success.gestures =
        vec![Gesture { item_id: Uuid::from_u128(10), asset_id: Uuid::from_u128(11) }];
    success.buddies = vec![Buddy { id: Uuid::from_u128(12), rights_has: 1, rights_given: 3 }];
    success.max_agent_groups = Some(42);
    success.map_server_url = Some("http://maps/".into());
    success.openid_token = Secret::new("openid-secret");
    success.message = Some("Welcome, & hello".into());
    success.udp_blacklist = vec!["EnableSimulator".into(), "TeleportFinish".into()];
    success.rest.insert("currency".into(), "OS$".into());
    success
}

#[test]
fn requests_come_back_in_both_forms() {
    for form in FORMS {
        let body = request().write(form).unwrap();
        assert_eq!(LoginRequest::read(&body, form, &Limits::DEFAULT), Ok(request()));
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains("uri:Alpha &amp; Beta&amp;1&amp;2&amp;3"), "{text}");
        assert!(!text.contains("CDATA"));
    }
    let text = String::from_utf8(request().write(LoginForm::XmlRpc).unwrap()).unwrap();
    assert!(text.contains("<methodName>login_to_simulator</methodName>"));
    let member = |name: &str, value: &str| {
        text.contains(&format!("<name>{name}</name><value><string>{value}</string></value>"))
    };
    assert!(member("first", "Test") && member("last", "User") && member("token", "123456"));
    assert!(member("passwd", "$1$2ab96390c7dbe3439de74d0c9b0b1767"));
    assert!(text.contains("<name>agree_to_tos</name><value><i4>1</i4></value>"));
    let moved = request().write_for(LoginForm::XmlRpc, "login_elsewhere").unwrap();
    assert!(matches!(
        LoginRequest::read(&moved, LoginForm::XmlRpc, &Limits::DEFAULT),
        Err(LoginReadError::Method { .. })
    ));
}

#[test]
fn every_kind_of_reply_comes_back_in_both_forms() {
    let redirect = Redirect {
        next_url: "https://other/login".into(),
        next_method: Some("login_to_simulator".into()),
        next_duration: Some(1.5),
        message: Some("Wait".into()),
    };
    let mut replies = vec![
        LoginReply::Success(Box::new(success())),
        LoginReply::Indeterminate(redirect),
        LoginReply::Indeterminate(Redirect { next_url: "x".into(), ..Default::default() }),
    ];
    let reasons = [
        "key",
        "presence",
        "tos",
        "critical",
        "update",
        "optional",
        "connect",
        "disabled",
        "mfa_challenge",
        "moon",
    ];
    for reason in reasons {
        let mut refusal = Refusal::new(reason, "Why & how");
        refusal.message_id = Some("LoginFailed".into());
        refusal.message_args = Map::from([("TIME".into(), "1".into())]);
        assert_eq!(refusal.reason.word(), reason);
        assert_eq!(matches!(refusal.reason, RefusalReason::Other(_)), reason == "moon");
        replies.push(LoginReply::Refused(refusal));
    }
    for form in FORMS {
        for reply in &replies {
            let body = reply.write(form).unwrap();
            assert_eq!(LoginReply::read(&body, form, &Limits::DEFAULT).as_ref(), Ok(reply));
        }
    }
}

#[test]
fn a_reply_as_opensimulator_sends_it_is_read() {
    let member = |name: &str, value: &str| {
        format!("<member><name>{name}</name><value>{value}</value></member>\n")
    };
    let id = |digit: &str| format!("{0}-0000-0000-0000-000000000000", digit.repeat(8));
    let members = [
        member("login", "<string>true</string>"),
        member("first_name", "<string>\"Test\"</string>"),
        member("last_name", "User"),
        member("agent_id", &id("1")),
        member("session_id", &format!("<string>{}</string>", id("2"))),
        member("secure_session_id", &id("3")),
        member("circuit_code", "<i4>-294967296</i4>"),
        member("sim_ip", "<string>127.0.0.1</string>"),
        member("sim_port", "<string>9000</string>"),
        member("http_port", "<i4>0</i4>"),
        member("seed_capability", "http://127.0.0.1:9000/CAPS/1/"),
        member("region_x", "<i4>256000</i4>"),
        member("region_y", "<int>256000</int>"),
        member("look_at", "<string>[r0.9,r0.1,r0]</string>"),
        member(
            "home",
            "{'region_handle':[r256000,r256000], 'position':[128,128,21], 'look_at':[r0,r1,r0]}",
        ),
        member("max-agent-groups", "<string>42</string>"),
        member(
            "inventory-root",
            &format!(
                "<array><data><value><struct>{}</struct></value></data></array>",
                member("folder_id", &id("4")),
            ),
        ),
        member("inventory-skeleton", "<array><data/></array>"),
        member("buddy-list", "<array><data></data></array>"),
        member("login-flags", "<array><data><value><struct/></value></data></array>"),
        member("openid_url", "<string/>"),
        member("seconds_since_epoch", "<i4>1700000000</i4>"),
        member("gestures", "<string>none</string>"),
    ];
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><methodResponse><params><param><value>\
         <struct>{}</struct></value></param></params></methodResponse>",
        members.concat()
    );
    let reply = LoginReply::read(text.as_bytes(), LoginForm::XmlRpc, &Limits::DEFAULT).unwrap();
    let LoginReply::Success(success) = reply else { panic!("{reply:?}") };
    assert_eq!((success.first_name.as_str(), success.last_name.as_str()), ("Test", "User"));
    assert_eq!(success.circuit_code, 4_000_000_000);
    assert_eq!((success.sim_port, success.http_port), (9_000, None));
    assert_eq!(success.region_handle(), 256_000 << 32 | 256_000);
    assert_eq!(success.look_at, Some([0.9, 0.1, 0.0]));
    assert_eq!(success.home.unwrap().position, [128.0, 128.0, 21.0]);
    assert_eq!(success.max_agent_groups, Some(42));
    assert_eq!(success.inventory_root.unwrap().as_u128() >> 96, 0x4444_4444);
    assert_eq!(success.openid_url, None);
    // What may be missing and cannot be read stays as it came.
    assert_eq!(success.rest.get("gestures"), Some(&Value::from("none")));
    assert!(success.rest.contains_key("login-flags"));
}

#[test]
fn a_reply_as_opensimulator_sends_it_in_llsd_is_read() {
    let id = |digit: &str| format!("{0}-0000-0000-0000-000000000000", digit.repeat(8));
    let text = |key: &str, text: &str| format!("<key>{key}</key><string>{text}</string>");
    let number = |key: &str, number: i64| format!("<key>{key}</key><integer>{number}</integer>");
    let folder = format!(
        "<map>{}{}{}{}{}</map>",
        text("folder_id", &id("4")),
        text("name", "My Inventory"),
        text("parent_id", "00000000-0000-0000-0000-000000000000"),
        number("type_default", 8),
        number("version", 5),
    );
    let body = [
        text("login", "true"),
        text("first_name", "Test"),
        text("last_name", "User"),
        text("agent_id", &id("1")),
        text("session_id", &id("2")),
        format!("<key>secure_session_id</key><uuid>{}</uuid>", id("3")),
        number("circuit_code", -294_967_296),
        text("sim_ip", "127.0.0.1"),
        number("sim_port", 9_000),
        number("http_port", 0),
        text("seed_capability", "http://127.0.0.1:9000/CAPS/1/"),
        // A region of 512 metres far from the origin.
        number("region_x", 2_560_000),
        number("region_y", 2_560_256),
        number("region_size_x", 512),
        number("region_size_y", 512),
        text("look_at", "[r0.99949,r0.03202,r0]"),
        number("seconds_since_epoch", 1_700_000_000),
        number("max-agent-groups", 42),
        format!("<key>inventory-skeleton</key><array>{folder}</array>"),
        "<key>gestures</key><boolean>0</boolean><key>buddy-list</key><array/>".to_owned(),
        format!(
            "<key>inventory-lib-owner</key><array><map>{}</map></array>",
            text("agent_id", &id("6"))
        ),
        text("currency", "OS$"),
    ];
    let text = format!("<?xml version=\"1.0\"?><llsd><map>{}</map></llsd>", body.concat());
    let reply = LoginReply::read(text.as_bytes(), LoginForm::Llsd, &Limits::DEFAULT).unwrap();
    let LoginReply::Success(success) = reply else { panic!("{reply:?}") };
    assert_eq!((success.circuit_code, success.sim_port), (4_000_000_000, 9_000));
    assert_eq!(success.region_handle(), 2_560_000 << 32 | 2_560_256);
    assert_eq!(success.region_size, Some([512, 512]));
    assert_eq!((success.http_port, success.max_agent_groups), (None, Some(42)));
    assert_eq!(success.inventory_skeleton[0].name, "My Inventory");
    assert_eq!(success.library_owner.unwrap().as_u128() >> 96, 0x6666_6666);
    assert_eq!(success.rest.get("currency"), Some(&Value::from("OS$")));
    // What is wrong with a login is a map as well.
    let refused = "<llsd><map><key>reason</key><string>key</string><key>message</key>\
        <string>Invalid login credentials.</string><key>login</key><string>false</string></map></llsd>";
    let reply = LoginReply::read(refused.as_bytes(), LoginForm::Llsd, &Limits::DEFAULT).unwrap();
    assert_eq!(reply, LoginReply::Refused(Refusal::new("key", "Invalid login credentials.")));
}

#[test]
fn a_reply_without_a_field_that_must_be_there_names_it() {
    let Value::Map(whole) = LoginReply::Success(Box::new(success())).to_value() else { panic!() };
    for field in [
        "login",
        "agent_id",
        "session_id",
        "secure_session_id",
        "circuit_code",
        "sim_ip",
        "sim_port",
        "seed_capability",
        "region_x",
        "region_y",
    ] {
        let mut map = whole.clone();
        map.remove(field);
        let missing = LoginReply::from_value(map.clone().into());
        assert_eq!(missing, Err(LoginReadError::Missing { field }));
        map.insert(field.into(), Value::Array(vec![]));
        let error = LoginReply::from_value(map.into()).unwrap_err();
        assert!(matches!(error, LoginReadError::Field { field: named, .. } if named == field));
    }
    let fields = Map::from([("login".into(), "false".into())]);
    let missing = LoginReply::from_value(fields.into());
    assert_eq!(missing, Err(LoginReadError::Missing { field: "reason" }));
    let fields = Map::from([("login".into(), "indeterminate".into())]);
    let missing = LoginReply::from_value(fields.into());
    assert_eq!(missing, Err(LoginReadError::Missing { field: "next_url" }));
    assert_eq!(LoginReply::from_value(Value::Undef), Err(LoginReadError::NotAMap));
}

#[test]
fn a_request_without_a_field_that_must_be_there_names_it() {
    for field in ["first", "last", "passwd"] {
        let Value::Map(mut map) = request().to_value() else { panic!() };
        map.remove(field);
        let missing = LoginRequest::from_value(map.into());
        assert_eq!(missing, Err(LoginReadError::Missing { field }));
    }
    let Value::Map(mut map) = request().to_value() else { panic!() };
    map.insert("options".into(), Value::Array(vec!["x".into(); OPTIONS_MAX + 1]));
    let many = LoginRequest::from_value(map.into());
    assert_eq!(many, Err(LoginReadError::TooMany { field: "options", max: OPTIONS_MAX }));
}

#[test]
fn faults_and_pages_are_told_apart() {
    let fault = Fault { code: -32_603, message: "Object reference".into() };
    let body = LoginReply::write_fault(&fault, LoginForm::XmlRpc).unwrap();
    let read = LoginReply::read(&body, LoginForm::XmlRpc, &Limits::DEFAULT);
    assert_eq!(read, Err(LoginReadError::Fault(fault.clone())));
    let body = LoginReply::write_fault(&fault, LoginForm::Llsd).unwrap();
    let read = LoginReply::read(&body, LoginForm::Llsd, &Limits::DEFAULT);
    assert_eq!(read, Ok(LoginReply::Refused(Refusal::new("key", "Object reference"))));
    for page in [
        "<html><body>502 Bad Gateway</body></html>",
        "<!DOCTYPE html><html></html>",
        "  <!doctype HTML PUBLIC \"x\"><html></html>",
    ] {
        for form in FORMS {
            let error = LoginReply::read(page.as_bytes(), form, &Limits::DEFAULT).unwrap_err();
            let is_page = matches!(error, LoginReadError::XmlRpc(ReadError::Html { .. }));
            assert!(is_page, "{page}: {error}");
        }
    }
    let call = Call { method: LOGIN_METHOD.into(), params: Vec::new() };
    let error =
        LoginRequest::read(&write_call(&call).unwrap(), LoginForm::XmlRpc, &Limits::DEFAULT);
    assert_eq!(error, Err(LoginReadError::NotAMap));
    let empty = write_response(Ok(&"text".into())).unwrap();
    let error = LoginReply::read(&empty, LoginForm::XmlRpc, &Limits::DEFAULT);
    assert_eq!(error, Err(LoginReadError::NotAMap));
}

#[test]
fn secrets_appear_in_no_debug_output() {
    let shown = format!("{:?} {:?}", request(), LoginReply::Success(Box::new(success())));
    for secret in [
        "2ab96390c7dbe3439de74d0c9b0b1767",
        "hunter2",
        "123456",
        "hash\"",
        "secret-seed",
        "mfa-secret",
        "openid-secret",
        "kept",
        &Uuid::from_u128(2).to_string(),
        &Uuid::from_u128(3).to_string(),
        "4000000000",
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(shown.contains("Test"));
}

#[test]
fn forms_are_told_by_their_types() {
    assert_eq!(LoginForm::of_content_type("application/llsd+xml; charset=utf-8"), LoginForm::Llsd);
    assert_eq!(LoginForm::of_content_type("text/xml"), LoginForm::XmlRpc);
    assert_eq!(LoginForm::of_content_type(""), LoginForm::XmlRpc);
}

proptest! {
    #[test]
    fn any_bytes_are_a_login_or_name_a_reason(bytes: Vec<u8>) {
        for form in FORMS {
            let _ = LoginRequest::read(&bytes, form, &Limits::DEFAULT);
            let _ = LoginReply::read(&bytes, form, &Limits::DEFAULT);
        }
    }

    #[test]
    fn a_changed_reply_is_read_or_names_a_reason(at: prop::sample::Index, byte: u8) {
        for form in FORMS {
            let mut body = LoginReply::Success(Box::new(success())).write(form).unwrap();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = LoginReply::read(&body, form, &Limits::DEFAULT);
        }
    }
}
