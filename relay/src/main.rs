//! The relay: passes frames between the nodes of a room, and serves the demo.
//!
//! The relay knows rooms and ids, but does not look into frames. It stores nothing: nodes that lose
//! their connection reconnect by themselves, and Raft tolerates the frames that were lost.

mod rooms;
mod socket;

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use clap::Parser;
use conflux::wire::relay::{MAX_ENVELOPE, MAX_ID};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::rooms::Rooms;

/// How long the relay waits for its sockets to close when it shuts down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The WebSocket relay of Conflux.
///
/// Nodes connect to ws://HOST:PORT/ws?room=NAME&id=ID and send binary frames to each other, through
/// rooms that do not hear of one another.
#[derive(Clone, Debug, Parser)]
#[command(version)]
struct Options {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 for any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// A page's origin that may connect, such as https://example.org, besides the relay's own.
    /// May be given several times; `*` allows all.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// The folder to serve at /, such as the built demo.
    #[arg(long, value_name = "FOLDER", default_value = "target/demo")]
    static_dir: PathBuf,
    /// How many connections there may be.
    #[arg(long, default_value_t = 1000)]
    max_connections: usize,
    /// How many bytes may wait for a socket before it is disconnected as too slow.
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    max_queue: usize,
    /// How often to ping a socket, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    ping_interval: f64,
    /// After how long a silence, pongs included, a socket is disconnected, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 45.0)]
    idle_timeout: f64,
}

/// What every connection shares.
struct Relay {
    options: Options,
    rooms: Arc<Rooms>,
    /// Becomes true when the relay shuts down.
    stopping: watch::Receiver<bool>,
}

#[derive(Deserialize)]
struct JoinQuery {
    room: Option<String>,
    id: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
    let options = Options::parse();
    let address = SocketAddr::new(options.host, options.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another --port or --host"))?;
    let address = listener.local_addr()?;
    let (stop, mut stopping) = watch::channel(false);
    let relay = Relay::new(options, stopping.clone());
    let app = app(relay.clone());
    println!("Conflux: open http://{address}/ (the relay is at ws://{address}/ws)");
    // Each frame is a complete message: send it at once instead of waiting for more data (Nagle).
    let listener = listener.tap_io(|socket| {
        // If this fails, the socket works, but slower.
        let _ = socket.set_nodelay(true);
    });
    tokio::spawn(async move {
        shutdown_signal().await;
        tracing::info!("shutting down");
        // Sending fails if the server has already ended, and then there is nothing to stop.
        let _ = stop.send(true);
    });
    let mut stopped = stopping.clone();
    let serve = axum::serve(listener, app).with_graceful_shutdown(async move {
        drop(stopped.wait_for(|stopping| *stopping).await);
    });
    let finish = async {
        serve.await?;
        // `serve` does not wait for WebSockets, which still have to send their close frames.
        while relay.rooms.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        finished = finish => finished,
        () = async {
            drop(stopping.wait_for(|stopping| *stopping).await);
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        } => Ok(()),
    }
}

fn app(relay: Arc<Relay>) -> Router {
    let folder = &relay.options.static_dir;
    if !folder.is_dir() {
        tracing::info!("no demo in {}: `cargo xtask demo` builds it", folder.display());
    }
    let files = ServeDir::new(folder);
    // The demo is rebuilt often, so a browser must ask each time whether a file has changed.
    let fresh = SetResponseHeaderLayer::overriding(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    Router::new().route("/ws", get(enter)).fallback_service(files).layer(fresh).with_state(relay)
}

/// Returns when the process gets SIGTERM or Ctrl-C.
async fn shutdown_signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    () = interrupted => {}
                    _ = terminated.recv() => {}
                }
            }
            Err(_) => interrupted.await,
        }
    }
    #[cfg(not(unix))]
    interrupted.await;
}

/// Handles a request for a WebSocket: checks the origin, the names and the limit of connections.
async fn enter(
    State(relay): State<Arc<Relay>>,
    Query(query): Query<JoinQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let refuse = |status: StatusCode, why: String| {
        tracing::info!("refused: {why}");
        (status, why).into_response()
    };
    if let Err(origin) = check_origin(&headers, &relay.options.allow_origin) {
        let why = format!(
            "the origin {origin} is not allowed: start the relay with --allow-origin {origin}"
        );
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let name = |value: Option<String>, what: &str| match value {
        Some(value) if !value.is_empty() && value.len() <= MAX_ID => Ok(value),
        Some(value) => {
            Err(format!("{what} must have 1 to {MAX_ID} bytes, and has {}", value.len()))
        }
        None => Err(format!("{what} is required: connect to /ws?room=NAME&id=ID")),
    };
    let (room, id) = match (name(query.room, "room"), name(query.id, "id")) {
        (Ok(room), Ok(id)) => (room, id),
        (Err(why), _) | (_, Err(why)) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    let Some(permit) = relay.rooms.reserve() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the relay is full".into());
    };
    let connection = relay.rooms.enter(&permit, room, id);
    upgrade
        .max_message_size(MAX_ENVELOPE)
        .max_frame_size(MAX_ENVELOPE)
        .on_upgrade(move |socket| socket::serve(relay, permit, socket, connection))
}

/// Checks the page from which a connection comes: it must be served by the relay itself or have an
/// allowed origin. Programs that are not browsers send no origin and may connect. Without this
/// check any page that a user visits could join the user's rooms.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), String> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().map_err(|_| "that is not ASCII".to_string())?;
    // An attacker can make a host name of his own resolve to this machine (DNS rebinding), so only
    // addresses and `localhost` count as the relay's own; other names need `--allow-origin`.
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = own.filter(|host| is_local_name(host));
    let is_own = origin.split_once("://").is_some_and(|(_, host)| Some(host) == own);
    if is_own || allowed.iter().any(|a| a == "*" || a == origin) {
        Ok(())
    } else {
        Err(origin.to_string())
    }
}

/// Whether a host, with or without a port, is an IP address or `localhost`.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

impl Relay {
    fn new(options: Options, stopping: watch::Receiver<bool>) -> Arc<Self> {
        let rooms = Arc::new(Rooms::new(options.max_connections, options.max_queue));
        Arc::new(Self { options, rooms, stopping })
    }

    fn ping_interval(&self) -> Duration {
        Duration::from_secs_f64(self.options.ping_interval.max(0.01))
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.options.idle_timeout.max(0.01))
    }
}
