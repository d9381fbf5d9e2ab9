import type { conflux } from './index.js'

/**
 * The WebAssembly module: compiled, as bytes, as a response, or as a URL. The package has it in the file
 * `conflux-wasm/conflux_bg.wasm`.
 */
export type Source = WebAssembly.Module | BufferSource | Response | URL | string

/**
 * Loads the WebAssembly module and resolves with `conflux`. The module is loaded once: later calls ignore their source
 * and resolve with a `conflux` that uses the same module. Rejects with `INVALID_ARGUMENT` without a source, and with
 * `CANNOT_LOAD` if the module cannot be loaded; the next call then tries its own source.
 */
export declare function load(source: Source | Promise<Source>): Promise<typeof conflux>
