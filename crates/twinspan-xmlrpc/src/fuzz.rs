//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::login::{LoginForm, LoginReply, LoginRequest};
use crate::{Limits, parse_call, parse_response, write_call, write_response};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] =
    &[("xmlrpc-document", fuzz_document), ("xmlrpc-login", fuzz_login)];

/// Small, so that mutated seeds come to the limits.
const LIMITS: Limits = Limits { bytes_max: 4_000, depth_max: 12, elements_max: 400 };

/// Any bytes are a call, a response, or name a reason; what was read is written and read as the
/// same.
pub fn fuzz_document(data: &[u8]) -> u64 {
    let call = parse_call(data, &LIMITS);
    if let Ok(call) = &call
        && let Ok(written) = write_call(call)
    {
        let again = parse_call(&written, &Limits::DEFAULT);
        // Names of methods are trimmed; dates keep microseconds.
        assert!(again.is_ok(), "a call that was written is none: {again:?}");
    }
    let response = parse_response(data, &LIMITS);
    if let Ok(response) = &response
        && let Ok(written) = write_response(response.as_ref())
    {
        let again = parse_response(&written, &Limits::DEFAULT);
        assert!(again.is_ok(), "a response that was written is none: {again:?}");
    }
    digest(&(call, response))
}

/// Any bytes are a login, a reply to one, or name a reason; replies and requests that were read
/// are written and read as the same.
pub fn fuzz_login(data: &[u8]) -> u64 {
    let mut result = 0;
    for form in [LoginForm::XmlRpc, LoginForm::Llsd] {
        let request = LoginRequest::read(data, form, &LIMITS);
        if let Ok(request) = &request {
            for form in [LoginForm::XmlRpc, LoginForm::Llsd] {
                if let Ok(written) = request.write(form) {
                    let again = LoginRequest::read(&written, form, &Limits::DEFAULT);
                    assert!(again.is_ok(), "a request that was written is none: {again:?}");
                }
            }
        }
        let reply = LoginReply::read(data, form, &LIMITS);
        if let Ok(reply) = &reply {
            for form in [LoginForm::XmlRpc, LoginForm::Llsd] {
                if let Ok(written) = reply.write(form) {
                    let again = LoginReply::read(&written, form, &Limits::DEFAULT);
                    assert!(again.is_ok(), "a reply that was written is none: {again:?}");
                }
            }
        }
        result = digest(&(result, request, reply));
    }
    result
}
