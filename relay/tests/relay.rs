//! Tests of the relay as its users meet it: the real program and real sockets.
#![allow(missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conflux::wire::relay::{MAX_ENVELOPE, seal};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Relay {
    process: Child,
    address: String,
}

impl Relay {
    fn start(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_conflux-relay"))
            .args(["--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the relay starts");
        let mut line = String::new();
        let out = process.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        Self { address: address.expect("an address").into(), process }
    }

    async fn join(&self, room: &str, id: &str) -> Socket {
        self.try_join(&format!("room={room}&id={id}"), None).await.expect("it lets us in")
    }

    async fn try_join(&self, query: &str, origin: Option<&str>) -> Result<Socket, Error> {
        let url = format!("ws://{}/ws?{query}", self.address);
        let mut request = url.into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }

    #[cfg(unix)]
    fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = self.process.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(killed.success());
        self.process.wait().expect("it ends")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn send(socket: &mut Socket, to: Option<&str>, frame: &[u8]) {
    socket.send(Message::Binary(seal(to, frame).into())).await.expect("sent");
}

/// The next frame, or the close code and reason; the code is 0 if the socket ended without them.
async fn next(socket: &mut Socket) -> Result<Vec<u8>, (u16, String)> {
    let wait = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes.to_vec()),
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err((close.code.into(), close.reason.to_string()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return Err((0, format!("{other:?}"))),
            }
        }
    });
    wait.await.expect("the relay answers")
}

#[tokio::test]
async fn frames_go_to_one_or_to_all_others_of_a_room_and_to_no_other_room() {
    let relay = Relay::start(&[]);
    let (mut a, mut b) = (relay.join("one", "a").await, relay.join("one", "b").await);
    let (mut c, mut x) = (relay.join("one", "c").await, relay.join("two", "x").await);
    send(&mut a, None, b"to all").await;
    assert_eq!(next(&mut b).await, Ok(b"to all".to_vec()));
    assert_eq!(next(&mut c).await, Ok(b"to all".to_vec()));
    send(&mut a, Some("c"), b"to c").await;
    assert_eq!(next(&mut c).await, Ok(b"to c".to_vec()));
    send(&mut a, Some("nobody"), b"to nobody").await;
    // No other frame arrived anywhere, so the next frame that is sent is the next one received.
    send(&mut c, None, b"last").await;
    assert_eq!(next(&mut a).await, Ok(b"last".to_vec()), "nobody hears itself");
    assert_eq!(next(&mut b).await, Ok(b"last".to_vec()));
    let mut y = relay.join("two", "y").await;
    send(&mut y, None, b"hello").await;
    assert_eq!(next(&mut x).await, Ok(b"hello".to_vec()), "rooms do not hear of one another");
}

#[tokio::test]
async fn a_bad_frame_closes_its_own_socket_with_a_reason_and_no_other() {
    let relay = Relay::start(&[]);
    let mut good = relay.join("r", "good").await;
    let bad: [(Message, u16, &str); 4] = [
        (Message::text("hello"), 4400, "text"),
        (Message::binary(vec![]), 4400, "too early"),
        (Message::binary(vec![9, b'x']), 4400, "too early"),
        (Message::binary(vec![2, 0xff, 0xff, 1]), 4400, "UTF-8"),
    ];
    for (message, code, why) in bad {
        let mut socket = relay.join("r", "bad").await;
        socket.send(message).await.expect("sent");
        let (got, reason) = next(&mut socket).await.expect_err("closed");
        assert!(got == code && reason.contains(why), "{got} {reason}");
    }
    let mut socket = relay.join("r", "bad").await;
    socket.send(Message::binary(vec![0; MAX_ENVELOPE + 1])).await.expect("sent");
    assert_eq!(next(&mut socket).await.expect_err("closed").0, 1009);
    let mut other = relay.join("r", "other").await;
    send(&mut other, Some("good"), b"still here").await;
    assert_eq!(next(&mut good).await, Ok(b"still here".to_vec()));
}

#[tokio::test]
async fn random_bytes_do_not_disturb_other_sockets() {
    let relay = Relay::start(&[]);
    let mut good = relay.join("r", "good").await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200_usize {
        let mut socket = relay.join("r", "bad").await;
        let bytes: Vec<u8> = (0..round)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        socket.send(Message::binary(bytes)).await.expect("sent");
    }
    let mut other = relay.join("r", "other").await;
    send(&mut other, Some("good"), b"still here").await;
    // Some of the random messages were valid envelopes for everyone.
    while next(&mut good).await.expect("still connected") != b"still here" {}
}

#[tokio::test]
async fn a_frame_of_the_largest_size_is_passed_on() {
    let relay = Relay::start(&[]);
    let (mut a, mut b) = (relay.join("r", "a").await, relay.join("r", "b").await);
    let frame = vec![7; 1 << 20];
    send(&mut a, Some("b"), &frame).await;
    assert_eq!(next(&mut b).await, Ok(frame));
}

#[tokio::test]
async fn only_allowed_origins_can_connect() {
    let relay = Relay::start(&["--allow-origin", "https://example.org"]);
    let own = format!("http://{}", relay.address);
    for origin in [None, Some("https://example.org"), Some(own.as_str())] {
        assert!(relay.try_join("room=r&id=a", origin).await.is_ok(), "{origin:?}");
    }
    // A host name that an attacker made resolve to this machine is not the relay's own.
    let url = format!("ws://{}/ws?room=r&id=a", relay.address);
    let mut rebound = url.into_client_request().expect("a request");
    rebound.headers_mut().insert("host", "evil.example:80".parse().expect("a header"));
    rebound.headers_mut().insert("origin", "http://evil.example:80".parse().expect("a header"));
    assert!(matches!(connect_async(rebound).await, Err(Error::Http(_))));
    for origin in ["https://evil.example", "http://127.0.0.1:1", "null"] {
        let refused = relay.try_join("room=r&id=a", Some(origin)).await;
        let Err(Error::Http(response)) = refused else { panic!("{origin} came in") };
        assert_eq!(response.status(), 403);
        let body = response.body().as_deref().unwrap_or_default();
        assert!(String::from_utf8_lossy(body).contains("--allow-origin"));
    }
}

#[tokio::test]
async fn a_room_and_an_id_are_required() {
    let relay = Relay::start(&[]);
    for query in ["", "room=r", "id=a", "room=&id=a"] {
        let Err(Error::Http(response)) = relay.try_join(query, None).await else {
            panic!("`{query}` came in")
        };
        assert_eq!(response.status(), 400);
    }
}

#[tokio::test]
async fn a_slow_reader_is_disconnected_and_the_others_are_not() {
    let relay = Relay::start(&["--max-queue", "3000000"]);
    let (mut a, mut slow) = (relay.join("r", "a").await, relay.join("r", "slow").await);
    let mut fast = relay.join("r", "fast").await;
    let frame = vec![1; 1 << 20];
    // The slow client reads nothing meanwhile: first the sockets' buffers fill up, then the queue.
    for _ in 0..40 {
        send(&mut a, None, &frame).await;
        next(&mut fast).await.expect("the fast one hears everything");
    }
    let end = loop {
        match next(&mut slow).await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    // Because the buffers are full, the close frame may not arrive.
    assert!(end.0 == 4408 || end.0 == 0, "{end:?}");
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_old_one() {
    let relay = Relay::start(&[]);
    let mut old = relay.join("r", "a").await;
    let mut new = relay.join("r", "a").await;
    assert_eq!(next(&mut old).await.expect_err("closed").0, 4409);
    let mut b = relay.join("r", "b").await;
    send(&mut b, Some("a"), b"hello").await;
    assert_eq!(next(&mut new).await, Ok(b"hello".to_vec()));
}

#[tokio::test]
async fn a_silent_client_is_disconnected_and_one_that_answers_pings_is_not() {
    let relay = Relay::start(&["--ping-interval", "0.1", "--idle-timeout", "0.5"]);
    let mut alive = relay.join("r", "alive").await;
    let mut silent = relay.join("r", "silent").await;
    // A client answers pings while it reads; the silent one does not read.
    let reading = tokio::spawn(async move {
        let frame = next(&mut alive).await;
        (alive, frame)
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut other = relay.join("r", "other").await;
    send(&mut other, Some("alive"), b"hello").await;
    let (_alive, frame) = reading.await.expect("it reads");
    assert_eq!(frame, Ok(b"hello".to_vec()));
    assert_eq!(next(&mut silent).await.expect_err("closed").0, 4410);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let relay = Relay::start(&["--max-connections", "2"]);
    let (_a, b) = (relay.join("r", "a").await, relay.join("r", "b").await);
    let Err(Error::Http(response)) = relay.try_join("room=r&id=c", None).await else {
        panic!("a third came in")
    };
    assert_eq!(response.status(), 503);
    drop(b);
    for _ in 0..200 {
        if relay.try_join("room=r&id=c", None).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was never free again");
}

#[cfg(unix)]
#[tokio::test]
async fn on_sigterm_every_socket_gets_a_close_frame_and_the_relay_ends() {
    let mut relay = Relay::start(&[]);
    let mut reading = Vec::new();
    for i in 0..100 {
        let mut socket = relay.join("r", &format!("{i}")).await;
        reading.push(tokio::spawn(async move { next(&mut socket).await }));
    }
    // A connection that sends nothing must not keep the relay from ending.
    let _half = TcpStream::connect(&relay.address).await.expect("a connection");
    let status = tokio::task::spawn_blocking(move || relay.terminate()).await.expect("it ends");
    assert!(status.success(), "{status}");
    for reading in reading {
        assert_eq!(reading.await.expect("it reads").expect_err("closed").0, 1001);
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_disconnected_after_the_idle_timeout() {
    let relay = Relay::start(&["--idle-timeout", "0.5", "--max-queue", "1000000000"]);
    let mut blocked = relay.join("r", "blocked").await;
    let mut a = relay.join("r", "a").await;
    for _ in 0..60 {
        send(&mut a, Some("blocked"), &vec![1; 1 << 20]).await;
    }
    // After the idle timeout the relay has dropped the socket, and the rest of the frames with it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut heard = 0;
    while next(&mut blocked).await.is_ok() {
        heard += 1;
    }
    assert!(heard < 60, "it was dropped in the middle");
}

#[test]
fn help_names_every_option() {
    let help = Command::new(env!("CARGO_BIN_EXE_conflux-relay")).arg("--help").output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    for option in ["--host", "--port", "--allow-origin", "--static-dir", "--idle-timeout"] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn a_port_in_use_gives_a_clear_error_message() {
    let relay = Relay::start(&[]);
    let port = relay.address.rsplit(':').next().expect("a port");
    let second = Command::new(env!("CARGO_BIN_EXE_conflux-relay")).args(["--port", port]).output();
    let second = second.expect("it runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("choose another --port"), "{said}");
}
