// The entry for browsers and bundlers. The import waits until the WebAssembly module is ready, so that `conflux()`
// itself can be synchronous.
import init, { CoreNode } from './conflux.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'

await init({ module_or_path: new URL('conflux_bg.wasm', import.meta.url) })

export const conflux = createConflux(() => CoreNode, browser)
export default conflux
