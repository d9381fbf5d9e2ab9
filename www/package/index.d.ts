/** A value that JSON can carry. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json | undefined }

/** What a method may return: an action, nothing, or an Error. */
type Returned<R> = Exclude<R, Error | null | undefined | void>

// Written as a method, so that a method may take any arguments; they are checked where it is performed.
type Method = { method(...args: unknown[]): unknown }['method']

/**
 * The methods of a node: action creators that run on the leader, `this` being the node there. One that
 * uses `this` must say of what kind it is: `append(this: Node<string[]>, word: string)`.
 */
export type Methods = { [name: string]: Method }

/** An error of a perform, a read or an event. `code` is stable; `message` is for people. */
export interface ConfluxError extends Error {
  /**
   * `TIMEOUT`, `CLOSED`, `BUSY`, `TOO_LARGE`, `NOT_JSON`, `ASYNC_METHOD`, `UNKNOWN_METHOD`,
   * `METHOD_FAILED`, `REDUCER_FAILED`, `SESSION_EXPIRED`, `OUTCOME_UNKNOWN`, `CLUSTER_FULL`, `AMNESIA`,
   * `NOT_A_MEMBER`, `SIZE_MISMATCH`, `DUPLICATE_ID`, `OTHER_CLUSTER`, `VERSION`, `BAD_FRAME`,
   * `BAD_MESSAGE`, `STORAGE_LOST`, `STORAGE_FAILED`, `STORAGE_LOCKED`, `STORAGE_TAKEN`, `STORAGE_CORRUPT`,
   * `STORAGE_MISMATCH`, `REPLACED`, `DESTROYED`, `RELAY`, `REDIS`, `SOCKET_IO`,
   * `MISSING_PEER`, `CANNOT_LOAD`, `CHANNEL_FAILED`, `INVALID_OPTIONS`,
   * `INVALID_ARGUMENT`, `UNSUPPORTED`, or the `code` of an error that a method threw.
   */
  code: string
}

/** Between nodes of one JavaScript process. */
export interface MemoryChannel {
  name: 'memory'
  /** Which of the process's channels; nodes of one channel hear each other. */
  channel?: string
}

/** Between tabs and workers of one browser and origin. */
export interface BroadcastChannelOptions {
  name: 'broadcast'
  /** The channel's name; nodes of one channel hear each other. May be left out beside `cluster`. */
  channel?: string
}

/** Through a `conflux-relay`, across browsers and machines. */
export interface WebsocketChannel {
  name: 'websocket'
  /** The relay's address, such as `ws://localhost:8080/ws`. */
  url: string
  /** The room; nodes of one room hear each other. */
  room: string
  /** A WebSocket class, where there is no global one: that of the npm package `ws`, say. */
  WebSocket?: new (url: string) => object
}

/** Through a Redis server, in Node.js. Needs the npm package `redis`. */
export interface RedisChannel {
  name: 'redis'
  /** Which channel of the server; nodes of one channel hear each other. Default `conflux`. */
  channelName?: string
  /** The server's address, such as `redis://user:password@127.0.0.1:6379`. */
  connectionString?: string
}

/**
 * Through a socket.io server that has `enhanceServerForSocketIOChannel` of `conflux-wasm/socket.io`. Needs the
 * npm package `socket.io-client`.
 */
export interface SocketIoChannel {
  name: 'socket.io'
  /** The server's address, such as `http://localhost:9000`. */
  host: string
  /** Which channel of the server; nodes of one channel hear each other. */
  channel: string
  /** In browsers: the `io` of `socket.io-client`, unless there is a global one. */
  io?: (host: string, options: object) => object
}

/** A channel of your own. It may lose, repeat, delay and reorder frames. */
export interface CustomChannel {
  name: 'custom'
  /** Called once. Give every frame that is meant for node `id`, or for everyone, to `receive`. */
  connect(id: string, receive: (frame: Uint8Array) => void, changed: () => void): void
  /** Whether frames can travel now, for `status().connected`. Call `changed` when it changes. */
  readonly connected?: boolean
  /** Called once, at the end. */
  disconnect(): void
  /** Brings a frame to the node `to`. */
  send(to: string, frame: Uint8Array): void
  /** Brings a frame to every other node. */
  broadcast(frame: Uint8Array): void
}

export interface Options<State, M extends Methods> {
  /**
   * This node's id: every node needs its own. One that starts again without its memory takes the place of
   * its former self. Not for clusters without a size, whose nodes have ids of their own.
   */
  id?: string
  /**
   * How many nodes the cluster has. Not needed with `members`. Without both, and on the channel
   * `broadcast`, the cluster has as many as there are tabs, and its nodes outlive them.
   */
  clusterSize?: number
  /** The ids of all nodes, where they are known beforehand. */
  members?: readonly string[]
  /**
   * The cluster's name, when several share a channel. The default is the channel's own name. A cluster
   * without a size needs one: all pages of a site share the browser's storage.
   */
  cluster?: string
  /** How nodes communicate. */
  channel:
    | MemoryChannel
    | BroadcastChannelOptions
    | WebsocketChannel
    | RedisChannel
    | SocketIoChannel
    | CustomChannel
  /** The action creators. They run on the leader, synchronously. */
  methods: M & ThisType<Node<State, M>>
  /**
   * The reducer. It must be pure: the same state and action give the same new state on every node.
   * It is called with no state and no action (`null`) once, for the first state.
   */
  reduce: (state: State | undefined, action: Action<M> | null) => State
  /**
   * A state that JSON cannot carry (a Map, a Date) as one that it can: states travel and are kept in
   * snapshots. Together with `deserialize`.
   */
  serialize?(state: State): Json
  /** The state that `serialize` made this of. */
  deserialize?(saved: Json): State
  /** After how long a silence a node stands for election, in ms; drawn at random from the range. */
  electionTimeout?: { min: number; max: number }
  /** The longest silence of a leader, in ms. Default 50. */
  heartbeatInterval?: number
  /** The largest arguments and actions, in bytes of JSON. Default 1 MiB. */
  maxActionBytes?: number
  /**
   * Where a node keeps its log: `indexeddb` in clusters without a size, and `memory` in others, or, in
   * Node.js, a folder. Each node needs a folder of its own.
   */
  storage?: 'memory' | 'indexeddb' | { name: 'file'; path: string }
  /**
   * What storage is asked for. `strict`, the default: each write is on the disk before it counts.
   * `relaxed`: it counts once the operating system has it.
   */
  durability?: 'strict' | 'relaxed'
  /** In clusters without a size: the most nodes that vote. Default 5; the others follow. */
  maxVoters?: number
  /** The release of your application. Entries and snapshots carry it. Default 1. */
  version?: number
}

/** What any of the methods may return as an action. */
export type Action<M extends Methods> = Returned<ReturnType<M[keyof M]>>

export interface Status {
  /** This node's id. */
  id: string
  /** Where the node is in its life. */
  phase: 'forming' | 'member' | 'refused' | 'closing' | 'closed'
  role: 'leader' | 'follower' | 'candidate' | 'learner'
  /** The current term. */
  term: number
  /** Who leads the term, as far as this node knows. */
  leaderId: string | null
  commitIndex: number
  lastApplied: number
  /** The last index of this node's log. */
  lastIndex: number
  /** The index behind which the log was cut. */
  snapshotIndex: number
  /** The ids of the members, once the cluster has formed. */
  members: string[]
  /** Those among them that do not vote. */
  learners: string[]
  /** Those among them whose own tab is gone, and that another one runs until they are removed. */
  adopted: string[]
  /** Those among them whose tab nobody sees. */
  hidden: string[]
  /** The nodes besides its own that this tab runs. */
  running: string[]
  /** How many members the cluster has or will have. */
  clusterSize: number
  /** How many nodes are there, while the cluster forms. */
  present: number
  /** How many performs and reads wait. */
  pending: number
  /** Whether the channel can carry frames now. */
  connected: boolean
  /** Set by `simulate`. */
  paused: boolean
  /** Set by `simulate`. */
  isolated: boolean
  /** On the leader: up to which index each other member's log is known to be equal. */
  matchIndex: { [id: string]: number }
  counters: {
    framesSent: number
    framesReceived: number
    /** Frames that were none, malformed, or of another version. */
    badFrames: number
    /** Frames of other clusters. */
    foreignFrames: number
    /** Messages that said something impossible. */
    invalidMessages: number
  }
}

/** What was committed: an action, or, in a snapshot, many. */
export interface Commit<A> {
  /** Where it stands in the log. */
  index: number
  /** The term of the leader that put it there. */
  term: number
  /** The node whose user performed it; of a cluster of tabs, the one that opened the session. `null` for a snapshot. */
  nodeId: string | null
  /** Missing for a snapshot, whose actions this node has not seen. */
  action?: A
}

type Callback<R> = (error: ConfluxError | null, action?: R) => void
type Result<F> = F extends (...args: never[]) => infer R ? Returned<R> | undefined : never
type Args<F> = F extends (...args: infer A) => unknown ? A : never
/** A method's name, if the method can do without arguments. */
type Bare<M extends Methods, K extends keyof M> = [] extends Args<M[K]> ? K : never

/** A node of the cluster. */
export interface Node<State, M extends Methods = Methods> {
  /**
   * Runs a method on the leader. Settles once the action is committed and applied on this node:
   * with the action, or with nothing when the method returned none.
   * @param timeout in ms; when it passes the perform rejects with `TIMEOUT`, and whether it takes
   * effect is unknown
   */
  perform<K extends keyof M & string>(
    name: K,
    ...rest: Rest<M[K]>
  ): Promise<Result<M[K]>>
  perform<K extends keyof M & string>(
    name: K,
    args: Args<M[K]>,
    callback: Callback<Result<M[K]>>,
  ): void
  perform<K extends keyof M & string>(
    name: K,
    args: Args<M[K]>,
    timeout: number | undefined,
    callback: Callback<Result<M[K]>>,
  ): void
  perform<K extends keyof M & string>(name: Bare<M, K>, callback: Callback<Result<M[K]>>): void
  /** Calls `callback` after every action that is committed on this node. */
  subscribe(callback: () => void): () => void
  /** The committed state; the same reference until it changes. */
  getState(): State
  /** The committed state plus every uncommitted action in this node's log. */
  getProvisionalState(): State
  /** Settles when the committed state is at least as new as the cluster's was at the call. */
  read(): Promise<void>
  read(callback: (error: ConfluxError | null) => void): void
  /** Where this node stands. */
  status(): Status
  /** Calls `callback` with the leader's id, the members, the status, or an error. */
  on(event: 'leader', callback: (leaderId: string | null) => void): () => void
  on(event: 'members', callback: (members: string[]) => void): () => void
  on(event: 'status', callback: (status: Status) => void): () => void
  on(event: 'error', callback: (error: ConfluxError) => void): () => void
  /** Calls `callback` with every action that is committed on this node, before its subscribers. */
  on(event: 'commit', callback: (commit: Commit<Action<M>>) => void): () => void
  /** For demos and tests: pauses the node as if its tab were frozen, or cuts it off. */
  simulate(faults: { paused?: boolean; isolated?: boolean }): void
  /**
   * In clusters without a size: ends the cluster, in all tabs, and deletes everything that it has
   * stored in this browser. For logging out, say.
   */
  destroy(): Promise<void>
  /** Hands leadership over and leaves. What waits rejects with `CLOSED`. */
  close(): Promise<void>
  close(callback: (error: null) => void): void
}

// Arguments may be left out where the method can do without.
type Rest<F> =
  [] extends Args<F> ? [args?: Args<F>, timeout?: number] : [args: Args<F>, timeout?: number]

/** Makes a node. Throws `INVALID_OPTIONS` when an option is missing or wrong. */
export declare function conflux<State, M extends Methods>(options: Options<State, M>): Node<State, M>
export default conflux
