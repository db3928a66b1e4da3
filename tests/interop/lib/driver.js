// A driver process, for the scripts that make fixtures.

const path = require('path')
const readline = require('readline')
const { spawn } = require('child_process')

module.exports = class Driver {
  constructor (script) {
    this.child = spawn(process.execPath, [path.join(__dirname, '..', script)], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.waiting = new Map()
    this.made = 0

    const lines = readline.createInterface({ input: this.child.stdout })
    lines.on('line', (line) => this.answered(JSON.parse(line)))
    this.exited = new Promise((resolve) => this.child.on('close', resolve))
  }

  call (op, request = {}) {
    const n = ++this.made
    this.child.stdin.write(JSON.stringify({ ...request, n, op }) + '\n')
    return new Promise((resolve, reject) => this.waiting.set(n, { resolve, reject }))
  }

  // Sends a request that kills the process, and waits for its end.
  async die (request) {
    this.call('die', request).catch(() => {})
    await this.exited
    if (this.child.signalCode !== 'SIGKILL') throw new Error('not killed: ' + JSON.stringify(request))
  }

  async end () {
    this.child.stdin.end()
    await this.exited
  }

  answered (message) {
    if (message.event) return
    const { resolve, reject } = this.waiting.get(message.n)
    this.waiting.delete(message.n)
    if (message.ok) resolve(message)
    else reject(new Error(message.error || message.stack))
  }
}
