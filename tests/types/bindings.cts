// The types of the bindings, imported with `require`.
import conflux = require('conflux-wasm')
import react = require('conflux-wasm/react')
import redux = require('conflux-wasm/redux')
import server = require('conflux-wasm/socket.io')

declare const node: conflux.Node<string[]>
const length: number = react.useConflux(node, (state) => state.length)
const options: redux.StoreOptions<redux.ReduxAction> = { devTools: false }
const enhance: Function = server.enhanceServerForSocketIOChannel
void [length, options, enhance, redux.createStore, redux.reduxOptions]
