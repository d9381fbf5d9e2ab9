import type * as api from './redux.js' with { 'resolution-mode': 'import' }

export type ReduxAction = api.ReduxAction
export type Reducer<State, A extends ReduxAction> = api.Reducer<State, A>
export type StoreOptions<A extends ReduxAction> = api.StoreOptions<A>
export type ConfluxStore<State, A extends ReduxAction> = api.ConfluxStore<State, A>
export declare const reduxOptions: typeof api.reduxOptions
export declare const createStore: typeof api.createStore
