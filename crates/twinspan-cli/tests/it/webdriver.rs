//! A small WebDriver client: enough of the protocol to see a page as a person with a browser does.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// How long a condition on the page may take to come true before the test gives it up for lost.
const PATIENCE_MS: u32 = 60_000;

/// Browsers' names, in the order in which they are looked for.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Arguments of every browser: no window, and no word to anyone but the page's own server.
const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--hide-scrollbars",
];

/// One headless browser with one page; both end with it.
pub(crate) struct Browser {
    driver: Child,
    profile: PathBuf,
    agent: ureq::Agent,
    /// The session's address at the driver; empty until there is one.
    session: String,
}

impl Browser {
    /// Starts a browser, or says why there is none.
    ///
    /// Without a browser on the machine the caller's test is over, unless `TWINSPAN_REQUIRE_PEERS`
    /// is 1: then the test fails.
    pub(crate) fn open() -> Option<Self> {
        let programs = (on_path(&["chromedriver"]), on_path(&BROWSERS));
        let (Some(driver), Some(browser)) = programs else {
            let reason = "skipped: this test needs chromium and chromedriver on the path";
            assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
            println!("{reason}");
            return None;
        };
        Some(Self::start(&driver, &browser))
    }

    fn start(driver: &Path, browser: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("twinspan-page-{}-{number}", std::process::id());
        let profile = std::env::temp_dir().join(name);
        fs::create_dir_all(&profile).expect("a folder for the browser's profile");
        let mut child = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of their own, so that whatever is left of them can be ended together.
            .process_group(0)
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let rest = line.split("started successfully on port ").nth(1)?;
                rest.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver names its port");
        // Its later lines must have a reader, or the pipe fills and it stops.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(u64::from(PATIENCE_MS) * 2)))
            .build()
            .new_agent();
        let mut this = Self { driver: child, profile, agent, session: String::new() };
        this.begin(port, browser);
        this
    }

    fn begin(&mut self, port: u16, browser: &Path) {
        let mut arguments: Vec<String> = ARGUMENTS.iter().map(|&text| text.to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", self.profile.display()));
        arguments.push("--window-size=1280,900".to_owned());
        let answer = self.post(
            &format!("http://127.0.0.1:{port}/session"),
            &json!({ "capabilities": { "alwaysMatch": {
                "goog:chromeOptions": { "binary": browser, "args": arguments },
                "goog:loggingPrefs": { "browser": "ALL" },
                "timeouts": { "script": PATIENCE_MS * 2 },
            } } }),
        );
        let id = answer["sessionId"].as_str().expect("a session's id");
        self.session = format!("http://127.0.0.1:{port}/session/{id}");
    }

    fn post(&self, url: &str, body: &Value) -> Value {
        let mut reply = self.agent.post(url).send_json(body).expect("the driver answers");
        let answer: Value = reply.body_mut().read_json().expect("the driver answers in JSON");
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{url}: {}: {}", value["error"], value["message"]);
        value
    }

    fn call(&self, command: &str, body: &Value) -> Value {
        self.post(&format!("{}/{command}", self.session), body)
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) fn go(&self, url: &str) {
        self.call("url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page and returns what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until `script`, the body of an async function, returns something true; returns that.
    ///
    /// `what` names the wait in the failure, which also tells where the page stood.
    pub(crate) fn wait(&self, what: &str, script: &str) -> Value {
        let mut text = String::new();
        // The page itself asks again after each of its own pauses: no sleeping here.
        write!(
            text,
            "const done = arguments[arguments.length - 1];
             const ask = async () => {{ {script} }};
             const until = performance.now() + {PATIENCE_MS};
             const again = async () => {{
               let found = null, wrong = null;
               try {{ found = await ask(); }} catch (error) {{ wrong = String(error); }}
               if (found) return done({{ found }});
               if (performance.now() > until) return done({{
                 wrong, body: {{ ...document.body.dataset }}, text: document.body.innerText,
               }});
               setTimeout(again, 40);
             }};
             again();"
        )
        .expect("writing to a string");
        let answer = self.call("execute/async", &json!({ "script": text, "args": [] }));
        assert!(!answer["found"].is_null(), "never came true: {what}; the page: {answer}");
        answer["found"].clone()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.call("element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|object| object.values().next());
        id.and_then(Value::as_str).expect("an element's id").to_owned()
    }

    /// Clicks an element as a person would: it must be there, in view and not covered.
    pub(crate) fn click(&self, selector: &str) {
        let id = self.element(selector);
        self.call(&format!("element/{id}/click"), &json!({}));
    }

    /// Types into an element; keys without a letter have code points of their own in the protocol.
    pub(crate) fn keys(&self, selector: &str, text: &str) {
        let id = self.element(selector);
        self.call(&format!("element/{id}/value"), &json!({ "text": text }));
    }

    /// Clicks a point of the window, in CSS pixels.
    pub(crate) fn click_at(&self, x: f64, y: f64) {
        // The protocol takes whole pixels.
        let (x, y) = (x.round() as i64, y.round() as i64);
        let actions = json!([
            { "type": "pointerMove", "duration": 0, "x": x, "y": y },
            { "type": "pointerDown", "button": 0 },
            { "type": "pointerUp", "button": 0 },
        ]);
        let pointer = json!({ "type": "pointer", "id": "mouse", "actions": actions });
        self.call("actions", &json!({ "actions": [pointer] }));
    }

    /// What the page's console and the browser itself complained about since the last call.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.call("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().expect("a list of entries");
        entries
            .iter()
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")))
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Gives the page a size and one of the schemes `light` and `dark`.
    pub(crate) fn look(&self, width: u32, height: u32, scheme: &str) {
        let devtools = |command: &str, values: Value| {
            self.call("goog/cdp/execute", &json!({ "cmd": command, "params": values }))
        };
        devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
        devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    /// Writes what the window shows to a PNG file.
    pub(crate) fn picture(&self, path: &Path) {
        let mut reply = self
            .agent
            .get(format!("{}/screenshot", self.session))
            .call()
            .expect("the driver answers");
        let answer: Value =
            reply.body_mut().with_config().limit(64 << 20).read_json().expect("JSON");
        let text = answer["value"].as_str().expect("a picture");
        fs::write(path, from_base64(text)).expect("a writable file");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A test may be failing here: whatever cannot be ended in good order is ended otherwise.
        if !self.session.is_empty() {
            let _ = self.agent.delete(&self.session).call();
        }
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// The first of some programs on the path.
fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// Bytes of standard base64; stops at the padding.
fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 0xff) as u8);
        }
    }
    bytes
}

#[test]
fn base64_is_read_back() {
    assert_eq!(from_base64("Zm9vYmE="), b"fooba");
    assert_eq!(from_base64("+//+"), [0xfb, 0xff, 0xfe]);
}
