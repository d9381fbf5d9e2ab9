/** A value that JSON can carry. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined }

/** The action that a method returns: what is left of its return type without nothing and Errors. */
type Returned<R> = Exclude<R, Error | null | undefined | void>

// Declared with method syntax, so that methods with any parameters are accepted. `perform` checks the arguments.
type Method = { method(...args: unknown[]): unknown }['method']

/**
 * The methods of a node: action creators that run on the leader, with `this` bound to the leader's node. A method
 * that uses `this` must declare its type: `append(this: Node<string[]>, word: string)`.
 */
export type Methods = { [name: string]: Method }

/**
 * An error that a call throws, that a perform or a read rejects with, or that an `error` event reports. `code` is
 * stable; `message` is for people and may change.
 *
 * A perform rejects with:
 *
 * - `TIMEOUT`: the perform's timeout passed. The action may still be committed, at most once.
 * - `CLOSED`: the node is closed. A perform that was pending when the node was closed may still take effect.
 * - `BUSY`: too many bytes of performs are pending on this node, or too many bytes of actions are uncommitted on
 *   the leader. The action was not appended.
 * - `TOO_LARGE`: the arguments or the action exceed `maxActionBytes`, or the method's name exceeds 1 KiB.
 * - `NOT_JSON`: JSON cannot carry the arguments or the action. The message names the path of the value.
 * - `UNKNOWN_METHOD`: the leader has no method of this name.
 * - `ASYNC_METHOD`: the method returned a Promise.
 * - `METHOD_FAILED`: the method returned or threw an error that has no `code` of its own. If the error has one, the
 *   perform rejects with that code.
 * - `REDUCER_FAILED`: the reducer threw, or returned nothing or a Promise. The action was not appended.
 * - `OUTCOME_UNKNOWN`: the cluster closed this node's session while the node was away, or ended and was founded anew,
 *   or three leaders in a row fell silent over this perform (its method may loop). It may have taken effect: look at
 *   the state first.
 * - `OUTDATED`: the cluster runs a newer version of the application (see the `version` option). The method did not run
 *   and will not: load the newer version.
 * - The code with which the node stopped, if it did (below).
 *
 * `conflux()` throws `INVALID_OPTIONS`, `UNSUPPORTED` (this platform or this kind of cluster lacks what an option
 * needs), `MISSING_PEER` (the channel's npm package is not installed, or too old), `CANNOT_LOAD` (the WebAssembly module cannot be
 * loaded), `CRASHED` (a node of this page or process has crashed, below), `NOT_JSON` or `REDUCER_FAILED` (both for the first state). Calls with wrong arguments fail with
 * `INVALID_ARGUMENT`.
 *
 * An `error` event that stops the node (`status().phase` is then `refused`):
 *
 * - `CLUSTER_FULL`: the cluster already has all its members.
 * - `NOT_A_MEMBER`: this node's id is not among the cluster's `members`. With the node still running, the event
 *   reports another node on the channel that is not among `members`, and that is ignored.
 * - `DUPLICATE_ID`: a living member of the cluster has this node's id. While the cluster forms, the event reports
 *   that another node on the channel has this node's id, and the node keeps running.
 * - `REPLACED`: another start of this node took its place while it was taken for dead.
 * - `DESTROYED`: another tab called `destroy()`.
 * - `STORAGE_LOST`: what the node had stored was deleted while it ran.
 * - `STORAGE_FAILED`: storage cannot be read or written, for example because the disk is full.
 * - `STORAGE_LOCKED`: another node is using the folder.
 * - `STORAGE_TAKEN`: another process took over the folder while the node ran.
 * - `STORAGE_CORRUPT`: the stored log is damaged.
 * - `STORAGE_MISMATCH`: the folder belongs to another node or cluster.
 * - `CRASHED`: the WebAssembly module has crashed, which is a bug of Conflux or a stack that was full. All nodes of the
 *   page or process end, because they share its memory, and the others take over. Reload the page, or start the process
 *   anew; what is stored is kept. `cause` is what was thrown: please report it.
 *
 * An `error` event after which the node keeps running:
 *
 * - `STORAGE_BLOCKED`: the browser's storage has not answered for three seconds, perhaps because another tab stands
 *   still. The node waits.
 * - `AMNESIA`: this node lost its memory, and there is no majority of the other members that could take it in again.
 *   The node waits for one.
 * - `SIZE_MISMATCH`: another node on the channel has another `clusterSize`.
 * - `OTHER_CLUSTER`: frames of another cluster arrive on the channel, and are ignored.
 * - `VERSION`: frames of another version of Conflux arrive, and are ignored.
 * - `BAD_FRAME`: malformed frames arrive, and are ignored.
 * - `BAD_MESSAGE`: a member sent a message that cannot be right. It is ignored.
 * - `DIVERGED`: this node's state may differ from the others'. A `divergence` event says more. The node compares its
 *   state with the others' and takes over theirs if it is wrong. If that happens again soon, the node stops taking part:
 *   its performs and reads fail with this code.
 * - `CANNOT_SAVE`: the state cannot be saved as a snapshot, so the log keeps growing. If it is the first state, performs
 *   and reads fail with this code.
 * - `CANNOT_LOAD`: the cluster's state cannot be loaded. Performs and reads fail with this code.
 * - `MIGRATION_FAILED`: `migrate` failed, or the reducer failed on an action of the older version that nobody else could
 *   compute. The cluster stays at its version, and performs and reads of this node fail with this code.
 * - `RELAY`: the relay closed the connection, for the reason in the message. The node connects again by itself.
 * - `REDIS`, `SOCKET_IO`: the server cannot be reached. The node tries again by itself.
 * - `CHANNEL_FAILED`: a function of a custom channel threw or rejected, which counts as a lost frame.
 */
export interface ConfluxError extends Error {
  /** One of the codes above, or the `code` of an error that a method or the reducer threw. */
  code: string
}

/** Between nodes of one JavaScript process. */
export interface MemoryChannel {
  name: 'memory'
  /** The channel's name: nodes with the same one reach each other. Default `default`. */
  channel?: string
}

/** Between tabs and workers of one browser and origin. */
export interface BroadcastChannelOptions {
  name: 'broadcast'
  /** The channel's name: nodes with the same one reach each other. Default: the `cluster`; required without one. */
  channel?: string
}

/** Through a `conflux-relay`, across browsers and machines. */
export interface WebsocketChannel {
  name: 'websocket'
  /** The relay's address, such as `ws://localhost:8080/ws`. */
  url: string
  /** The room, 1 to 255 bytes: nodes in the same room reach each other. */
  room: string
  /** A WebSocket class, such as that of the npm package `ws`. Needed where there is no global one. */
  WebSocket?: new (url: string) => object
}

/** Through a Redis server, in Node.js. Needs the npm package `redis`. */
export interface RedisChannel {
  name: 'redis'
  /** The channel's name on the server: nodes with the same one reach each other. Default `conflux`. */
  channelName?: string
  /** The server's address, such as `redis://user:password@127.0.0.1:6379`. Default `redis://localhost:6379`. */
  connectionString?: string
}

/**
 * Through a socket.io server set up with `enhanceServerForSocketIOChannel` of `conflux-wasm/socket.io`. Needs the
 * npm package `socket.io-client`.
 */
export interface SocketIoChannel {
  name: 'socket.io'
  /** The server's address, such as `http://localhost:9000`. */
  host: string
  /** The channel's name on the server: nodes with the same one reach each other. */
  channel: string
  /** In browsers: the `io` of `socket.io-client`. Default: the global `io`. */
  io?: (host: string, options: object) => object
}

/**
 * A channel of your own. It may lose, repeat, delay and reorder frames. A frame is at most 1 MiB. `disconnect`, `send`
 * and `broadcast` may be asynchronous. If one of them throws or rejects, the frame counts as lost, and an `error` event
 * with the code `CHANNEL_FAILED` reports the failure.
 */
export interface CustomChannel {
  name: 'custom'
  /**
   * Called once, by `conflux()`, which throws what this throws. Pass every frame that is addressed to the node `id`,
   * or to everyone, to `receive`.
   */
  connect(id: string, receive: (frame: Uint8Array) => void, changed: () => void): void
  /** Whether frames can travel now: what `status().connected` shows. Call `changed` after a change. Default `true`. */
  readonly connected?: boolean
  /** Called once, when the node closes. */
  disconnect(): void
  /** Sends a frame to the node `to`. */
  send(to: string, frame: Uint8Array): void
  /** Sends a frame to every other node. */
  broadcast(frame: Uint8Array): void
}

/** The options of a node. */
export interface Options<State, M extends Methods> {
  /**
   * This node's id, 1 to 255 bytes, different for every node. A node that starts again with the same id and without
   * its memory takes the place of its former self. Required in a fixed cluster; refused in an elastic one, which
   * gives its nodes ids of their own.
   */
  id?: string
  /**
   * How many nodes the cluster has, 1 to 63. A cluster with a `clusterSize` or `members` is *fixed*. Without both,
   * and on the channel `broadcast`, it is *elastic*: it has one node for each open tab, and a node outlives its tab.
   */
  clusterSize?: number
  /** The ids of all nodes, 1 to 63, with this node's own among them, if the ids are known beforehand. */
  members?: readonly string[]
  /**
   * The cluster's name. In a fixed cluster it keeps clusters apart that share a channel; default: the channel's name.
   * In an elastic cluster it is required, because all pages of a site share the browser's storage.
   */
  cluster?: string
  /** How the nodes reach each other. */
  channel:
    | MemoryChannel
    | BroadcastChannelOptions
    | WebsocketChannel
    | RedisChannel
    | SocketIoChannel
    | CustomChannel
  /**
   * The action creators. They run on the leader, synchronously, one after the other. A method returns an action that
   * JSON can carry, nothing (`null` or `undefined`: nothing is appended), or an Error (the perform rejects).
   */
  methods: M & ThisType<Node<State, M>>
  /**
   * The reducer. It must be pure: the same state and action give the same new state on every node. It is called once
   * with the state `undefined` and the action `null`, for the first state.
   */
  reduce: (state: State | undefined, action: Action<M> | null) => State
  /**
   * Turns the state into something that JSON can carry. Needed for a state such as a Map or a Date, because nodes
   * give each other the state as JSON. Must be deterministic: equal states give the same JSON. Requires `deserialize`.
   */
  serialize?(state: State): Json
  /** Turns what `serialize` returned back into the state. Requires `serialize`. */
  deserialize?(saved: Json): State
  /**
   * How long a node waits for a sign of life of the leader before it becomes a candidate, in ms. Drawn at random from
   * this range for every attempt (Raft paper, section 5.2). `min` must be greater than `heartbeatInterval`. Default
   * `{ min: 300, max: 500 }`, or 6 and 10 times `heartbeatInterval` if that is more.
   */
  electionTimeout?: { min: number; max: number }
  /**
   * How often a leader sends a heartbeat, in ms. Default 50. An idle leader of an elastic cluster sends one every 10 s
   * instead.
   */
  heartbeatInterval?: number
  /** The largest arguments of a perform and the largest action, in bytes of JSON. Default 1 MiB, at most 256 MiB. */
  maxActionBytes?: number
  /**
   * Where a node keeps its term, vote and log. In an elastic cluster: `indexeddb`. In a fixed one: `memory`, the
   * default, or, in Node.js, a folder, which must not be shared with another node.
   */
  storage?: 'memory' | 'indexeddb' | { name: 'file'; path: string }
  /**
   * When a write to storage counts. `strict`, the default: when it is on the disk. `relaxed`: when the operating system
   * has accepted it, so that a power failure may lose it.
   */
  durability?: 'strict' | 'relaxed'
  /** In an elastic cluster: how many nodes vote at most, 1 to 15. The others are learners. Default 5. */
  maxVoters?: number
  /**
   * The version of the application: of its methods, reducer and state. Default 1. Raise it whenever a release changes
   * what they do. Tabs of several versions can be open at once: the newest takes over, and the others get the event
   * `outdated`. There is no way back to an older version.
   */
  version?: number
  /**
   * Makes a state of this `version` of one of an older version. Called once in the cluster, on the node that takes
   * over; all others load the result. What it gets has been read by this version's `deserialize`, and what it returns
   * must be what JSON can carry (or `serialize`). Must be synchronous. Needed as soon as an older version has a state.
   */
  migrate?(state: any, fromVersion: number): State
}

/** The union of the actions that the methods may return. */
export type Action<M extends Methods> = Returned<ReturnType<M[keyof M]>>

/** What `status()` returns: a copy, which does not change later. */
export interface Status {
  /** This node's id. Empty in an elastic cluster until this tab's node is found or created. */
  id: string
  /**
   * `forming`: the node is not yet a member, or has no state of the cluster yet: until then `getState()` is the local
   * first state. `member`: the node takes part. `outdated`: the cluster runs a newer version of the application. `refused`: the node has stopped, and an
   * `error` event said why. `closing` and `closed`: `close()` was called.
   */
  phase: 'forming' | 'member' | 'outdated' | 'refused' | 'closing' | 'closed'
  /** The node's role in Raft. A `learner` is a follower that does not vote. */
  role: 'leader' | 'follower' | 'candidate' | 'learner'
  /** The current term. */
  term: number
  /** The id of the current term's leader; `null` if this node knows of none. */
  leaderId: string | null
  /** The highest log index that this node knows to be committed. */
  commitIndex: number
  /** The highest log index that is applied to this node's committed state. */
  lastApplied: number
  /** The last index of this node's log. */
  lastIndex: number
  /** The last index that the snapshot covers: the log begins after it. 0 without a snapshot. */
  snapshotIndex: number
  /** The ids of the members, once the cluster has formed. */
  members: string[]
  /** The members that do not vote. */
  learners: string[]
  /** In an elastic cluster: the members whose own tab is gone. Another tab runs them until they are removed. */
  adopted: string[]
  /** In an elastic cluster: the members whose tab is hidden. */
  hidden: string[]
  /** In an elastic cluster: the nodes that this tab runs besides its own. */
  running: string[]
  /** How many members the cluster has, or will have once it has formed. */
  clusterSize: number
  /**
   * In a fixed cluster: how many nodes this node has found while the cluster forms, itself included; afterwards, how
   * many it formed with. In an elastic cluster: how many open tabs are known.
   */
  present: number
  /** How many performs and reads of this node are not settled yet. */
  pending: number
  /** Whether the channel can carry frames now. */
  connected: boolean
  /** Set by `simulate`. */
  paused: boolean
  /** Set by `simulate`. */
  isolated: boolean
  /** On the leader: for each other member, the highest index up to which its log is known to match. Else empty. */
  matchIndex: { [id: string]: number }
  /** Counted since the node was made. */
  counters: {
    framesSent: number
    framesReceived: number
    /** Frames that were malformed or of another version of Conflux. */
    badFrames: number
    /** Frames of other clusters. */
    foreignFrames: number
    /** Messages of members that cannot be right. */
    invalidMessages: number
  }
}

/** What a `commit` event reports: one committed action, or a snapshot that stands for many. */
export interface Commit<A> {
  /** The action's index in the log; for a snapshot, the last index that it covers. */
  index: number
  /** The term of the entry at `index`. */
  term: number
  /**
   * The id of the node on which the action was performed; in an elastic cluster, of the node that opened the session.
   * `null` for a snapshot.
   */
  nodeId: string | null
  /** Absent for a snapshot: this node never sees the actions that it covers. */
  action?: A
}

/** What a `divergence` event reports. */
export interface Divergence<A> {
  /** The index of the log entry at fault; without an `action`, of the check that found the difference. */
  index: number
  /** The action on which the reducer failed here, if it was that. */
  action?: A
  /** The code of the error, for example `REDUCER_FAILED`. */
  code: string
  /** What is wrong. */
  message: string
}

type Callback<R> = (error: ConfluxError | null, action?: R) => void
type Result<F> = F extends (...args: never[]) => infer R ? Returned<R> | undefined : never
type Args<F> = F extends (...args: infer A) => unknown ? A : never
/** A method's name, if the method can be called without arguments. */
type Bare<M extends Methods, K extends keyof M> = [] extends Args<M[K]> ? K : never

/** A node of the cluster. Every function may be called from within callbacks, methods and the reducer. */
export interface Node<State, M extends Methods = Methods> {
  /**
   * Runs a method on the leader. Resolves once the action is committed and applied on this node: with the action, or
   * with `undefined` if the method returned none. The performs of one node take effect in the order of the calls, each
   * at most once, however often the leader changes.
   *
   * `args` is a list that JSON can carry; an argument that is `undefined` arrives as `null`. `timeout` is in ms, and
   * there is none by default: a perform then waits for as long as the cluster has no majority. When the timeout
   * passes, the perform rejects with `TIMEOUT`, and whether it takes effect is unknown.
   *
   * Never throws: all errors reject, with a `code` (see `ConfluxError`).
   */
  perform<K extends keyof M & string>(
    name: K,
    ...rest: Rest<M[K]>
  ): Promise<Result<M[K]>>
  /**
   * The same with a Node-style callback, which is called exactly once, after `perform` has returned: with the error,
   * or with `null` and the action, if there is one.
   */
  perform<K extends keyof M & string>(
    name: K,
    args: Args<M[K]>,
    callback: Callback<Result<M[K]>>,
  ): void
  /**
   * The same with a timeout and a callback.
   * @param timeout in ms; `undefined` means none
   */
  perform<K extends keyof M & string>(
    name: K,
    args: Args<M[K]>,
    timeout: number | undefined,
    callback: Callback<Result<M[K]>>,
  ): void
  /** The same for a method that needs no arguments, with a callback. */
  perform<K extends keyof M & string>(name: Bare<M, K>, callback: Callback<Result<M[K]>>): void
  /**
   * Calls `callback` after every action that is committed on this node, and after every snapshot that replaces its
   * state. An error that `callback` throws is reported like an uncaught one, and the other subscribers are still
   * called. Throws `INVALID_ARGUMENT` if `callback` is not a function.
   * @returns a function that removes the callback; it may be called at any time, also twice
   */
  subscribe(callback: () => void): () => void
  /** The committed state; the same reference until it changes. Still readable after `close()`. */
  getState(): State
  /** The committed state plus every uncommitted action in this node's log. */
  getProvisionalState(): State
  /**
   * Resolves when this node's committed state is at least as new as the cluster's was at the call (a linearizable read:
   * Raft dissertation, section 6.4). There is no timeout. Rejects with `CLOSED`, or with the code with which the node
   * stopped.
   */
  read(): Promise<void>
  /** The same with a callback, which is called exactly once. */
  read(callback: (error: ConfluxError | null) => void): void
  /** This node's view of itself and of the cluster. */
  status(): Status
  /**
   * Calls `callback` with the leader's id whenever this node learns of another leader, or (`null`) that there is none.
   * Throws `INVALID_ARGUMENT` for an unknown event or a callback that is not a function.
   * @returns a function that removes the callback; it may be called at any time, also twice
   */
  on(event: 'leader', callback: (leaderId: string | null) => void): () => void
  /** Calls `callback` with the ids of the members whenever they change. */
  on(event: 'members', callback: (members: string[]) => void): () => void
  /**
   * Calls `callback` with the status after a `leader`, `members` or `error` event, when the node has closed, and when
   * `connected`, `present`, `paused` or `isolated` may have changed.
   */
  on(event: 'status', callback: (status: Status) => void): () => void
  /** Calls `callback` with an error that belongs to no call. Without such a callback it is written to the console. */
  on(event: 'error', callback: (error: ConfluxError) => void): () => void
  /** Calls `callback` when this node's state may differ from the others', with what is known of the cause. */
  on(event: 'divergence', callback: (divergence: Divergence<Action<M>>) => void): () => void
  /**
   * Calls `callback` with the version that the cluster runs, when that is newer than this node's `version`. The node's
   * state stands still from then on: ask the user to reload the page.
   */
  on(event: 'outdated', callback: (version: number) => void): () => void
  /** Calls `callback` with every action that is committed on this node, before its subscribers are called. */
  on(event: 'commit', callback: (commit: Commit<Action<M>>) => void): () => void
  /**
   * For demos and tests: `paused` stops the node as if its tab were frozen, `isolated` cuts it off from the others. A
   * fault that is left out stays as it is.
   */
  simulate(faults: { paused?: boolean; isolated?: boolean }): void
  /**
   * In an elastic cluster: ends the cluster in all tabs and deletes everything that it has stored in this browser, for
   * example when the user logs out. The other tabs get an `error` event with the code `DESTROYED`. Resolves when all
   * is deleted and this node is closed; rejects with `STORAGE_FAILED` if it cannot be deleted. Throws `UNSUPPORTED` in
   * a fixed cluster.
   */
  destroy(): Promise<void>
  /**
   * Hands leadership over, stops this node and releases its storage. Pending performs and reads reject with `CLOSED`;
   * such a perform may still take effect. Never rejects; calling it again returns the same promise.
   */
  close(): Promise<void>
  /** The same with a callback. */
  close(callback: (error: null) => void): void
}

// The arguments may be omitted if the method can be called without any.
type Rest<F> =
  [] extends Args<F> ? [args?: Args<F>, timeout?: number] : [args: Args<F>, timeout?: number]

/**
 * Makes a node, synchronously, which joins its cluster by itself.
 *
 * Throws `INVALID_OPTIONS` when an option is missing or wrong, with a message that names the option; `UNSUPPORTED`,
 * `MISSING_PEER` or `CANNOT_LOAD` when something that it needs is not there; `NOT_JSON` or `REDUCER_FAILED` when the
 * first state is not valid.
 */
export declare function conflux<State, M extends Methods>(options: Options<State, M>): Node<State, M>
export default conflux
