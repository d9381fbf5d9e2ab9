// The entry for browsers and bundlers. The module is ready when the import is: `conflux()` itself
// is synchronous.
import init, { CoreNode } from './conflux.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'

await init({ module_or_path: new URL('conflux_bg.wasm', import.meta.url) })

export const conflux = createConflux(() => CoreNode, browser)
export default conflux
