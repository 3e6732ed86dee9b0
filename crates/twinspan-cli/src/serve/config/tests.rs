//! What a configuration may say, and what is said of one that may not.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("etc")).map_err(|error| error.to_string())
}

const LEAST: &str = "listen = \"127.0.0.1:7700\"\nkeys = \"k.toml\"\n";

#[test]
fn what_is_left_out_has_defaults_that_follow_the_number_of_players() {
    let config = parse(LEAST).unwrap();
    let sized = ServerConfig::for_players(1_000);
    assert_eq!(config.players_max, 1_000);
    assert_eq!((config.side_m, config.npcs), (sized.world.side, sized.npcs));
    assert_eq!(config.keys, Path::new("etc/k.toml"));
    let small = parse(&format!("{LEAST}[session]\nplayers_max = 10\n")).unwrap();
    assert!(small.side_m < config.side_m);
    let server = small.server(Rules::default());
    assert_eq!(server.session.sessions_max, 10);
    assert!(server.session.check().is_ok() && server.world.check().is_ok());
    let hasty = parse(&format!("{LEAST}[session]\nidle_timeout_s = 1\n")).unwrap();
    assert!(hasty.server(Rules::default()).session.check().is_ok());
}

#[test]
fn what_is_said_of_sessions_reaches_them_and_its_ends_are_legal() {
    let config = parse(&format!(
        "{LEAST}[session]\nidle_timeout_s = 600\nheader_protection = \"require\"\n\
         resume_window_s = 600\nhello_answers_per_second = 1000000\n\
         packets_in_per_second = 10000000\ncontrol_in_per_second = 1000000\n"
    ))
    .unwrap();
    let most = config.server(Rules::default()).session;
    assert_eq!(most.check(), Ok(()));
    assert_eq!(most.header_protection, HeaderProtection::Require);
    assert_eq!(most.resume.window, Duration::from_secs(600));
    let rates = |session: &SessionConfig| {
        let SessionConfig { packets_in_per_second, control_in_per_second, .. } = *session;
        (session.hello_answers_per_second, packets_in_per_second, control_in_per_second)
    };
    assert_eq!(rates(&most), (1_000_000, 10_000_000, 1_000_000));
    let least = parse(&format!(
        "{LEAST}[session]\nresume_window_s = 1\nhello_answers_per_second = 16\n\
         packets_in_per_second = 100\ncontrol_in_per_second = 10\n"
    ))
    .unwrap();
    assert_eq!(least.server(Rules::default()).session.check(), Ok(()));
    let usual = parse(LEAST).unwrap().server(Rules::default()).session;
    assert_eq!(rates(&usual), rates(&SessionConfig::default()));
    assert_eq!(usual.resume, SessionConfig::default().resume);
}

#[test]
fn what_is_printed_says_the_same() {
    for text in [
        LEAST.to_owned(),
        format!(
            "{LEAST}previous_keys = \"old.toml\"\nrules = 'a \"b\"\\c.toml'\nmetrics = \"[::1]:9\"\nmetrics_hosts = [\"a.b\"]\n\
             drain_s = 3\ncores = 2\n[session]\nplayers_max = 7\nidle_timeout_s = 9\n[world]\n\
             side_m = 96.5\nnpcs = 1\nprojectiles = 0\n[admission]\nnetworks_max = 128\n"
        ),
        format!(
            "{LEAST}[session]\nheader_protection = \"require\"\n\
             ciphers = [\"chacha20\", \"aes256\"]\nresume_window_s = 5\n\
             hello_answers_per_second = 16\npackets_in_per_second = 200\n\
             control_in_per_second = 11\n"
        ),
        format!(
            "{LEAST}[relay]\nlisten = \"[::1]:7800\"\nrelays = [\"[::2]:1\", \"[::3]:1\"]\n\
             key = 't.toml'\nprevious_key = \"old.toml\"\nonly = true\n"
        ),
    ] {
        let config = parse(&text).unwrap();
        let again = Config::parse(&config.to_text(), Path::new("")).unwrap();
        assert_eq!(again, config, "{}", config.to_text());
    }
}

#[test]
fn errors_name_the_line_and_what_to_write() {
    let cases = [
        ("", "line 1: key `listen` is missing here; add it"),
        ("listen = \"nowhere\"\n", "line 1: `listen` is \"nowhere\": give an address and a port"),
        ("listn = \"127.0.0.1:1\"\n", "line 1: unknown key `listn`; did you mean `listen`?"),
        ("listen = \"127.0.0.1:1\"\n", "line 1: key `keys` is missing here; add it"),
        ("[world]\nside = 5\n", "line 1: key `listen` is missing"),
    ];
    for (text, wanted) in cases {
        let told = parse(text).unwrap_err();
        assert!(told.starts_with(wanted), "{told}");
    }
    for (text, wanted) in [
        ("[world]\nside = 5\n", "line 4: unknown key `side`; did you mean `side_m`?"),
        ("[wrld]\n", "line 3: unknown key `wrld`; did you mean `world`?"),
        ("[session]\nplayers_max = 0\n", "line 4: `players_max` is 0; write a whole number from 1"),
        ("drain_s = \"5\"\n", "line 3: `drain_s` is \"5\"; write a whole number from 0 to 3600"),
        ("metrics_hosts = [\"a:9\"]\n", "line 3: \"a:9\" is no host name; leave the port out"),
        ("[relay]\nlisten = \"1.2.3.4:5\"\n", "line 3: `relays` names nobody"),
        ("[relay]\nrelays = [\"here\"]\n", "line 4: \"here\": give an address and a port"),
        ("cores = 0\n", "line 3: `cores` is 0; write a whole number from 1 to 256"),
        (
            "cores = 2\n[relay]\nlisten = \"1.2.3.4:5\"\n",
            "line 3: `cores` is more than 1 and there is a `[relay]`",
        ),
        ("metrics = 9\n", "line 3: `metrics` is 9; write a text in quotes"),
        (
            "[session]\nheader_protecton = \"allow\"\n",
            "line 4: unknown key `header_protecton`; did you mean `header_protection`?",
        ),
        (
            "[session]\nheader_protection = \"requires\"\n",
            "line 4: `header_protection` is \"requires\"; did you mean `require`?",
        ),
        (
            "[session]\n\nciphers = [\"aes-128\"]\n",
            "line 5: `ciphers` names \"aes-128\"; did you mean `aes128`?",
        ),
        (
            "[session]\nciphers = [\"aes128\", \"aes128\"]\n",
            "line 4: `ciphers` names \"aes128\" twice; name it once",
        ),
        (
            "[session]\nresume_window_s = 601\n",
            "line 4: `resume_window_s` is 601; write a whole number from 1 to 600",
        ),
        (
            "[session]\nhello_answers_per_second = 15\n",
            "line 4: `hello_answers_per_second` is 15; write a whole number from 16 to 1000000",
        ),
        (
            "[session]\npackets_in_per_second = 99\n",
            "line 4: `packets_in_per_second` is 99; write a whole number from 100 to 10000000",
        ),
        (
            "[session]\ncontrol_in_per_second = 9\n",
            "line 4: `control_in_per_second` is 9; write a whole number from 10 to 1000000",
        ),
    ] {
        let told = parse(&format!("{LEAST}{text}")).unwrap_err();
        assert!(told.starts_with(wanted), "{told}");
    }
}
