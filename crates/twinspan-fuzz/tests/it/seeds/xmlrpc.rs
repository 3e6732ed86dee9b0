//! Documents of XML-RPC, and logins.

use std::net::Ipv4Addr;

use twinspan_xmlrpc::login::{
    AccountName, Home, InventoryFolder, LoginReply, LoginRequest, LoginSuccess, Password, Redirect,
    Refusal,
};
use twinspan_xmlrpc::{Call, Date, Fault, LoginForm, Uuid, Value, write_call, write_response};

/// A call, a response, a fault, and what servers of other makes send.
pub(super) fn documents() -> Vec<Vec<u8>> {
    let each = Value::map([
        ("array", Value::Array(vec![1.into(), true.into(), (-0.5).into(), Value::Undef])),
        ("bytes", Value::Binary(vec![1, 2, 3])),
        ("date", Date(1_138_804_193.0).into()),
        ("text", "a <&> b".into()),
    ]);
    let fault = Fault { code: -32_603, message: "Object reference".into() };
    let other = b"<methodResponse><params><param><value><struct><member><name>a</name><value>text\
        </value></member><member><value><i8>5</i8></value><name>b</name></member><member><name>c\
        </name><value><array><data/></array></value></member></struct></value></param></params>\
        </methodResponse>";
    vec![
        write_call(&Call { method: "method".into(), params: vec![each.clone(), 5.into()] })
            .unwrap(),
        write_response(Ok(&each)).unwrap(),
        write_response(Err(&fault)).unwrap(),
        other.to_vec(),
        b"<!DOCTYPE html><html><body>502</body></html>".to_vec(),
    ]
}

/// A request and each kind of reply, in both forms.
pub(super) fn logins() -> Vec<Vec<u8>> {
    let name = AccountName::new("Test", "User");
    let request = LoginRequest::new(name, Password::new("secret"), "Twinspan", "0.1.0");
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let simulator = (Ipv4Addr::LOCALHOST, 9_000);
    let mut success =
        LoginSuccess::new(ids[0], ids[1], ids[2], 4_000_000_000, simulator, "http://a/");
    success.look_at = Some([0.5, 1.0, 0.0]);
    success.home =
        Some(Home { region: [256_000; 2], position: [128.0; 3], look_at: [0.0, 1.0, 0.0] });
    success.inventory_skeleton = vec![InventoryFolder {
        folder_id: ids[0],
        parent_id: Uuid::nil(),
        name: "My Inventory".into(),
        type_default: 8,
        version: 1,
    }];
    let redirect = Redirect { next_url: "http://b/".into(), ..Default::default() };
    let replies = [
        LoginReply::Success(success.into()),
        LoginReply::Indeterminate(redirect),
        LoginReply::Refused(Refusal::new("presence", "Already logged in")),
    ];
    let forms = [LoginForm::XmlRpc, LoginForm::Llsd];
    let both = forms.into_iter().flat_map(|form| {
        let written = replies.iter().map(move |reply| reply.write(form).unwrap());
        [request.write(form).unwrap()].into_iter().chain(written)
    });
    both.collect()
}
