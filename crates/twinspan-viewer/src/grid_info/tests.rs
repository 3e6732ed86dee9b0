use proptest::prelude::*;

use super::*;

/// As OpenSimulator writes it, without a declaration.
const OPENSIM: &str = "<gridinfo>\n<platform>OpenSim</platform>\n\
    <login>http://grid.example:8002/</login>\n<gridname>The &amp; Grid</gridname>\n\
    <gridnick>grid</gridnick>\n<welcome>http://grid.example/welcome?a=1&amp;b=2</welcome>\n\
    <economy>http://grid.example:8008/</economy>\n<about></about>\n\
    <register>https://grid.example/register</register>\n<help/>\n\
    <password>none yet</password>\n<gatekeeper>http://grid.example:8002/</gatekeeper>\n\
    <uas>http://grid.example:8002/</uas>\n</gridinfo>\n";

#[test]
fn a_grid_of_opensimulator_is_known_by_what_it_tells() {
    let info = GridInfo::read(OPENSIM.as_bytes()).unwrap();
    assert_eq!(info.platform.as_deref(), Some("OpenSim"));
    assert_eq!((info.name.as_deref(), info.nick.as_deref()), (Some("The & Grid"), Some("grid")));
    assert_eq!(info.welcome.unwrap().as_str(), "http://grid.example/welcome?a=1&b=2");
    assert_eq!(info.register.unwrap().scheme(), "https");
    assert_eq!((info.about, info.help, info.password), (None, None, None));
    let rest: Vec<_> = info.rest.iter().map(|(name, text)| (&**name, &**text)).collect();
    let here = "http://grid.example:8002/";
    assert_eq!(rest, [("gatekeeper", here), ("password", "none yet"), ("uas", here)]);
    let login = GridInfo::read(OPENSIM.as_bytes()).unwrap().login_grid().unwrap();
    assert_eq!(login.login_uri().unwrap().as_str(), here);
    let declared = format!("\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{OPENSIM}");
    assert_eq!(
        GridInfo::read(declared.as_bytes()).unwrap(),
        GridInfo::read(OPENSIM.as_bytes()).unwrap()
    );
}

#[test]
fn the_first_of_two_stays() {
    let text = "<gridinfo><login>http://a/</login><login>http://b/</login><x>1</x><x>2</x>\
        <gridname>A</gridname><gridname>B</gridname></gridinfo>";
    let info = GridInfo::read(text.as_bytes()).unwrap();
    assert_eq!(info.login.unwrap().as_str(), "http://a/");
    assert_eq!((info.name.as_deref(), info.rest.get("x").map(|x| &**x)), (Some("A"), Some("1")));
}

#[test]
fn what_is_something_else_or_too_much_is_named() {
    let read = |text: &str| GridInfo::read(text.as_bytes()).unwrap_err();
    assert!(
        matches!(read("<html><body/></html>"), GridInfoError::Other { found } if found == "html")
    );
    assert!(
        matches!(read("<!DOCTYPE html><html/>"), GridInfoError::Other { found } if found == "html")
    );
    assert!(matches!(read(""), GridInfoError::Other { .. }));
    assert!(matches!(read("{\"login\":1}"), GridInfoError::Markup(_)));
    assert!(matches!(read("<gridinfo><a><b/></a></gridinfo>"), GridInfoError::Markup(_)));
    assert!(matches!(read("<gridinfo><a>1</a>"), GridInfoError::Markup(_)));
    let fields = |count: usize| format!("<gridinfo>{}</gridinfo>", "<a>1</a>".repeat(count));
    assert!(GridInfo::read(fields(GRID_INFO_FIELDS_MAX).as_bytes()).is_ok());
    assert!(matches!(read(&fields(GRID_INFO_FIELDS_MAX + 1)), GridInfoError::TooMany));
    let long = |bytes: usize| format!("<gridinfo><a>{}</a></gridinfo>", "x".repeat(bytes));
    assert!(GridInfo::read(long(GRID_INFO_FIELD_BYTES_MAX).as_bytes()).is_ok());
    assert!(matches!(read(&long(GRID_INFO_FIELD_BYTES_MAX + 1)), GridInfoError::TooLong));
    assert!(matches!(read(&long(GRID_INFO_BYTES_MAX)), GridInfoError::Markup(_)));
}

#[test]
fn what_is_kept_is_bounded_and_ends_with_its_hour() {
    let mut kept = Kept::default();
    let url = |number: usize| Url::parse(&format!("http://grid{number}/get_grid_info")).unwrap();
    let info = Arc::new(GridInfo::default());
    let now = Timestamp::START;
    for number in 0..=GRID_INFOS_MAX {
        kept.keep(now, url(number), &info);
    }
    assert_eq!(kept.0.len(), GRID_INFOS_MAX);
    assert!(kept.get(now, &url(0)).is_none() && kept.get(now, &url(1)).is_some());
    // Asked again it is kept anew, and once.
    let later = now.after(GRID_INFO_KEPT / 2);
    kept.keep(later, url(1), &info);
    assert_eq!(kept.0.len(), GRID_INFOS_MAX);
    let nearly = now.after(GRID_INFO_KEPT - Duration::from_nanos(1));
    assert!(kept.get(nearly, &url(2)).is_some());
    let over = now.after(GRID_INFO_KEPT);
    assert!(kept.get(over, &url(2)).is_none() && kept.get(over, &url(1)).is_some());
    assert_eq!(kept.0.len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_name_a_reason(bytes: Vec<u8>) {
        let _ = GridInfo::read(&bytes);
    }

    #[test]
    fn a_changed_text_is_read_or_names_a_reason(at: prop::sample::Index, byte: u8) {
        let mut bytes = OPENSIM.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = GridInfo::read(&bytes);
    }
}
