// The entry for tools that cannot copy files, and for plain scripts. The script contains the WebAssembly module, which
// makes the download a third larger.
import { CoreNode, initSync } from './conflux.js'
import wasm from './conflux_bg.inline.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'

initSync({ module: wasm })

export const conflux = createConflux(() => CoreNode, browser)
export default conflux
