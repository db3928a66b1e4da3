//! One encrypted, multiplexed connection, as a machine over bytes: framing, handshake, encryption, channels.
