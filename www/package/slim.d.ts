import type { conflux } from './index.js'

/** The module, its bytes, a response that brings it, or its address. The file is `conflux-wasm/conflux_bg.wasm`. */
export type Source = WebAssembly.Module | BufferSource | Response | URL | string

/**
 * Makes `conflux` from the WebAssembly module. Rejects with `CANNOT_LOAD` when it cannot be had; then it may be
 * tried again.
 */
export declare function load(source: Source | Promise<Source>): Promise<typeof conflux>
