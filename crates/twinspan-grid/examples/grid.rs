//! A grid for one minute, in a dozen lines: `cargo run -p twinspan-grid --example grid`.

use std::time::Duration;

use twinspan_grid::{Account, GridServer, GridServerConfig};
use twinspan_provider::{TimeProvider, Timer};
use twinspan_xmlrpc::login::AccountName;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    twinspan_provider::run(async |env| {
        let ruth = Account::new(AccountName::parse("Ruth Tester")?, "sesame");
        let config = GridServerConfig { accounts: vec![ruth], ..GridServerConfig::default() };
        let server = GridServer::start(env.clone(), config).await?;
        println!("log in at {} as Ruth Tester, password sesame", server.login_url());
        let mut timer = env.timer();
        timer.set(Some(env.now().after(Duration::from_secs(60))));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        server.stop("The minute is over.").await;
        Ok(())
    })?
}
