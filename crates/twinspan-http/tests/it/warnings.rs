//! What is said where certificates are not checked.

use std::sync::Mutex;
use std::thread::{self, ThreadId};

use twinspan_http::{ClientConfig, HttpClient, Trust};

/// Keeps what each thread was warned of: tests run side by side.
struct Keeper(Mutex<Vec<(ThreadId, String)>>);

static KEEPER: Keeper = Keeper(Mutex::new(Vec::new()));

impl log::Log for Keeper {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        let warning = (thread::current().id(), record.args().to_string());
        self.0.lock().unwrap().push(warning);
    }

    fn flush(&self) {}
}

fn warned() -> Vec<String> {
    let all = KEEPER.0.lock().unwrap();
    let mine = all.iter().filter(|(thread, _)| *thread == thread::current().id());
    mine.map(|(_, text)| text.clone()).collect()
}

#[test]
fn each_client_that_checks_no_certificates_says_so_once() {
    // Nobody else in this program sets one.
    log::set_logger(&KEEPER).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    twinspan_provider::run(async |env| {
        let client = HttpClient::new(env.clone(), ClientConfig::default()).unwrap();
        assert_eq!(warned(), Vec::<String>::new());
        drop(client);
        let config = ClientConfig { trust: Trust::without_checks(), ..ClientConfig::default() };
        let one = HttpClient::new(env.clone(), config.clone()).unwrap();
        // Its clones are the same client.
        let _same = one.clone();
        assert_eq!(warned().len(), 1);
        assert!(warned()[0].contains("certificates are NOT checked"), "{:?}", warned());
        let _other = HttpClient::new(env, config).unwrap();
        assert_eq!(warned().len(), 2);
    })
    .unwrap();
}
