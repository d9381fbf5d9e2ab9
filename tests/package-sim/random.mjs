// The only source of randomness of a run: the same seed gives the same numbers on every platform.

/** A generator of 32-bit numbers (sfc32), which is small, fast, and needs nothing wider than an int32. */
export class Random {
  #a
  #b
  #c
  #counter = 1

  constructor(seed) {
    this.#a = seed | 0
    this.#b = Math.floor(seed / 2 ** 32) | 0
    this.#c = 0x2545f491
    for (let i = 0; i < 15; i++) this.next()
  }

  next() {
    const sum = (this.#a + this.#b + this.#counter++) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum | 0
    return sum >>> 0
  }

  /** A whole number from 0 up to, and without, `limit`. */
  below(limit) {
    return Math.floor((this.next() / 2 ** 32) * limit)
  }

  /** A whole number from `least` to `most`. */
  between(least, most) {
    return least + this.below(most - least + 1)
  }

  /** True in `part` of `whole` cases. */
  chance(part, whole) {
    return this.below(whole) < part
  }

  pick(list) {
    return list[this.below(list.length)]
  }
}
