// Requests and answers as JSON, one a line: {"n": 1, "op": "get", ...} on stdin is answered on stdout by
// {"n": 1, "ok": true, ...} or {"n": 1, "ok": false, "error": "...", "code": "..."}. Requests start in order and are
// answered when they are done, so a slow one does not hold up the next. Events are lines between the answers:
// {"event": "append", ...}. The process ends when its stdin ends.

const readline = require('readline')

module.exports = { serve, emit }

function serve (ops) {
  process.on('unhandledRejection', (err) => emit('unhandled', { error: String((err && err.stack) || err) }))

  const lines = readline.createInterface({ input: process.stdin, crlfDelay: Infinity })
  lines.on('line', (line) => answer(ops, line))
  lines.on('close', () => process.exit(0))

  emit('started', { pid: process.pid, node: process.version })
}

function emit (event, fields = {}) {
  write({ event, ...fields })
}

async function answer (ops, line) {
  let n = null

  try {
    const request = JSON.parse(line)
    n = request.n

    const op = Object.hasOwn(ops, request.op) ? ops[request.op] : null
    if (op === null) throw new Error('unknown op: ' + request.op)

    write({ n, ok: true, ...(await op(request)) })
  } catch (err) {
    write({ n, ok: false, error: err.message, code: err.code || null, stack: err.stack })
  }
}

function write (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}
