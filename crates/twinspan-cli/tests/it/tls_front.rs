//! A door with TLS before a grid that has none.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use twinspan_provider::{NetworkProvider, TcpListener, TcpOptions, TokioEnv, run};
use twinspan_viewer::http::{
    ClientConfig, HttpClient, Request, ServerConfig, ServerRequest, ServerResponse, ServerTls,
    Service, StatusCode, Url, header, serve,
};

/// Who signed the door's certificate, which is for 127.0.0.1.
pub(crate) const AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../twinspan-http/tests/it/certificates/ca.pem");
const CERTIFICATE: &[u8] =
    include_bytes!("../../../twinspan-http/tests/it/certificates/server.pem");
const KEY: &[u8] = include_bytes!("../../../twinspan-http/tests/it/certificates/server.key");

/// Hands every request on.
struct Door {
    http: HttpClient<TokioEnv>,
    behind: Url,
}

impl Service for Door {
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        let mut url = self.behind.clone();
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        url.set_path(path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let mut onward = Request::new(request.method, url);
        onward.body = request.body;
        let kind = request.headers.get(header::CONTENT_TYPE).cloned();
        onward.headers.extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
        match self.http.send(onward).await {
            Ok(answer) => {
                let kind = answer.content_type().unwrap_or("text/plain").to_owned();
                ServerResponse::new(answer.status, &kind, answer.body)
            }
            Err(_) => ServerResponse::status(StatusCode::BAD_GATEWAY),
        }
    }
}

/// The door at work on a thread of its own; it closes with this.
pub(crate) struct TlsFront {
    address: SocketAddr,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// Opens a door before what is at `behind`.
    pub(crate) fn open(behind: &str) -> Self {
        let behind: Url = behind.parse().unwrap();
        let (close, closed) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let work = |env: TokioEnv| async move {
                let local = SocketAddr::from(([127, 0, 0, 1], 0));
                let listener = env.listen(local, &TcpOptions::default()).await.unwrap();
                tell.send(listener.local_addr()).unwrap();
                let http = HttpClient::new(env.clone(), ClientConfig::default()).unwrap();
                let tls = Some(ServerTls::from_pem(CERTIFICATE, KEY).unwrap());
                let config = ServerConfig { tls, ..ServerConfig::default() };
                tokio::select! {
                    served = serve(env, listener, Rc::new(Door { http, behind }), config) => {
                        panic!("the door does not stay open: {served:?}");
                    }
                    // Nobody sends anything: the other end goes.
                    _ = closed => {}
                }
            };
            run(work).unwrap();
        });
        Self { address: told.recv().unwrap(), close: Some(close), thread: Some(thread) }
    }

    /// What is behind it, by TLS.
    pub(crate) fn uri(&self) -> String {
        format!("https://{}/", self.address)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.close = None;
        if let Some(thread) = self.thread.take() {
            // A thread that failed has said so.
            let _ = thread.join();
        }
    }
}
