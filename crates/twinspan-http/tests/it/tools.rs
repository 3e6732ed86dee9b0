//! What the tests share: servers, raw peers, both worlds.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_http::{
    ClientConfig, HttpClient, Request, ServerConfig, ServerRequest, ServerResponse, Service,
    StatusCode, Url, serve,
};
use twinspan_provider::{
    AsyncReadExt, Env, TcpListener, TcpOptions, TcpStream, TimeProvider, Timer,
};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Runs the same application in the simulator and on this machine, and compares what they end with.
macro_rules! in_both_worlds {
    ($application:expr) => {{
        let simulated = twinspan_sim::run(7, $application).unwrap();
        let real = twinspan_provider::run($application).unwrap();
        assert_eq!(simulated, real, "simulated, and on this machine");
        simulated
    }};
}
pub(crate) use in_both_worlds;

/// Any free port of the node itself.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn url(scheme: &str, address: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("{scheme}://{address}{path}")).unwrap()
}

pub(crate) fn client<E: Env>(env: &E) -> HttpClient<E> {
    HttpClient::new(env.clone(), ClientConfig::default()).unwrap()
}

/// The text of what comes back.
pub(crate) async fn get<E: Env>(client: &HttpClient<E>, url: Url) -> String {
    let response = client.send(Request::get(url)).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    String::from_utf8(response.body.to_vec()).unwrap()
}

/// Waits.
pub(crate) async fn pass<E: TimeProvider>(env: &E, time: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(time)));
    std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// A service that tells what it was asked, and does what its path says.
pub(crate) struct Mirror<E> {
    pub(crate) env: E,
    /// Who asked, and for what.
    pub(crate) seen: RefCell<Vec<(SocketAddr, String)>>,
}

impl<E> Mirror<E> {
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        self.seen.borrow().iter().map(|(peer, _)| *peer).collect()
    }
}

impl<E: Env> Service for Mirror<E> {
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        self.seen.borrow_mut().push((request.peer, request.path.clone()));
        let ServerRequest { method, path, headers, body, .. } = request;
        if let Some(size) = path.strip_prefix("/large/") {
            let size = size.parse().unwrap();
            return ServerResponse::new(StatusCode::OK, "application/x", vec![b'x'; size]);
        }
        if let Some(wait) = path.strip_prefix("/slow/") {
            pass(&self.env, MS * wait.parse().unwrap()).await;
        }
        if path == "/none" {
            return ServerResponse::status(StatusCode::NO_CONTENT);
        }
        let host = headers.get("host").map_or("", |value| value.to_str().unwrap());
        let agent = headers.get("user-agent").map_or("", |value| value.to_str().unwrap());
        let agent = agent.split('/').next().unwrap();
        let host = host.split(':').next().unwrap();
        let body = String::from_utf8_lossy(&body);
        let text = format!("{method} {path} of {host} by {agent}: {body}");
        ServerResponse::new(StatusCode::OK, "text/plain; charset=utf-8", text)
    }
}

/// A server at work; it ends when this is dropped.
pub(crate) struct Server<E: Env> {
    pub(crate) address: SocketAddr,
    pub(crate) mirror: Rc<Mirror<E>>,
    _task: E::Task,
}

pub(crate) async fn start<E: Env>(env: &E, local: SocketAddr, config: ServerConfig) -> Server<E> {
    let listener = env.listen(local, &TcpOptions::default()).await.unwrap();
    let address = listener.local_addr();
    let mirror = Rc::new(Mirror { env: env.clone(), seen: RefCell::default() });
    let serving = serve(env.clone(), listener, Rc::clone(&mirror), config);
    let task = env.spawn("server", async move {
        let _ = serving.await;
    });
    Server { address, mirror, _task: task }
}

/// A peer that does with each connection what `with` says; it ends when the task is dropped.
pub(crate) async fn raw<E, F, R>(env: &E, with: F) -> (SocketAddr, E::Task)
where
    E: Env,
    F: Fn(usize, E::Tcp) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let mut listener = env.listen(loopback(), &TcpOptions::default()).await.unwrap();
    let address = listener.local_addr();
    let inner = env.clone();
    let task = env.spawn("raw", async move {
        let mut tasks = Vec::new();
        while let Ok(stream) = listener.accept().await {
            tasks.push(inner.spawn("raw connection", with(tasks.len(), stream)));
        }
    });
    (address, task)
}

/// Reads up to an empty line.
pub(crate) async fn head(stream: &mut impl TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            break;
        }
        text.extend(byte);
    }
    String::from_utf8_lossy(&text).into_owned()
}
