//! Checks the options of `conflux({...})`. This module is pure: JavaScript values arrive as
//! [`Value`]s.

use std::fmt;

use super::types::{Kind, Settings};
use crate::formation::Plan;
use crate::node::Durability;
use crate::raft::Time;
use crate::sorted::{SortedMap, SortedSet};
use crate::store::{self, Failure};
use crate::wire::relay::MAX_ID;

/// The names of the channels.
pub const CHANNELS: [&str; 6] =
    ["memory", "broadcast", "websocket", "redis", "socket.io", "custom"];
/// How many members a cluster can have.
const MAX_MEMBERS: u8 = 63;
/// How long the leader of an elastic cluster may be silent towards a follower that has its whole
/// log, in ms.
const QUIESCE_INTERVAL: Time = 10_000;
/// The longest time in an option, in ms: a day.
const MAX_TIME: f64 = 86_400_000.0;

/// A JavaScript value in the options. Other kinds of values (functions, for example) count as
/// missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `undefined`, `null`, or a missing property.
    #[default]
    Nothing,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(SortedMap<String, Value>),
}

/// Checked options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings of the host.
    pub settings: Settings,
    /// The name under which the nodes find each other on the channel.
    pub room: String,
}

/// Checks the options.
///
/// # Errors
/// With the code `INVALID_OPTIONS`. The message names the option and says that it `is required`, or
/// what it must be and what it is. An elastic cluster with `storage: "memory"` gets the code
/// `UNSUPPORTED`.
pub fn parse(value: &Value) -> Result<Options, Failure> {
    let Value::Object(options) = value else {
        return Err(invalid(format!("conflux() wants an object of options, and got {value}")));
    };
    if let (Value::Nothing, Value::Nothing) = (get(options, "clusterSize"), get(options, "members"))
        && let Value::Object(channel) = get(options, "channel")
        && *get(channel, "name") == Value::Text("broadcast".into())
    {
        return elastic(options);
    }
    let id = text(options, "id")?;
    if id.is_empty() || id.len() > MAX_ID {
        let length = id.len();
        return Err(invalid(format!(
            "`id` must be a string of 1 to {MAX_ID} bytes, and has {length}"
        )));
    }
    let plan = plan(options, &id)?;
    let room = channel(options)?;
    let cluster = match get(options, "cluster") {
        Value::Nothing => room.clone(),
        _ => text(options, "cluster")?,
    };
    let durability = storage(options)?;
    let (heartbeat_interval, election_timeout, store) = common(options)?;
    let kind = Kind::Fixed { id, plan };
    let quiesce_interval = None;
    let settings = Settings {
        cluster,
        kind,
        election_timeout,
        heartbeat_interval,
        quiesce_interval,
        store,
        durability,
    };
    Ok(Options { settings, room })
}

/// The options that both kinds of cluster have: heartbeat interval, election timeout and the
/// store's.
fn common(
    options: &SortedMap<String, Value>,
) -> Result<(Time, (Time, Time), store::Config), Failure> {
    let heartbeat = number(options, "heartbeatInterval", 50.0, (1.0, MAX_TIME))?;
    let election_timeout = election_timeout(options, heartbeat)?;
    let most = (1.0, f64::from(1 << 28));
    let max_action_bytes = number(options, "maxActionBytes", f64::from(1 << 20), most)?;
    let version = number(options, "version", 1.0, (1.0, f64::from(u32::MAX)))?;
    let store = store::Config {
        max_action_bytes: max_action_bytes as usize,
        retry: election_timeout.0,
        version: version as u32,
        ..store::Config::default()
    };
    Ok((heartbeat, election_timeout, store))
}

/// The options of an elastic cluster.
fn elastic(options: &SortedMap<String, Value>) -> Result<Options, Failure> {
    let cluster = text(options, "cluster")?;
    if cluster.is_empty() || cluster.len() > MAX_ID {
        let length = cluster.len();
        return Err(invalid(format!(
            "`cluster` must be a name of 1 to {MAX_ID} bytes, and has {length}"
        )));
    }
    if *get(options, "id") != Value::Nothing {
        return Err(invalid(
            "`id` is for clusters with a `clusterSize`: without one, nodes outlive tabs and have \
             ids of their own"
                .into(),
        ));
    }
    match get(options, "storage") {
        Value::Nothing => {}
        Value::Text(name) if name == "indexeddb" => {}
        Value::Text(name) if name == "memory" => {
            return Err(Failure::new(
                "UNSUPPORTED",
                "a cluster without `clusterSize` keeps its state in IndexedDB, because its nodes \
                 outlive their tabs: leave `storage` out, or give a `clusterSize`",
            ));
        }
        other => return Err(wanted("storage", "\"indexeddb\"", other)),
    }
    durability(options)?;
    let (heartbeat_interval, election_timeout, store) = common(options)?;
    let max_voters = number(options, "maxVoters", 5.0, (1.0, 15.0))? as usize;
    let room = channel(options)?;
    // Locks tell which tabs live, so a leader need not send heartbeats when there is nothing to do.
    let quiesce_interval = Some(QUIESCE_INTERVAL.max(heartbeat_interval));
    let settings = Settings {
        cluster,
        kind: Kind::Elastic { max_voters },
        election_timeout,
        heartbeat_interval,
        quiesce_interval,
        store,
        durability: Durability::Durable,
    };
    Ok(Options { settings, room })
}

fn plan(options: &SortedMap<String, Value>, id: &str) -> Result<Plan, Failure> {
    match (get(options, "clusterSize"), get(options, "members")) {
        (Value::Nothing, Value::Nothing) => Err(required("clusterSize")),
        (Value::Number(size), Value::Nothing)
            if size.fract() == 0.0 && (1.0..=f64::from(MAX_MEMBERS)).contains(size) =>
        {
            Ok(Plan::Size(*size as usize))
        }
        (other, Value::Nothing) => {
            Err(wanted("clusterSize", &format!("a whole number from 1 to {MAX_MEMBERS}"), other))
        }
        (size, Value::List(list)) => {
            let ids: Option<Vec<&String>> = list
                .iter()
                .map(|value| match value {
                    Value::Text(id) if !id.is_empty() && id.len() <= MAX_ID => Some(id),
                    _ => None,
                })
                .collect();
            let ids =
                ids.ok_or_else(|| wanted("members", "a list of ids", get(options, "members")))?;
            let set: SortedSet<String> = ids.iter().map(ToString::to_string).collect();
            if set.len() != ids.len() || set.is_empty() || set.len() > MAX_MEMBERS.into() {
                return Err(invalid(format!(
                    "`members` must be 1 to {MAX_MEMBERS} ids, each once, and has {} with {} \
                     different ones",
                    ids.len(),
                    set.len()
                )));
            }
            if !set.contains(id) {
                return Err(invalid(format!("`members` must contain this node's id, `{id}`")));
            }
            match size {
                Value::Nothing => Ok(Plan::Ids(set)),
                Value::Number(n) if *n == set.len() as f64 => Ok(Plan::Ids(set)),
                other => Err(wanted(
                    "clusterSize",
                    &format!("the number of `members`, {}, or nothing", set.len()),
                    other,
                )),
            }
        }
        (_, other) => Err(wanted("members", "a list of ids", other)),
    }
}

/// Checks the options of the channel. Returns the name under which its nodes find each other.
fn channel(options: &SortedMap<String, Value>) -> Result<String, Failure> {
    let channel = match get(options, "channel") {
        Value::Object(channel) => channel,
        Value::Nothing => return Err(required("channel")),
        other => return Err(wanted("channel", "an object with a name", other)),
    };
    let name = || -> Result<String, Failure> {
        match get(channel, "channel") {
            Value::Nothing => Err(required("channel.channel")),
            Value::Text(name) if !name.is_empty() => Ok(name.clone()),
            other => Err(wanted("channel.channel", "a name that is not empty", other)),
        }
    };
    match get(channel, "name") {
        Value::Nothing => Err(required("channel.name")),
        Value::Text(kind) => match kind.as_str() {
            "memory" if *get(channel, "channel") == Value::Nothing => Ok("default".into()),
            "memory" => name(),
            "broadcast" => match (get(channel, "channel"), get(options, "cluster")) {
                // Without a channel name the name of the cluster serves.
                (Value::Nothing, Value::Text(cluster)) => Ok(cluster.clone()),
                _ => name(),
            },
            "websocket" => websocket(channel),
            "redis" => match get(channel, "channelName") {
                // The original's first example leaves it out, too.
                Value::Nothing => Ok("conflux".into()),
                _ => part(channel, "channelName", "a name that is not empty"),
            },
            "socket.io" => {
                let host = part(channel, "host", "an address like http://localhost:9000")?;
                if !host.starts_with("http://") && !host.starts_with("https://") {
                    return Err(invalid(format!(
                        "`channel.host` must begin with http:// or https://, and is \"{host}\""
                    )));
                }
                part(channel, "channel", "a name that is not empty")
            }
            "custom" => Ok("custom".into()),
            other => Err(invalid(format!(
                "`channel.name` must be one of {}, and is \"{other}\"",
                CHANNELS.join(", ")
            ))),
        },
        other => Err(wanted("channel.name", &format!("one of {}", CHANNELS.join(", ")), other)),
    }
}

/// An option of the channel that must be a text that is not empty.
fn part(channel: &SortedMap<String, Value>, key: &str, wish: &str) -> Result<String, Failure> {
    match get(channel, key) {
        Value::Nothing => Err(required(&format!("channel.{key}"))),
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        other => Err(wanted(&format!("channel.{key}"), wish, other)),
    }
}

fn websocket(channel: &SortedMap<String, Value>) -> Result<String, Failure> {
    let url = part(channel, "url", "an address like ws://host:port/ws")?;
    if !url.starts_with("ws://") && !url.starts_with("wss://") {
        return Err(invalid(format!(
            "`channel.url` must begin with ws:// or wss://, and is \"{url}\""
        )));
    }
    let room = part(channel, "room", "a name that is not empty")?;
    if room.len() > MAX_ID {
        return Err(invalid(format!("`channel.room` must be at most {MAX_ID} bytes")));
    }
    Ok(room)
}

/// Checks the storage of a node of a fixed cluster: memory, or a file. The path of the file is used
/// by the shell, not here.
fn storage(options: &SortedMap<String, Value>) -> Result<Durability, Failure> {
    durability(options)?;
    let wish = "\"memory\" or {name: \"file\", path} in a cluster with a `clusterSize`";
    match get(options, "storage") {
        Value::Nothing => Ok(Durability::Volatile),
        Value::Text(name) if name == "memory" => Ok(Durability::Volatile),
        Value::Object(storage) => match (get(storage, "name"), get(storage, "path")) {
            (Value::Nothing, _) => Err(required("storage.name")),
            (Value::Text(name), Value::Nothing) if name == "file" => Err(required("storage.path")),
            (Value::Text(name), Value::Text(path)) if name == "file" && !path.is_empty() => {
                Ok(Durability::Durable)
            }
            (Value::Text(name), other) if name == "file" => {
                Err(wanted("storage.path", "the path of a folder", other))
            }
            (other, _) => Err(wanted("storage.name", "\"file\"", other)),
        },
        other => Err(wanted("storage", wish, other)),
    }
}

/// Checks when storage may report a write as done: `strict` or `relaxed`. The shell uses the value.
fn durability(options: &SortedMap<String, Value>) -> Result<(), Failure> {
    match get(options, "durability") {
        Value::Nothing => Ok(()),
        Value::Text(name) if name == "strict" || name == "relaxed" => Ok(()),
        other => Err(wanted("durability", "\"strict\" or \"relaxed\"", other)),
    }
}

fn election_timeout(
    options: &SortedMap<String, Value>,
    heartbeat: Time,
) -> Result<(Time, Time), Failure> {
    let (min, max) = match get(options, "electionTimeout") {
        Value::Nothing => (300.max(heartbeat * 6), 500.max(heartbeat * 10)),
        Value::Object(range) => {
            let (low, high) = (get(range, "min"), get(range, "max"));
            let wish = "a number of milliseconds";
            match (low, high) {
                (Value::Nothing, _) => return Err(required("electionTimeout.min")),
                (_, Value::Nothing) => return Err(required("electionTimeout.max")),
                (Value::Number(min), Value::Number(max)) if is_time(*min) && is_time(*max) => {
                    (*min as Time, *max as Time)
                }
                (Value::Number(min), other) if is_time(*min) => {
                    return Err(wanted("electionTimeout.max", wish, other));
                }
                (other, _) => return Err(wanted("electionTimeout.min", wish, other)),
            }
        }
        other => return Err(wanted("electionTimeout", "an object with min and max", other)),
    };
    if min > max {
        return Err(invalid(format!(
            "`electionTimeout.min` ({min}) must not be greater than `electionTimeout.max` ({max})"
        )));
    }
    if min <= heartbeat {
        return Err(invalid(format!(
            "`electionTimeout.min` ({min}) must be greater than `heartbeatInterval` ({heartbeat}), \
             or no leader lasts"
        )));
    }
    Ok((min, max))
}

fn is_time(number: f64) -> bool {
    (1.0..=MAX_TIME).contains(&number)
}

fn number(
    options: &SortedMap<String, Value>,
    name: &str,
    default: f64,
    (min, max): (f64, f64),
) -> Result<Time, Failure> {
    match get(options, name) {
        Value::Nothing => Ok(default as Time),
        Value::Number(number) if (min..=max).contains(number) => Ok(*number as Time),
        other => {
            Err(wanted(name, &format!("a number from {} to {}", min as u64, max as u64), other))
        }
    }
}

fn text(options: &SortedMap<String, Value>, name: &str) -> Result<String, Failure> {
    match get(options, name) {
        Value::Nothing => Err(required(name)),
        Value::Text(text) => Ok(text.clone()),
        other => Err(wanted(name, "a string", other)),
    }
}

fn get<'a>(options: &'a SortedMap<String, Value>, name: &str) -> &'a Value {
    options.get(name).unwrap_or(&Value::Nothing)
}

fn required(name: &str) -> Failure {
    invalid(format!("`{name}` is required"))
}

fn wanted(name: &str, wish: &str, got: &Value) -> Failure {
    invalid(format!("`{name}` must be {wish}, and is {got}"))
}

fn invalid(message: String) -> Failure {
    Failure::new("INVALID_OPTIONS", format!("Invalid options: {message}"))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write_number(*value, f),
            Self::Text(value) if value.chars().count() > 40 => {
                write!(f, "\"{}…\"", value.chars().take(40).collect::<String>())
            }
            Self::Text(value) => write!(f, "\"{value}\""),
            Self::List(value) => write!(f, "a list of {}", value.len()),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

/// Writes a number with up to three decimals. The standard library's code for this would take more
/// bytes of wasm than all other code of this file.
fn write_number(number: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if number.is_nan() {
        return f.write_str("NaN");
    }
    if number.abs() > 1e15 {
        return f.write_str(if number > 0.0 { "a huge number" } else { "a huge negative number" });
    }
    let thousandths = (number.abs() * 1000.0 + 0.5) as u64;
    if number < 0.0 {
        f.write_str("-")?;
    }
    write!(f, "{}", thousandths / 1000)?;
    match thousandths % 1000 {
        0 => Ok(()),
        rest if rest % 100 == 0 => write!(f, ".{}", rest / 100),
        rest if rest % 10 == 0 => write!(f, ".{:02}", rest / 10),
        rest => write!(f, ".{rest:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn object(pairs: &[(&str, Value)]) -> Value {
        Value::Object(pairs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect())
    }

    fn good() -> Vec<(&'static str, Value)> {
        let channel = object(&[("name", text("memory"))]);
        vec![("id", text("a")), ("clusterSize", Value::Number(3.0)), ("channel", channel)]
    }

    fn with(key: &'static str, value: Value) -> Result<Options, String> {
        let mut options = good();
        options.retain(|(k, _)| *k != key);
        options.push((key, value));
        parse(&object(&options)).map_err(|failure| failure.message)
    }

    fn planned(options: Options) -> Plan {
        match options.settings.kind {
            Kind::Fixed { plan, .. } => plan,
            Kind::Elastic { .. } => panic!("it has a size"),
        }
    }

    #[test]
    fn without_a_size_the_cluster_is_elastic() {
        let broadcast = object(&[("name", text("broadcast"))]);
        let mut options = vec![("channel", broadcast), ("cluster", text("todo"))];
        let parsed = parse(&object(&options)).expect("good options");
        let Kind::Elastic { max_voters } = parsed.settings.kind else { panic!("it has no size") };
        assert_eq!((parsed.settings.cluster.as_str(), max_voters), ("todo", 5));
        assert_eq!(parsed.room, "todo");
        let mut bad = |key, value, expected: &str| {
            options.push((key, value));
            let failure = parse(&object(&options)).map(|_| ()).expect_err("wrong");
            assert!(failure.message.contains(expected), "{failure}");
            options.pop();
            failure.code
        };
        assert_eq!(bad("storage", text("memory"), "leave `storage` out"), "UNSUPPORTED");
        bad("id", text("me"), "`id` is for clusters with a `clusterSize`");
        bad("durability", text("lax"), "must be \"strict\" or \"relaxed\"");
        bad("maxVoters", Value::Number(0.0), "`maxVoters` must be a number from 1");
        bad("cluster", text(""), "`cluster` must be a name of 1 to");
        bad("cluster", Value::Nothing, "`cluster` is required");
    }

    fn error(key: &'static str, value: Value) -> String {
        with(key, value).map(|_| ()).expect_err("a wrong option")
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let options = parse(&object(&good())).expect("good options");
        assert_eq!(options.settings.election_timeout, (300, 500));
        assert_eq!(options.settings.heartbeat_interval, 50);
        assert_eq!(planned(options), Plan::Size(3));
    }

    #[test]
    fn a_missing_option_is_named() {
        for key in ["id", "clusterSize", "channel"] {
            let message = error(key, Value::Nothing);
            assert_eq!(message, format!("Invalid options: `{key}` is required"));
        }
        let websocket = |url: Value| object(&[("name", text("websocket")), ("url", url)]);
        assert!(error("channel", websocket(Value::Nothing)).contains("`channel.url` is required"));
        let url = text("ws://localhost/ws");
        assert!(error("channel", websocket(url)).contains("`channel.room` is required"));
        let broadcast = object(&[("name", text("broadcast"))]);
        assert!(error("channel", broadcast).contains("`channel.channel` is required"));
    }

    #[test]
    fn a_wrong_option_is_reported_with_what_it_must_be_and_what_it_is() {
        let cases = [
            ("id", Value::Number(4.0), "`id` must be a string, and is 4"),
            (
                "clusterSize",
                text("3"),
                "`clusterSize` must be a whole number from 1 to 63, and is \"3\"",
            ),
            ("clusterSize", Value::Number(2.5), "and is 2.5"),
            ("channel", text("redis"), "`channel` must be an object with a name, and is \"redis\""),
            (
                "heartbeatInterval",
                Value::Number(0.0),
                "`heartbeatInterval` must be a number from 1",
            ),
            ("heartbeatInterval", Value::Number(f64::NAN), "and is NaN"),
            ("electionTimeout", Value::Bool(true), "an object with min and max, and is true"),
            ("members", Value::List(vec![text("b")]), "must contain this node's id, `a`"),
            ("storage", text("indexeddb"), "`storage` must be \"memory\""),
            ("storage", object(&[("name", text("tape"))]), "must be \"file\", and is \"tape\""),
            ("storage", object(&[("name", text("file"))]), "`storage.path` is required"),
            ("durability", text("some"), "\"strict\" or \"relaxed\", and is \"some\""),
            ("maxActionBytes", Value::Number(-1.0), "`maxActionBytes` must be a number from 1"),
        ];
        for (key, value, expected) in cases {
            let message = error(key, value);
            assert!(message.contains(expected), "{message} should say {expected}");
        }
        let unknown = object(&[("name", text("carrier pigeon"))]);
        let message = error("channel", unknown);
        assert!(
            message.contains("one of memory, broadcast, websocket, redis, socket.io, custom"),
            "{message}"
        );
        let swapped = object(&[("min", Value::Number(500.0)), ("max", Value::Number(300.0))]);
        assert!(error("electionTimeout", swapped).contains("must not be greater"));
        let short = object(&[("min", Value::Number(20.0)), ("max", Value::Number(30.0))]);
        assert!(error("electionTimeout", short).contains("greater than `heartbeatInterval` (50)"));
    }

    #[test]
    fn numbers_are_written_with_up_to_three_decimals() {
        let said =
            [3.0, 0.0, -1.0, 2.5, -0.25, 1.0 / 3.0, 86_400_000.0, 1e15, f64::NAN, 1e16, -1e300];
        let said: Vec<_> = said.iter().map(|n| Value::Number(*n).to_string()).collect();
        let expected = "3 0 -1 2.5 -0.25 0.333 86400000 1000000000000000 NaN";
        assert_eq!(said[..9].join(" "), expected);
        assert_eq!(said[9..], ["a huge number", "a huge negative number"]);
    }

    #[test]
    fn members_may_replace_the_cluster_size() {
        let list = Value::List(vec![text("b"), text("a")]);
        let mut options = good();
        options.retain(|(key, _)| *key != "clusterSize");
        options.push(("members", list.clone()));
        let parsed = parse(&object(&options)).expect("good options");
        assert_eq!(planned(parsed).size(), 2);
        assert!(error("members", list).contains("the number of `members`, 2"));
    }
}
