import type * as api from './index.js' with { 'resolution-mode': 'import' }

declare const conflux: typeof api.conflux & {
  readonly conflux: typeof api.conflux
  readonly default: typeof api.conflux
}

declare namespace conflux {
  export type Json = api.Json
  export type Methods = api.Methods
  export type ConfluxError = api.ConfluxError
  export type MemoryChannel = api.MemoryChannel
  export type BroadcastChannelOptions = api.BroadcastChannelOptions
  export type WebsocketChannel = api.WebsocketChannel
  export type RedisChannel = api.RedisChannel
  export type SocketIoChannel = api.SocketIoChannel
  export type CustomChannel = api.CustomChannel
  export type Options<State, M extends Methods> = api.Options<State, M>
  export type Action<M extends Methods> = api.Action<M>
  export type Status = api.Status
  export type Commit<A> = api.Commit<A>
  export type Node<State, M extends Methods = Methods> = api.Node<State, M>
}

export = conflux
