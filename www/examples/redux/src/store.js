// These few lines turn the store of one page into a store that all tabs share.
import conflux from 'conflux-wasm'
import { createStore, reduxOptions } from 'conflux-wasm/redux'
import { reducer } from './reducer.js'

export const node = conflux(reduxOptions(reducer, { cluster: 'todos', channel: { name: 'broadcast' } }))

export const store = createStore(node, { onError: (error) => alert(error.message) })
