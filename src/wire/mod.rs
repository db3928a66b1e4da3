//! One encrypted, multiplexed connection, as a machine over bytes: framing, handshake, encryption, channels.
//!
//! Bytes come in through [`frame`], are shaken hands over with [`noise`] (over [`edwards`]), are encrypted by
//! [`secretstream`]; [`channel`] is those four together. What is inside the encrypted frames is [`batch`]es of messages,
//! and [`mux`] knows which of them belongs to which protocol. Nothing here reads a socket, a clock or a lock.

pub mod batch;
pub mod edwards;
pub mod frame;
pub mod mux;
pub mod noise;
pub mod noise_stream;
pub mod secretstream;
