// Structured clones, as far as the package needs them: everything that is stored or sent is copied, and arrives as
// objects of the receiver's realm, because `instanceof Uint8Array` would be false for those of another one.

/**
 * Copies a value.
 * @param {unknown} value
 * @param {{ Uint8Array: typeof Uint8Array, Array: typeof Array, Object: typeof Object }} realm
 */
export const clone = (value, realm = globalThis) => {
  if (value === null || ['undefined', 'boolean', 'number', 'string', 'bigint'].includes(typeof value)) return value
  if (typeof value === 'object') {
    if (ArrayBuffer.isView(value)) return new realm.Uint8Array(value)
    if (Array.isArray(value)) {
      const copy = new realm.Array()
      for (const item of value) copy.push(clone(item, realm))
      return copy
    }
    const prototype = Object.getPrototypeOf(value)
    if (prototype === null || Object.getPrototypeOf(prototype) === null) {
      const copy = new realm.Object()
      for (const key of Object.keys(value)) copy[key] = clone(value[key], realm)
      return copy
    }
  }
  throw new DOMException(`${typeof value} cannot be cloned`, 'DataCloneError')
}
