// Blocks that both sides generate from a few numbers, so that large contents need not travel through a pipe.
// `../generated_blocks.rs` is the same line for line; change both together.

module.exports = { block, blockSize }

// The content of block `index`: xorshift32 words in little-endian order, the last one cut to size.
function block (seed, index, size) {
  const words = new Uint32Array((size + 3) >>> 2)
  let x = start(seed, index)

  for (let i = 0; i < words.length; i++) {
    x = next(x)
    words[i] = x
  }

  return Buffer.from(words.buffer, 0, size)
}

// The size of block `index`, in `min..=max`.
function blockSize (seed, index, min, max) {
  let x = start(seed ^ 0x5bd1e995, index)
  for (let i = 0; i < 3; i++) x = next(x)
  return min + (x % (max - min + 1))
}

function start (seed, index) {
  const x = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0
  return x === 0 ? 1 : x
}

function next (x) {
  x ^= x << 13
  x ^= x >>> 17
  x ^= x << 5
  return x >>> 0
}
