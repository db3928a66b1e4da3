// Drives JavaScript cores on the network: `node replicate.js`, then the requests of `core.js` and these. Cores of
// versions 10 and 11 may share one connection.
//
// Connections
//   listen {port?, host?, path?, ...link}            -> {port}: a TCP server on loopback, or a Unix socket at `path`
//   connect {port, host?, path?, ...link}            -> {conn}, the connection's number, once the socket is connected
//       link: {cores?: [names], onDemand?, version?, initiator?, seed?, keepAlive?}
//       cores: the cores that are replicated from the start, ["main"] by default
//       onDemand: true replicates any open core whose channel the other side opens
//       version: of the protocol stream, "10" by default; initiator: true for a client and false for a server by
//       default; seed: of the key pair of the handshake; keepAlive: false sends no keep-alives
//   unlisten {}                                      -> {}: refuses new connections and keeps the open ones
//   attach {conn, core?}                             -> {}: replicates one more core over an open connection
//   detach {conn, core?}                             -> {}: closes the core's channel; attach opens it again
//   disconnect {conn, how?}                          -> {} once it is closed; how: "end" (the default), "destroy" or "reset"
//   connections {}                                   -> {open: [{conn, initiator, sent, received}]}
//   peers {core?}                                    -> {peers: [{conn, remoteLength, remoteFork, remoteContiguousLength,
//                                                       remoteUploading, remoteDownloading, remoteCanUpgrade}]}
//
// Requests to peers
//   get, digest, check, seek and read of core.js, with {wait: true} to ask the network
//   download {as, start?, end?, blocks?, linear?, ifAvailable?} -> {}: starts a download under the name `as`
//   downloaded {as}                                  -> {} when it is done
//   undownload {as}                                  -> {}
//   findingPeers {as}, foundPeers {as}               -> {}
//   until {length?, fork?, contiguous?, peers?, remoteLength?} -> info, once the length and the
//       contiguous length are at least, and the fork and the number of peers exactly, as given, and every peer has
//       announced `remoteLength` blocks
//
// Messages
//   extension {name}                                 -> {}: registers it; events extension {core, name, message, conn}
//   extensionSend {name, message, conn?}             -> {}: to one peer, or to all
//   channel {conn, protocol, id?}                    -> {opened}: opens a channel of another protocol, with one message
//   channelSend {conn, protocol, id?, message}       -> {}
//   raw {conn, message}                              -> {}: sends bytes to the other side's multiplexer, as one message
//
// Events: those of core.js, and connection {conn, initiator} for the socket, open {conn, publicKey, remotePublicKey,
//   handshakeHash} for the handshake, disconnect {conn, error, code}, extension, channel-open, channel-close {conn, protocol},
//   channel-message {conn, protocol, message}.

const crypto = require('hypercore-crypto')
const net = require('net')
const Cores = require('./lib/cores')
const { emit, serve } = require('./lib/lines')

const WATCHED = ['append', 'truncate', 'download', 'peer-add', 'peer-remove', 'manifest']

class Network {
  constructor () {
    this.cores = new Cores()
    this.servers = []
    this.links = new Map()
    this.downloads = new Map()
    this.searches = new Map()
    this.made = 0
  }

  ops () {
    const ops = this.cores.ops()
    for (const name of Object.getOwnPropertyNames(Network.prototype)) {
      if (name.startsWith('op_')) ops[name.slice(3)] = (request) => this[name](request)
    }
    return ops
  }

  // Connections

  op_listen (request) {
    const server = net.createServer((socket) => this.link(socket, request, request.initiator === true))
    this.servers.push(server)

    return new Promise((resolve, reject) => {
      server.once('error', reject)
      const ready = () => resolve(request.path ? {} : { port: server.address().port })
      if (request.path) server.listen(request.path, ready)
      else server.listen(request.port || 0, request.host || '127.0.0.1', ready)
    })
  }

  op_connect (request) {
    const to = request.path ? { path: request.path } : { port: request.port, host: request.host || '127.0.0.1' }
    const socket = net.connect(to)

    return new Promise((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve({ conn: this.link(socket, request, request.initiator !== false) })
      })
    })
  }

  op_unlisten () {
    for (const server of this.servers) server.close()
    this.servers = []
    return {}
  }

  op_attach (request) {
    const { stream } = this.connection(request)
    this.cores.entry(request).core.replicate(stream)
    return {}
  }

  async op_detach (request) {
    const peer = this.peer(request)
    peer.channel.close()
    await peer.channel.fullyClosed()
    return {}
  }

  async op_disconnect (request) {
    const link = this.connection(request)
    const { how = 'end' } = request

    if (how === 'end') link.noise.end()
    else if (how === 'destroy') link.noise.destroy()
    else link.socket.resetAndDestroy()

    await link.gone
    return {}
  }

  op_connections () {
    const open = [...this.links.values()].map(({ conn, initiator, socket }) => ({
      conn,
      initiator,
      sent: socket.bytesWritten,
      received: socket.bytesRead
    }))
    return { open }
  }

  op_peers (request) {
    const { core } = this.cores.entry(request)
    const peers = core.peers.map((peer) => ({
      conn: this.connOf(peer),
      remoteLength: peer.remoteLength,
      remoteFork: peer.remoteFork,
      remoteContiguousLength: peer.remoteContiguousLength,
      remoteUploading: peer.remoteUploading,
      remoteDownloading: peer.remoteDownloading,
      remoteCanUpgrade: peer.remoteCanUpgrade
    }))
    return { peers }
  }

  // Requests to peers

  op_download (request) {
    const { start, end, blocks, linear, ifAvailable } = request
    const range = { start, end, blocks, linear, ifAvailable }
    for (const name of Object.keys(range)) if (range[name] === undefined) delete range[name]

    this.downloads.set(request.as, this.cores.entry(request).core.download(range))
    return {}
  }

  async op_downloaded (request) {
    await named(this.downloads, request.as).done()
    return {}
  }

  op_undownload (request) {
    named(this.downloads, request.as).destroy()
    this.downloads.delete(request.as)
    return {}
  }

  op_findingPeers (request) {
    this.searches.set(request.as, this.cores.entry(request).core.findingPeers())
    return {}
  }

  op_foundPeers (request) {
    named(this.searches, request.as)()
    this.searches.delete(request.as)
    return {}
  }

  op_until (request) {
    const entry = this.cores.entry(request)
    const { core } = entry

    return new Promise((resolve, reject) => {
      const check = () => {
        if (!reached(core, request)) return
        for (const name of WATCHED) core.off(name, later)
        core.off('close', closed)
        resolve(entry.info())
      }
      // The events come before all properties of the core are updated.
      const later = () => setImmediate(check)
      const closed = () => reject(new Error('the core was closed'))

      for (const name of WATCHED) core.on(name, later)
      core.on('close', closed)
      if (request.remoteLength !== undefined) this.onSync(core, later)
      check()
    })
  }

  // Messages

  op_extension (request) {
    const { core, name: coreName } = this.cores.entry(request)
    core.registerExtension(request.name, {
      encoding: 'binary',
      onmessage: (message, peer) => {
        emit('extension', { core: coreName, name: request.name, message: message.toString('hex'), conn: this.connOf(peer) })
      }
    })
    return {}
  }

  op_extensionSend (request) {
    const extension = this.cores.entry(request).core.extensions.get(request.name)
    const message = Buffer.from(request.message, 'hex')
    if (request.conn === undefined) extension.broadcast(message)
    else extension.send(message, this.peer(request))
    return {}
  }

  async op_channel (request) {
    const link = this.connection(request)
    const { conn, protocol } = request
    const id = request.id ? Buffer.from(request.id, 'hex') : null

    const channel = link.mux.createChannel({
      protocol,
      id,
      onopen: () => emit('channel-open', { conn, protocol }),
      onclose: () => emit('channel-close', { conn, protocol }),
      messages: [{ onmessage: (message) => emit('channel-message', { conn, protocol, message: message.toString('hex') }) }]
    })
    if (channel === null) throw new Error('the channel is open already')

    link.channels.set(channelName(request), channel)
    channel.open()
    return { opened: await channel.fullyOpened() }
  }

  op_channelSend (request) {
    const channel = named(this.connection(request).channels, channelName(request))
    channel.messages[0].send(Buffer.from(request.message, 'hex'))
    return {}
  }

  op_raw (request) {
    this.connection(request).noise.write(Buffer.from(request.message, 'hex'))
    return {}
  }

  // Sets up a connection on a socket.
  link (socket, request, initiator) {
    const conn = ++this.made
    const { cores = ['main'], onDemand = false, version = '10', keepAlive = true } = request
    const Hypercore = require(version === '11' ? 'hypercore11' : 'hypercore10')

    const stream = Hypercore.createProtocolStream(initiator, {
      keepAlive,
      keyPair: request.seed ? crypto.keyPair(Buffer.from(request.seed, 'hex')) : undefined,
      ondiscoverykey: onDemand ? (id) => this.offer(stream, id) : undefined
    })
    const noise = stream.noiseStream
    const link = { conn, initiator, socket, stream, noise, mux: noise.userData, channels: new Map(), gone: null }
    let error = null
    const note = (err) => { error = error || err }

    link.gone = new Promise((resolve) => {
      socket.on('error', note)
      stream.on('error', note)
      noise.on('error', note)
      noise.on('open', () => {
        emit('open', {
          conn,
          publicKey: noise.publicKey.toString('hex'),
          remotePublicKey: noise.remotePublicKey.toString('hex'),
          handshakeHash: noise.handshakeHash.toString('hex')
        })
      })
      socket.on('close', () => {
        stream.destroy()
        this.links.delete(conn)
        emit('disconnect', { conn, error: error && error.message, code: (error && error.code) || null })
        resolve()
      })
      stream.on('close', () => socket.destroySoon())
    })

    this.links.set(conn, link)
    emit('connection', { conn, initiator })
    socket.setNoDelay(true)
    socket.pipe(stream).pipe(socket)
    for (const core of cores) this.cores.entry({ core }).core.replicate(stream)
    return conn
  }

  offer (stream, discoveryKey) {
    for (const { core } of this.cores.entries()) {
      if (core.discoveryKey.equals(discoveryKey)) core.replicate(stream)
    }
  }

  connection ({ conn }) {
    return named(this.links, conn)
  }

  peer (request) {
    const { mux } = this.connection(request)
    const peer = this.cores.entry(request).core.peers.find((peer) => peer.protomux === mux)
    if (!peer) throw new Error('the core has no peer on connection ' + request.conn)
    return peer
  }

  connOf (peer) {
    for (const link of this.links.values()) if (link.mux === peer.protomux) return link.conn
    return null
  }

  // Calls back when a peer of the core has announced its length. The core has no event for it.
  onSync (core, callback) {
    const watch = (peer) => {
      const onsync = peer.onsync
      peer.onsync = async function (message) {
        await onsync.call(peer, message)
        callback()
      }
    }
    for (const peer of core.peers) watch(peer)
    core.on('peer-add', watch)
  }
}

function reached (core, { length, fork, contiguous, peers, remoteLength }) {
  if (length !== undefined && core.length < length) return false
  if (fork !== undefined && core.fork !== fork) return false
  if (contiguous !== undefined && core.contiguousLength < contiguous) return false
  if (peers !== undefined && core.peers.length !== peers) return false
  if (remoteLength !== undefined && !core.peers.every((peer) => peer.remoteLength >= remoteLength)) return false
  return true
}

function channelName ({ protocol, id = '' }) {
  return protocol + ' ' + id
}

function named (map, name) {
  if (!map.has(name)) throw new Error('there is none called ' + name)
  return map.get(name)
}

serve(new Network().ops())
