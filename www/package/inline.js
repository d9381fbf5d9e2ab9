// The entry for tools that cannot copy files, and for scripts that are no modules: the WebAssembly module is
// inside the script, which is a third larger for it.
import { CoreNode, initSync } from './conflux.js'
import wasm from './conflux_bg.inline.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'

initSync({ module: wasm })

export const conflux = createConflux(() => CoreNode, browser)
export default conflux
